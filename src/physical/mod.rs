//! Rules from `ExecutionPlan` to `ExecutionPlan`.

mod nested_loop_join_guard;
mod rule;

pub(crate) use nested_loop_join_guard::NestedLoopJoinGuard;
pub(crate) use rule::{PhysicalRule, Rewrite};
