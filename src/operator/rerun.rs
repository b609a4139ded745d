//! A subtree that gives all its rows each time it is executed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use super::passthrough::{Passthrough, Wrap};

/// Makes `plan`, of one partition, give all its rows at every execution.
///
/// A DataFusion plan is single-use: file scans drain a queue that their partitions share, joins and exchanges
/// keep what they built. A second `execute` of the same node therefore yields the rest, or nothing. This
/// wrapper executes the node itself the first time, and from then on a copy whose state was reset.
///
/// The caller has checked that the subtree may be reset: no dynamic filter, no scalar-subquery slot, no
/// recursive query, no source it does not know.
///
/// Returned beside it is the count of batches, other than empty ones, that its last execution gave so far.
pub(crate) fn rerunnable(plan: Arc<dyn ExecutionPlan>) -> (Arc<dyn ExecutionPlan>, Batches) {
    let batches = Batches::default();
    let wrap = Rerun { executed: AtomicBool::new(false), batches: batches.clone() };
    (Passthrough::around(plan, wrap), batches)
}

/// How many batches a [`rerunnable`] plan gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batches(Arc<AtomicUsize>);

impl Batches {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Rerun {
    executed: AtomicBool,
    batches: Batches,
}

impl Wrap for Rerun {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = if self.executed.swap(true, Ordering::Relaxed) {
            reset_plan_states(Arc::clone(inner))?.execute(partition, context)?
        } else {
            inner.execute(partition, context)?
        };
        self.batches.0.store(0, Ordering::Release);
        let schema = rows.schema();
        let batches = self.batches.clone();
        let counted = rows.inspect_ok(move |batch| {
            batches.0.fetch_add(usize::from(batch.num_rows() > 0), Ordering::AcqRel);
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }

    /// The count stays the one that the join above reads.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { executed: AtomicBool::new(false), batches: self.batches.clone() })
    }
}
