//! Joins: cross joins, which cannot spill, and sort-merge joins, which can and do not say so.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::{JoinType, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use super::with_inputs;
use crate::operator::{in_its_place, merge_join_limit, outer_context};

/// `CrossJoinExec` fails when its left side does not fit. A nested-loop join without a condition gives the same rows,
/// and spills; `nested_loop_join_guard` sees to it that it does so rightly.
///
/// A left side that is known to have one row, as a scalar subquery has, is left alone.
pub(super) fn cross(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(cross) = node.downcast_ref::<CrossJoinExec>() else {
        return Ok(None);
    };
    let left = StatisticsContext::new().compute(cross.left().as_ref(), &StatisticsArgs::new())?;
    if matches!(left.num_rows, Precision::Exact(0 | 1)) {
        return Ok(None);
    }
    let (left, right) = (Arc::clone(cross.left()), Arc::clone(cross.right()));
    let join = NestedLoopJoinExec::try_new(left, right, None, &JoinType::Inner, None)?;
    // Where both sides have metadata of one name, the two joins keep another of them.
    let same = join.schema() == node.schema();
    Ok(same.then(|| in_its_place(node, Arc::new(join))))
}

/// `SortMergeJoinExec`: registered as one that can spill.
pub(super) fn merge(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if !node.is::<SortMergeJoinExec>() {
        return Ok(None);
    }
    let inputs = node.children().into_iter().map(|input| outer_context(Arc::clone(input))).collect();
    Ok(Some(merge_join_limit(with_inputs(node, inputs)?)))
}
