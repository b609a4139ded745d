//! Operators that are counted and cannot spill: their errors say what to do.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

use crate::operator::advised;

const MERGE: &str = "a merge of sorted streams needs memory for a batch of each of them, and cannot spill. Raise the \
    memory limit, or lower datafusion.execution.target_partitions or datafusion.execution.batch_size";

const AGGREGATE: &str = "an aggregate without GROUP BY keeps all values of array_agg, string_agg, median and of DISTINCT \
    aggregates, and cannot spill. Raise the memory limit, or use an aggregate of fixed size, such as approx_distinct \
    or approx_median";

const RECURSION: &str = "a recursive query keeps the rows of its last step, and with UNION all rows, and cannot spill. \
    Raise the memory limit, or select fewer columns in it";

/// `SortPreservingMergeExec`, `AggregateExec` without groups, `RecursiveQueryExec`.
pub(super) fn given(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let ungrouped = |aggregate: &AggregateExec| aggregate.group_expr().is_true_no_grouping();
    Ok(if node.is::<SortPreservingMergeExec>() {
        Some(advised(Arc::clone(node), "SortPreservingMergeExec", MERGE))
    } else if node.downcast_ref::<AggregateExec>().is_some_and(ungrouped) {
        Some(advised(Arc::clone(node), "AggregateStream", AGGREGATE))
    } else if node.is::<RecursiveQueryExec>() {
        Some(advised(Arc::clone(node), "RecursiveQuery", RECURSION))
    } else {
        None
    })
}
