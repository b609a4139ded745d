//! `RepartitionExec`: with several inputs it may wait for itself for ever when it spills, and very many partitions take more
//! memory than any limit before the first row.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, human_readable_size, resources_err};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::with_inputs;
use crate::operator::{exchange_spill, outer_context};

/// What DataFusion 55.2 holds, at least, for each pair of an input and an output of an exchange: a sender, and where to spill.
/// It counts none of it.
const PAIR_BYTES: usize = 128;

/// Queues that take no more than this are left alone under any limit, as other small things are that nobody counts.
const SMALL: usize = 16 << 20;

/// Refuses a plan with an exchange whose queues alone take more than `limit`. With 100,000 partitions requested, an
/// aggregate exchanges as many by as many: a terabyte, and a process that the system ends.
///
/// # Errors
/// There is such an exchange.
pub(super) fn check_partitions(plan: &Arc<dyn ExecutionPlan>, limit: usize) -> Result<()> {
    plan.apply(|node| {
        let Some(exchange) = node.downcast_ref::<RepartitionExec>() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let inputs = exchange.input().output_partitioning().partition_count();
        let outputs = exchange.partitioning().partition_count();
        let bytes = inputs.saturating_mul(outputs).saturating_mul(PAIR_BYTES);
        if bytes > limit.max(SMALL) {
            return resources_err!(
                "an exchange of {inputs} by {outputs} partitions takes {} for its queues alone, and the memory limit is {}. \
                 Lower datafusion.execution.target_partitions: more partitions than cores make no query faster",
                human_readable_size(bytes),
                human_readable_size(limit)
            );
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

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
