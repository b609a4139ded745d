//! Plan nodes of the layer, each a wrapper around a DataFusion node or a node of its own.
//!
//! | node | kind | what it is for |
//! |---|---|---|
//! | `monitored` | wrapper, at the root | gives a query its memory pool; counts rows and memory for the query log |
//! | `accounted` | wrapper | counts memory and temporary files of one node |
//! | `finished` | picture | what is left of a plan that has run: names and metrics |
//! | `explained` | wrapper, at the root | adds the layer's row to EXPLAIN |
//! | `no_spill`, `outer_context` | wrappers | run one node without temporary files, and its inputs with them |
//! | `nested_loop_spill`, `rerunnable` | wrappers | let a nested-loop join spill without losing rows |
//! | `exchange_spill` | wrapper | lets an exchange spill from several inputs at once |
//! | `sized`, `cut` | wrappers | batch sizes that follow the width of rows, and batches in pieces |
//! | [`ClusteredAggregateExec`] | node | aggregates row group by row group, without an exchange |
//! | `compact_views` | node | copies strings out of buffers that they use little of |
//! | [`KeyFilterExec`] | node | keeps a scan's rows whose keys a join above has on its build side |
//! | `window_by_pieces`, `accounted_window` | wrappers | keep windows within the memory limit |
//! | `advised` | wrapper | says what to do where a node lacks memory |
//! | `merge_join_limit` | wrapper | a sort-merge join whose memory counts as spillable |
//! | `aggregate_limit` | wrapper | an aggregate whose output counts as memory that cannot spill |
//! | `probe_slices` | wrappers | a nested-loop join that can be cancelled within a batch |
//! | [`NullSupplyingExec`] | node | hands the null-supplying input of an outer join on, promising less of it |
//! | `late_fetch` | node | reads the columns of the first rows of an order |
//! | `shared` | node | runs a subplan once for several places of a plan |
//! | [`CachedResultExec`], [`DiskResultExec`] | nodes | give a kept answer, from memory and from its file |
//! | `recorded` | wrapper | leaves the answer of a query, or of a part of one, in the cache |
//! | [`PlannedPartExec`] | node | a part of a plan that is planned by itself, until the rest is planned |
//! | [`FileAggregateExec`] | node | gives what each file contributes to an aggregate, kept or computed |
//! | [`SpillJoinExec`] | node | a hash join that writes to disk what does not fit in memory |
//! | [`FusedFilterExec`] | node | a filter whose conditions are compiled and ordered while it runs |
//!
//! One expression is here, too: [`NarrowDecimals`], arithmetic on decimals without a check for each value.
//!
//! A wrapper has the name, the properties and the picture of the node in it, and answers every question of the trait by
//! asking that node; see `passthrough`. A node of its own says in its documentation which state its partitions share,
//! what it holds in memory, and whether it spills.

mod accounted;
mod advised;
mod aggregate_limit;
mod analyze;
mod batch_size;
mod clustered_aggregate;
mod compact;
mod context;
mod decimal;
mod exchange_spill;
mod explained;
mod file_aggregate;
mod filter;
mod finished;
mod key_filter;
mod late_fetch;
mod leaf;
mod merge_join_limit;
mod monitored;
mod nested_loop_spill;
mod no_spill;
mod null_supplying;
mod observed;
mod own_context;
mod passthrough;
mod planned_part;
mod pool_view;
mod probe_slices;
mod purse;
mod query_context;
mod rerun;
mod result_cache;
mod shared;
mod spill_join;
mod turns;
mod window;

pub(crate) use accounted::{ContextUse, accounted, is_accounted};
pub(crate) use advised::advised;
pub(crate) use aggregate_limit::{aggregate_input, aggregate_limit};
pub(crate) use analyze::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
pub(crate) use batch_size::{BatchPolicy, cut, sized, used_bytes};
pub(crate) use clustered_aggregate::{ClusteredAggregateExec, KeyIntervals};
pub(crate) use compact::{compact_views, has_views};
pub(crate) use context::context_for;
pub(crate) use decimal::{NarrowDecimals, narrow_decimals};
pub(crate) use exchange_spill::exchange_spill;
pub(crate) use explained::explained;
pub(crate) use file_aggregate::{
    FileAggregateExec, FileRecorder, FileTask, GivenFile, OneFilePlan, files_of, same_types,
};
pub(crate) use filter::{FusedFilterExec, filter_of};
pub(crate) use finished::finished;
pub(crate) use key_filter::{KeyDomain, KeyFilterExec, KeySet, KeyTest, collect_keys, key_test, reads_keys};
pub(crate) use late_fetch::{Fetch, LateFile, late_fetch};
pub(crate) use merge_join_limit::merge_join_limit;
pub(crate) use monitored::monitored;
pub(crate) use nested_loop_spill::nested_loop_spill;
pub(crate) use no_spill::no_spill;
pub(crate) use null_supplying::NullSupplyingExec;
pub(crate) use observed::observed;
pub(crate) use own_context::outer_context;
pub(crate) use passthrough::in_its_place;
pub(crate) use planned_part::{PlannedPartExec, unfolded};
pub(crate) use probe_slices::probe_slices;
pub(crate) use rerun::rerunnable;
pub(crate) use result_cache::{
    CachedResultExec, DiskCopy, DiskResultExec, NotPromoted, Promotion, Recorder, recorded,
};
pub(crate) use shared::{SharedSubplanExec, share};
pub(crate) use spill_join::SpillJoinExec;
pub(crate) use window::{accounted_window, window_by_pieces, window_feed, window_ledger};
