//! What ANALYZE found out about a table.

use std::sync::Arc;
use std::time::SystemTime;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{ResolvedTableReference, ScalarValue};

use super::distribution::Distribution;
use super::identity::Identity;

/// One version of a table: its rows, and those of its columns that were analyzed.
///
/// A profile never changes: a table that is analyzed again has another, and plans go on with the one that they found.
#[derive(Debug, Clone)]
pub(crate) struct TableProfile {
    /// The name under which it was analyzed, in full.
    pub(crate) table: ResolvedTableReference,
    /// The data that was read.
    pub(crate) identity: Identity,
    /// Rows, counted.
    pub(crate) rows: u64,
    /// In the order of the table's columns.
    pub(crate) columns: Vec<Arc<ColumnProfile>>,
    /// When the last column was analyzed.
    pub(crate) analyzed: SystemTime,
}

impl TableProfile {
    /// The profile of the column at `index` of the table's schema.
    pub(crate) fn column(&self, index: usize) -> Option<&Arc<ColumnProfile>> {
        let place = self.columns.binary_search_by_key(&index, |column| column.index).ok()?;
        self.columns.get(place)
    }

    /// Takes over the columns of an `older` profile of the same data that were not analyzed again.
    pub(super) fn adopt(&mut self, older: &Self) {
        let missing = older.columns.iter().filter(|column| self.column(column.index).is_none());
        let missing: Vec<_> = missing.cloned().collect();
        self.columns.extend(missing);
        self.columns.sort_by_key(|column| column.index);
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        // The identity is held twice, as key and in here, but its text and pins are shared.
        let columns: usize = self.columns.iter().map(|column| column.bytes()).sum();
        size_of::<Self>() + self.table.to_string().len() + self.identity.bytes() + columns
    }
}

/// What is known of one column.
#[derive(Debug, Clone)]
pub(crate) struct ColumnProfile {
    /// Its place in the table's schema.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) name: String,
    /// Its type.
    pub(crate) data_type: DataType,
    /// Distinct values, NULL not counted: a HyperLogLog estimate, or exact where the sample holds all rows.
    pub(crate) distinct: u64,
    /// NULLs, counted.
    pub(crate) nulls: u64,
    /// Smallest and largest value, where the type has an order.
    pub(crate) min: Option<ScalarValue>,
    /// See `min`.
    pub(crate) max: Option<ScalarValue>,
    /// Average and largest width of text and binary, in bytes.
    pub(crate) widths: Option<(f64, u64)>,
    /// Rows of the sample that the distribution was made from.
    pub(crate) sampled: u64,
    /// How the values are spread, where the type has a scale.
    pub(crate) distribution: Option<Arc<Distribution>>,
}

impl ColumnProfile {
    fn bytes(&self) -> usize {
        let ends = self.min.iter().chain(&self.max).map(ScalarValue::size).sum::<usize>();
        let spread = self.distribution.as_ref().map_or(0, |spread| spread.bytes());
        size_of::<Self>() + self.name.len() + ends + spread
    }
}
