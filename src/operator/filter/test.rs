//! One condition of a conjunction, compiled for the columns that it needs.
//!
//! A condition is a tree of AND and OR over two kinds of leaves: equalities and patterns of string views, which are evaluated
//! here, and expressions, which DataFusion evaluates. `a = 'x' OR a = 'y'` and `a IN ('x', 'y')` are one leaf.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringViewArray,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;

use super::parts::Parts;
use super::strings::Literals;

type Expr = Arc<dyn PhysicalExpr>;

/// Nanoseconds a row, on one core of a server of 2024; only their order matters.
const COMPARE: f64 = 0.5;
const COMPARE_WIDE: f64 = 1.2;
const COMPARE_STRING: f64 = 8.0;
const COMPARE_VIEW: f64 = 0.7;
const IN_LIST: f64 = 8.0;
const LIKE: f64 = 15.0;
const LIKE_PARTS: f64 = 12.0;
const OTHER: f64 = 12.0;

/// A condition that says of each row whether it is true. NULL counts as false.
#[derive(Debug)]
pub(super) struct Test {
    /// The columns of the input that it needs.
    pub(super) columns: Vec<usize>,
    /// What it costs a row, in nanoseconds.
    pub(super) cost: f64,
    /// Whether it cannot fail, so that the rows it is asked about do not matter.
    pub(super) infallible: bool,
    kind: Kind,
}

/// Columns are numbered by their places in [`Test::columns`].
#[derive(Debug)]
enum Kind {
    Strings { column: usize, literals: Literals, negated: bool },
    Like { column: usize, parts: Parts, negated: bool },
    Any(Vec<Self>),
    All(Vec<Self>),
    Expr { expr: Expr, schema: SchemaRef },
}

impl Test {
    /// Compiles `expr`, a condition on rows of `schema`.
    pub(super) fn new(expr: &Expr, schema: &Schema) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect();
        columns.sort_unstable();
        let narrow = Arc::new(schema.project(&columns)?);
        let moved = Arc::clone(expr).transform(|node| {
            let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            let place = columns.binary_search(&column.index());
            let place = place.map_err(|_| internal_datafusion_err!("{column} is not collected"))?;
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), place)) as Expr))
        });
        let kind = Kind::new(&moved.data()?, &narrow);
        Ok(Self { columns, cost: kind.cost(), infallible: is_infallible(expr), kind })
    }

    /// Whether this is more than the expression itself.
    pub(super) fn is_better(&self) -> bool {
        self.kind.is_better()
    }

    /// The rows of `columns`, each `rows` long, for which the condition is true.
    pub(super) fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanBuffer> {
        self.kind.evaluate(columns, rows)
    }
}

impl Kind {
    fn new(expr: &Expr, schema: &SchemaRef) -> Self {
        if let Some(strings) = strings(expr, schema) {
            return strings;
        }
        match expr.downcast_ref::<BinaryExpr>().map(|binary| (binary.op(), binary)) {
            Some((Operator::And, binary)) => {
                let both = [binary.left(), binary.right()].map(|side| Self::new(side, schema));
                Self::All(both.into_iter().flat_map(Self::into_all).collect())
            }
            Some((Operator::Or, binary)) => {
                let both = [binary.left(), binary.right()].map(|side| Self::new(side, schema));
                Self::any(both.into_iter().flat_map(Self::into_any))
            }
            _ => Self::Expr { expr: Arc::clone(expr), schema: Arc::clone(schema) },
        }
    }

    /// The conditions that must all be true.
    fn into_all(self) -> Vec<Self> {
        if let Self::All(kinds) = self { kinds } else { vec![self] }
    }

    /// The conditions of which one must be true.
    fn into_any(self) -> Vec<Self> {
        if let Self::Any(kinds) = self { kinds } else { vec![self] }
    }

    /// One of several, where equalities of one column become one look at that column.
    fn any(kinds: impl Iterator<Item = Self>) -> Self {
        let mut merged: Vec<Self> = Vec::new();
        for kind in kinds {
            if let Self::Strings { column, literals, negated: false } = &kind {
                let same = merged.iter_mut().find_map(|other| match other {
                    Self::Strings { column: others, literals, negated: false } if others == column => {
                        Some(literals)
                    }
                    _ => None,
                });
                if let Some(others) = same {
                    others.extend(literals.clone());
                    continue;
                }
            }
            merged.push(kind);
        }
        match <[Self; 1]>::try_from(merged) {
            Ok([only]) => only,
            Err(several) => Self::Any(several),
        }
    }

    /// Whether some leaf is evaluated here.
    fn is_better(&self) -> bool {
        match self {
            Self::Strings { .. } | Self::Like { .. } => true,
            Self::Any(kinds) | Self::All(kinds) => kinds.iter().any(Self::is_better),
            Self::Expr { .. } => false,
        }
    }

    /// Nanoseconds a row. All branches count: an AND or OR is not cut short.
    fn cost(&self) -> f64 {
        match self {
            Self::Strings { literals, .. } => COMPARE_VIEW * literals.len() as f64,
            Self::Like { .. } => LIKE_PARTS,
            Self::Any(kinds) | Self::All(kinds) => kinds.iter().map(Self::cost).sum(),
            Self::Expr { expr, schema } => expr_cost(expr, schema),
        }
    }

    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanBuffer> {
        match self {
            Self::Strings { column, literals, negated } => {
                Ok(literals.test(views(columns, *column)?, *negated))
            }
            Self::Like { column, parts, negated } => Ok(parts.test(views(columns, *column)?, *negated)),
            Self::Any(kinds) => combine(kinds, columns, rows, |a, b| a | b, BooleanBuffer::new_unset),
            Self::All(kinds) => combine(kinds, columns, rows, |a, b| a & b, BooleanBuffer::new_set),
            Self::Expr { expr, schema } => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let batch =
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns.to_vec(), &options)?;
                let array = expr.evaluate(&batch)?.into_array(rows)?;
                let found = array.as_boolean_opt().ok_or_else(|| {
                    internal_datafusion_err!("{expr} is {}, not a condition", array.data_type())
                })?;
                Ok(true_only(found))
            }
        }
    }
}

/// A column of string views.
fn views(columns: &[ArrayRef], column: usize) -> Result<&StringViewArray> {
    let strings = columns.get(column).and_then(|column| column.as_string_view_opt());
    strings.ok_or_else(|| internal_datafusion_err!("column {column} has no views"))
}

/// The answers of `kinds`, put together.
fn combine(
    kinds: &[Kind],
    columns: &[ArrayRef],
    rows: usize,
    op: impl Fn(&BooleanBuffer, &BooleanBuffer) -> BooleanBuffer,
    none: impl Fn(usize) -> BooleanBuffer,
) -> Result<BooleanBuffer> {
    let mut all: Option<BooleanBuffer> = None;
    for kind in kinds {
        let one = kind.evaluate(columns, rows)?;
        all = Some(match all {
            Some(all) => op(&all, &one),
            None => one,
        });
    }
    Ok(all.unwrap_or_else(|| none(rows)))
}

/// The rows that are true: neither false nor NULL.
fn true_only(found: &BooleanArray) -> BooleanBuffer {
    match found.nulls() {
        Some(nulls) => found.values() & nulls.inner(),
        None => found.values().clone(),
    }
}

/// `expr` as a comparison of a column of string views with literals, or with a pattern.
fn strings(expr: &Expr, schema: &Schema) -> Option<Kind> {
    let view = |expr: &Expr| {
        let column = expr.downcast_ref::<Column>()?;
        (schema.fields().get(column.index())?.data_type() == &DataType::Utf8View).then(|| column.index())
    };
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let literals = list.list().iter().map(literal).collect::<Option<Vec<_>>>()?;
        let literals = (literals.len() <= MAX_LITERALS).then(|| Literals::new(literals))?;
        return Some(Kind::Strings { column: view(list.expr())?, literals, negated: list.negated() });
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>().filter(|like| !like.case_insensitive()) {
        let parts = Parts::of(literal(like.pattern())?)?;
        return Some(Kind::Like { column: view(like.expr())?, parts, negated: like.negated() });
    }
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    let negated = match binary.op() {
        Operator::Eq => false,
        Operator::NotEq => true,
        _ => return None,
    };
    let (column, other) = match (view(binary.left()), view(binary.right())) {
        (Some(column), None) => (column, binary.right()),
        (None, Some(column)) => (column, binary.left()),
        _ => return None,
    };
    Some(Kind::Strings { column, literals: Literals::new([literal(other)?]), negated })
}

/// Beyond, a hash table is quicker than a look at each.
const MAX_LITERALS: usize = 16;

/// The text of a literal that is not NULL.
fn literal(expr: &Expr) -> Option<&str> {
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Utf8View(text) | ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) => {
            text.as_deref()
        }
        _ => None,
    }
}

/// What `expr` costs a row where DataFusion evaluates it.
fn expr_cost(expr: &Expr, schema: &Schema) -> f64 {
    if expr.is::<LikeExpr>() {
        return LIKE;
    }
    if expr.is::<InListExpr>() {
        return IN_LIST;
    }
    if expr.is::<IsNullExpr>() || expr.is::<IsNotNullExpr>() {
        return COMPARE;
    }
    let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return OTHER };
    if !is_comparison(*binary.op()) || !is_infallible(expr) {
        return OTHER;
    }
    match binary.left().data_type(schema) {
        Ok(data_type) if data_type.is_decimal() => COMPARE_WIDE,
        Ok(data_type) if data_type.is_primitive() => COMPARE,
        _ => COMPARE_STRING,
    }
}

/// Whether `op` compares two values and nothing else.
fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    )
}

/// Whether `expr` compares columns and literals and does nothing else, so that no row can make it fail.
fn is_infallible(expr: &Expr) -> bool {
    let known = expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<NotExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<LikeExpr>()
        || expr.downcast_ref::<BinaryExpr>().is_some_and(|binary| {
            is_comparison(*binary.op()) || matches!(binary.op(), Operator::And | Operator::Or)
        });
    known && expr.children().into_iter().all(is_infallible)
}
