//! Rules from `ExecutionPlan` to `ExecutionPlan`.

mod dynamic_filter_guard;
mod dynamic_filters;
mod estimate;
mod join_order;
mod lineage;
mod nested_loop_join_guard;
mod rule;
mod scan_filter;
mod shared_subplan;

pub(crate) use dynamic_filter_guard::DynamicFilterGuard;
pub(crate) use join_order::JoinOrder;
pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
pub(crate) use scan_filter::ScanFilter;
pub(crate) use shared_subplan::SharedSubplan;
