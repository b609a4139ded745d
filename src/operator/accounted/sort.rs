//! The memory of sorts by one column, as what they hold: half of what they ask for.
//!
//! DataFusion's sort reserves each batch twice: once for the batch, and once for what the merge of its sorted runs compares.
//! Keys of several columns are copied into rows for that. A key of one column is compared where it is, in the batch.
//!
//! | a sort | asks for | is charged |
//! |---|---|---|
//! | that reads | twice its batches, and a reserve for merges | half, and two batches, which two threads may be sorting |
//! | that sorts what it has read | the same, and step by step less | as much, until it asks for less |
//! | that merges files | two batches of each | what it asks for |
//!
//! The reserve is for merges of files: it is charged once there is one.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, resources_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use parking_lot::Mutex;

/// The consumer of what a sort has read, followed by its partition.
const ROWS: &str = "ExternalSorter[";

/// That of its merges.
const MERGE: &str = "ExternalSorterMerge[";

/// Of what a sort asks for, the part that it may gather of sorted rows before it writes them: one in so many. What is
/// gathered comes on top of what it has read.
const GATHERED: usize = 16;

/// The sorts of one node, one for each partition.
#[derive(Debug, Default)]
pub(super) struct OneColumnSorts(Mutex<Vec<Sort>>);

impl OneColumnSorts {
    /// `None` where `node` is no sort that compares its key in place. A `TopK` counts for itself.
    pub(super) fn of(node: &dyn ExecutionPlan) -> Option<Self> {
        let sort = node.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none())?;
        // A key that is computed is another array, beside the batch.
        let [key] = sort.expr().as_ref() else { return None };
        key.expr.downcast_ref::<Column>()?;
        let key = key.expr.data_type(&sort.input().schema()).ok()?;
        let texts = matches!(key, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let bytes = matches!(key, DataType::Binary | DataType::LargeBinary);
        (key.is_primitive() || texts || bytes).then(Self::default)
    }

    /// Whether it is charged here, under the same name.
    pub(super) fn register(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) -> bool {
        let mut sorts = self.0.lock();
        if let Some(partition) = consumer.name().strip_prefix(ROWS) {
            sorts.push(Sort::new(partition.to_owned(), Asked::by(consumer, pool)));
            return true;
        }
        let Some(partition) = consumer.name().strip_prefix(MERGE) else { return false };
        let sort = sorts.iter_mut().rfind(|sort| sort.partition == partition && sort.merge.is_none());
        sort.map(|sort| sort.merge = Some(Asked::by(consumer, pool))).is_some()
    }

    /// Charges nothing more once its sort has ended; `None` where it was not charged here.
    pub(super) fn unregister(&self, consumer: &MemoryConsumer) -> Option<Charge> {
        let mut sorts = self.0.lock();
        let at = sorts.iter().position(|sort| sort.is_of(consumer))?;
        sorts[at].asked(consumer)?.ended = true;
        let before = sorts[at].charged();
        if !sorts[at].ended() {
            return Some(Charge { before, now: before });
        }
        let ended = sorts.swap_remove(at);
        drop(sorts);
        drop(ended);
        Some(Charge { before, now: 0 })
    }

    /// Charges what `additional` bytes make more; `None` where it is not charged here.
    pub(super) fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Option<Result<Charge>> {
        self.with(reservation.consumer(), |sort| sort.try_grow(reservation, additional))
    }

    /// The same beyond the limit, if need be.
    pub(super) fn grow(&self, consumer: &MemoryConsumer, additional: usize) -> Option<Charge> {
        self.with(consumer, |sort| sort.grow(consumer, additional))
    }

    /// Charges what is left without `bytes`; `None` where it was not charged here.
    pub(super) fn shrink(&self, consumer: &MemoryConsumer, bytes: usize) -> Option<Charge> {
        self.with(consumer, |sort| sort.shrink(consumer, bytes))
    }

    fn with<T>(&self, consumer: &MemoryConsumer, act: impl FnOnce(&mut Sort) -> T) -> Option<T> {
        self.0.lock().iter_mut().find(|sort| sort.is_of(consumer)).map(act)
    }
}

/// Bytes that a sort was charged before, and is charged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) before: usize,
    pub(super) now: usize,
}

/// What one consumer of a sort asks for, and what it is charged.
#[derive(Debug)]
struct Asked {
    consumer: usize,
    bytes: usize,
    charged: MemoryReservation,
    ended: bool,
}

impl Asked {
    fn by(consumer: &MemoryConsumer, pool: &Arc<dyn MemoryPool>) -> Self {
        let charged = consumer.clone_with_new_id().register(pool);
        Self { consumer: consumer.id(), bytes: 0, charged, ended: false }
    }
}

/// One sort.
#[derive(Debug)]
struct Sort {
    partition: String,
    rows: Asked,
    merge: Option<Asked>,
    phase: Phase,
    /// The most that it has asked for rows since it began to read, and the most at once.
    most: usize,
    largest: usize,
    /// Whether it was refused memory, and so has files.
    refused: bool,
    /// What it sets aside for merges while it reads, and what of that is charged: all, once there is a file.
    set_aside: usize,
    reserve: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reads,
    /// It sorts what it has read. All is there until rows leave it, wherever they are counted meanwhile.
    Sorts {
        /// Bytes that it has asked for rows that are sorted, and not yet given back.
        gathered: usize,
        /// Whether it has asked for such: then it writes, and has written all when it asks for nothing.
        writes: bool,
    },
    /// It hands out what it has sorted.
    HandsOut,
}

impl Sort {
    fn new(partition: String, rows: Asked) -> Self {
        let (merge, phase, refused) = (None, Phase::Reads, false);
        Self { partition, rows, merge, phase, most: 0, largest: 0, refused, set_aside: 0, reserve: 0 }
    }

    fn asked(&mut self, consumer: &MemoryConsumer) -> Option<&mut Asked> {
        [Some(&mut self.rows), self.merge.as_mut()]
            .into_iter()
            .flatten()
            .find(|asked| asked.consumer == consumer.id())
    }

    fn is_rows(&self, consumer: &MemoryConsumer) -> bool {
        self.rows.consumer == consumer.id()
    }

    fn is_of(&self, consumer: &MemoryConsumer) -> bool {
        self.is_rows(consumer) || self.merge.as_ref().is_some_and(|merge| merge.consumer == consumer.id())
    }

    fn ended(&self) -> bool {
        self.rows.ended && self.merge.as_ref().is_none_or(|merge| merge.ended)
    }

    fn for_merge(&self) -> usize {
        self.merge.as_ref().map_or(0, |merge| merge.bytes)
    }

    fn charged(&self) -> usize {
        self.rows.charged.size() + self.merge.as_ref().map_or(0, |merge| merge.charged.size())
    }

    /// What it holds of rows for which it has asked so much.
    fn held(&self, asked: usize) -> usize {
        asked.min(asked.div_ceil(2) + self.largest)
    }

    /// What is to be charged for rows, and for merges.
    fn due(&self) -> (usize, usize) {
        let (merge, held) = (self.for_merge(), self.held(self.most));
        let all = self.rows.bytes + merge;
        let held = match self.phase {
            Phase::Reads if self.reserve > 0 => return (self.held(self.rows.bytes), merge.max(self.reserve)),
            Phase::Reads => return (self.held(self.rows.bytes), 0),
            Phase::Sorts { .. } => held,
            Phase::HandsOut => held.min(all),
        };
        // To the pool, a merge is one of rows in memory while its sort has some.
        let merged = merge.min(held.saturating_sub(1));
        (held - merged, (merged + all.saturating_sub(held.max(self.most))).max(self.reserve))
    }

    fn try_grow(&mut self, reservation: &MemoryReservation, additional: usize) -> Result<Charge> {
        let (before, consumer) = (self.charged(), reservation.consumer());
        let rows = self.is_rows(consumer);
        if let Phase::Sorts { gathered, writes } = &mut self.phase
            && rows
            && self.refused
            && *gathered == reservation.size()
        {
            *writes = true;
            if *gathered + additional > self.most / GATHERED {
                // It writes what it has gathered, and asks again with the next batch.
                return resources_err!("{} has enough sorted rows for its file", consumer.name());
            }
        }
        let (phase, most, largest) = (self.phase, self.most, self.largest);
        self.add(consumer, additional);
        let (for_rows, for_merge) = self.due();
        let more = (for_rows + for_merge).saturating_sub(before);
        let charged = self.asked(consumer).filter(|_| more > 0).map(|asked| asked.charged.try_grow(more));
        if let Some(Err(refused)) = charged {
            if let Some(asked) = self.asked(consumer) {
                asked.bytes -= additional;
            }
            (self.phase, self.most, self.largest) = (phase, most, largest);
            self.refused |= rows;
            return Err(refused);
        }
        Ok(self.settle(before))
    }

    fn grow(&mut self, consumer: &MemoryConsumer, additional: usize) -> Charge {
        let before = self.charged();
        self.add(consumer, additional);
        self.settle(before)
    }

    /// Adds to what it asks for.
    fn add(&mut self, consumer: &MemoryConsumer, additional: usize) {
        if let Some(asked) = self.asked(consumer) {
            asked.bytes += additional;
        }
        match &mut self.phase {
            Phase::Reads if self.rows.consumer == consumer.id() => {
                self.largest = self.largest.max(additional);
                self.most = self.most.max(self.rows.bytes);
            }
            Phase::Sorts { gathered, .. } if self.rows.consumer == consumer.id() => *gathered += additional,
            _ => {}
        }
    }

    fn shrink(&mut self, consumer: &MemoryConsumer, bytes: usize) -> Charge {
        let before = self.charged();
        // While it reads it gives nothing back: what it gives first is the reserve, or a batch that is sorted.
        if self.phase == Phase::Reads && self.rows.bytes > 0 {
            self.set_aside = self.set_aside.max(self.for_merge());
            self.phase = Phase::Sorts { gathered: 0, writes: false };
        } else if self.phase != Phase::Reads && !self.refused && !self.is_rows(consumer) {
            self.phase = Phase::HandsOut;
        }
        let merges = self.merge.as_ref().is_some_and(|merge| !merge.ended);
        if self.phase != Phase::Reads && !self.refused && !merges {
            // It has sorted one batch, and there is nothing to merge.
            self.phase = Phase::HandsOut;
        }
        let rows = self.is_rows(consumer);
        if let Some(asked) = self.asked(consumer) {
            asked.bytes = asked.bytes.saturating_sub(bytes);
        }
        let nothing = self.rows.bytes + self.for_merge() == 0;
        match &mut self.phase {
            Phase::Sorts { writes: true, .. } if nothing => {
                // What it gives back is kept for the merge of what it has written, before others take it.
                self.reserve = self.set_aside;
                (self.phase, self.most, self.largest) = (Phase::Reads, 0, 0);
            }
            Phase::Sorts { gathered, .. } if rows && *gathered == bytes => *gathered = 0,
            _ => {}
        }
        self.settle(before)
    }

    /// Charges what is due, which the pool has granted.
    fn settle(&self, before: usize) -> Charge {
        let (for_rows, for_merge) = self.due();
        let merge = self.merge.as_ref().map(|merge| &merge.charged);
        // What one gives back is what the other takes.
        if for_rows < self.rows.charged.size() {
            self.rows.charged.resize(for_rows);
        }
        if let Some(merge) = merge {
            merge.resize(for_merge);
        }
        self.rows.charged.resize(for_rows);
        Charge { before, now: self.charged() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::accounted::pool::counting;
    use crate::operator::accounted::usage::Usage;
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::physical_plan::metrics::MetricsSet;

    /// A pool of 1,000 bytes, and the reservations of a sort for its rows and its merges.
    fn sort() -> (Arc<dyn MemoryPool>, MemoryReservation, MemoryReservation) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let usage = Arc::new(Usage::default());
        let view = counting(&pool, &usage, (Arc::clone(&disk), disk), Some(OneColumnSorts::default()));
        let rows = MemoryConsumer::new("ExternalSorter[3]").with_can_spill(true).register(&view);
        let merge = MemoryConsumer::new("ExternalSorterMerge[3]").register(&view);
        merge.try_grow(100).unwrap();
        assert_eq!(pool.reserved(), 0, "there is nothing to merge yet");
        (pool, rows, merge)
    }

    #[test]
    fn what_is_held_is_charged_until_less_is_asked_for() {
        let (pool, rows, merge) = sort();
        for _ in 0..5 {
            rows.try_grow(200).unwrap();
        }
        assert_eq!(pool.reserved(), 500 + 200);
        merge.free();
        let runs: Vec<_> = (0..5).map(|_| rows.split(200)).collect();
        let cursors = merge.new_empty();
        for run in &runs {
            run.try_resize(100).unwrap();
        }
        assert_eq!(pool.reserved(), 700, "each run is sorted, and is there once");
        for run in &runs {
            run.free();
            cursors.try_grow(150).unwrap();
        }
        assert_eq!(pool.reserved(), 700, "keys are compared in the batches, though the merge counts them");
        drop((rows, runs));
        assert_eq!(pool.reserved(), 700, "nothing has left");
        cursors.shrink(600);
        assert_eq!(pool.reserved(), 150);
        drop((merge, cursors));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_sort_that_is_refused_writes_and_keeps_what_its_merge_needs() {
        let (pool, mut rows, merge) = sort();
        let mut read = || {
            let error = loop {
                if let Err(error) = rows.try_grow(200) {
                    break error.to_string();
                }
            };
            assert!(error.contains("ExternalSorter[3]"), "{error}");
            merge.free();
            let runs = rows.take();
            runs.try_resize(runs.size() / 2).unwrap();
            let cursors = merge.new_empty();
            cursors.try_grow(runs.free()).unwrap();
            let sorted = rows.new_empty();
            let gathered = std::iter::from_fn(|| sorted.try_grow(20).ok()).count();
            assert!(
                (2..=5).contains(&gathered),
                "{gathered} batches of sorted rows beside all that were read"
            );
            sorted.free();
            cursors.free();
            assert_eq!(pool.reserved(), 100, "kept for the merge, before others take it");
            merge.try_grow(100).unwrap();
            assert_eq!(pool.reserved(), 100);
        };
        read();
        read();
        merge.try_grow(300).unwrap();
        assert_eq!(pool.reserved(), 400, "files are read in memory that is asked for");
        assert!(merge.try_grow(700).is_err());
        drop(merge);
        drop(rows);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_sort_without_a_reserve_reads_on_when_it_has_written() {
        let (pool, rows, merge) = sort();
        merge.free();
        for _ in 0..3 {
            while rows.try_grow(100).is_ok() {}
            assert!(rows.size() >= 1700, "{} are read", rows.size());
            let run = rows.split(rows.size());
            let cursors = merge.new_empty();
            run.try_resize(800).unwrap();
            cursors.try_grow(run.free()).unwrap();
            let sorted = rows.new_empty();
            assert!(sorted.try_grow(1000).is_err(), "a batch that is too large to be gathered is written");
            drop(cursors);
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn a_sort_that_has_ended_counts_no_more() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let usage = Arc::new(Usage::default());
        let view = counting(&pool, &usage, (Arc::clone(&disk), disk), Some(OneColumnSorts::default()));
        for _ in 0..3 {
            let rows = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&view);
            let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&view);
            rows.try_grow(100).unwrap();
            rows.try_grow(100).unwrap();
            drop(merge);
            rows.shrink(150);
            assert_eq!(pool.reserved(), 50, "one batch, without a merge, leaves step by step");
        }
        let all = usage.added_to(&MetricsSet::new());
        assert_eq!(all.sum_by_name("peak_mem_used").map(|peak| peak.as_usize()), Some(200));
    }

    #[test]
    fn others_are_charged_what_they_ask_for() {
        let (pool, rows, merge) = sort();
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let sorts = Some(OneColumnSorts::default());
        let view = counting(&pool, &Arc::default(), (Arc::clone(&disk), disk), sorts);
        let other = MemoryConsumer::new("ExternalSorterMerge[4]").register(&view);
        other.try_grow(300).unwrap();
        other.shrink(100);
        assert_eq!(pool.reserved(), 200);
        rows.grow(2000);
        assert_eq!(pool.reserved(), 200 + 2000, "a batch alone is sorted into a copy");
        drop((rows, merge, other));
        assert_eq!(pool.reserved(), 0);
    }
}
