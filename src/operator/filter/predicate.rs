//! A conjunction, evaluated in the order that is the cheapest for the rows at hand.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer};
use datafusion::arrow::compute::{FilterBuilder, FilterPredicate};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::util::bit_util;
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::split_conjunction;

use super::test::Test;

/// Nanoseconds: to look for a kept row among all, to copy a value of it, and to write its answer back.
const SEARCH: f64 = 0.2;
const COPY: f64 = 2.0;
const WRITE_BACK: f64 = 2.0;
/// After so many batches the order is decided again.
const BATCHES: usize = 8;
/// Rows that weigh as much as what was observed before, so that the order follows the data.
const FORGET: f64 = 0.5;

/// The conditions of a filter, shared by its partitions.
///
/// A filter keeps the rows for which the whole conjunction is true. For that it is enough to know of each condition where
/// it is true; false and NULL need not be told apart, since there is no negation above the conditions.
#[derive(Debug)]
pub(super) struct Predicate {
    tests: Vec<Test>,
}

impl Predicate {
    /// Compiles `expr`, a condition on rows of `schema`.
    pub(super) fn new(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self> {
        let tests = split_conjunction(expr).into_iter().map(|each| Test::new(each, schema));
        Ok(Self { tests: tests.collect::<Result<_>>()? })
    }

    /// Whether it differs from the expression that it was made of.
    pub(super) fn is_better(&self) -> bool {
        self.tests.len() > 1 || self.tests.iter().any(Test::is_better)
    }
}

/// The order in which one partition evaluates a predicate, and what it has seen.
///
/// The order by *cost / (1 - pass rate)* is the cheapest for independent conditions (Hellerstein, "Predicate migration",
/// SIGMOD 1993). The pass rates are observed while the query runs, as in Babu et al., "Adaptive ordering of pipelined
/// stream filters" (SIGMOD 2004), without their sampling: a rate is the one behind the conditions in front.
#[derive(Debug)]
pub(super) struct Order {
    predicate: Arc<Predicate>,
    order: Vec<usize>,
    /// Rows that each condition was asked about, and those for which it was true.
    seen: Vec<(f64, f64)>,
    batches: usize,
}

impl Order {
    /// The order by cost alone: half of the rows are expected to pass each condition.
    pub(super) fn new(predicate: Arc<Predicate>) -> Self {
        let count = predicate.tests.len();
        let mut order =
            Self { predicate, order: (0..count).collect(), seen: vec![(2.0, 1.0); count], batches: 0 };
        order.sort();
        order
    }

    /// The rows of `batch` for which all conditions are true.
    pub(super) fn evaluate(&mut self, batch: &RecordBatch) -> Result<BooleanBuffer> {
        let rows = batch.num_rows();
        let predicate = Arc::clone(&self.predicate);
        let mut kept = Kept { rows, count: rows, mask: None };
        for index in &self.order {
            let (Some(test), Some(seen)) = (predicate.tests.get(*index), self.seen.get_mut(*index)) else {
                continue;
            };
            let before = kept.count;
            kept.narrow(test, batch)?;
            seen.0 += before as f64;
            seen.1 += kept.count as f64;
            if kept.count == 0 {
                break;
            }
        }
        self.batches += 1;
        if self.batches.is_multiple_of(BATCHES) {
            self.sort();
        }
        Ok(kept.mask.unwrap_or_else(|| BooleanBuffer::new_set(rows)))
    }

    /// Sorts the conditions between those that may fail, which stay where they are written: they are asked about the
    /// rows that passed everything in front of them.
    fn sort(&mut self) {
        let tests = &self.predicate.tests;
        let seen = &mut self.seen;
        let rank = |index: &usize| match (tests.get(*index), seen.get(*index)) {
            (Some(test), Some((asked, passed))) => test.cost / (1.0 - passed / asked).max(1e-3),
            _ => f64::MAX,
        };
        let movable = |index: &usize| tests.get(*index).is_some_and(|test| test.infallible);
        for run in self.order.chunk_by_mut(|a, b| movable(a) && movable(b)) {
            run.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
        }
        for (asked, passed) in seen {
            *asked *= FORGET;
            *passed *= FORGET;
        }
    }
}

/// The rows that are left.
///
/// Asking about the rows that are left means to find them, to copy the columns that the condition needs, and to write the
/// answers back to the places of the rows; asking about all rows means none of this.
struct Kept {
    rows: usize,
    count: usize,
    /// None as long as all are.
    mask: Option<BooleanBuffer>,
}

impl Kept {
    /// Leaves the rows for which `test` is true: it is asked about all rows or about those that are left, whichever is
    /// cheaper. A test that can fail is asked about no other rows.
    fn narrow(&mut self, test: &Test, batch: &RecordBatch) -> Result<()> {
        let columns: Vec<ArrayRef> =
            test.columns.iter().filter_map(|index| batch.columns().get(*index)).cloned().collect();
        let Some(mask) = self.mask.take() else {
            self.leave(test.evaluate(&columns, self.rows)?);
            return Ok(());
        };
        let (rows, count) = (self.rows as f64, self.count as f64);
        let of_all = rows * test.cost;
        let of_kept = rows * SEARCH + count * (test.cost + WRITE_BACK + COPY * columns.len() as f64);
        if test.infallible && of_all <= of_kept {
            self.leave(&mask & &test.evaluate(&columns, self.rows)?);
            return Ok(());
        }
        if self.count == self.rows {
            self.leave(test.evaluate(&columns, self.rows)?);
            return Ok(());
        }
        let filter = FilterBuilder::new(&BooleanArray::from(mask.clone())).optimize().build();
        let columns =
            columns.iter().map(|column| filter_column(&filter, column)).collect::<Result<Vec<_>>>()?;
        let found = test.evaluate(&columns, self.count)?;
        self.leave(scattered(&mask, &found));
        Ok(())
    }

    /// Leaves the rows of `mask`.
    fn leave(&mut self, mask: BooleanBuffer) {
        self.count = mask.count_set_bits();
        self.mask = Some(mask);
    }
}

/// The values of `column` for the rows that are left.
fn filter_column(filter: &FilterPredicate, column: &dyn Array) -> Result<ArrayRef> {
    Ok(filter.filter(column)?)
}

/// The set bits of `mask` whose turn in `found` is set.
fn scattered(mask: &BooleanBuffer, found: &BooleanBuffer) -> BooleanBuffer {
    let mut bits = MutableBuffer::from_len_zeroed(bit_util::ceil(mask.len(), 8));
    for (turn, index) in mask.set_indices().enumerate() {
        if found.value(turn) {
            bit_util::set_bit(&mut bits, index);
        }
    }
    BooleanBuffer::new(Buffer::from(bits), 0, mask.len())
}
