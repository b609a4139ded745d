//! What a window by pieces holds of its input: whole groups, and the beginning of one.

use datafusion::arrow::array::RecordBatch;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;

/// Batches in the order in which they came; up to `whole_rows` they are groups that came to an end.
#[derive(Debug, Default)]
pub(super) struct Held {
    batches: Vec<RecordBatch>,
    rows: usize,
    whole_rows: usize,
    groups_begun: usize,
    /// Slices of one batch keep one batch.
    counter: RecordBatchMemoryCounter,
}

impl Held {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn has_whole_groups(&self) -> bool {
        self.whole_rows > 0
    }

    /// Memory of the batches, each buffer once.
    pub(super) fn batch_bytes(&self) -> usize {
        self.counter.memory_usage()
    }

    /// All that is held while its window is evaluated: the batches, their concatenation, and the new columns, which
    /// are concatenated too where there is more than one group.
    pub(super) fn evaluated_bytes(&self, new_bytes_per_row: usize) -> usize {
        let copies = if self.groups_begun > 0 { 2 } else { 1 };
        2 * self.batch_bytes() + copies * self.rows * new_bytes_per_row
    }

    /// Adds a batch in which groups begin at the rows `begins`.
    pub(super) fn push(&mut self, batch: RecordBatch, begins: &[usize]) {
        if let Some(begin) = begins.last() {
            self.whole_rows = self.rows + begin;
        }
        self.groups_begun += begins.len();
        self.rows += batch.num_rows();
        self.counter.count_batch(&batch);
        self.batches.push(batch);
    }

    /// Says that the group which is not whole has come to its end.
    pub(super) fn end(&mut self) {
        self.whole_rows = self.rows;
    }

    /// Takes the whole groups out, and keeps the beginning of the next.
    pub(super) fn take_whole(&mut self) -> Vec<RecordBatch> {
        let mut whole = Vec::new();
        let mut rest = Self::default();
        let mut left = self.whole_rows;
        for batch in std::mem::take(self).batches {
            let rows = batch.num_rows();
            let taken = left.min(rows);
            left -= taken;
            if taken == rows {
                whole.push(batch);
            } else {
                if taken > 0 {
                    whole.push(batch.slice(0, taken));
                }
                rest.push(batch.slice(taken, rows - taken), &[]);
            }
        }
        *self = rest;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;
    use std::sync::Arc;

    fn batch(values: Vec<i64>) -> RecordBatch {
        let values: ArrayRef = Arc::new(Int64Array::from(values));
        RecordBatch::try_from_iter([("v", values)]).unwrap()
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        batches.iter().flat_map(column).collect()
    }

    #[test]
    fn whole_groups_are_taken_and_the_beginning_of_the_next_stays() {
        let mut held = Held::default();
        held.push(batch(vec![1, 2]), &[]);
        assert!(!held.has_whole_groups(), "the group may go on");
        held.push(batch(vec![3, 4, 5]), &[1, 2]);
        assert_eq!(values(&held.take_whole()), [1, 2, 3, 4]);
        assert_eq!((held.rows(), held.has_whole_groups()), (1, false));
        held.push(batch(vec![6]), &[0]);
        assert_eq!(values(&held.take_whole()), [5]);
        held.end();
        assert_eq!(values(&held.take_whole()), [6]);
        assert_eq!((held.rows(), held.batch_bytes()), (0, 0));
    }

    #[test]
    fn slices_of_one_batch_are_counted_once() {
        let all = batch((0..1000).collect());
        let mut held = Held::default();
        for begin in (0..1000).step_by(10) {
            held.push(all.slice(begin, 10), &[]);
        }
        assert!((8000..8200).contains(&held.batch_bytes()), "{}", held.batch_bytes());
    }
}
