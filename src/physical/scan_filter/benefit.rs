//! What filters in the reader save, and what they cost.
//!
//! ```text
//!   as it is      decode all columns ─► compare ─► rows of the written filters ─► operators above
//!   in the reader decode the first filter's columns ─► evaluate ─► select ─► decode the next one's … ─► decode the
//!                 rest ─► rows of all filters ─► operators above
//! ```
//!
//! All figures are nanoseconds a row of the table, measured on TPC-H's `lineitem` at scale factors 1 and 10.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;

use crate::physical::estimate::ColumnEstimate;

/// A join's filter that keeps more than this is not worth a look-up for each row.
const USEFUL: f64 = 0.5;

/// Nanoseconds to evaluate a comparison behind the reader, and inside it, where it runs on its own.
const COMPARE: f64 = 2.0;
const COMPARE_INSIDE: f64 = 6.0;
/// Nanoseconds to look up a key in a hash table.
const LOOK_UP: f64 = 35.0;
/// Nanoseconds to step over a value that is not decoded: its page is decompressed all the same.
const SKIP: f64 = 2.0;
/// Nanoseconds a row to keep track of the rows that are selected, where they are not few.
const SELECT: f64 = 5.0;
/// Above this share the reader decodes all values and drops some: rows are stepped over where the selection
/// changes every 32 rows or less often, which scattered rows do at this share.
pub(super) const SPARSE: f64 = 1.0 / 64.0;

/// The share of the rows that a conjunct keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// Of a filter that is written in the query.
    Written(f64),
    /// Of a join's filter.
    Join(f64),
    /// Of a test of one bit for each row, in front of a join's filter. Outside of the reader it is made above.
    Bits(f64),
    /// Of a filter whose effect shows only at run time, such as that of a top-k sort. It prunes row groups, and a
    /// comparison costs little.
    Later,
    /// Of a filter that may not be one for this column. It stays out of the reader.
    Astray,
}

/// One conjunct of a scan's predicate.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// The share of the rows that it keeps.
    pub(super) share: f64,
    /// Whether it is known to keep few rows, or stands in the query.
    useful: bool,
    /// The share that is kept above the reader, where it is not in it.
    above: f64,
    /// Nanoseconds a row.
    cost: f64,
    columns: BTreeSet<usize>,
}

impl Filter {
    pub(super) fn new(expr: &Arc<dyn PhysicalExpr>, share: Share, columns: &[ColumnEstimate]) -> Self {
        let mut used = BTreeSet::new();
        // The closure never fails.
        let _ = expr.apply(|node| {
            used.extend(node.downcast_ref::<Column>().map(Column::index));
            Ok(TreeNodeRecursion::Continue)
        });
        let decode: f64 = used.iter().filter_map(|index| columns.get(*index)).map(decoding).sum();
        let (share, above, useful, evaluate) = match share {
            Share::Written(share) => (share, share, true, COMPARE_INSIDE),
            Share::Join(share) => (share, 1.0, share <= USEFUL, LOOK_UP),
            Share::Bits(share) => (share, share, share <= USEFUL, COMPARE_INSIDE + share * LOOK_UP),
            Share::Later => (1.0, 1.0, true, COMPARE_INSIDE),
            Share::Astray => (1.0, 1.0, false, COMPARE_INSIDE),
        };
        let cost = decode + evaluate;
        Self { expr: Arc::clone(expr), share, above, useful, cost, columns: used }
    }

    pub(super) fn is_useful(&self) -> bool {
        self.useful
    }

    /// What a dropped row costs: filters are evaluated in ascending order of it.
    pub(super) fn rank(&self) -> f64 {
        self.cost / (1.0 - self.share).max(1e-9)
    }
}

/// A scan, and what its rows cost.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) rows: f64,
    /// Nanoseconds that a row costs the operators above.
    pub(super) row: f64,
    /// By their places in the table.
    pub(super) columns: &'a [ColumnEstimate],
    /// The columns that are read; all where absent.
    pub(super) projected: Option<&'a [usize]>,
}

impl Scan<'_> {
    /// The share of the cost that remains with the filters in the reader; `None` where none of them is of use there.
    ///
    /// Filters are evaluated in the order of what a dropped row costs, and each decodes the columns that no filter
    /// before it has decoded. Behind the reader the written filters are evaluated again, on the few rows that are
    /// left, which is not counted.
    pub(super) fn gain(&self, filters: &[Filter]) -> Option<f64> {
        let mut read: BTreeSet<usize> = match self.projected {
            Some(projected) => projected.iter().copied().collect(),
            None => (0..self.columns.len()).collect(),
        };
        for filter in filters.iter().filter(|filter| filter.share < 1.0) {
            read.extend(&filter.columns);
        }
        let decode = |index: &usize| self.columns.get(*index).map_or(0.0, decoding);
        // As it is: everything is decoded, and what is written in the query and what bits tell filters behind the reader.
        let above: f64 = filters.iter().map(|filter| filter.above).product();
        let before = read.iter().map(decode).sum::<f64>() + COMPARE + above * self.row;

        let mut useful: Vec<&Filter> =
            filters.iter().filter(|filter| filter.useful && filter.share < 1.0).collect();
        if useful.is_empty() {
            return None;
        }
        useful.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
        let (mut share, mut after) = (1.0_f64, 0.0);
        for filter in useful {
            let evaluate = filter.cost - filter.columns.iter().map(decode).sum::<f64>();
            for column in &filter.columns {
                if read.remove(column) {
                    after += picked(share, decode(column));
                }
            }
            after += share * evaluate + SELECT * (share / SPARSE).min(1.0);
            share *= filter.share;
        }
        let rest: f64 = read.iter().map(|column| picked(share, decode(column))).sum();
        after += rest + share * self.row;
        (self.rows > 0.0).then_some(after / before.max(f64::MIN_POSITIVE))
    }
}

/// Nanoseconds to decompress and decode one value.
pub(in crate::physical) fn decoding(column: &ColumnEstimate) -> f64 {
    4.0 + 0.35 * column.bytes
}

/// Nanoseconds a row to read a column of which `share` of the values are wanted.
fn picked(share: f64, decode: f64) -> f64 {
    if share <= SPARSE { share * decode + SKIP } else { decode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::DataType;
    use datafusion::physical_expr::expressions::Column as Col;

    fn gain(share: Share, row: f64) -> Option<f64> {
        gain_of(share, row, 4)
    }

    fn gain_of(share: Share, row: f64, columns: usize) -> Option<f64> {
        let columns = vec![ColumnEstimate::unknown(&DataType::Int64, 1e6); columns];
        let expr: Arc<dyn PhysicalExpr> = Arc::new(Col::new("key", 0));
        let filter = Filter::new(&expr, share, &columns);
        Scan { rows: 1e6, row, columns: &columns, projected: None }.gain(&[filter])
    }

    #[test]
    fn few_rows_before_an_expensive_operator_gain() {
        let pays = |share, row| gain(share, row).is_some_and(|remaining| remaining < 0.8);
        assert!(pays(Share::Join(0.001), 100.0));
        assert!(!pays(Share::Join(0.001), 0.0), "a look-up costs more than decoding three numbers");
        assert!(!pays(Share::Join(0.9), 100.0));
        assert!(!pays(Share::Written(0.15), 20.0), "scattered rows are decoded with their neighbours");
        assert!(gain(Share::Later, 100.0).is_none());
        let pays = |share| gain_of(share, 0.0, 8).is_some_and(|remaining| remaining < 0.8);
        assert!(pays(Share::Bits(0.001)) && !pays(Share::Join(0.001)), "a bit costs less than a look-up");
        assert!(!pays(Share::Bits(0.1)), "what it keeps is scattered");
        assert!(gain(Share::Astray, 100.0).is_none());
    }
}
