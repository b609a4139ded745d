//! Probe batches of a nested-loop join that are small enough for their build side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};

use super::passthrough::{Passthrough, Wrap};

/// A join looks at this many pairs of rows without a pause: some ten milliseconds of an optimised build.
const MAX_PAIRS: usize = 2 << 20;

/// The inputs of a nested-loop join, of which the second gives batches that, with all rows of the first, make no more
/// than [`MAX_PAIRS`] pairs.
///
/// Within one probe batch DataFusion 55.2 looks at every row of the build side, and pauses only when it has a batch
/// of results: where few rows match, a batch of 8,192 rows against a million takes minutes in which the query cannot
/// be cancelled, and keeps its thread from others. Batches are cut to the build side's rows, which are known when the
/// first probe batch is read, and the task gives way to others between two parts.
pub(crate) fn probe_slices(
    build: Arc<dyn ExecutionPlan>,
    probe: Arc<dyn ExecutionPlan>,
) -> (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) {
    let build_rows = Arc::new(AtomicUsize::new(0));
    let counted = Passthrough::around(build, CountRows(Arc::clone(&build_rows)));
    (counted, Passthrough::around(probe, Sliced(build_rows)))
}

/// Counts the rows of its last execution.
#[derive(Debug)]
struct CountRows(Arc<AtomicUsize>);

impl Wrap for CountRows {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = inner.execute(partition, context)?;
        let schema = rows.schema();
        self.0.store(0, Ordering::Relaxed);
        let count = Arc::clone(&self.0);
        let counted = rows.inspect_ok(move |batch| {
            count.fetch_add(batch.num_rows(), Ordering::Relaxed);
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}

#[derive(Debug)]
struct Sliced(Arc<AtomicUsize>);

impl Wrap for Sliced {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = inner.execute(partition, context)?;
        let schema = rows.schema();
        let slices = Slices { rows, build_rows: Arc::clone(&self.0), rest: None };
        let slices = stream::try_unfold(slices, |mut slices| async move {
            Ok(slices.next().await?.map(|slice| (slice, slices)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, slices)))
    }
}

struct Slices {
    rows: SendableRecordBatchStream,
    build_rows: Arc<AtomicUsize>,
    /// What is left of a batch.
    rest: Option<RecordBatch>,
}

impl Slices {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => {
                tokio::task::yield_now().await;
                rest
            }
            None => match self.rows.next().await.transpose()? {
                Some(batch) => batch,
                None => return Ok(None),
            },
        };
        let rows = batch.num_rows();
        let most = (MAX_PAIRS / self.build_rows.load(Ordering::Relaxed).max(1)).max(1);
        if rows <= most {
            return Ok(Some(batch));
        }
        self.rest = Some(batch.slice(most, rows - most));
        Ok(Some(batch.slice(0, most)))
    }
}
