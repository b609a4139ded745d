//! Plan nodes of the layer, each a wrapper around a DataFusion node or a node of its own.
//!
//! | node | kind | what it is for |
//! |---|---|---|
//! | `monitored` | wrapper, at the root | gives a query its memory pool; counts rows and memory for the query log |
//! | `finished` | picture | what is left of a plan that has run: names and metrics |
//! | `explained` | wrapper, at the root | adds the layer's row to EXPLAIN |
//! | `no_spill`, `outer_context` | wrappers | run one node without temporary files, and its inputs with them |
//! | `nested_loop_spill`, `rerunnable` | wrappers | let a nested-loop join spill without losing rows |
//! | [`ClusteredAggregateExec`] | node | aggregates row group by row group, without an exchange |
//! | `compact_views` | node | copies strings out of buffers that they use little of |
//! | `late_fetch` | node | reads the columns of the first rows of an order |
//! | `shared` | node | runs a subplan once for several places of a plan |
//! | [`FusedFilterExec`] | node | a filter whose conditions are compiled and ordered while it runs |
//!
//! A wrapper has the name, the properties and the picture of the node in it, and answers every question of the trait by
//! asking that node; see `passthrough`. A node of its own says in its documentation which state its partitions share,
//! what it holds in memory, and whether it spills.

mod analyze;
mod clustered_aggregate;
mod compact;
mod context;
mod explained;
mod filter;
mod finished;
mod late_fetch;
mod monitored;
mod nested_loop_spill;
mod no_spill;
mod observed;
mod passthrough;
mod query_context;
mod rerun;
mod shared;
mod turns;

pub(crate) use analyze::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
pub(crate) use clustered_aggregate::{ClusteredAggregateExec, KeyIntervals};
pub(crate) use compact::{compact_views, has_views};
pub(crate) use explained::explained;
pub(crate) use filter::FusedFilterExec;
pub(crate) use finished::finished;
pub(crate) use late_fetch::{Fetch, LateFile, late_fetch};
pub(crate) use monitored::monitored;
pub(crate) use nested_loop_spill::nested_loop_spill;
pub(crate) use no_spill::{no_spill, outer_context};
pub(crate) use observed::observed;
pub(crate) use rerun::rerunnable;
pub(crate) use shared::{SharedSubplanExec, share};
