//! The wrapper of a scan whose reader tests keys itself: it says when the keys are no longer needed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{Stream, StreamExt};

use super::keys::KeySet;
use crate::operator::passthrough::{Passthrough, Wrap};

/// `scan`, whose predicate has tests against `sets`.
pub(crate) fn reads_keys(scan: Arc<dyn ExecutionPlan>, sets: Vec<Arc<KeySet>>) -> Arc<dyn ExecutionPlan> {
    let partitions = scan.output_partitioning().partition_count();
    sets.iter().for_each(|set| set.expect_readers(partitions));
    Passthrough::around(scan, ReadsKeys { sets })
}

#[derive(Debug)]
struct ReadsKeys {
    sets: Vec<Arc<KeySet>>,
}

impl Wrap for ReadsKeys {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = inner.execute(partition, context)?;
        Ok(Box::pin(ReadStream { input, reading: Some(Reading(self.sets.clone())) }))
    }
}

/// One partition that reads the sets, until it is dropped.
struct Reading(Vec<Arc<KeySet>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.iter().for_each(|set| set.read());
    }
}

struct ReadStream {
    input: SendableRecordBatchStream,
    reading: Option<Reading>,
}

impl Stream for ReadStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.input.poll_next_unpin(cx));
        if !matches!(item, Some(Ok(_))) {
            self.reading = None;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.input.size_hint()
    }
}

impl RecordBatchStream for ReadStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
