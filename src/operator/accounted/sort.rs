//! The memory of sorts by one column, as what they hold: half of what they ask for.
//!
//! DataFusion's sort reserves each batch twice: once for the batch, and once for what the merge of its sorted runs compares.
//! Keys of several columns are copied into rows for that. A key of one column is compared where it is, in the batch.
//!
//! | a sort | asks for | is charged |
//! |---|---|---|
//! | that reads | twice its batches, and a reserve for merges | half, and what may be there twice while it is sorted; the reserve, if that is more |
//! | that sorts what it has read | the same, and step by step less | as much, until it asks for less |
//! | that writes it to a file | the same, and twice what it gathers of sorted rows | as much, and half of that |
//! | that reads on, or merges files | the reserve, and what it reads | the reserve beside the rows |

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::config::ExecutionOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use parking_lot::Mutex;

use super::usage::Usage;

/// The consumer of what a sort has read, followed by its partition.
const ROWS: &str = "ExternalSorter[";

/// That of its merges.
const MERGE: &str = "ExternalSorterMerge[";

/// The sorts of one node, one for each partition. What is charged is counted while they are locked: it is one sum for all
/// that a sort has asked for, from whichever thread.
#[derive(Debug)]
pub(super) struct OneColumnSorts {
    sorts: Mutex<Vec<Sort>>,
    /// A sort that has asked for less puts its rows together and sorts them in place: they are there twice meanwhile.
    in_place: usize,
}

impl OneColumnSorts {
    /// `None` where `node` is no sort that compares its key in place. A `TopK` counts for itself.
    pub(super) fn of(node: &dyn ExecutionPlan, options: &ExecutionOptions) -> Option<Self> {
        let sort = node.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none())?;
        // A key that is computed is another array, beside the batch.
        let [key] = sort.expr().as_ref() else { return None };
        key.expr.downcast_ref::<Column>()?;
        let key = key.expr.data_type(&sort.input().schema()).ok()?;
        let texts = matches!(key, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let bytes = matches!(key, DataType::Binary | DataType::LargeBinary);
        let in_place = options.sort_in_place_threshold_bytes;
        (key.is_primitive() || texts || bytes).then(|| Self { sorts: Mutex::default(), in_place })
    }

    /// Whether it is charged here, under the same name.
    pub(super) fn register(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) -> bool {
        let mut sorts = self.sorts.lock();
        if let Some(partition) = consumer.name().strip_prefix(ROWS) {
            sorts.push(Sort::new(partition.to_owned(), Asked::by(consumer, pool), self.in_place));
            return true;
        }
        let Some(partition) = consumer.name().strip_prefix(MERGE) else { return false };
        let sort = sorts.iter_mut().rfind(|sort| sort.partition == partition && sort.merge.is_none());
        sort.map(|sort| sort.merge = Some(Asked::by(consumer, pool))).is_some()
    }

    /// Charges nothing more once its sort has ended; `None` where it was not charged here.
    pub(super) fn unregister(&self, consumer: &MemoryConsumer, usage: &Usage) -> Option<()> {
        let mut sorts = self.sorts.lock();
        let at = sorts.iter().position(|sort| sort.is_of(consumer))?;
        sorts[at].asked(consumer)?.ended = true;
        if sorts[at].ended() {
            let ended = sorts.swap_remove(at);
            usage.shrunk(ended.charged());
        }
        Some(())
    }

    /// Charges what `additional` bytes make more; `None` where it is not charged here.
    pub(super) fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
        usage: &Usage,
    ) -> Option<Result<()>> {
        self.with(reservation, |sort| sort.try_grow(reservation, additional, usage))
    }

    /// The same beyond the limit, if need be.
    pub(super) fn grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
        usage: &Usage,
    ) -> Option<()> {
        self.with(reservation, |sort| sort.grow(reservation, additional, usage))
    }

    /// Charges what is left without `bytes`; `None` where it was not charged here.
    pub(super) fn shrink(&self, reservation: &MemoryReservation, bytes: usize, usage: &Usage) -> Option<()> {
        self.with(reservation, |sort| sort.shrink(reservation, bytes, usage))
    }

    fn with<T>(&self, reservation: &MemoryReservation, act: impl FnOnce(&mut Sort) -> T) -> Option<T> {
        let mut sorts = self.sorts.lock();
        sorts.iter_mut().find(|sort| sort.is_of(reservation.consumer())).map(act)
    }
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
    in_place: usize,
    /// The address of the reservation that it reads into, and gathers sorted rows into. It lives as long as the sort reads
    /// and writes, so no other of its reservations has this address meanwhile.
    reader: Option<usize>,
    state: State,
    /// Whether it was refused memory, and so writes what it has read; and whether it has.
    refused: bool,
    written: bool,
    /// What it sets aside for merges while it reads. Until it has written, rows take its place.
    set_aside: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    phase: Phase,
    /// The most that it has asked for rows since it began to read, and the most at once.
    most: usize,
    largest: usize,
    /// Whether sorted rows have come out, which go to a file.
    writes: bool,
    /// What it asks for those that wait to be written.
    gathered: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Reads,
    /// It sorts what it has read. All is there until rows leave it, wherever they are counted meanwhile.
    Sorts,
    /// It hands out what it has sorted.
    HandsOut,
}

impl Sort {
    fn new(partition: String, rows: Asked, in_place: usize) -> Self {
        let (merge, reader, state) = (None, None, State::default());
        Self { partition, rows, merge, in_place, reader, state, refused: false, written: false, set_aside: 0 }
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

    fn is_reader(&self, reservation: &MemoryReservation) -> bool {
        self.reader == Some(address(reservation))
    }

    fn ended(&self) -> bool {
        self.rows.ended && self.merge.as_ref().is_none_or(|merge| merge.ended)
    }

    fn for_merge(&self) -> usize {
        self.merge.as_ref().map_or(0, |merge| merge.bytes)
    }

    fn asks_nothing(&self) -> bool {
        self.rows.bytes == 0 && self.for_merge() == 0
    }

    fn charged(&self) -> usize {
        self.rows.charged.size() + self.merge.as_ref().map_or(0, |merge| merge.charged.size())
    }

    /// Of what it has asked for, what is there twice: all that is sorted in place, or else the batch that is sorted.
    fn twice(&self, asked: usize) -> usize {
        self.state.largest.max(self.in_place.min(asked).saturating_sub(asked.div_ceil(2)))
    }

    /// What it holds of rows for which it has asked so much.
    fn held(&self, asked: usize) -> usize {
        asked.min(asked.div_ceil(2) + self.twice(asked))
    }

    /// What is to be charged for rows, and for merges.
    fn due(&self) -> (usize, usize) {
        let State { phase, most, gathered, .. } = self.state;
        let (merge, held) = (self.for_merge(), self.held(most));
        // Before there is a file to merge, what is held is charged in the place of the reserve.
        let instead = |held: usize, asked| held.saturating_sub(self.twice(asked));
        let all = (self.rows.bytes + merge).saturating_sub(gathered);
        let (held, reserve) = match phase {
            Phase::Reads => {
                let held = self.held(self.rows.bytes);
                let beside = if self.rows.ended {
                    // Files are merged in what the merge asks for: a pass that has ended holds nothing.
                    merge
                } else if self.written {
                    merge.max(self.set_aside)
                } else {
                    merge.saturating_sub(instead(held, self.rows.bytes))
                };
                return (held, beside);
            }
            Phase::Sorts if self.written => (held, self.set_aside),
            Phase::Sorts if self.refused => (held, self.set_aside.saturating_sub(instead(held, most))),
            Phase::Sorts => (held, 0),
            Phase::HandsOut => (held.min(all), 0),
        };
        // To the pool, a merge is one of rows in memory while its sort has some.
        let merged = merge.min(held.saturating_sub(1));
        // It was granted the reserve as well, which it has given back.
        let beyond = all.saturating_sub(held.max(most) + self.set_aside);
        (held - merged + gathered.div_ceil(2), merged + beyond.max(reserve))
    }

    fn try_grow(&mut self, reservation: &MemoryReservation, additional: usize, usage: &Usage) -> Result<()> {
        let (before, consumer) = (self.charged(), reservation.consumer());
        // The first rows that it gathers; what grows otherwise are rows that it has put together.
        let gathers = self.is_reader(reservation) && (self.state.writes || reservation.size() == 0);
        self.state.writes |= self.state.phase == Phase::Sorts && self.refused && gathers;
        let state = self.state;
        self.add(reservation, additional);
        let (for_rows, for_merge) = self.due();
        let more = (for_rows + for_merge).saturating_sub(before);
        let granted = match self.asked(consumer).filter(|_| more > 0) {
            Some(asked) => asked.charged.try_grow(more).inspect_err(|_| asked.bytes -= additional),
            None => Ok(()),
        };
        if granted.is_err() {
            self.state = state;
            self.refused |= self.is_rows(consumer);
            self.end_if_written();
        }
        self.settle(before, usage);
        granted
    }

    fn grow(&mut self, reservation: &MemoryReservation, additional: usize, usage: &Usage) {
        let before = self.charged();
        self.add(reservation, additional);
        self.settle(before, usage);
    }

    /// Adds to what it asks for.
    fn add(&mut self, reservation: &MemoryReservation, additional: usize) {
        let consumer = reservation.consumer();
        if let Some(asked) = self.asked(consumer) {
            asked.bytes += additional;
        }
        match self.state.phase {
            Phase::Reads if self.is_rows(consumer) => {
                self.reader.get_or_insert_with(|| address(reservation));
                self.state.largest = self.state.largest.max(additional);
                self.state.most = self.state.most.max(self.rows.bytes);
            }
            Phase::Sorts if self.state.writes && self.is_reader(reservation) => {
                self.state.gathered += additional
            }
            _ => {}
        }
    }

    fn shrink(&mut self, reservation: &MemoryReservation, bytes: usize, usage: &Usage) {
        let (before, consumer) = (self.charged(), reservation.consumer());
        let rows = self.is_rows(consumer);
        // While it reads it gives nothing back: what it gives first is the reserve, or some of a batch that is sorted or put
        // together.
        if self.state.phase == Phase::Reads && self.rows.bytes > 0 {
            self.set_aside = self.set_aside.max(self.for_merge());
            self.state.phase = Phase::Sorts;
        } else if self.state.phase == Phase::Sorts && !self.refused && !rows {
            self.state.phase = Phase::HandsOut;
        }
        let merges = self.merge.as_ref().is_some_and(|merge| !merge.ended);
        if self.state.phase == Phase::Sorts && !self.refused && !merges {
            // It has sorted one batch, and there is nothing to merge.
            self.state.phase = Phase::HandsOut;
        }
        if let Some(asked) = self.asked(consumer) {
            asked.bytes = asked.bytes.saturating_sub(bytes);
        }
        if self.is_reader(reservation) {
            self.state.gathered = self.state.gathered.saturating_sub(bytes);
        }
        // The last rows that leave a run are still to be gathered.
        if !rows || self.is_reader(reservation) {
            self.end_if_written();
        }
        self.settle(before, usage);
    }

    /// A sort that has written, and asks for nothing any more, reads again or merges files, and keeps the reserve for that. Before its first rows come out it may ask for nothing, too: then they are on their way
    /// from its runs to their merge. A last batch that is refused is written, and no call tells of its end.
    fn end_if_written(&mut self) {
        if self.state.writes && self.asks_nothing() {
            (self.state, self.written) = (State::default(), true);
        }
    }

    /// Charges what is due. What that is more than `before`, the pool has granted, or was asked to bear.
    ///
    /// An operator's peak is never above its query's: less is counted before the pool has it back, and more after.
    fn settle(&self, before: usize, usage: &Usage) {
        let (for_rows, for_merge) = self.due();
        let now = for_rows + for_merge;
        usage.shrunk(before.saturating_sub(now));
        let merge = self.merge.as_ref().map(|merge| &merge.charged);
        // What one gives back is what the other takes.
        if for_rows < self.rows.charged.size() {
            self.rows.charged.resize(for_rows);
        }
        if let Some(merge) = merge {
            merge.resize(for_merge);
        }
        self.rows.charged.resize(for_rows);
        usage.grown(now.saturating_sub(before));
    }
}

fn address(reservation: &MemoryReservation) -> usize {
    std::ptr::from_ref(reservation).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::accounted::pool::counting;
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::physical_plan::metrics::MetricsSet;

    fn sorts() -> OneColumnSorts {
        OneColumnSorts { sorts: Mutex::default(), in_place: 0 }
    }

    #[test]
    fn what_may_be_sorted_in_place_is_charged_whole() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let sorts = OneColumnSorts { in_place: 500, ..sorts() };
        let view = counting(&pool, &Arc::default(), (Arc::clone(&disk), disk), Some(sorts));
        let rows = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&view);
        let charged = [100; 12].map(|batch| {
            rows.try_grow(batch).unwrap();
            pool.reserved()
        });
        assert_eq!(charged, [100, 200, 300, 400, 500, 500, 500, 500, 550, 600, 650, 700]);
    }

    /// A pool of 1,000 bytes, and the reservations of a sort for its rows and its merges.
    fn sort() -> (Arc<dyn MemoryPool>, MemoryReservation, MemoryReservation) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let usage = Arc::new(Usage::default());
        let view = counting(&pool, &usage, (Arc::clone(&disk), disk), Some(sorts()));
        let rows = MemoryConsumer::new("ExternalSorter[3]").with_can_spill(true).register(&view);
        let merge = MemoryConsumer::new("ExternalSorterMerge[3]").register(&view);
        merge.try_grow(100).unwrap();
        assert_eq!(pool.reserved(), 100);
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

    /// Reads batches of 200 bytes until it is refused, merges two runs of them, and writes what it can gather of sorted
    /// rows, 20 bytes at a time. Returns how much it has read.
    fn read_and_write(rows: &mut MemoryReservation, merge: &MemoryReservation) -> usize {
        let error = loop {
            if let Err(error) = rows.try_grow(200) {
                break error.to_string();
            }
        };
        assert!(error.contains("ExternalSorter[3]"), "{error}");
        let read = rows.size();
        merge.free();
        let runs = rows.take();
        runs.try_resize(read / 2).unwrap();
        let cursors = merge.new_empty();
        // The runs have given their rows to the merge, which has not yet asked for them.
        let sorted = runs.free();
        cursors.try_grow(sorted).unwrap();
        for _ in 0..sorted / 20 {
            if rows.try_grow(20).is_err() {
                rows.free();
            }
            cursors.shrink(20);
        }
        rows.free();
        read
    }

    #[test]
    fn a_sort_that_is_refused_writes_and_keeps_what_its_merge_needs() {
        let (pool, mut rows, merge) = sort();
        let first = read_and_write(&mut rows, &merge);
        assert_eq!((first, pool.reserved()), (1600, 100), "the reserve is kept, before others take it");
        merge.try_grow(100).unwrap();
        assert_eq!(pool.reserved(), 100);
        let second = read_and_write(&mut rows, &merge);
        assert_eq!((second, pool.reserved()), (1400, 100));
        merge.try_grow(300).unwrap();
        assert_eq!(pool.reserved(), 300, "files are read in memory that is asked for");
        assert!(merge.try_grow(900).is_err());
        drop(rows);
        merge.free();
        assert_eq!(pool.reserved(), 0, "between two passes over the files nothing is kept");
        drop(merge);
    }

    #[test]
    fn sorted_rows_that_wait_to_be_written_are_charged_on_top() {
        let (pool, mut rows, merge) = sort();
        let others = MemoryConsumer::new("other").register(&pool);
        others.grow(500);
        while rows.try_grow(100).is_ok() {}
        assert_eq!((rows.size(), pool.reserved()), (800, 1000));
        merge.free();
        let runs = rows.take();
        assert!(rows.try_grow(50).is_err(), "all that was read is still there");
        others.free();
        rows.try_grow(50).unwrap();
        assert_eq!(pool.reserved(), 525);
        rows.free();
        assert_eq!(pool.reserved(), 500);
        let cursors = merge.new_empty();
        cursors.grow(400);
        drop(runs);
        assert_eq!(pool.reserved(), 500);
        drop(cursors);
        assert_eq!(pool.reserved(), 100);
    }

    #[test]
    fn rows_that_are_put_together_are_not_gathered() {
        let (pool, mut rows, merge) = sort();
        while rows.try_grow(200).is_ok() {}
        assert_eq!((rows.size(), pool.reserved()), (1600, 1000));
        merge.free();
        rows.try_grow(50).unwrap();
        assert_eq!(pool.reserved(), 1000, "it has given back as much of the reserve");
        let batch = rows.take();
        batch.free();
        assert_eq!(pool.reserved(), 1000, "the sorted batch is still to be gathered");
        assert!(rows.try_grow(1000).is_err());
        assert_eq!(pool.reserved(), 100);
    }

    #[test]
    fn a_batch_is_written_in_two_parts() {
        let (pool, mut rows, merge) = sort();
        for _ in 0..3 {
            rows.try_grow(800).unwrap();
            let _refused = rows.try_grow(1000).unwrap_err();
            merge.free();
            let batch = rows.take();
            batch.shrink(400);
            let _not_gathered = rows.try_grow(400).unwrap_err();
            batch.free();
            assert_eq!(pool.reserved(), 900, "the second part is still to be gathered");
            rows.try_grow(100).unwrap();
            assert_eq!(pool.reserved(), 950);
            rows.free();
            assert_eq!(pool.reserved(), 100);
            merge.try_grow(100).unwrap();
        }
    }

    #[test]
    fn a_single_batch_is_written_without_a_call_that_says_so() {
        for set_aside in [100, 0] {
            let (pool, mut rows, merge) = sort();
            merge.free();
            merge.try_grow(set_aside).unwrap();
            for _ in 0..3 {
                rows.try_grow(800).unwrap();
                let _refused = rows.try_grow(1000).unwrap_err();
                merge.free();
                let batch = rows.take();
                let others = MemoryConsumer::new("other").register(&pool);
                batch.free();
                others.grow(1000 - pool.reserved());
                let _not_gathered = rows.try_grow(900).unwrap_err();
                drop(others);
                merge.try_grow(set_aside).unwrap();
                assert_eq!(pool.reserved(), set_aside, "what is written is charged no more");
            }
        }
    }

    #[test]
    fn a_sort_that_has_ended_counts_no_more() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let disk = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let usage = Arc::new(Usage::default());
        let view = counting(&pool, &usage, (Arc::clone(&disk), disk), Some(sorts()));
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
        let sorts = Some(sorts());
        let view = counting(&pool, &Arc::default(), (Arc::clone(&disk), disk), sorts);
        let other = MemoryConsumer::new("ExternalSorterMerge[4]").register(&view);
        other.try_grow(300).unwrap();
        other.shrink(100);
        assert_eq!(pool.reserved(), 200 + 100);
        rows.grow(2000);
        assert_eq!(
            pool.reserved(),
            200 + 2000 + 100,
            "a batch alone is sorted into a copy, beside the reserve"
        );
        drop((rows, merge, other));
        assert_eq!(pool.reserved(), 0);
    }
}
