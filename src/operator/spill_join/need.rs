//! How much memory a hash join needs for a build side.

use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::utils::memory::estimate_memory_size;
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
    /// Slots of the array for each row and at least, where the key may get one.
    array: Option<(usize, usize)>,
}

impl Need {
    /// The estimates for a build side of `schema` with the keys `on`.
    pub(super) fn new(
        on: &[Arc<dyn PhysicalExpr>],
        schema: &SchemaRef,
        config: &ConfigOptions,
    ) -> Result<Self> {
        let integer = match on {
            [key] => key.data_type(schema)?.is_integer(),
            _ => false,
        };
        let execution = &config.execution;
        let slots_per_row = slots_per_row(execution.perfect_hash_join_min_key_density);
        let array = integer.then_some((slots_per_row, execution.perfect_hash_join_small_build_threshold));
        Ok(Self { array })
    }

    /// Bytes for a build side of `rows` rows that take `bytes`.
    pub(super) fn of(&self, bytes: usize, rows: usize) -> usize {
        bytes.saturating_mul(2).saturating_add(self.table(rows))
    }

    /// Bytes of the table, and of the bitmap of rows that found a match.
    fn table(&self, rows: usize) -> usize {
        let (hash, chain) = if u32::try_from(rows).is_ok() {
            (estimate_memory_size::<(u32, u64)>(rows, size_of::<JoinHashMapU32>()), size_of::<u32>())
        } else {
            (estimate_memory_size::<(u64, u64)>(rows, size_of::<JoinHashMapU64>()), size_of::<u64>())
        };
        // An estimate that overflows is of more rows than any memory holds.
        let hash = hash.unwrap_or(usize::MAX).saturating_add(rows.saturating_mul(chain));
        let array = self.array.map_or(0, |(slots_per_row, at_least)| {
            let slots = rows.saturating_mul(slots_per_row).max(at_least).saturating_add(1);
            slots.saturating_add(rows).saturating_mul(size_of::<u32>())
        });
        // Keys that lie densely get the array instead of the table; which it will be is not known beforehand.
        hash.max(array).saturating_add(rows / 8 + 1)
    }
}

/// Slots of the array for each row where the keys lie just densely enough for one.
#[expect(clippy::cast_possible_truncation, reason = "bounded from above")]
fn slots_per_row(min_key_density: f64) -> usize {
    (1.0 / min_key_density.max(1e-6)).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_twice_and_the_table_once() {
        let hashed = Need { array: None };
        assert!(hashed.of(1000, 10) > 2000);
        assert_eq!(hashed.of(2000, 10) - hashed.of(1000, 10), 2000);
        let dense = Need { array: Some((100, 1024)) };
        assert!(dense.of(0, 1000) > 400_000, "the array of the keys may be larger than a hash table");
    }
}
