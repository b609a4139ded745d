//! One partition's batches on their way to an operator that keeps them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::{Stream, StreamExt};

use super::arrays::{compacted, loose_arrays};
use super::ledger::Ledger;

/// Hands batches on; loose ones compacted, and small loose ones together.
pub(super) struct CompactStream {
    input: SendableRecordBatchStream,
    compactor: Compactor,
    ended: bool,
    baseline: BaselineMetrics,
}

impl CompactStream {
    /// `batch_rows` is the size that batches should have.
    pub(super) fn new(
        input: SendableRecordBatchStream,
        batch_rows: usize,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
    ) -> Self {
        let compactor = Compactor {
            schema: input.schema(),
            // Half a batch is what DataFusion's coalescers let through as it is.
            enough_rows: batch_rows / 2,
            ledgers: Vec::new(),
            small: Vec::new(),
            small_rows: 0,
            small_loose: Vec::new(),
            ready: VecDeque::new(),
            counts: Counts::new(metrics, partition),
        };
        Self { input, compactor, ended: false, baseline: BaselineMetrics::new(metrics, partition) }
    }
}

impl Stream for CompactStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(batch) = this.compactor.ready.pop_front() {
                return this.baseline.record_poll(Poll::Ready(Some(Ok(batch))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let item = ready!(this.input.poll_next_unpin(cx)).transpose()?;
            let timer = this.baseline.elapsed_compute().timer();
            match item {
                Some(batch) => this.compactor.push(batch)?,
                None => {
                    this.ended = true;
                    this.compactor.flush()?;
                }
            }
            timer.done();
        }
    }
}

impl RecordBatchStream for CompactStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// Decides batch by batch, and keeps their order.
///
/// ```text
///   in    full   loose(5000)  loose(20) loose(30)  full   end
///   out   full   copy(5000)              ─         copy(50), full
/// ```
///
/// Small loose batches are held back until they are worth a buffer of their own: a copy of twenty strings would be one more
/// entry in the list that the consumer concatenates, and hold little.
struct Compactor {
    schema: SchemaRef,
    enough_rows: usize,
    /// One for each view array of a batch, in the order in which they are met.
    ledgers: Vec<Ledger>,
    /// Loose batches that are too small to be compacted alone: fewer than `enough_rows` rows, and the last one.
    small: Vec<RecordBatch>,
    small_rows: usize,
    /// Which arrays are loose in any of them.
    small_loose: Vec<bool>,
    ready: VecDeque<RecordBatch>,
    counts: Counts,
}

impl Compactor {
    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let loose = loose_arrays(&batch, &mut self.ledgers);
        if !loose.contains(&true) {
            self.flush()?;
            self.ready.push_back(batch);
            return Ok(());
        }
        self.small_rows += batch.num_rows();
        self.small.push(batch);
        self.small_loose.resize(loose.len(), false);
        for (any, this) in self.small_loose.iter_mut().zip(loose) {
            *any |= this;
        }
        if self.small_rows >= self.enough_rows { self.flush() } else { Ok(()) }
    }

    /// Compacts what was held back.
    fn flush(&mut self) -> Result<()> {
        let batch = match self.small.as_slice() {
            [] => return Ok(()),
            [batch] => batch.clone(),
            batches => concat_batches(&self.schema, batches)?,
        };
        let (batch, copied) = compacted(&batch, &self.small_loose)?;
        self.counts.batches.add(self.small.len());
        self.counts.before.add(copied.before);
        self.counts.after.add(copied.after);
        self.small.clear();
        self.small_loose.clear();
        self.small_rows = 0;
        self.ready.push_back(batch);
        Ok(())
    }
}

/// What EXPLAIN ANALYZE shows.
struct Counts {
    batches: Count,
    before: Count,
    after: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            batches: count("compacted_batches"),
            before: count("bytes_before"),
            after: count("bytes_after"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray, UInt32Array};
    use datafusion::arrow::compute::take;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::TryStreamExt;
    use std::sync::Arc;

    fn text(values: impl Iterator<Item = u32>) -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(
            values.map(|v| format!("{v:>9} is a number with much text")),
        ))
    }

    fn batch(array: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("text", array)]).unwrap()
    }

    /// Rows from `begin`, either alone or cut out of a hundred times as many.
    fn rows(begin: u32, count: u32, loose: bool) -> RecordBatch {
        if !loose {
            return batch(text(begin..begin + count));
        }
        let many = text(begin..begin + 100 * count);
        batch(take(&many, &UInt32Array::from_iter_values(0..count), None).unwrap())
    }

    async fn compact(input: Vec<Result<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        let schema = rows(0, 1, false).schema();
        let input = Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(input)));
        CompactStream::new(input, 200, &ExecutionPlanMetricsSet::new(), 0).try_collect().await
    }

    #[tokio::test]
    async fn rows_stay_in_their_order_and_small_batches_come_together() {
        let input = [
            (0, 100, false),
            (100, 40, true),
            (140, 30, true),
            (170, 50, false),
            (220, 150, true),
            (370, 9, true),
        ];
        let input = input.map(|(begin, count, loose)| Ok(rows(begin, count, loose)));
        let output = compact(input.into()).await.unwrap();
        assert_eq!(output.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [100, 70, 50, 150, 9]);
        let schema = output[0].schema();
        assert_eq!(concat_batches(&schema, &output).unwrap(), rows(0, 379, false));
        let bytes = |batch: &RecordBatch| -> usize {
            batch.column(0).as_string_view().data_buffers().iter().map(|buffer| buffer.capacity()).sum()
        };
        assert!(
            output.iter().all(|batch| bytes(batch) <= 64 * 1024),
            "{:?}",
            output.iter().map(bytes).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn an_error_of_the_input_ends_the_stream() {
        let error = || datafusion::common::DataFusionError::Execution("the input failed".to_owned());
        let input = vec![Ok(rows(0, 40, true)), Err(error())];
        let failed = compact(input).await.unwrap_err();
        assert_eq!(failed.to_string(), error().to_string());
    }
}
