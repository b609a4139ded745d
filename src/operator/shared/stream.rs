//! What one consumer of a shared subplan reads.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::metrics::BaselineMetrics;
use futures::{Stream, StreamExt};

use super::log::Item;
use super::partition::Partition;

/// The rows of one partition for one consumer. Dropping it gives up the consumer's share.
pub(super) struct SharedStream {
    partition: Arc<Partition>,
    /// Which of the consumers it is.
    consumer: usize,
    schema: SchemaRef,
    /// A file of the log, and how many of its batches this consumer has had already.
    file: Option<(SendableRecordBatchStream, usize)>,
    metrics: BaselineMetrics,
}

impl SharedStream {
    /// The stream of `consumer`, for which [`Partition::begin`] was called.
    pub(super) fn new(
        partition: Arc<Partition>,
        consumer: usize,
        schema: SchemaRef,
        metrics: BaselineMetrics,
    ) -> Self {
        Self { partition, consumer, schema, file: None, metrics }
    }

    /// The next batch: the rest of a file that was begun, or what the log has next.
    ///
    /// A file is read by each consumer by itself, and goes with its last reader.
    fn poll_rows(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some((rows, skip)) = &mut self.file {
                match ready!(rows.poll_next_unpin(cx)) {
                    Some(Ok(_)) if *skip > 0 => *skip -= 1,
                    Some(batch) => return Poll::Ready(Some(batch)),
                    None => self.file = None,
                }
                continue;
            }
            match ready!(self.partition.poll_item(self.consumer, cx)) {
                Some(Ok(Item::Batch(batch))) => return Poll::Ready(Some(Ok(batch))),
                Some(Ok(Item::File { file, skip })) => {
                    let rows = self.partition.spill_manager().read_spill_as_stream(file, None);
                    match rows {
                        Ok(rows) => self.file = Some((rows, skip)),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for SharedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let rows = self.poll_rows(cx);
        if matches!(rows, Poll::Ready(None | Some(Err(_)))) {
            // What is kept for this consumer is freed now, and not when somebody drops the stream.
            self.file = None;
            self.partition.release(self.consumer);
        }
        self.metrics.record_poll(rows)
    }
}

impl RecordBatchStream for SharedStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        self.partition.release(self.consumer);
    }
}
