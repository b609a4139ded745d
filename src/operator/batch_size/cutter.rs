//! Batches cut into pieces before an operator asks the memory pool for them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{Count, Metric, MetricCategory, MetricValue, MetricsSet};
use futures::{Stream, StreamExt};

use super::bytes::{held_bytes, used_bytes};
use super::policy::BatchPolicy;
use crate::operator::compact::compacted_whole;
use crate::operator::passthrough::{Passthrough, Wrap};

/// Gives the rows of `plan` in batches that are no larger than `policy` allows at the moment, where memory is limited.
///
/// A piece is a copy: operators count the buffers of a batch, and those of a slice are those of the whole batch. Batches that
/// are small enough are handed on as they are, and so is everything where there is no limit.
pub(crate) fn cut(plan: Arc<dyn ExecutionPlan>, policy: BatchPolicy) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Cut { policy, counts: Counts::default() })
}

#[derive(Debug)]
struct Cut {
    policy: BatchPolicy,
    counts: Counts,
}

/// How many batches were cut, into how many pieces.
#[derive(Debug, Default, Clone)]
struct Counts {
    batches: Count,
    pieces: Count,
}

impl Wrap for Cut {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let pool = Arc::clone(context.memory_pool());
        let input = inner.execute(partition, context)?;
        if !matches!(pool.memory_limit(), MemoryLimit::Finite(_)) {
            return Ok(input);
        }
        let counts = self.counts.clone();
        Ok(Box::pin(CutStream { input, pool, policy: self.policy, counts, waiting: Vec::new() }))
    }

    fn metrics(&self, inner: &Arc<dyn ExecutionPlan>) -> Option<MetricsSet> {
        let own = inner.metrics();
        if self.counts.batches.value() == 0 {
            return own;
        }
        let mut all = own.unwrap_or_default();
        for (name, count) in [("batches_cut", &self.counts.batches), ("batch_pieces", &self.counts.pieces)] {
            let value = MetricValue::Count { name: name.into(), count: count.clone() };
            all.push(Arc::new(Metric::new(value, None).with_category(MetricCategory::Rows)));
        }
        Some(all)
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self { policy: self.policy, counts: Counts::default() })
    }
}

/// One partition's batches.
struct CutStream {
    input: SendableRecordBatchStream,
    pool: Arc<dyn MemoryPool>,
    policy: BatchPolicy,
    counts: Counts,
    /// Slices of the last batch that have still to be handed on, the first of them at the end.
    waiting: Vec<RecordBatch>,
}

impl CutStream {
    /// `batch`, or nothing where it has to be cut first; then it waits.
    fn admit(&mut self, batch: RecordBatch) -> Option<RecordBatch> {
        let allowed = self.policy.bytes(self.pool.as_ref());
        let held = held_bytes(&batch);
        if held <= allowed {
            return Some(batch);
        }
        let used = used_bytes(batch.columns());
        let small = used <= allowed || batch.num_rows() <= self.policy.min_rows;
        // Much of what it holds may belong to other batches; an operator would count all of it for this one.
        if small && held / 2 <= used {
            return Some(batch);
        }
        self.counts.batches.add(1);
        self.waiting.push(batch);
        None
    }

    /// The first rows that wait, as many as are allowed now.
    fn piece(&mut self, mut slice: RecordBatch) -> Result<RecordBatch> {
        let allowed = self.policy.bytes(self.pool.as_ref());
        while slice.num_rows() > self.policy.min_rows.max(1) && used_bytes(slice.columns()) > allowed {
            let half = slice.num_rows() / 2;
            self.waiting.push(slice.slice(half, slice.num_rows() - half));
            slice = slice.slice(0, half);
        }
        self.counts.pieces.add(1);
        copied(&slice)
    }
}

/// `slice` in buffers of its own.
fn copied(slice: &RecordBatch) -> Result<RecordBatch> {
    let rows = u32::try_from(slice.num_rows())
        .map_err(|_| internal_datafusion_err!("a batch of {} rows", slice.num_rows()))?;
    compacted_whole(&take_record_batch(slice, &UInt32Array::from_iter_values(0..rows))?)
}

impl Stream for CutStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(slice) = self.waiting.pop() {
                return Poll::Ready(Some(self.piece(slice)));
            }
            match ready!(self.input.poll_next_unpin(cx)) {
                Some(Ok(batch)) => {
                    if let Some(batch) = self.admit(batch) {
                        return Poll::Ready(Some(Ok(batch)));
                    }
                }
                end => return Poll::Ready(end),
            }
        }
    }
}

impl RecordBatchStream for CutStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryReservation};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{TryStreamExt, stream};

    fn batch(from: i64, rows: i64, bytes: usize) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        let texts = (from..from + rows).map(|row| format!("{row:0bytes$}"));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
    }

    fn cutting(batches: Vec<RecordBatch>, limit: usize) -> (CutStream, MemoryReservation) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
        let held = MemoryConsumer::new("held").register(&pool);
        let schema = batches[0].schema();
        let input = stream::iter(batches.into_iter().map(Ok));
        let input = Box::pin(RecordBatchStreamAdapter::new(schema, input));
        let policy = BatchPolicy { target_bytes: 16 << 20, min_rows: 1 };
        (CutStream { input, pool, policy, counts: Counts::default(), waiting: Vec::new() }, held)
    }

    fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
        let values = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        batches.iter().flat_map(values).collect()
    }

    #[tokio::test]
    async fn rows_keep_their_order_and_no_piece_holds_more_than_is_allowed() {
        let (mut stream, _held) = cutting(vec![batch(0, 300, 20_000), batch(300, 3, 100)], 32 << 20);
        let pieces: Vec<RecordBatch> = (&mut stream).try_collect().await.unwrap();
        assert_eq!(numbers(&pieces), (0..303).collect::<Vec<_>>());
        let largest = pieces.iter().map(held_bytes).max().unwrap();
        assert!((200_000..=1 << 19).contains(&largest), "{largest}");
        assert_eq!(stream.counts.batches.value(), 1);
        assert_eq!(pieces.last().unwrap().num_rows(), 3, "a small batch is handed on as it is");
    }

    #[tokio::test]
    async fn pieces_are_smaller_under_pressure_and_back_up_when_it_ends() {
        let all: Vec<RecordBatch> = (0..6).map(|part| batch(part * 100, 100, 9_000)).collect();
        let (mut stream, held) = cutting(all, 64 << 20);
        let mut taken = Vec::new();
        for reserved in [0, 60 << 20, 0] {
            held.resize(reserved);
            let mut rows = Vec::new();
            while rows.iter().sum::<usize>() < 200 {
                let piece = stream.next().await.unwrap().unwrap();
                rows.push(piece.num_rows());
                taken.extend(numbers(&[piece]));
            }
            match reserved {
                0 => assert_eq!(rows, [100, 100]),
                _ => assert!(rows.iter().all(|rows| *rows <= 30) && rows.len() > 6, "{rows:?}"),
            }
        }
        assert_eq!(taken, (0..600).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_small_slice_of_a_large_batch_is_copied_out_of_it() {
        let whole = batch(0, 300, 20_000);
        let (stream, _held) = cutting(vec![whole.slice(10, 5), whole.slice(20, 1)], 32 << 20);
        let pieces: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        assert_eq!(numbers(&pieces), [10, 11, 12, 13, 14, 20]);
        assert!(held_bytes(&pieces[0]) < 110_000 && held_bytes(&whole.slice(10, 5)) > 5_000_000);
        assert!(held_bytes(&pieces[1]) < 30_000, "a single row too");
    }
}
