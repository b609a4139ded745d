//! How many rows a plan gives, and what its columns look like, as far as statistics tell.
//!
//! DataFusion's own estimate of a plan knows rows, minima and maxima, and takes a fifth for most filters. The layer
//! adds what file statistics imply about the number of distinct values, and selectivities that follow from it:
//! System R's rules (Selinger et al., SIGMOD 1979) with Yao's formula (CACM 1977) for what a filter leaves of a
//! column's distinct values.
//!
//! Where a table was analyzed its distinct values, histograms and most common values are known, and are used instead; where
//! an equal subtree was executed before, its rows are.
//!
//! An estimate orders alternatives. Nothing that decides about correctness may read it.

mod column;
mod key;
mod known;
mod node;
mod selectivity;

pub(crate) use column::ColumnEstimate;
pub(crate) use key::KeyValues;
pub(crate) use known::Known;
pub(crate) use node::{estimate, estimate_leaf, source_columns};
pub(crate) use selectivity::selectivity;

/// What is expected of a plan's result.
#[derive(Debug, Clone)]
pub(crate) struct Estimate {
    /// Rows.
    pub(crate) rows: f64,
    /// One for each column of the schema.
    pub(crate) columns: Vec<ColumnEstimate>,
}

impl Estimate {
    /// What remains where `share` of the rows is kept by a filter that looks at none of these columns.
    pub(crate) fn filtered(mut self, share: f64) -> Self {
        let rows = (self.rows * share.clamp(0.0, 1.0)).max(MIN_ROWS).min(self.rows.max(MIN_ROWS));
        for column in &mut self.columns {
            column.distinct = remaining_distinct(column.distinct, self.rows, rows);
        }
        self.rows = rows;
        self
    }

    /// The same columns of `rows` rows, which were counted.
    pub(crate) fn observed(mut self, rows: f64) -> Self {
        if rows < self.rows {
            let share = rows / self.rows;
            return self.filtered(share);
        }
        self.rows = rows;
        self
    }

    /// At most `rows` rows.
    pub(crate) fn limited(self, rows: f64) -> Self {
        let share = if self.rows > 0.0 { rows / self.rows } else { 1.0 };
        if share < 1.0 { self.filtered(share) } else { self }
    }
}

/// An estimate of no rows makes all plans above it look free, and is never certain.
const MIN_ROWS: f64 = 1.0;

/// How many of `distinct` values, spread evenly over `before` rows, are expected among `after` of them (Yao).
fn remaining_distinct(distinct: f64, before: f64, after: f64) -> f64 {
    if after >= before || distinct <= 1.0 {
        return distinct.min(after.max(1.0));
    }
    let rows_of_each = (before / distinct).max(1.0);
    let missing = (1.0 - after / before).powf(rows_of_each);
    (distinct * (1.0 - missing)).clamp(1.0, after.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_repeated_values_longer_than_unique_ones() {
        assert_eq!(remaining_distinct(1000.0, 1000.0, 10.0).round(), 10.0);
        assert_eq!(remaining_distinct(10.0, 1000.0, 500.0).round(), 10.0);
        assert_eq!(remaining_distinct(7.0, 100.0, 100.0), 7.0);
        let between = remaining_distinct(500.0, 1000.0, 100.0);
        assert!((90.0..100.0).contains(&between), "{between}");
    }
}
