//! A build side that gives all its rows each time it is executed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, future, stream};

use super::passthrough::{Passthrough, Wrap};

/// Makes `plan`, of one partition and the build side of a nested-loop join, give all its rows at every execution.
///
/// A DataFusion plan is single-use: file scans drain a queue that their partitions share, joins and exchanges
/// keep what they built. A second `execute` of the same node therefore yields the rest, or nothing. This
/// wrapper executes the node itself the first time, and from then on a copy whose state was reset.
///
/// The join executes it again when memory ran out, and it may be `plan` itself that ran out. So the second execution may be
/// the one that shows that there are no rows, which DataFusion 55.2 does not reckon with: it fails where it got no batch, and
/// forgets all probe rows where it got none with rows. What it gets here instead is an empty batch, or, if it
/// `gives_probe_rows_alone` (right, full, and right anti and mark joins), the first execution's error.
///
/// The caller has checked that the subtree may be reset: no dynamic filter, no scalar-subquery slot, no
/// recursive query, no source it does not know.
///
/// Returned beside it is the count of batches that its last execution gave so far, without that one. None of them is empty.
pub(crate) fn rerunnable(
    plan: Arc<dyn ExecutionPlan>,
    gives_probe_rows_alone: bool,
) -> (Arc<dyn ExecutionPlan>, Batches) {
    let batches = Batches::default();
    let wrap = Rerun::new(batches.clone(), gives_probe_rows_alone);
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
    failure: OnceLock<Arc<DataFusionError>>,
    batches: Batches,
    gives_probe_rows_alone: bool,
}

impl Rerun {
    fn new(batches: Batches, gives_probe_rows_alone: bool) -> Self {
        Self { executed: AtomicBool::new(false), failure: OnceLock::new(), batches, gives_probe_rows_alone }
    }

    /// `error` of the first execution, kept for the second.
    fn failed(&self, error: DataFusionError) -> DataFusionError {
        DataFusionError::Shared(Arc::clone(self.failure.get_or_init(|| Arc::new(error))))
    }

    /// What a second execution without rows gives.
    fn nothing(&self, schema: SchemaRef) -> Result<RecordBatch> {
        if !self.gives_probe_rows_alone {
            return Ok(RecordBatch::new_empty(schema));
        }
        let changed =
            || exec_datafusion_err!("the build side of a nested-loop join had rows, and now has none");
        Err(self.failure.get().map_or_else(changed, |error| DataFusionError::Shared(Arc::clone(error))))
    }
}

impl Wrap for Rerun {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let again = self.executed.swap(true, Ordering::Relaxed);
        let rows = if again {
            reset_plan_states(Arc::clone(inner))?.execute(partition, context)?
        } else {
            inner.execute(partition, context)?
        };
        self.batches.0.store(0, Ordering::Release);
        let schema = rows.schema();
        let counter = self.batches.clone();
        // The join asks for the memory of empty batches too, and must not run out over them.
        let batches = rows.try_filter(|batch| future::ready(batch.num_rows() > 0)).inspect_ok(move |_| {
            counter.0.fetch_add(1, Ordering::AcqRel);
        });
        let (wrap, empty) = (Arc::clone(self), Arc::clone(&schema));
        if !again {
            let batches = batches.map_err(move |error| wrap.failed(error));
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)));
        }
        let end = stream::once(async move { (wrap.batches.count() == 0).then(|| wrap.nothing(empty)) });
        let batches = batches.chain(end.filter_map(future::ready));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// The count stays the one that the join above reads.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self::new(self.batches.clone(), self.gives_probe_rows_alone))
    }
}
