//! What is known of the values of a join key.

use std::sync::Arc;

use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;

use super::Estimate;
use super::column::ColumnEstimate;

/// The values of one side of an equality.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyValues {
    /// Distinct values, at least one.
    pub(crate) distinct: f64,
    /// Distinct values before filters, at least one.
    pub(crate) domain: f64,
    /// Whether that is a guess.
    pub(crate) guessed: bool,
    /// The share of the rows that are NULL, which are equal to nothing.
    pub(crate) nulls: f64,
}

impl KeyValues {
    /// The values of `expr` in `input`.
    pub(crate) fn of(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> Self {
        let column = expr.downcast_ref::<Column>().and_then(|column| input.columns.get(column.index()));
        Self::of_column(column, input.rows)
    }

    /// The values of `column`, or of an expression over `rows` rows. An expression is taken to be unique, since it is not
    /// known to be otherwise: that makes its join look selective, which is what joins on expressions mostly are.
    pub(crate) fn of_column(column: Option<&ColumnEstimate>, rows: f64) -> Self {
        let rows = rows.max(1.0);
        let of_rows = Self { distinct: rows, domain: rows, guessed: true, nulls: 0.0 };
        column.map_or(of_rows, |column| Self {
            distinct: column.distinct.max(1.0),
            domain: column.domain.max(1.0),
            guessed: column.guessed,
            nulls: column.nulls,
        })
    }

    /// The same side when it is compared with `other`. A side of which nothing is known has no more values than the other
    /// side had before it was filtered: one refers to the other.
    pub(super) fn within(self, other: Self) -> Self {
        self.at_most(other.domain)
    }

    /// The same values, no more than `domain` where they are a guess.
    pub(crate) fn at_most(self, domain: f64) -> Self {
        if self.guessed { Self { distinct: self.distinct.min(domain), ..self } } else { self }
    }
}
