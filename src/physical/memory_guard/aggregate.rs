//! Grouped aggregates, which can spill until they have read their input, and fail when they are refused memory afterwards.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::with_inputs;
use crate::operator::{aggregate_input, aggregate_limit};

/// Also partial ones: they give their groups early when they are refused memory, and fail when they have none.
pub(super) fn by_phase(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    if aggregate.group_expr().is_true_no_grouping() {
        return Ok(None);
    }
    let input = aggregate_input(Arc::clone(aggregate.input()));
    Ok(Some(aggregate_limit(with_inputs(node, vec![input])?)))
}
