//! `RepartitionExec` with several inputs, which in DataFusion 55.2 may wait for itself for ever when it spills.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::with_inputs;
use crate::operator::{exchange_spill, outer_context};

/// An exchange with one input has one writer a queue, and one that keeps the order has a queue for each input: neither
/// can hang.
pub(super) fn guarded(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(exchange) = node.downcast_ref::<RepartitionExec>() else {
        return Ok(None);
    };
    if exchange.preserve_order() || exchange.input().output_partitioning().partition_count() < 2 {
        return Ok(None);
    }
    let input = outer_context(Arc::clone(exchange.input()));
    Ok(Some(exchange_spill(with_inputs(node, vec![input])?)))
}
