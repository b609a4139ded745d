//! A sample of rows in which every row of a table is equally likely to be, in bounded memory.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use std::sync::Arc;

/// Rows of a sample: a hundred times the entries of a column's statistics and more, which keeps the share of rows in
/// each bucket within a tenth (Chaudhuri, Motwani and Narasayya, SIGMOD 1998; PostgreSQL samples as many).
const ROWS: usize = 30_000;
/// Bytes of a sample; tables of long text are sampled by fewer rows.
const BYTES: usize = 16 << 20;

/// The rows with the smallest of random numbers, one for each row of the table (bottom-k sampling).
///
/// Unlike a reservoir that replaces rows, the samples of two parts of a table make one of the whole: the smallest
/// numbers of both. It also gives the same sample for the same rows in the same order.
pub(super) struct Sample {
    schema: SchemaRef,
    /// The rows, gathered batch by batch.
    parts: Vec<RecordBatch>,
    /// The number of each row in `parts`.
    numbers: Vec<u64>,
    /// Bytes of `parts`.
    bytes: usize,
    /// Rows with a number that is not below have no place.
    below: u64,
    /// Rows that there is room for.
    rows: usize,
    /// Of the generator.
    state: u64,
}

impl Sample {
    /// A sample of no rows yet. Samples that are to be put together have different seeds.
    pub(super) fn new(schema: SchemaRef, seed: u64) -> Self {
        let (parts, numbers) = (Vec::new(), Vec::new());
        let mut sample = Self { schema, parts, numbers, bytes: 0, below: u64::MAX, rows: ROWS, state: seed };
        // Seeds that follow each other would give the same numbers one place further.
        sample.state = sample.random();
        sample
    }

    /// Gives the rows of `batch` their chance.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut places = Vec::new();
        for row in 0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX) {
            let number = self.random();
            if number < self.below {
                places.push(row);
                self.numbers.push(number);
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        self.push(compact(&take_record_batch(batch, &UInt32Array::from(places))?)?);
        if self.numbers.len() > 2 * self.rows || self.bytes > BYTES {
            self.shrink()?;
        }
        Ok(())
    }

    /// Takes over the rows of another sample.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        self.below = self.below.min(other.below);
        self.rows = self.rows.min(other.rows);
        self.numbers.extend(other.numbers);
        other.parts.into_iter().for_each(|part| self.push(part));
        self.shrink()
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.numbers.capacity() * size_of::<u64>()
    }

    /// The sampled rows.
    pub(super) fn finish(mut self) -> Result<RecordBatch> {
        self.shrink()?;
        Ok(concat_batches(&self.schema, &self.parts)?)
    }

    /// Puts rows behind the others; their numbers are there already.
    fn push(&mut self, part: RecordBatch) {
        self.bytes += get_record_batch_memory_size(&part);
        self.parts.push(part);
    }

    /// Keeps the rows with the smallest numbers, as many as there is room for.
    ///
    /// Where they take too many bytes the sample is halved for good: what was left out once could not come back, and a
    /// sample in which early rows are more likely than late ones would be none.
    fn shrink(&mut self) -> Result<()> {
        loop {
            let mut order: Vec<usize> =
                (0..self.numbers.len()).filter(|row| self.numbers[*row] < self.below).collect();
            order.sort_unstable_by_key(|row| self.numbers[*row]);
            if let Some(first) = order.get(self.rows) {
                self.below = self.numbers[*first];
                order.truncate(self.rows);
            }
            if order.len() < self.numbers.len() {
                // In the order in which they came: what is stored together stays together.
                order.sort_unstable();
                let rows = UInt64Array::from_iter_values(order.iter().map(|row| *row as u64));
                let all = concat_batches(&self.schema, &self.parts)?;
                let kept = compact(&take_record_batch(&all, &rows)?)?;
                self.numbers = order.into_iter().map(|row| self.numbers[row]).collect();
                self.parts.clear();
                self.bytes = 0;
                self.push(kept);
            }
            if self.bytes <= BYTES || self.rows <= 1 {
                return Ok(());
            }
            self.rows = self.numbers.len().min(self.rows) / 2;
        }
    }

    /// The next number of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// `batch` without what its columns of views hold on to: a few rows would keep the text of all.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let compacted = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    if batch.num_columns() == 0 {
        return Ok(batch.clone());
    }
    Ok(RecordBatch::try_new(batch.schema(), batch.columns().iter().map(compacted).collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::{Field, Int64Type, Schema};

    fn numbers(from: i64, to: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(from..to))]).unwrap()
    }

    #[test]
    fn all_rows_of_a_small_table_and_some_of_each_part_of_a_large_one() {
        let batch = numbers(0, 8192);
        let mut small = Sample::new(batch.schema(), 0);
        small.add(&batch).unwrap();
        assert_eq!(small.finish().unwrap(), batch);

        let sample = |seed, from: i64, to: i64| {
            let mut sample = Sample::new(batch.schema(), seed);
            for start in (from..to).step_by(8192) {
                sample.add(&numbers(start, start + 8192)).unwrap();
            }
            sample
        };
        // The second part has three times the rows of the first.
        let mut both = sample(1, 0, 20 * 8192);
        both.merge(sample(2, 20 * 8192, 80 * 8192)).unwrap();
        let rows = both.finish().unwrap();
        assert_eq!(rows.num_rows(), ROWS);
        let first = rows.column(0).as_primitive::<Int64Type>().values().iter().filter(|v| **v < 20 * 8192);
        let share = first.count() as f64 / ROWS as f64;
        assert!((0.235..0.265).contains(&share), "{share} instead of a quarter");
    }

    #[test]
    fn long_text_is_sampled_by_fewer_rows() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8View, false)]));
        let text = "x".repeat(20_000);
        let column = StringViewArray::from_iter_values((0..100).map(|_| &text));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        let mut sample = Sample::new(schema, 0);
        for _ in 0..50 {
            sample.add(&batch).unwrap();
            assert!(sample.bytes() < BYTES + (8 << 20), "{}", sample.bytes());
        }
        let rows = sample.finish().unwrap().num_rows();
        assert!((100..1000).contains(&rows), "{rows}");
    }
}
