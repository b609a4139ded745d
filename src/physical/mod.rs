//! Rules from `ExecutionPlan` to `ExecutionPlan`.

mod compact_views;
mod dynamic_filter_guard;
mod dynamic_filters;
mod estimate;
mod join_order;
mod late_materialization;
mod lineage;
mod nested_loop_join_guard;
mod rule;
mod scan_filter;

pub(crate) use compact_views::CompactViews;
pub(crate) use dynamic_filter_guard::DynamicFilterGuard;
pub(crate) use join_order::JoinOrder;
pub(crate) use late_materialization::LateMaterialization;
pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
pub(crate) use scan_filter::ScanFilter;
