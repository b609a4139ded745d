//! Dividing rows by the hash of their keys, and gathering those of one part.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{Result, internal_err};

use super::spec::Keys;
use crate::operator::compact::compacted_whole;

/// Parts that rows can be divided into; a part's number fits in a byte, with room for what is not a part.
pub(super) const MAX_PARTS: usize = 128;

/// The number of a row that is in no part: it is not kept.
pub(super) const NO_PART: u8 = u8::MAX;

/// How often a part is divided again before it is joined block by block.
pub(super) const MAX_LEVEL: usize = 4;

/// One for each level; none is the seed of `RepartitionExec` or `HashJoinExec`. Rows that came together by one of those
/// hashes, or by that of the level above, are divided by the next.
const SEEDS: [u64; MAX_LEVEL + 1] = [
    0x51f1_57ea_4d0b_2c35,
    0x9c6e_12d7_83af_604b,
    0x2b7d_e8a1_50c9_f63e,
    0xe30f_4b96_d1a8_7c52,
    0x7a85_c3f0_1e6d_b94d,
];

/// Says for each row which part it is in.
pub(super) struct Divider {
    /// Evaluated on each batch.
    keys: Keys,
    parts: usize,
    /// Seeded by the level.
    random: RandomState,
    /// Kept from batch to batch, for its allocation.
    hashes: Vec<u64>,
    /// Rows with a NULL key are in a part of their own, the last.
    nulls_apart: bool,
}

impl Divider {
    /// Divides by `keys` into `parts`, a power of two, at the level `level`.
    pub(super) fn new(keys: Keys, parts: usize, level: usize, nulls_apart: bool) -> Self {
        debug_assert!(parts.is_power_of_two() && parts <= MAX_PARTS, "{parts}");
        let random = RandomState::with_seed(SEEDS[level.min(MAX_LEVEL)]);
        Self { keys, parts, random, hashes: Vec::new(), nulls_apart }
    }

    /// How many parts there are, that of the NULL keys included.
    pub(super) fn parts(&self) -> usize {
        self.parts + usize::from(self.nulls_apart)
    }

    /// The part of each row, and how many keys are NULL.
    pub(super) fn divide(&mut self, batch: &RecordBatch) -> Result<(Vec<u8>, usize)> {
        let rows = batch.num_rows();
        let keys =
            self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows)).collect::<Result<Vec<_>>>()?;
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(&keys, &self.random, &mut self.hashes)?;
        let bits = self.parts.trailing_zeros();
        let mut parts: Vec<u8> = self.hashes.iter().map(|hash| part(*hash, bits)).collect();
        let mut nulls = 0;
        if self.nulls_apart {
            let last = u8::try_from(self.parts).unwrap_or(NO_PART);
            for key in keys.iter().filter_map(|key| key.logical_nulls()) {
                for (part, _) in parts.iter_mut().zip(key.iter()).filter(|(_, valid)| !valid) {
                    *part = last;
                    nulls += 1;
                }
            }
        }
        Ok((parts, nulls))
    }
}

/// The upper bits of the hash, multiplied by a large odd number: the lower ones choose buckets elsewhere, and short keys
/// leave some bits of a fast hash alike.
fn part(hash: u64, bits: u32) -> u8 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // At most seven bits remain.
    u8::try_from((mixed >> 32 >> (32 - bits)) & 0xff).unwrap_or(NO_PART)
}

/// Rows that wait to be gathered by their parts: batches as they came, and the part of each row.
pub(super) struct Waiting {
    /// Of the side, which all batches are brought to.
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    parts: Vec<Vec<u8>>,
    memory: RecordBatchMemoryCounter,
    rows: usize,
}

impl Waiting {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            batches: Vec::new(),
            parts: Vec::new(),
            memory: RecordBatchMemoryCounter::new(),
            rows: 0,
        }
    }

    /// Takes in a batch and the part of each of its rows.
    pub(super) fn push(&mut self, batch: &RecordBatch, parts: Vec<u8>) -> Result<()> {
        // Inputs of a union may know more of their columns than the whole does, such as that there are no NULLs.
        let batch = RecordBatch::try_new(std::sync::Arc::clone(&self.schema), batch.columns().to_vec())?;
        self.memory.count_batch(&batch);
        self.rows += batch.num_rows();
        self.batches.push(batch);
        self.parts.push(parts);
        Ok(())
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the waiting rows take.
    pub(super) fn bytes(&self) -> usize {
        self.memory.memory_usage()
    }

    /// Bytes that it takes to note the part of each row, and to put them in order.
    pub(super) fn notes_bytes(&self) -> usize {
        self.rows.saturating_mul(size_of::<u8>() + size_of::<Row>())
    }

    /// All rows by their parts, in batches of at most `batch_size` rows; nothing waits afterwards.
    pub(super) fn gather(&mut self, parts: usize, batch_size: usize) -> Result<Vec<(usize, RecordBatch)>> {
        let (order, ends) = self.by_parts(parts)?;
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut gathered = Vec::new();
        let mut begin = 0;
        for (part, end) in ends.into_iter().enumerate() {
            for rows in order[begin..end].chunks(batch_size.max(1)) {
                let rows: Vec<(usize, usize)> = rows.iter().map(|row| row.place()).collect();
                // Views would keep the buffers of all batches alive, and write them into each file.
                let batch = compacted_whole(&interleave_record_batch(&batches, &rows)?)?;
                gathered.push((part, batch));
            }
            begin = end;
        }
        *self = Self::new(std::sync::Arc::clone(&self.schema));
        Ok(gathered)
    }
}

impl Waiting {
    /// The rows of each part, one part behind the other, and where each part ends.
    ///
    /// Counted first, so that the list is as long as it need be: for narrow rows it is as large as they are.
    fn by_parts(&self, parts: usize) -> Result<(Vec<Row>, Vec<usize>)> {
        let mut ends = vec![0_usize; parts];
        for part in self.parts.iter().flatten() {
            if let Some(rows) = ends.get_mut(usize::from(*part)) {
                *rows += 1;
            }
        }
        let mut all = 0;
        for end in &mut ends {
            all += std::mem::replace(end, all);
        }
        let mut order = vec![Row::default(); all];
        for (batch, of_batch) in self.parts.iter().enumerate() {
            for (row, part) in of_batch.iter().enumerate() {
                if let Some(next) = ends.get_mut(usize::from(*part)) {
                    order[*next] = Row::at(batch, row)?;
                    *next += 1;
                }
            }
        }
        Ok((order, ends))
    }
}

/// Where a waiting row is.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    batch: u32,
    row: u32,
}

impl Row {
    fn at(batch: usize, row: usize) -> Result<Self> {
        match (u32::try_from(batch), u32::try_from(row)) {
            (Ok(batch), Ok(row)) => Ok(Self { batch, row }),
            _ => internal_err!("row {row} of batch {batch} waits in a join"),
        }
    }

    /// As the kernels count.
    fn place(self) -> (usize, usize) {
        (self.batch as usize, self.row as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use datafusion::arrow::array::{Array, ArrayRef, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::Column;

    fn batch(values: impl Iterator<Item = Option<i64>>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter(values));
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
    }

    fn key() -> Keys {
        vec![Arc::new(Column::new("k", 0))]
    }

    #[test]
    fn each_level_divides_what_the_level_above_put_together() {
        let all = batch((0..40_000).map(Some));
        let (parts, _) = Divider::new(key(), 16, 0, false).divide(&all).unwrap();
        let first = batch((0..40_000).filter(|row| parts[usize::try_from(*row).unwrap()] == 0).map(Some));
        for level in 1..=MAX_LEVEL {
            let (parts, _) = Divider::new(key(), 16, level, false).divide(&first).unwrap();
            for part in 0..16 {
                let rows = parts.iter().filter(|other| **other == part).count();
                let fair = first.num_rows() / 16;
                assert!(
                    rows > fair / 2 && rows < fair * 2,
                    "level {level}: part {part} has {rows} of {fair}"
                );
            }
        }
    }

    #[test]
    fn null_keys_can_have_a_part_of_their_own() {
        let rows = batch([Some(1), None, Some(2), None].into_iter());
        let mut divider = Divider::new(key(), 4, 0, true);
        let (parts, nulls) = divider.divide(&rows).unwrap();
        assert_eq!((divider.parts(), nulls), (5, 2));
        assert_eq!((parts[1], parts[3]), (4, 4));
        assert!(parts[0] < 4 && parts[2] < 4);
    }

    #[test]
    fn rows_are_gathered_by_part_and_rows_of_no_part_are_left_out() {
        let rows = batch((0..6).map(Some));
        let mut waiting = Waiting::new(rows.schema());
        waiting.push(&rows, vec![1, 0, 1, NO_PART, 1, 0]).unwrap();
        assert!(waiting.bytes() > 0);
        let gathered = waiting.gather(2, 2).unwrap();
        let values: Vec<(usize, Vec<i64>)> = gathered
            .iter()
            .map(|(part, batch)| {
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                (*part, column.values().to_vec())
            })
            .collect();
        assert_eq!(values, [(0, vec![1, 5]), (1, vec![0, 2]), (1, vec![4])]);
        assert_eq!((waiting.rows(), waiting.bytes()), (0, 0));
    }
}
