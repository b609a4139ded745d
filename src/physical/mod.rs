//! Rules from `ExecutionPlan` to `ExecutionPlan`.

mod dynamic_filter_guard;
mod dynamic_filters;
mod estimate;
mod expr_text;
mod feedback;
mod fingerprint;
mod join_order;
mod lineage;
mod nested_loop_join_guard;
mod rule;
mod scan_filter;

pub(crate) use dynamic_filter_guard::DynamicFilterGuard;
pub(crate) use feedback::{LayerStatistics, observe};
pub(crate) use join_order::JoinOrder;
pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
pub(crate) use scan_filter::ScanFilter;
