//! What is saved by reading wide columns of the first rows only.

use std::collections::BTreeSet;

use crate::physical::estimate::ColumnEstimate;
use crate::physical::scan_filter::decoding;

/// Nanoseconds a row to number it and to name its file.
const LOCATE: f64 = 8.0;
/// Nanoseconds to step over a value in a page that has a wanted one; the page is decompressed as well.
const STEP: f64 = 2.0;
/// Nanoseconds to open a file once more: its footer, its column chunks, and the question whether it has changed.
const OPEN: f64 = 1e6;
/// Rows of a page, as writers make them by default. Each wanted row may be on one of its own.
const PAGE_ROWS: f64 = 20_000.0;

/// A sort of some rows of a table by some of its columns.
#[derive(Debug)]
pub(super) struct TopRows<'a> {
    /// Rows of the table.
    pub(super) rows: f64,
    /// Rows that are wanted.
    pub(super) wanted: f64,
    /// Files they may be in.
    pub(super) files: f64,
    /// The columns of the table.
    pub(super) columns: &'a [ColumnEstimate],
    /// Places of the columns that are read.
    pub(super) all: &'a BTreeSet<usize>,
    /// Those of them that the sort and the filters need.
    pub(super) early: &'a BTreeSet<usize>,
}

impl TopRows<'_> {
    /// The share of the scan's cost that is left.
    ///
    /// Without it all columns of all rows are decoded. With it the early ones are, and of each other column the pages
    /// with wanted rows, every row on a page of its own: an order by time over a table in the order of time does better.
    pub(super) fn remaining(&self) -> f64 {
        let decode = |index: &usize| self.columns.get(*index).map_or(0.0, decoding);
        let step =
            |index: &usize| self.columns.get(*index).map_or(0.0, |column| STEP + decoding(column) / 2.0);
        let before = self.rows * self.all.iter().map(decode).sum::<f64>();
        let early = self.rows * (self.early.iter().map(decode).sum::<f64>() + LOCATE);
        let stepped_over = self.rows.min(self.wanted * PAGE_ROWS);
        let late = stepped_over * self.all.difference(self.early).map(step).sum::<f64>();
        (early + late + self.files.min(self.wanted) * OPEN) / before.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::DataType;

    fn remaining(rows: f64, wanted: f64, bytes: f64) -> f64 {
        let key = ColumnEstimate::unknown(&DataType::Int64, 1e6);
        let columns = [key.clone(), ColumnEstimate { bytes, ..key }];
        let (all, early) = (BTreeSet::from([0, 1]), BTreeSet::from([0]));
        TopRows { rows, wanted, files: 1.0, columns: &columns, all: &all, early: &early }.remaining()
    }

    #[test]
    fn few_rows_of_a_wide_table_gain() {
        assert!(remaining(1e7, 20.0, 200.0) < 0.3);
        assert!(remaining(1e7, 20.0, 8.0) > 0.8, "two narrow columns");
        assert!(remaining(1e5, 20.0, 200.0) > 0.6, "a page for each row is the whole table");
        assert!(remaining(1e4, 20.0, 200.0) > 1.0, "a small file is not worth opening twice");
        assert!(remaining(1e6, 1000.0, 200.0) > remaining(1e6, 10.0, 200.0));
    }
}
