//! The root of a plan whose end somebody waits for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{Stream, StreamExt};

use super::passthrough::{Passthrough, Wrap};

/// What is done with a plan that has given all its rows.
pub(crate) type Finished = Arc<dyn Fn(&dyn ExecutionPlan) + Send + Sync>;

/// Calls `finished` when every partition of `plan` has come to its end.
///
/// A partition that fails, is dropped before its end or is never executed leaves it at that: then the operators below
/// have not seen all rows.
pub(crate) fn observed(plan: Arc<dyn ExecutionPlan>, finished: Finished) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Observed { finished, ended: AtomicUsize::new(0) })
}

/// Counts the partitions of one execution.
struct Observed {
    finished: Finished,
    ended: AtomicUsize,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Wrap for Observed {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let stream = inner.execute(partition, context)?;
        Ok(Box::pin(ObservedStream { stream, plan: Arc::clone(inner), observed: Some(Arc::clone(self)) }))
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { finished: Arc::clone(&self.finished), ended: AtomicUsize::new(0) })
    }
}

/// One partition's rows, handed on as they are.
struct ObservedStream {
    stream: SendableRecordBatchStream,
    plan: Arc<dyn ExecutionPlan>,
    /// Taken at the end, however it came.
    observed: Option<Arc<Observed>>,
}

impl Stream for ObservedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.stream.poll_next_unpin(cx));
        if matches!(item, Some(Err(_))) {
            self.observed = None;
        }
        if item.is_none()
            && let Some(observed) = self.observed.take()
        {
            let ended = observed.ended.fetch_add(1, Ordering::AcqRel) + 1;
            // A plan that is executed again without being reset goes beyond, and its metrics count both runs.
            if ended == self.plan.output_partitioning().partition_count() {
                (observed.finished)(self.plan.as_ref());
            }
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl RecordBatchStream for ObservedStream {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
