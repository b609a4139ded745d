//! One partition of a clustered aggregate.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::metrics::BaselineMetrics;
use futures::{Stream, StreamExt};

use super::groups::{Groups, Spec};
use super::intervals::KeyIntervals;
use super::rows::{Expressions, Rows};
use super::shared::Shared;

/// Aggregates interval by interval.
///
/// ```text
///   row group 1      row group 2         row group 3
///   1 1 2 3 3 5 5  │ 5 6 6 7 9 9 9 12  │ 13 13 20 …
///   └─ put out ──┘ ↑ └── put out ────┘
///        one group │ two row groups: kept until all partitions have ended
/// ```
pub(super) struct ClusteredStream {
    pub(super) input: SendableRecordBatchStream,
    pub(super) expressions: Arc<Expressions>,
    pub(super) spec: Arc<Spec>,
    pub(super) intervals: Arc<KeyIntervals>,
    pub(super) shared: Arc<Shared>,
    pub(super) batch_size: usize,
    pub(super) reservation: MemoryReservation,
    pub(super) metrics: BaselineMetrics,
    /// The interval that is being read.
    pub(super) interval: Option<usize>,
    pub(super) groups: Groups,
    /// The groups whose keys two intervals share.
    pub(super) between: Option<Groups>,
    pub(super) ready: VecDeque<RecordBatch>,
    pub(super) ended: bool,
}

impl ClusteredStream {
    /// Takes in a batch: interval by interval, and at the end reserves what is held now.
    fn aggregate(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.expressions.evaluate(batch)?;
        let mut done = 0;
        while done < rows.len() {
            done += self.aggregate_beginning(&rows, done)?;
        }
        let between = self.between.as_ref().map_or(0, Groups::size);
        self.reservation.try_resize(self.groups.size() + between)
    }

    /// Aggregates the rows from `start` on that are of one interval, and says how many they were.
    fn aggregate_beginning(&mut self, rows: &Rows, start: usize) -> Result<usize> {
        let keys = rows.clustered.values().get(start..).unwrap_or_default();
        let shared = keys.iter().take_while(|key| self.intervals.is_shared(**key)).count();
        let Some(&first) = keys.get(shared) else {
            self.aggregate_shared(&rows.slice(start..rows.len()))?;
            return Ok(keys.len());
        };
        let (index, (low, high)) = self.interval_of(first)?;
        self.begin(index, low)?;
        let len = if keys.iter().all(|key| (low..=high).contains(key)) {
            keys.len()
        } else {
            let within = keys.iter().skip(shared).take_while(|key| (low..=high).contains(*key));
            shared + within.count()
        };
        self.aggregate_interval(rows, start..start + len, (low, high))?;
        Ok(len)
    }

    /// The interval of a key that is not shared, and its ends.
    fn interval_of(&self, key: i64) -> Result<(usize, (i64, i64))> {
        let index = self.intervals.find(key);
        index.and_then(|index| Some((index, self.intervals.bounds(index)?))).ok_or_else(|| {
            internal_datafusion_err!(
                "key {key} is outside the minima and maxima of all row groups: a file has changed, or its \
                 statistics are wrong; SET slipstream.clustered_aggregate.enabled = false reads it without them"
            )
        })
    }

    /// Rows of one interval, but for those at its ends whose keys are shared with a neighbour.
    fn aggregate_interval(&mut self, rows: &Rows, range: Range<usize>, ends: (i64, i64)) -> Result<()> {
        let keys = rows.clustered.values().get(range.clone()).unwrap_or_default();
        let (low, high) = (self.intervals.is_shared(ends.0), self.intervals.is_shared(ends.1));
        let is_shared =
            |key: &i64| (low && *key == ends.0) || (high && *key == ends.1) || self.outside(*key, ends);
        let count = keys.iter().filter(|key| is_shared(key)).count();
        if count == 0 {
            return self.groups.add(&rows.slice(range));
        }
        let before = keys.iter().take_while(|key| is_shared(key)).count();
        let behind = keys.iter().rev().take_while(|key| is_shared(key)).count();
        if before + behind == count && before < keys.len() {
            let (from, to) = (range.start + before, range.end - behind);
            self.aggregate_shared(&rows.slice(range.start..from))?;
            self.groups.add(&rows.slice(from..to))?;
            return self.aggregate_shared(&rows.slice(to..range.end));
        }
        let mask: Vec<bool> = keys.iter().map(is_shared).collect();
        let own: BooleanArray = mask.iter().map(|shared| Some(!shared)).collect();
        let rows = rows.slice(range);
        self.aggregate_shared(&rows.filter(&BooleanArray::from(mask))?)?;
        self.groups.add(&rows.filter(&own)?)
    }

    /// Rows before the first that tells the interval have keys of other intervals, and these are shared.
    fn outside(&self, key: i64, ends: (i64, i64)) -> bool {
        !(ends.0..=ends.1).contains(&key)
    }

    /// Rows whose keys are shared by intervals wait for the other partitions.
    fn aggregate_shared(&mut self, rows: &Rows) -> Result<()> {
        if rows.len() == 0 {
            return Ok(());
        }
        let between = match &mut self.between {
            Some(between) => between,
            none => none.insert(Groups::hashed(Arc::clone(&self.spec))?),
        };
        between.add(rows)
    }

    /// Begins interval `index`, whose least key is `low`; what belongs to the interval before is whole then.
    fn begin(&mut self, index: usize, low: i64) -> Result<()> {
        if self.interval == Some(index) {
            return Ok(());
        }
        self.shared.claim(index)?;
        self.interval = Some(index);
        // A few groups are kept to fill a batch, as long as that does not make the next interval hash.
        if self.groups.len() >= self.batch_size || self.groups.last().is_some_and(|last| last >= low) {
            self.put_out()?;
        }
        Ok(())
    }

    /// Queues the results of the groups so far, which are whole.
    fn put_out(&mut self) -> Result<()> {
        if self.groups.len() == 0 {
            return Ok(());
        }
        let batch = self.groups.evaluate()?;
        self.queue(&batch);
        Ok(())
    }

    fn queue(&mut self, batch: &RecordBatch) {
        let mut start = 0;
        while start < batch.num_rows() {
            let len = self.batch_size.min(batch.num_rows() - start);
            self.ready.push_back(batch.slice(start, len));
            start += len;
        }
    }

    /// Puts out what is left, and as the last partition the groups between intervals too.
    fn end(&mut self) -> Result<()> {
        self.ended = true;
        self.put_out()?;
        let states = self.between.take().map(Groups::states).transpose()?;
        if let Some(all) = self.shared.end(states)
            && !all.is_empty()
        {
            let mut between = Groups::hashed(Arc::clone(&self.spec))?;
            for states in &all {
                between.merge(states)?;
            }
            let batch = between.evaluate()?;
            self.queue(&batch);
        }
        self.reservation.free();
        Ok(())
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let input = ready!(self.input.poll_next_unpin(cx));
            let compute = self.metrics.elapsed_compute().clone();
            let timer = compute.timer();
            let outcome = match input {
                Some(Ok(batch)) => self.aggregate(&batch),
                Some(Err(error)) => Err(error),
                None => self.end(),
            };
            drop(timer);
            if let Err(error) = outcome {
                self.ended = true;
                self.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Stream for ClusteredStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let poll = self.poll_batch(cx);
        self.metrics.record_poll(poll)
    }
}

impl RecordBatchStream for ClusteredStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.output)
    }
}
