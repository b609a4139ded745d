//! Rules from `ExecutionPlan` to `ExecutionPlan`.
//!
//! | rule | what it changes | what it looks at |
//! |---|---|---|
//! | [`JoinOrder`] | order, build sides and modes of joins | `estimate` |
//! | [`OuterJoinGuard`] | what is known of outer joins' inputs | equivalence properties |
//! | [`DynamicFilterGuard`] | takes dynamic filters off scans | `lineage`, `dynamic_filters` |
//! | [`SharedSubplan`] | equal subtrees | identity of subtrees, `estimate` |
//! | [`ScanFilter`] | filters inside Parquet readers | `estimate`, `dynamic_filters` |
//! | [`LateMaterialization`] | scans below an order with a limit | sizes of columns |
//! | [`CompactViews`] | strings that build sides and sorts keep | build sides, filtering readers |
//! | [`NarrowDecimals`] | products of decimals | the types of expressions |
//! | [`ClusteredAggregate`] | grouped aggregates in two steps | footers of Parquet files |
//! | [`FusedFilter`] | filters with several conditions, or over strings | the conditions |
//! | [`MemoryGuard`] | operators that DataFusion does not limit | the pool's limit |
//! | [`BatchSize`] | rows per batch where rows are wide | footers, statistics, batches in memory |
//! | [`OperatorMetrics`] | what is counted of each operator | kinds of nodes |
//! | [`SpillJoin`] | whether hash joins can spill | the memory limit, orders that are relied on |
//! | [`NestedLoopJoinGuard`] | whether nested-loop joins spill | join types and partition counts |
//!
//! Rules share no state: what one of them learns of a plan stands in the plan it leaves. `session::rule_order` says when
//! each of them runs, and why then.

mod batch_size;
mod cached_footer;
mod clustered_aggregate;
mod compact_views;
mod dynamic_filter_guard;
mod dynamic_filters;
mod estimate;
mod expr_text;
mod feedback;
mod fingerprint;
mod fused_filter;
mod join_order;
mod key_filter;
mod late_materialization;
mod lineage;
mod memory_guard;
mod narrow_decimals;
mod nested_loop_join_guard;
mod operator_metrics;
mod outer_join_guard;
mod rule;
mod scan_filter;
mod scan_ranges;
mod shared_subplan;
mod small_query;
mod spill_join;

pub(crate) use batch_size::BatchSize;
pub(crate) use clustered_aggregate::ClusteredAggregate;
pub(crate) use compact_views::CompactViews;
pub(crate) use dynamic_filter_guard::DynamicFilterGuard;
pub(crate) use feedback::{LayerStatistics, observe};
pub(crate) use fused_filter::FusedFilter;
pub(crate) use join_order::JoinOrder;
pub(crate) use key_filter::KeyFilter;
pub(crate) use late_materialization::LateMaterialization;
pub(crate) use memory_guard::MemoryGuard;
pub(crate) use narrow_decimals::NarrowDecimals;
pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use operator_metrics::OperatorMetrics;
pub(crate) use outer_join_guard::OuterJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
pub(crate) use scan_filter::ScanFilter;
pub(crate) use scan_ranges::ScanRanges;
pub(crate) use shared_subplan::SharedSubplan;
pub(crate) use small_query::rows_handled;
pub(crate) use spill_join::SpillJoin;
