//! Expressions over a source as expressions over the columns of an answer.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, Result as DataFusionResult, ScalarValue, TableReference,
};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use crate::fingerprint::{Refusal, Term};

/// Functions that look at a column's name or metadata, and those that a scan answers, may say something else of a kept answer.
const OF_FIELDS: &[&str] = &["arrow_field", "arrow_metadata"];

/// The columns of an answer: which expressions over the source each is.
///
/// A column that is one of the source's keeps its name there, since functions may look at the names of their arguments, and
/// each has a relation of its own, since an answer may have several columns of one name.
pub(super) struct Columns<'a> {
    /// Their names as the answer's leaf has them: those of the source where they are its columns.
    pub(super) names: SchemaRef,
    /// The same, each with a relation of its own.
    pub(super) schema: DFSchemaRef,
    columns: Vec<Column>,
    /// Of each, whether it has floats, or what may hold some.
    floats: Vec<bool>,
    outputs: &'a [Term],
    places: HashMap<&'a Term, usize>,
}

impl<'a> Columns<'a> {
    /// Of an answer with this schema, whose columns are `outputs`.
    ///
    /// # Errors
    /// The schema has another number of columns, which would be a defect.
    pub(super) fn of(schema: &SchemaRef, outputs: &'a [Term]) -> Result<Self, Refusal> {
        let other = || Refusal::new("broader schema", "the answer's columns are not the plan's");
        if schema.fields().len() != outputs.len() {
            return Err(other());
        }
        let name = |place: usize, term: &Term| match term.column() {
            Some(column) => column.name.clone(),
            None => format!("c{place}"),
        };
        let columns: Vec<Column> = outputs
            .iter()
            .enumerate()
            .map(|(place, term)| Column::new(Some(format!("c{place}")), name(place, term)))
            .collect();
        let fields = schema.fields().iter().zip(&columns);
        let fields: Vec<_> =
            fields.map(|(field, column)| field.as_ref().clone().with_name(&column.name)).collect();
        let names = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let qualifiers =
            columns.iter().map(|column| column.relation.clone()).collect::<Vec<Option<TableReference>>>();
        let schema =
            DFSchema::from_field_specific_qualified_schema(qualifiers, &names).map_err(|_| other())?;
        let mut places = HashMap::with_capacity(outputs.len());
        for (place, term) in outputs.iter().enumerate() {
            places.entry(term).or_insert(place);
        }
        let floats = names.fields().iter().map(|field| has_floats(field.data_type())).collect();
        Ok(Self { names, schema: Arc::new(schema), columns, floats, outputs, places })
    }

    /// The column that `term` is.
    pub(super) fn column(&self, term: &Term) -> Option<Expr> {
        let place = self.places.get(term)?;
        self.columns.get(*place).cloned().map(Expr::Column)
    }

    /// `expr`, over the source, over the answer's columns.
    ///
    /// # Errors
    /// It needs a column of the source that the answer has not.
    pub(super) fn rewrite(&self, expr: &Expr) -> Result<Expr, Refusal> {
        rewritten(expr, |term| Ok(self.column(term)))
    }

    /// The type of an expression over the answer's columns.
    pub(super) fn type_of(&self, expr: &Expr) -> Option<DataType> {
        expr.get_type(self.schema.as_ref()).ok()
    }

    /// Whether an expression over the answer's columns uses one of a type whose equal values may differ.
    pub(super) fn uses_floats(&self, expr: &Expr) -> bool {
        self.uses(expr, |_| true) || self.type_of(expr).is_none_or(|of| has_floats(&of))
    }

    /// Whether an expression over the answer's columns uses a group key of such a type. A group may hold -0.0 and 0.0, and
    /// shows one of them; an aggregate's value is its own.
    pub(super) fn uses_float_keys(&self, expr: &Expr) -> bool {
        let is_key = |term: &Term| {
            let aggregates = term.expr().exists(|node| Ok(matches!(node, Expr::AggregateFunction(_))));
            !aggregates.unwrap_or(false)
        };
        self.uses(expr, is_key)
    }

    fn uses(&self, expr: &Expr, which: impl Fn(&Term) -> bool) -> bool {
        let used = expr.column_refs();
        let columns = self.columns.iter().zip(&self.floats).zip(self.outputs);
        columns.into_iter().any(|((column, floats), term)| *floats && used.contains(column) && which(term))
    }
}

/// Whether values of this type may be equal and yet differ (-0.0 and 0.0), or depend on the order in which they are added up.
/// Of nested types it is not looked at what they hold.
pub(super) fn has_floats(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, values) => has_floats(values),
        DataType::RunEndEncoded(_, values) => has_floats(values.data_type()),
        of => of.is_floating() || of.is_nested(),
    }
}

/// `expr` with the largest of its parts that `known` knows replaced by what they are.
///
/// Parts are looked for from the top: where an answer has `a + b`, a query for `(a + b) * 2` needs neither `a` nor `b`. An
/// aggregate is a whole: an argument of it that is in the answer is not what it is an aggregate of.
///
/// # Errors
/// A column of the source is left, or an aggregate.
pub(super) fn rewritten(
    expr: &Expr,
    mut known: impl FnMut(&Term) -> Result<Option<Expr>, Refusal>,
) -> Result<Expr, Refusal> {
    let mut refusal = None;
    let written = expr.clone().transform_down(|node| {
        Ok(match replacement(&node, &mut known) {
            Ok(Some(replacement)) => Transformed::new(replacement, true, TreeNodeRecursion::Jump),
            Ok(None) => Transformed::no(node),
            Err(why) => {
                refusal = Some(why);
                Transformed::new(node, false, TreeNodeRecursion::Stop)
            }
        })
    });
    match (refusal, written.data()) {
        (Some(refusal), _) => Err(refusal),
        (None, Ok(written)) => Ok(written),
        (None, Err(_)) => Err(Refusal::new("broader output", "an expression cannot be rewritten")),
    }
}

/// What takes the place of `node`; `None` where its parts are to be replaced.
fn replacement(
    node: &Expr,
    known: &mut impl FnMut(&Term) -> Result<Option<Expr>, Refusal>,
) -> Result<Option<Expr>, Refusal> {
    if matches!(node, Expr::Literal(..)) {
        return Ok(None);
    }
    let term = Term::of(node.clone())?;
    if let Some(replacement) = known(&term)? {
        return Ok(Some(replacement));
    }
    match node {
        Expr::ScalarFunction(call) if call.args.is_empty() || OF_FIELDS.contains(&call.name()) => Err(
            Refusal::new("broader output", format!("{}() depends on where its rows are from", call.name())),
        ),
        Expr::Column(_) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
            Err(Refusal::new("broader output", format!("{} is not in the answer", term.text())))
        }
        _ => Ok(None),
    }
}

/// Whether a condition has a value for every row, whichever the row is. One that may fail would fail for rows that a plain
/// plan does not look at: it may ask other conditions first.
pub(super) fn cannot_fail(expr: &Expr, type_of: &impl Fn(&Expr) -> Option<DataType>) -> bool {
    let mut fails = false;
    let walked: DataFusionResult<_> = expr.apply(|node| {
        fails |= !has_a_value(node, type_of);
        Ok(if fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && !fails
}

/// Whether a node has a value where its operands have. This is a list of what is known, and not of what is not: a function is
/// not on it, whatever it does, since some fail for a string that is no date, and nothing tells which.
fn has_a_value(node: &Expr, type_of: &impl Fn(&Expr) -> Option<DataType>) -> bool {
    let is_integer = |expr: &Expr| type_of(expr).is_some_and(|of| of.is_integer());
    match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => true,
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => {
                type_of(left).is_some_and(|of| !of.is_nested() && type_of(right) == Some(of))
            }
            // Integers wrap.
            Operator::Plus | Operator::Minus | Operator::Multiply => is_integer(left) && is_integer(right),
            Operator::Divide | Operator::Modulo => is_integer(left) && is_positive(right),
            _ => false,
        },
        Expr::Column(_) | Expr::Literal(..) | Expr::Not(_) | Expr::Between(_) | Expr::InList(_) => true,
        Expr::Case(_) => true,
        Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsFalse(_) | Expr::IsUnknown(_) => {
            true
        }
        Expr::IsNotTrue(_) | Expr::IsNotFalse(_) | Expr::IsNotUnknown(_) => true,
        Expr::Like(like) => matches!(like.pattern.as_ref(), Expr::Literal(..)) && like.escape_char.is_none(),
        _ => false,
    }
}

/// Whether `expr` is an integer above zero: nothing is too large to be divided by it.
fn is_positive(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) if value.data_type().is_integer() => {
            value.cast_to(&DataType::Int64).is_ok_and(|value| matches!(value, ScalarValue::Int64(Some(1..))))
        }
        _ => false,
    }
}
