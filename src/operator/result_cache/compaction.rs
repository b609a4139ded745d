//! Batches as they are kept: no more memory than their rows need, and counted to the buffer.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::common::Result;

use crate::operator::batch_size::used_bytes;
use crate::operator::compact::{compacted_whole, has_views};

/// What an array takes beside its buffers, about.
const ARRAY: usize = 128;

/// Less than this is not worth a copy.
const SLACK: usize = 1024;

/// The batches of an answer, while it comes in.
#[derive(Debug, Default)]
pub(in crate::operator) struct Kept {
    /// In order.
    pub(in crate::operator) batches: Vec<RecordBatch>,
    /// What they hold.
    pub(in crate::operator) bytes: usize,
    /// Rows in all.
    pub(in crate::operator) rows: usize,
    /// Addresses of the buffers that were counted. The batches keep them.
    counted: HashSet<usize>,
}

impl Kept {
    /// Keeps `batch`; columns that hold more than a quarter more than their rows need are copied.
    ///
    /// # Errors
    /// Where arrow refuses to copy, which would be a defect.
    pub(in crate::operator) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = compacted(batch)?;
        for column in batch.columns() {
            self.bytes += ARRAY + self.count(&column.to_data());
        }
        self.bytes += size_of::<RecordBatch>();
        self.rows += batch.num_rows();
        self.batches.push(batch);
        Ok(())
    }

    /// Bytes of the buffers that were not counted yet.
    fn count(&mut self, data: &ArrayData) -> usize {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let mut bytes = 0;
        for buffer in data.buffers().iter().chain(nulls) {
            if self.counted.insert(buffer.data_ptr().as_ptr() as usize) {
                bytes += buffer.capacity();
            }
        }
        bytes + data.child_data().iter().map(|child| ARRAY + self.count(child)).sum::<usize>()
    }
}

/// `batch` with the loose of its columns in buffers of their own.
fn compacted(batch: &RecordBatch) -> Result<RecordBatch> {
    let is_loose = |column: &ArrayRef| {
        let used = used_bytes(std::slice::from_ref(column));
        column.get_buffer_memory_size() > used + used / 4 + SLACK
    };
    let loose: Vec<bool> = batch.columns().iter().map(is_loose).collect();
    if !loose.contains(&true) {
        return Ok(batch.clone());
    }
    let all = UInt32Array::from_iter_values(0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (column, loose) in batch.columns().iter().zip(loose) {
        columns.push(if loose { take(column, &all, None)? } else { Arc::clone(column) });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let copied = RecordBatch::try_new_with_options(batch.schema(), columns, &options)?;
    // Views keep the buffers that they point into when they are taken.
    match copied.columns().iter().any(|column| has_views(column.data_type())) {
        true => compacted_whole(&copied),
        false => Ok(copied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use datafusion::arrow::datatypes::Int32Type;

    fn kept(column: ArrayRef, from: usize, rows: usize) -> (usize, RecordBatch) {
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap().slice(from, rows);
        let mut kept = Kept::default();
        kept.add(&batch).unwrap();
        assert_eq!(kept.batches, [batch]);
        (kept.bytes, kept.batches.remove(0))
    }

    #[test]
    fn a_slice_lets_go_of_what_it_was_cut_from() {
        let text = "a text that is longer than a view".repeat(4);
        let texts = || std::iter::repeat_n(text.as_str(), 100_000);
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from_iter_values(0..100_000)),
            Arc::new(StringArray::from_iter_values(texts())),
            Arc::new(StringViewArray::from_iter_values(texts())),
        ];
        for column in columns {
            let kind = column.data_type().clone();
            let (bytes, batch) = kept(column, 50_000, 10);
            assert!(bytes < 8192, "{kind}: {bytes}");
            assert!(batch.get_array_memory_size() < 8192, "{kind}: {}", batch.get_array_memory_size());
        }
    }

    #[test]
    fn a_buffer_that_columns_and_batches_share_counts_once() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let batch = RecordBatch::try_from_iter([("a", Arc::clone(&numbers)), ("b", numbers)]).unwrap();
        let mut kept = Kept::default();
        kept.add(&batch).unwrap();
        let once = kept.bytes;
        assert!((80_000..82_000).contains(&once), "{once}");
        kept.add(&batch).unwrap();
        assert!(kept.bytes < once + 1024, "{}", kept.bytes);
    }

    #[test]
    fn a_dictionary_is_kept_once() {
        let values = StringArray::from_iter_values((0..1000).map(|i| format!("a value of some length {i}")));
        let keys = datafusion::arrow::array::PrimitiveArray::<Int32Type>::from_iter_values(
            (0..5000).map(|i| i % 1000),
        );
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut kept = Kept::default();
        for place in 0..10 {
            kept.add(&batch.slice(place * 500, 500)).unwrap();
        }
        assert!(kept.bytes < 80_000, "{}", kept.bytes);
        assert_eq!(kept.rows, 5000);
    }
}
