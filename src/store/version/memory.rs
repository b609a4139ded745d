//! The version of a table in memory: the very arrays that it holds.

use std::sync::{Arc, Weak};

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::catalog::MemTable;

/// Every array of every batch, by address. Arrays do not change, so the same arrays are the same data, whoever wrote them and
/// by whatever road: INSERT, an owner who pushes batches, another session.
///
/// Weak references keep the addresses from being used again, without keeping the data.
#[derive(Debug, Clone)]
pub(crate) struct MemoryVersion {
    partitions: Box<[Box<[BatchVersion]>]>,
}

#[derive(Debug, Clone)]
struct BatchVersion {
    rows: usize,
    columns: Box<[Weak<dyn Array>]>,
}

impl PartialEq for MemoryVersion {
    fn eq(&self, other: &Self) -> bool {
        let same = |one: &BatchVersion, other: &BatchVersion| {
            one.rows == other.rows
                && one.columns.len() == other.columns.len()
                && one.columns.iter().zip(&other.columns).all(|(one, other)| Weak::ptr_eq(one, other))
        };
        self.partitions.len() == other.partitions.len()
            && self.partitions.iter().zip(&other.partitions).all(|(one, other)| {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
            })
    }
}

impl BatchVersion {
    fn of(batch: &RecordBatch) -> Self {
        Self { rows: batch.num_rows(), columns: batch.columns().iter().map(Arc::downgrade).collect() }
    }

    fn is_of(&self, batch: &RecordBatch) -> bool {
        self.rows == batch.num_rows()
            && self.columns.len() == batch.num_columns()
            && self
                .columns
                .iter()
                .zip(batch.columns())
                .all(|(known, column)| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(column)))
    }
}

impl MemoryVersion {
    /// What `table` holds now, partition by partition, as a scan reads it.
    pub(super) async fn of(table: &MemTable) -> Self {
        let mut partitions = Vec::with_capacity(table.batches.len());
        for partition in &table.batches {
            partitions.push(partition.read().await.iter().map(BatchVersion::of).collect());
        }
        Self { partitions: partitions.into() }
    }

    /// Whether `table` holds that now.
    pub(super) async fn is_of(&self, table: &MemTable) -> bool {
        if self.partitions.len() != table.batches.len() {
            return false;
        }
        for (known, partition) in self.partitions.iter().zip(&table.batches) {
            let batches = partition.read().await;
            let same = known.len() == batches.len()
                && known.iter().zip(batches.iter()).all(|(known, batch)| known.is_of(batch));
            if !same {
                return false;
            }
        }
        true
    }
}
