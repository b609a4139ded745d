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
        let [key] = sort.expr().as_ref() else { return None };
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

    /// Whether it was charged here.
    pub(super) fn unregister(&self, consumer: &MemoryConsumer) -> bool {
        let mut sorts = self.0.lock();
        let Some(at) = sorts.iter().position(|sort| sort.is_of(consumer)) else { return false };
        if let Some(asked) = sorts[at].asked(consumer) {
            asked.ended = true;
        }
        let ended = sorts[at].ended().then(|| sorts.swap_remove(at));
        drop(sorts);
        drop(ended);
        true
    }

    /// Charges what `additional` bytes make more; `None` where it is not charged here.
    pub(super) fn try_grow(&self, consumer: &MemoryConsumer, additional: usize) -> Option<Result<Charge>> {
        self.with(consumer, |sort| sort.try_grow(consumer, additional))
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
        /// Bytes that it has asked for rows that are sorted.
        gathered: usize,
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

    fn try_grow(&mut self, consumer: &MemoryConsumer, additional: usize) -> Result<Charge> {
        let before = self.charged();
        let rows = self.is_rows(consumer);
        if let Phase::Sorts { gathered } = &mut self.phase
            && rows
            && self.refused
            && *gathered + additional > self.most / GATHERED
        {
            // It writes what it has gathered, and asks again with the next batch.
            *gathered = 0;
            return resources_err!("{} has enough sorted rows for its file", consumer.name());
        }
        let (phase, most, largest, reserve) = (self.phase, self.most, self.largest, self.reserve);
        self.add(consumer, additional);
        if let Err(refused) = self.try_settle() {
            if let Some(asked) = self.asked(consumer) {
                asked.bytes -= additional;
            }
            (self.phase, self.most, self.largest, self.reserve) = (phase, most, largest, reserve);
            self.refused |= rows;
            self.settle();
            return Err(refused);
        }
        Ok(Charge { before, now: self.charged() })
    }

    fn grow(&mut self, consumer: &MemoryConsumer, additional: usize) -> Charge {
        let before = self.charged();
        self.add(consumer, additional);
        self.settle();
        Charge { before, now: self.charged() }
    }

    /// Adds to what it asks for.
    fn add(&mut self, consumer: &MemoryConsumer, additional: usize) {
        if self.phase != Phase::Reads && self.refused && self.has_written(consumer, additional) {
            self.read_on();
        }
        if let Some(asked) = self.asked(consumer) {
            asked.bytes += additional;
        }
        match &mut self.phase {
            Phase::Reads if self.rows.consumer == consumer.id() => {
                self.largest = self.largest.max(additional);
                self.most = self.most.max(self.rows.bytes);
            }
            Phase::Sorts { gathered } if self.rows.consumer == consumer.id() => *gathered += additional,
            _ => {}
        }
    }

    /// Whether what it asks for is what it sets aside before it reads on.
    fn has_written(&self, consumer: &MemoryConsumer, additional: usize) -> bool {
        let reads_on =
            if self.is_rows(consumer) { self.set_aside == 0 } else { additional == self.set_aside };
        self.rows.bytes + self.for_merge() == 0 && reads_on
    }

    fn read_on(&mut self) {
        (self.phase, self.most, self.largest) = (Phase::Reads, 0, 0);
        self.reserve = self.set_aside;
    }

    fn shrink(&mut self, consumer: &MemoryConsumer, bytes: usize) -> Charge {
        let before = self.charged();
        match self.phase {
            // While it reads it gives nothing back: what it gives first is the reserve, or a batch that is sorted.
            Phase::Reads if self.rows.bytes > 0 => {
                self.set_aside = self.set_aside.max(self.for_merge());
                let alone = self.largest == self.most && !self.refused;
                self.phase = if alone { Phase::HandsOut } else { Phase::Sorts { gathered: 0 } };
            }
            Phase::Sorts { .. } if !self.refused && !self.is_rows(consumer) => self.phase = Phase::HandsOut,
            _ => {}
        }
        if let Some(asked) = self.asked(consumer) {
            asked.bytes = asked.bytes.saturating_sub(bytes);
        }
        self.settle();
        Charge { before, now: self.charged() }
    }

    /// Charges what is due.
    ///
    /// # Errors
    /// The pool does not grant it; then some of it may be charged.
    fn try_settle(&self) -> Result<()> {
        let (for_rows, for_merge) = self.due();
        // What is given back by one may be what the other takes.
        if for_rows < self.rows.charged.size() {
            self.rows.charged.try_resize(for_rows)?;
        }
        if let Some(merge) = &self.merge {
            merge.charged.try_resize(for_merge)?;
        }
        self.rows.charged.try_resize(for_rows)
    }

    /// Charges what is due, whatever the pool says.
    fn settle(&self) {
        if self.try_settle().is_err() {
            let (for_rows, for_merge) = self.due();
            self.rows.charged.resize(for_rows);
            if let Some(merge) = &self.merge {
                merge.charged.resize(for_merge);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::accounted::pool::counting;
    use crate::operator::accounted::usage::Usage;
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

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
            merge.try_grow(100).unwrap();
            assert_eq!(pool.reserved(), 100, "there is a file to merge");
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
