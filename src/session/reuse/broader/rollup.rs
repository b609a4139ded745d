//! Aggregates of what is aggregated already, and of kept rows.
//!
//! | aggregate of the query | of the answer's groups | of the answer's rows |
//! |---|---|---|
//! | `sum` of integers, decimals | `sum` of the sums | `sum` |
//! | `count` | `sum` of the counts; 0 of none | `count` |
//! | `min`, `max`, `bool_and`, `bool_or`, `bit_and`, `bit_or`, `bit_xor` | the same of what the groups have | the same |
//! | those that see no duplicates (`min`, …, `count(DISTINCT k)`), of group keys | the same of the keys | the same |
//! | `avg` of decimals, `median` | refused: not made of averages, or of sums and counts bit by bit | the same |
//! | of floats | refused: the order of additions shows | refused |
//!
//! Sums of integers wrap around, in any order to the same number. A sum of decimals of ten digits more than its input is not
//! widened by another ten: it is cast back. `FILTER` is a part of the aggregate, and has to be the same.
//!
//! These are the distributive functions of Gray et al., *Data Cube*, 1997; how views with groups are matched is Larson and
//! Yang, *Computing Queries from Derived Relations*, VLDB 1985, and Goldstein and Larson, 2001.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_aggregate as functions;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{AggregateUDF, Case, Expr, cast};

use super::compare::Grain;
use super::rewrite::{Columns, has_floats, rewritten};
use crate::fingerprint::{Refusal, Term};

type Known = fn() -> Arc<AggregateUDF>;

/// These do not see how often a value is there.
const BLIND: &[Known] = &[
    functions::min_max::min_udaf,
    functions::min_max::max_udaf,
    functions::bool_and_or::bool_and_udaf,
    functions::bool_and_or::bool_or_udaf,
    functions::bit_and_or_xor::bit_and_udaf,
    functions::bit_and_or_xor::bit_or_udaf,
];

/// These have one value, in whatever order they are given their rows.
const OF_ROWS: &[Known] = &[
    functions::count::count_udaf,
    functions::sum::sum_udaf,
    functions::average::avg_udaf,
    functions::median::median_udaf,
];

/// Whether a function is this one: the object, or one of the same type that says it is equal. A function of the owner's that
/// has been registered under the name of another is not.
fn is(function: &AggregateUDF, known: Known) -> bool {
    known().as_ref() == function
}

/// Whether the aggregate over what its groups have is the aggregate of all.
fn is_of_itself(function: &AggregateUDF) -> bool {
    is_one_of(function, BLIND) || is(function, functions::bit_and_or_xor::bit_xor_udaf)
}

fn is_one_of(function: &AggregateUDF, known: &[Known]) -> bool {
    known.iter().any(|known| is(function, *known))
}

/// The groups of a query, computed from the rows of an answer.
///
/// First all expressions of the query are rewritten, and what they need is gathered on the way: each aggregate once, whoever
/// asks for it. Then the keys and the aggregates are handed out, for one node that computes them.
pub(super) struct Rollup<'a> {
    from: &'a Columns<'a>,
    grain: Grain,
    /// The query's group keys, and what they are in the answer.
    keys: Vec<(&'a Term, Expr)>,
    /// The aggregates that are needed, and what computes them.
    aggregates: Vec<(Term, Expr, After)>,
}

/// What is done to an aggregate's value.
#[derive(Debug, Clone)]
enum After {
    Nothing,
    /// A count of nothing is 0, a sum of nothing NULL.
    OrZero,
    /// It is given the type that it has at once.
    As(DataType),
}

impl<'a> Rollup<'a> {
    /// Groups by `keys`.
    ///
    /// # Errors
    /// The answer lacks a key, or its equal values may differ.
    pub(super) fn by(keys: &'a [Term], from: &'a Columns<'a>, grain: Grain) -> Result<Self, Refusal> {
        let mut known = Vec::with_capacity(keys.len());
        for key in keys {
            let rewritten = from.rewrite(key.expr())?;
            if from.uses_floats(&rewritten) {
                return Err(Refusal::new("broader group", format!("{} may be -0.0 or 0.0", key.text())));
            }
            known.push((key, rewritten));
        }
        Ok(Self { from, grain, keys: known, aggregates: Vec::new() })
    }

    /// `expr`, over the source, over the groups.
    ///
    /// # Errors
    /// It needs an aggregate that cannot be computed.
    pub(super) fn rewrite(&mut self, expr: &Expr) -> Result<Expr, Refusal> {
        rewritten(expr, |term| {
            if let Some(place) = self.keys.iter().position(|(key, _)| *key == term) {
                return Ok(Some(key_column(place)));
            }
            match term.expr() {
                Expr::AggregateFunction(call) => self.aggregate(term, call).map(Some),
                _ => Ok(None),
            }
        })
    }

    /// The group keys and the aggregates, under the names by which `rewrite` calls them.
    pub(super) fn into_exprs(self) -> (Vec<Expr>, Vec<Expr>) {
        let keys = self.keys.into_iter().enumerate();
        let keys = keys.map(|(place, (_, key))| key.alias(key_name(place))).collect();
        let aggregates = self.aggregates.into_iter().enumerate();
        let aggregates = aggregates.map(|(place, (_, expr, _))| expr.alias(aggregate_name(place))).collect();
        (keys, aggregates)
    }

    fn aggregate(&mut self, term: &Term, call: &AggregateFunction) -> Result<Expr, Refusal> {
        let place = match self.aggregates.iter().position(|(known, ..)| known == term) {
            Some(place) => place,
            None => {
                let (expr, after) = self.computed(term, call)?;
                self.aggregates.push((term.clone(), expr, after));
                self.aggregates.len() - 1
            }
        };
        let column = Expr::Column(Column::from_name(aggregate_name(place)));
        Ok(match self.aggregates.get(place).map(|(_, _, after)| after) {
            Some(After::OrZero) => Expr::Case(Case {
                expr: None,
                when_then_expr: vec![(Box::new(column.clone().is_not_null()), Box::new(column))],
                else_expr: Some(Box::new(Expr::Literal(ScalarValue::Int64(Some(0)), None))),
            }),
            Some(After::As(of)) => cast(column, of.clone()),
            Some(After::Nothing) | None => column,
        })
    }

    /// What computes an aggregate, over the answer's columns.
    ///
    /// Of groups there are two ways: from the aggregate that the groups have, or, where duplicates make no difference, from
    /// the keys themselves, of which every value is there. Of rows it is the aggregate itself, of rewritten arguments.
    fn computed(&self, term: &Term, call: &AggregateFunction) -> Result<(Expr, After), Refusal> {
        let refused = |why: &str| Err(Refusal::new("broader aggregate", format!("{} {why}", term.text())));
        let params = &call.params;
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return refused("depends on the order of its rows");
        }
        if self.grain == Grain::Groups
            && let Some(column) = self.from.column(term)
        {
            return self
                .of_groups(call, &column)
                .map_or_else(|| refused("cannot be made of the same of its groups"), Ok);
        }
        let is_blind =
            is_one_of(&call.func, BLIND) || (params.distinct && is(&call.func, functions::count::count_udaf));
        let of_rows = is_one_of(&call.func, OF_ROWS) || is_of_itself(&call.func);
        match self.grain {
            Grain::Rows if of_rows => {}
            Grain::Groups if is_blind => {}
            Grain::Groups => return refused("is not in the answer"),
            Grain::Rows | Grain::Same => return refused("may depend on the order of its rows"),
        }
        let mut args = Vec::with_capacity(params.args.len());
        for arg in &params.args {
            let arg = self.from.rewrite(arg)?;
            let of = self.from.type_of(&arg);
            let rounds = is(&call.func, functions::average::avg_udaf)
                && !of.as_ref().is_some_and(DataType::is_decimal);
            if rounds || self.from.uses_floats(&arg) {
                return refused("is of floats, which depend on the order in which they come");
            }
            args.push(arg);
        }
        let filter = match &params.filter {
            Some(filter) => Some(Box::new(self.from.rewrite(filter)?)),
            None => None,
        };
        let params = AggregateFunctionParams { args, filter, ..params.clone() };
        Ok((
            Expr::AggregateFunction(AggregateFunction { func: Arc::clone(&call.func), params }),
            After::Nothing,
        ))
    }

    /// The aggregate `call` of all groups, each of which has its own in `column`; `None` where that is not enough to know.
    ///
    /// The least of NaN and a number depends on which comes first, and the sum of three floats on which two are added first:
    /// of floats nothing is made of parts.
    fn of_groups(&self, call: &AggregateFunction, column: &Expr) -> Option<(Expr, After)> {
        let of = self.from.type_of(column).filter(|of| !has_floats(of))?;
        let with = |func: Arc<AggregateUDF>| {
            let call = AggregateFunction::new_udf(func, vec![column.clone()], false, None, Vec::new(), None);
            Expr::AggregateFunction(call)
        };
        // A value that two groups have would count twice.
        if call.params.distinct {
            return None;
        }
        if is_of_itself(&call.func) {
            return Some((with(Arc::clone(&call.func)), After::Nothing));
        }
        if is(&call.func, functions::count::count_udaf) {
            return Some((with(functions::sum::sum_udaf()), After::OrZero));
        }
        let sums = is(&call.func, functions::sum::sum_udaf);
        match of {
            DataType::Int64 | DataType::UInt64 if sums => {
                Some((with(Arc::clone(&call.func)), After::Nothing))
            }
            of if sums && of.is_decimal() => Some((with(Arc::clone(&call.func)), After::As(of))),
            _ => None,
        }
    }
}

/// What a key is called between the aggregate and what is above it. The query's own names are given at the top.
fn key_name(place: usize) -> String {
    format!("key{place}")
}

/// The key at this place, as it is called there.
fn key_column(place: usize) -> Expr {
    Expr::Column(Column::from_name(key_name(place)))
}

/// What an aggregate is called there.
fn aggregate_name(place: usize) -> String {
    format!("value{place}")
}
