//! Whether conditions that hold for a row make another one hold.
//!
//! ```text
//!   known     a > 5, a < 9, b IN (1, 2)         what each says of one expression: which values it may have
//!   wanted    a > 3                             (5, 9) lies in (3, ∞)
//!             b = 1 OR b = 2 OR b = 7           {1, 2} lies in {1, 2, 7}
//!             a IS NOT NULL                     a comparison with NULL is never true
//! ```
//!
//! A condition of a filter holds where it is *true*, so a known comparison says that its expression is not NULL. Bounds are
//! compared as the engine compares the values: only literals of one type, and of types whose order is the same everywhere.
//! Strings are compared byte by byte, as arrow does, and timestamps as instants where their types have the same time zone. Of
//! floats, zero and NaN are not compared with: whether -0.0 equals 0.0, and where NaN stands, is not one answer.

use std::cmp::Ordering;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::fingerprint::Term;

/// Conditions on one expression that are looked at together; more of them are no longer compared.
const MOST: usize = 256;

/// The values that an expression may have. None of these is NULL.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// Any.
    NotNull,
    /// From here.
    From(Bound),
    /// Up to here.
    To(Bound),
    /// One of these.
    In(Vec<ScalarValue>),
    /// Any but this one.
    Not(ScalarValue),
    /// Those of any of these.
    AnyOf(Vec<Self>),
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
struct Bound {
    at: ScalarValue,
    inclusive: bool,
}

/// What a condition says, and of what. The expression may be any: of a column nothing more is known than of `a + b`, as long
/// as two conditions are on the same one, word by word.
struct Said {
    of: Term,
    values: Values,
}

/// Whether every row for which all of `known` are true has `wanted` true, as far as that can be seen.
///
/// `false` says nothing: conditions on several expressions, on the results of functions, and everything that only arithmetic
/// would show, are not understood. What is the same word by word follows in any case.
pub(super) fn implies(known: &[Term], wanted: &Term) -> bool {
    if known.contains(wanted) {
        return true;
    }
    let Some(Said { of, values }) = said(wanted.expr()) else { return false };
    let known: Vec<Values> = known
        .iter()
        .filter_map(|known| said(known.expr()))
        .filter(|said| said.of == of)
        .map(|said| said.values)
        .take(MOST)
        .collect();
    lies_in(&known, &values)
}

/// `expr` as a condition on one expression.
fn said(expr: &Expr) -> Option<Said> {
    let (of, values) = match expr {
        Expr::IsNotNull(of) => (of.as_ref(), Values::NotNull),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => return either(left, right),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (of, Expr::Literal(at, _)) => (of, compared(*op, at)?),
            (Expr::Literal(at, _), of) => (of, compared(op.swap()?, at)?),
            _ => return None,
        },
        Expr::InList(list) if !list.negated && list.list.len() <= MOST => {
            let values = list.list.iter().map(|value| match value {
                Expr::Literal(value, _) if has_one_order(value) => Some(value.clone()),
                _ => None,
            });
            (list.expr.as_ref(), Values::In(values.collect::<Option<_>>()?))
        }
        _ => return None,
    };
    // A literal says nothing of any row.
    let of = Term::of(of.clone()).ok().filter(|of| !matches!(of.expr(), Expr::Literal(..)))?;
    Some(Said { of, values })
}

/// One condition or another, on the same expression.
fn either(left: &Expr, right: &Expr) -> Option<Said> {
    let (left, right) = (said(left)?, said(right)?);
    let values = match (left.values, right.values) {
        (Values::In(mut one), Values::In(other)) => {
            one.extend(other);
            Values::In(one)
        }
        (Values::AnyOf(mut all), other) => {
            all.push(other);
            Values::AnyOf(all)
        }
        (one, other) => Values::AnyOf(vec![one, other]),
    };
    (left.of == right.of).then_some(Said { of: left.of, values })
}

/// The values for which a comparison with `at` is true.
fn compared(op: Operator, at: &ScalarValue) -> Option<Values> {
    if !has_one_order(at) {
        return None;
    }
    let bound = |inclusive| Bound { at: at.clone(), inclusive };
    Some(match op {
        Operator::Eq => Values::In(vec![at.clone()]),
        Operator::NotEq => Values::Not(at.clone()),
        Operator::Gt => Values::From(bound(false)),
        Operator::GtEq => Values::From(bound(true)),
        Operator::Lt => Values::To(bound(false)),
        Operator::LtEq => Values::To(bound(true)),
        _ => return None,
    })
}

/// Whether a value that satisfies all of `known` is one of `wanted`.
///
/// Of ranges, one of the known has to lie in the wanted by itself, which is exact for one range and careful for several.
/// Where no value satisfies all of the known, anything follows: the query has no rows, and any answer has all of them.
fn lies_in(known: &[Values], wanted: &Values) -> bool {
    // Values that are listed can be tried one by one.
    let listed = known.iter().filter_map(|values| match values {
        Values::In(values) => Some(values),
        _ => None,
    });
    if let Some(fewest) = listed.min_by_key(|values| values.len()) {
        let mut possible = fewest.iter().filter(|value| known.iter().all(|known| may_have(known, value)));
        return possible.all(|value| has(wanted, value));
    }
    if let Values::AnyOf(wanted) = wanted
        && wanted.iter().any(|wanted| lies_in(known, wanted))
    {
        return true;
    }
    known.iter().any(|known| match (known, wanted) {
        (Values::AnyOf(known), _) => known.iter().all(|known| lies_in(std::slice::from_ref(known), wanted)),
        (_, Values::NotNull) => true,
        (Values::From(known), Values::From(wanted)) => is_behind(known, wanted, Ordering::Greater),
        (Values::To(known), Values::To(wanted)) => is_behind(known, wanted, Ordering::Less),
        (Values::From(known), Values::Not(at)) => excludes(known, at, Ordering::Less),
        (Values::To(known), Values::Not(at)) => excludes(known, at, Ordering::Greater),
        (known, wanted) => known == wanted,
    })
}

/// Whether the range from `known` on lies in the range from `wanted` on, in the direction `away`.
fn is_behind(known: &Bound, wanted: &Bound, away: Ordering) -> bool {
    match order(&known.at, &wanted.at) {
        Some(Ordering::Equal) => wanted.inclusive || !known.inclusive,
        found => found == Some(away),
    }
}

/// Whether the range from `bound` on leaves out `at`, which is `before` it.
fn excludes(bound: &Bound, at: &ScalarValue, before: Ordering) -> bool {
    match order(at, &bound.at) {
        Some(Ordering::Equal) => !bound.inclusive,
        found => found == Some(before),
    }
}

/// Whether `value` is one of `values`, for certain.
fn has(values: &Values, value: &ScalarValue) -> bool {
    known_to_have(values, value) == Some(true)
}

/// Whether `value` may be one of `values`.
fn may_have(values: &Values, value: &ScalarValue) -> bool {
    known_to_have(values, value) != Some(false)
}

/// Whether `value` is one of `values`; `None` where it cannot be compared, which is neither: it may not be left out where it
/// could be one, nor counted where it might not be.
fn known_to_have(values: &Values, value: &ScalarValue) -> Option<bool> {
    let is =
        |at: &Bound, side| order(value, &at.at).map(|found| found == side || (at.inclusive && found.is_eq()));
    match values {
        Values::NotNull => Some(true),
        Values::From(bound) => is(bound, Ordering::Greater),
        Values::To(bound) => is(bound, Ordering::Less),
        Values::Not(at) => order(value, at).map(Ordering::is_ne),
        Values::In(list) => any(list.iter().map(|at| order(value, at).map(Ordering::is_eq))),
        Values::AnyOf(all) => any(all.iter().map(|values| known_to_have(values, value))),
    }
}

/// Whether one of them is true; `None` where none is and one is unknown.
fn any(found: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut any = Some(false);
    for found in found {
        match found {
            Some(true) => return Some(true),
            Some(false) => {}
            None => any = None,
        }
    }
    any
}

/// How two values compare, where the engine cannot think otherwise.
fn order(one: &ScalarValue, other: &ScalarValue) -> Option<Ordering> {
    let comparable = has_one_order(one) && has_one_order(other) && one.data_type() == other.data_type();
    comparable.then(|| one.partial_cmp(other)).flatten()
}

/// Whether values of this type have one order, which is the engine's, and this is one of them.
fn has_one_order(value: &ScalarValue) -> bool {
    let plain = |value: f64| value.is_finite() && value != 0.0;
    match value {
        ScalarValue::Float32(Some(value)) => plain(f64::from(*value)),
        ScalarValue::Float64(Some(value)) => plain(*value),
        value if value.is_null() => false,
        value => {
            let of = value.data_type();
            of.is_integer()
                || of.is_decimal()
                || matches!(
                    of,
                    DataType::Boolean
                        | DataType::Utf8
                        | DataType::LargeUtf8
                        | DataType::Utf8View
                        | DataType::Date32
                        | DataType::Date64
                        | DataType::Time32(_)
                        | DataType::Time64(_)
                        | DataType::Timestamp(..)
                )
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
