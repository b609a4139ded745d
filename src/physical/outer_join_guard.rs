//! Outer joins whose inputs DataFusion 55.2 believes too much.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::NullSupplyingExec;

/// Puts a [`NullSupplyingExec`] between an outer join and an input of which it makes rows of NULLs, where DataFusion knows
/// something of that input which the join ends.
///
/// DataFusion 55.2 takes over what it knows of *both* inputs of an outer join. Where a column has one value in the
/// null-supplying input (a literal, what a filter compares with one, an aggregate without groups), it takes the column of the
/// result for constant as well, although it is that value or NULL:
///
/// ```text
///   SELECT c FROM (SELECT k, 1 AS c FROM few) RIGHT JOIN many USING (k) …
///     ORDER BY c      ✗ left out: a constant is sorted
///     GROUP BY c      ✗ a group for each change of the value, as if they came in order
/// ```
///
/// With several partitions an exchange between the two steps of an aggregate hides the second; with one, which the layer
/// gives small queries, nothing does.
///
/// Merge joins are left as they are: they ask for sorted inputs, and one whose key is constant is sorted.
///
/// Refuses where no input promises what its join ends.
#[derive(Debug, Default)]
pub(crate) struct OuterJoinGuard;

impl PhysicalRule for OuterJoinGuard {
    fn name(&self) -> &'static str {
        "outer_join_guard"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.outer_join_guard_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
        let mut guarded = 0;
        let rewritten = Arc::clone(&plan)
            .transform_up(|node| {
                let Some(supplies) = null_supplying(node.as_ref()) else { return Ok(Transformed::no(node)) };
                let mut inputs: Vec<_> = node.children().into_iter().map(Arc::clone).collect();
                let before = guarded;
                for (input, _) in inputs.iter_mut().zip(supplies).filter(|(_, supplies)| *supplies) {
                    if let Some(above) = NullSupplyingExec::above(Arc::clone(input))? {
                        *input = above;
                        guarded += 1;
                    }
                }
                if guarded == before {
                    return Ok(Transformed::no(node));
                }
                Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
            })
            .data()?;
        if guarded == 0 {
            return Ok(Rewrite::refused(plan, "no outer join ends what is known of its inputs"));
        }
        Ok(Rewrite::applied(rewritten, format!("null-supplying inputs: {guarded}")))
    }
}

/// Of which inputs an outer join makes rows of NULLs; `None` where `node` is none.
fn null_supplying(node: &dyn ExecutionPlan) -> Option<[bool; 2]> {
    let hash = node.downcast_ref::<HashJoinExec>().map(|join| *join.join_type());
    let nested = || node.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type());
    match hash.or_else(nested)? {
        JoinType::Left => Some([false, true]),
        JoinType::Right => Some([true, false]),
        JoinType::Full => Some([true, true]),
        _ => None,
    }
}
