//! Rules from `ExecutionPlan` to `ExecutionPlan`.

mod estimate;
mod join_order;
mod nested_loop_join_guard;
mod rule;
mod scan_filter;

pub(crate) use join_order::JoinOrder;
pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
pub(crate) use scan_filter::ScanFilter;
