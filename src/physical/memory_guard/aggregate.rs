//! Grouped aggregates, which can spill until they have read their input, and fail when they are refused memory afterwards.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateOutputMode};

use super::with_inputs;
use crate::operator::{aggregate_input, aggregate_limit};

/// Aggregates that give final values. A partial one gives its groups early when it is refused memory, and asks for none
/// while it does.
pub(super) fn by_phase(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    if aggregate.mode().output_mode() == AggregateOutputMode::Partial
        || aggregate.group_expr().is_true_no_grouping()
    {
        return Ok(None);
    }
    let input = aggregate_input(Arc::clone(aggregate.input()));
    Ok(Some(aggregate_limit(with_inputs(node, vec![input])?)))
}
