//! How much memory a hash join needs for a build side.

use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, downcast_integer_array};
use datafusion::arrow::compute::{max, min};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::estimate_memory_size;
use datafusion::common::{NullEquality, Result};
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::joins::join_hash_map::{JoinHashMapU32, JoinHashMapU64};

/// Estimates for the build sides of one join.
///
/// `HashJoinExec` collects the batches, builds a table of their keys, and copies all rows into one batch while it still
/// holds them: what it needs is twice the rows and the table, though it reserves them once. A single integer key may get an
/// array instead of a hash table ("perfect hash join"), whose size depends on how densely the keys lie.
#[derive(Debug, Clone)]
pub(super) struct Need {
    /// Where the key may get an array.
    array: Option<ArrayRule>,
}

/// When `HashJoinExec` takes an array: by its settings, and by how many keys there are in how wide a span.
#[derive(Debug, Clone)]
struct ArrayRule {
    /// The integer key.
    key: Arc<dyn PhysicalExpr>,
    /// Keys for each slot, at least.
    min_density: f64,
    /// A span that is always narrow enough.
    small_span: usize,
    /// A NULL key that is to match other NULL keys has no slot.
    nulls_match: bool,
}

/// The keys of rows that were collected, as far as the choice between table and array, and their sizes, depend on them.
#[derive(Debug, Default)]
pub(super) struct KeySpan {
    /// The least and the greatest, of integers of all widths.
    ends: Option<(i128, i128)>,
    has_nulls: bool,
    /// Some key is not greater than the one before: there may be equal ones. Rows in the order of a primary key, of which
    /// each is there once, are the common case of those that get an array.
    unordered: bool,
}

impl Need {
    /// The estimates for a build side of `schema` with the keys `on`.
    pub(super) fn new(
        on: &[Arc<dyn PhysicalExpr>],
        schema: &SchemaRef,
        null_equality: NullEquality,
        config: &ConfigOptions,
    ) -> Result<Self> {
        let [key] = on else { return Ok(Self { array: None }) };
        let execution = &config.execution;
        let rule = || ArrayRule {
            key: Arc::clone(key),
            min_density: execution.perfect_hash_join_min_key_density,
            small_span: execution.perfect_hash_join_small_build_threshold,
            nulls_match: null_equality == NullEquality::NullEqualsNull,
        };
        Ok(Self { array: key.data_type(schema)?.is_integer().then(rule) })
    }

    /// Takes the keys of `batch` into `span`, where they matter.
    pub(super) fn see(&self, batch: &RecordBatch, span: &mut KeySpan) -> Result<()> {
        let Some(rule) = &self.array else { return Ok(()) };
        let keys = rule.key.evaluate(batch)?.into_array(batch.num_rows())?;
        span.has_nulls |= keys.null_count() > 0;
        let seen = ends(&keys);
        if !span.unordered {
            let behind = span.ends.zip(seen).is_none_or(|((_, high), (least, _))| high < least);
            span.unordered = !behind || !ascending(&keys);
        }
        span.ends = match (span.ends, seen) {
            (Some((low, high)), Some((least, greatest))) => Some((low.min(least), high.max(greatest))),
            (known, seen) => known.or(seen),
        };
        Ok(())
    }

    /// Bytes for a build side of these `rows` rows, which take `bytes` and whose keys are all in `span`.
    pub(super) fn of_all(&self, bytes: usize, rows: usize, span: &KeySpan) -> usize {
        let array = self.array.as_ref().and_then(|rule| rule.slots(rows, span));
        let chained = if span.unordered { rows } else { 0 };
        let table = array.map_or_else(|| hash_table(rows), |slots| array_table(slots, chained));
        whole(bytes, table, rows)
    }

    /// Bytes for a build side of any `rows` rows that take `bytes`, whatever their keys are.
    pub(super) fn of(&self, bytes: usize, rows: usize) -> usize {
        let array = self.array.as_ref().map_or(0, |rule| array_table(rule.most_slots(rows), rows));
        // Keys that lie densely get the array instead of the table; which it will be is not known beforehand.
        whole(bytes, hash_table(rows).max(array), rows)
    }
}

impl ArrayRule {
    /// Slots of the array for `rows` rows with keys in `span`, where they get one.
    #[expect(clippy::cast_precision_loss, reason = "as the join itself compares them")]
    fn slots(&self, rows: usize, span: &KeySpan) -> Option<usize> {
        let (low, high) = span.ends?;
        // Row numbers in an array have four bytes.
        if (self.nulls_match && span.has_nulls) || u32::try_from(rows).is_err() {
            return None;
        }
        let span = usize::try_from(high - low).ok()?;
        let slots = span.checked_add(1)?;
        let dense = rows as f64 / slots as f64 > self.min_density;
        (span < self.small_span || dense).then_some(slots)
    }

    /// Slots of the array for `rows` rows whose keys lie just densely enough for one.
    #[expect(clippy::cast_possible_truncation, reason = "bounded from above")]
    fn most_slots(&self, rows: usize) -> usize {
        let slots_per_row = (1.0 / self.min_density.max(1e-6)).ceil() as usize;
        rows.saturating_mul(slots_per_row).max(self.small_span).saturating_add(1)
    }
}

/// The rows twice, their table, and the bitmap of rows that found a match.
fn whole(bytes: usize, table: usize, rows: usize) -> usize {
    bytes.saturating_mul(2).saturating_add(table).saturating_add(rows / 8 + 1)
}

/// Bytes of a hash table, and of the chains of its rows.
fn hash_table(rows: usize) -> usize {
    let (hash, chain) = if u32::try_from(rows).is_ok() {
        (estimate_memory_size::<(u32, u64)>(rows, size_of::<JoinHashMapU32>()), size_of::<u32>())
    } else {
        (estimate_memory_size::<(u64, u64)>(rows, size_of::<JoinHashMapU64>()), size_of::<u64>())
    };
    // An estimate that overflows is of more rows than any memory holds.
    hash.unwrap_or(usize::MAX).saturating_add(rows.saturating_mul(chain))
}

/// Bytes of an array, and of the chains of `chained` rows, which it has where some of them have the same key.
fn array_table(slots: usize, chained: usize) -> usize {
    slots.saturating_add(chained).saturating_mul(size_of::<u32>())
}

/// Whether each integer key is greater than the one before, and none is NULL.
fn ascending(keys: &ArrayRef) -> bool {
    keys.null_count() == 0
        && downcast_integer_array!(
            keys => keys.values().windows(2).all(|pair| pair[0] < pair[1]),
            _ => false
        )
}

/// The least and the greatest of integer keys that are not NULL.
fn ends(keys: &ArrayRef) -> Option<(i128, i128)> {
    downcast_integer_array!(
        keys => min(keys).zip(max(keys)).map(|(low, high)| (i128::from(low), i128::from(high))),
        _ => None
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, UInt64Array};
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::Column;

    fn need(keys: &ArrayRef, null_equality: NullEquality) -> (Need, KeySpan) {
        let schema = Arc::new(Schema::new(vec![Field::new("k", keys.data_type().clone(), true)]));
        let on: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("k", 0))];
        let need = Need::new(&on, &schema, null_equality, &ConfigOptions::default()).unwrap();
        let mut span = KeySpan::default();
        for part in [keys.slice(0, keys.len() / 2), keys.slice(keys.len() / 2, keys.len().div_ceil(2))] {
            need.see(&RecordBatch::try_new(Arc::clone(&schema), vec![part]).unwrap(), &mut span).unwrap();
        }
        (need, span)
    }

    fn table(
        keys: impl IntoIterator<Item = Option<i64>>,
        null_equality: NullEquality,
    ) -> (usize, usize, usize) {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter(keys));
        let (need, span) = need(&keys, null_equality);
        let bitmap = keys.len() / 8 + 1;
        let of = need.of(0, keys.len()) - bitmap;
        (need.of_all(0, keys.len(), &span) - bitmap, of, hash_table(keys.len()))
    }

    #[test]
    fn rows_are_counted_twice_and_the_table_once() {
        let hashed = Need { array: None };
        assert!(hashed.of(1000, 10) > 2000);
        assert_eq!(hashed.of(2000, 10) - hashed.of(1000, 10), 2000);
        assert_eq!(hashed.of(2000, 10), hashed.of_all(2000, 10, &KeySpan::default()));
    }

    #[test]
    fn the_table_is_the_one_that_the_keys_get() {
        use NullEquality::{NullEqualsNothing, NullEqualsNull};
        let rows = 100_000;
        let (dense, any, hash) = table((0..rows).map(|row| Some(row - 50_000)), NullEqualsNothing);
        assert_eq!(dense, 4 * 100_000, "in order, each once: no chains");
        assert!(any > 2_800_000 && any >= hash, "the widest array: {any}");
        // 0.15 keys for a slot are the least.
        let (just, any, hash) = table((0..rows).map(|row| Some(row * 6)), NullEqualsNothing);
        assert_eq!(just, 4 * 599_995);
        assert!(any >= just && any >= hash);
        let (sparse, _, hash) = table((0..rows).map(|row| Some(row * 7)), NullEqualsNothing);
        assert_eq!(sparse, hash);
        let with_null = |equality| table((0..rows).map(|row| (row > 0).then_some(row)), equality);
        assert_eq!(with_null(NullEqualsNothing).0, 4 * 199_999, "NULLs are not looked at further");
        for swapped in [10, 50_000, 99_999] {
            let keys = (0..rows).map(|row| Some(if row == swapped { row - 1 } else { row }));
            assert_eq!(table(keys, NullEqualsNothing).0, 4 * (200_000 - usize::from(swapped == 99_999)));
        }
        assert_eq!(with_null(NullEqualsNull).0, with_null(NullEqualsNull).2);
        let (all_null, _, hash) = table((0..rows).map(|_| None), NullEqualsNothing);
        assert_eq!(all_null, hash);
        let (few, _, _) = table([Some(7), Some(900)], NullEqualsNothing);
        assert_eq!(few, 4 * 894, "a narrow span gets an array, however few the keys");
    }

    #[test]
    fn the_widest_span_is_no_array() {
        for keys in [
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])) as ArrayRef,
            Arc::new(UInt64Array::from(vec![0, u64::MAX])) as ArrayRef,
        ] {
            let (need, span) = need(&keys, NullEquality::NullEqualsNothing);
            assert_eq!(need.of_all(0, 2, &span), whole(0, hash_table(2), 2));
        }
    }
}
