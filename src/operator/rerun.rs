//! A subtree that gives all its rows each time it is executed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;

use super::passthrough::{Passthrough, Wrap};

/// Makes `plan`, of one partition, give all its rows at every execution.
///
/// A DataFusion plan is single-use: file scans drain a queue that their partitions share, joins and exchanges
/// keep what they built. A second `execute` of the same node therefore yields the rest, or nothing. This
/// wrapper executes the node itself the first time, and from then on a copy whose state was reset.
///
/// The caller has checked that the subtree may be reset: no dynamic filter, no scalar-subquery slot, no
/// recursive query, no source it does not know.
pub(crate) fn rerunnable(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Rerun::default())
}

#[derive(Debug, Default)]
struct Rerun {
    executed: AtomicBool,
}

impl Wrap for Rerun {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if self.executed.swap(true, Ordering::Relaxed) {
            reset_plan_states(Arc::clone(inner))?.execute(partition, context)
        } else {
            inner.execute(partition, context)
        }
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::default()
    }
}
