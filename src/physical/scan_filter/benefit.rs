//! What filters in the reader save, and what they cost.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;

use super::producer::Share;
use crate::physical::estimate::ColumnEstimate;

/// A join's filter that keeps more than this is not worth a look-up for each row.
const USEFUL: f64 = 0.5;
/// The share of the cost that must remain at most for a scan to be changed: an estimate is no measurement.
const WORTH_IT: f64 = 0.8;

/// Nanoseconds to evaluate a comparison, and to look up a key in a hash table.
const COMPARE: f64 = 2.0;
const LOOK_UP: f64 = 25.0;
/// Nanoseconds to step over a value that is not decoded: its page is decompressed all the same.
const SKIP: f64 = 1.0;
/// Nanoseconds a row to keep track of the rows that are selected.
const SELECT: f64 = 1.5;

/// One conjunct of a scan's predicate.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// The share of the rows that it keeps.
    pub(super) share: f64,
    /// Whether it is known to keep few rows, or stands in the query.
    useful: bool,
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
        let (share, useful, evaluate) = match share {
            Share::Static(share) => (share, true, COMPARE),
            Share::Join(share) => (share, share <= USEFUL, LOOK_UP),
            Share::Unknown => (1.0, true, COMPARE),
        };
        Self { expr: Arc::clone(expr), share, useful, cost: decode + evaluate, columns: used }
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
    /// The share of the cost that remains with the filters in the reader, where that is worth it.
    pub(super) fn gain(&self, filters: &[Filter]) -> Option<f64> {
        let mut read: BTreeSet<usize> = match self.projected {
            Some(projected) => projected.iter().copied().collect(),
            None => (0..self.columns.len()).collect(),
        };
        for filter in filters.iter().filter(|filter| filter.share < 1.0) {
            read.extend(&filter.columns);
        }
        let decode = |index: &usize| self.columns.get(*index).map_or(0.0, decoding);
        // As it is: everything is decoded, and what is written in the query filters behind the reader.
        let written: f64 = filters.iter().filter(|f| f.cost_is_comparison()).map(|f| f.share).product();
        let before = read.iter().map(decode).sum::<f64>() + COMPARE + written * self.row;

        let mut useful: Vec<&Filter> =
            filters.iter().filter(|filter| filter.useful && filter.share < 1.0).collect();
        if useful.is_empty() {
            return None;
        }
        useful.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
        let (mut share, mut after) = (1.0, 0.0);
        for filter in useful {
            let evaluate = filter.cost - filter.columns.iter().map(decode).sum::<f64>();
            for column in &filter.columns {
                if read.remove(column) {
                    after += share * decode(column) + (1.0 - share) * SKIP;
                }
            }
            after += share * evaluate + SELECT;
            share *= filter.share;
        }
        let rest: f64 = read.iter().map(|column| share * decode(column) + (1.0 - share) * SKIP).sum();
        after += rest + share * self.row;
        let remaining = after / before.max(f64::MIN_POSITIVE);
        (remaining <= WORTH_IT && self.rows > 0.0).then_some(remaining)
    }
}

impl Filter {
    fn cost_is_comparison(&self) -> bool {
        self.useful && self.expr.expression_id().is_none()
    }
}

/// Nanoseconds to decompress and decode one value.
fn decoding(column: &ColumnEstimate) -> f64 {
    4.0 + 0.35 * column.bytes
}
