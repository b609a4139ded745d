//! Operators that DataFusion 55.2 does not keep within a memory limit, or that hang under one, each with its remedy.

mod advice;
mod aggregate;
mod exchange;
mod join;
mod window;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::scope::QueryScope;

/// What is done to one kind of operator: the node in its place, or `None` where it is left as it is.
type Remedy = fn(&Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>>;

/// The remedies, by what EXPLAIN calls them.
const REMEDIES: &[(&str, Remedy)] = &[
    ("exchanges that spill without waiting for themselves", exchange::guarded),
    ("cross joins that spill", join::cross),
    ("sort-merge joins counted as spillable", join::merge),
    ("aggregates that get what they cannot spill", aggregate::by_phase),
    ("windows by pieces", window::by_pieces),
    ("windows accounted", window::accounted),
    ("errors with advice", advice::given),
];

/// Keeps each operator within the memory limit: it spills, works in smaller pieces, or fails with one clear error.
///
/// One file for each kind of operator says what DataFusion 55.2 does and what is done here; `docs/MEMORY.md` has the
/// table. The rule runs behind all that change operators, and before `nested_loop_join_guard`, which guards the joins
/// that it puts in place of cross joins.
///
/// Refuses where the session's pool has no limit, and where the plan has no such operator.
#[derive(Debug, Default)]
pub(crate) struct MemoryGuard;

impl PhysicalRule for MemoryGuard {
    fn name(&self) -> &'static str {
        "memory_guard"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.memory_guard_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let Some(limit) = QueryScope::of(config).and_then(QueryScope::memory_limit) else {
            return Ok(Rewrite::refused(plan, "the session's memory pool has no limit"));
        };
        exchange::check_partitions(&plan, limit)?;
        let mut counts = vec![0_usize; REMEDIES.len()];
        let guarded = Arc::clone(&plan)
            .transform_up(|mut node| {
                let mut changed = false;
                for ((_, remedy), count) in REMEDIES.iter().zip(&mut counts) {
                    if let Some(guarded) = remedy(&node)? {
                        *count += 1;
                        changed = true;
                        node = guarded;
                    }
                }
                Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
            })
            .data()?;
        let done: Vec<String> = REMEDIES
            .iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .map(|((what, _), count)| format!("{what}: {count}"))
            .collect();
        if done.is_empty() {
            return Ok(Rewrite::refused(plan, "the plan has no operator that needs a guard"));
        }
        Ok(Rewrite::applied(guarded, done.join("; ")))
    }
}

/// The same node over inputs with the same properties.
fn with_inputs(
    node: &Arc<dyn ExecutionPlan>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(node).replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}
