//! What share of the rows a predicate keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
    TryCastExpr,
};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::PhysicalExpr;

use super::column::ColumnEstimate;
use crate::store::{Bound, Value};

/// Of a predicate that nothing is known of.
const UNKNOWN: f64 = 0.2;
/// Of `a < b` where the range is not known.
const INEQUALITY: f64 = 1.0 / 3.0;
/// Of a pattern with text on both sides of a wildcard, or before it.
const PATTERN: f64 = 0.1;
/// Of a pattern that fixes the beginning.
const PREFIX: f64 = 0.03;
/// Of `f(a) = literal`, where `f` is not known.
const FUNCTION_EQUALITY: f64 = 0.1;

type Expr = Arc<dyn PhysicalExpr>;

/// The share of the rows for which `predicate` is true, between 0 and 1.
///
/// `columns` are those that the predicate's column indices mean. Conjuncts are taken to be independent, apart from
/// comparisons of one column with literals, which make up one range. Where the column was analyzed its most common values
/// and its histogram tell the share of a literal, of a range, of a list and of `LIKE 'x%'`. What is assumed where
/// statistics are silent:
///
/// | predicate | share |
/// |---|---|
/// | `a = literal` | one of the column's distinct values |
/// | `a < literal` | the part of the range between minimum and maximum, or a third |
/// | `a IN (…)` | as many of the distinct values as the list has entries |
/// | `a LIKE 'x%'`, `a LIKE '%x%'` | 3 %, 10 % |
/// | `a IS NULL` | the share of NULLs |
/// | anything else | a fifth, as in DataFusion |
pub(crate) fn selectivity(predicate: &Expr, columns: &[ColumnEstimate]) -> f64 {
    let mut ranges: BTreeMap<usize, Range> = BTreeMap::new();
    let mut share = 1.0;
    for conjunct in split_conjunction(predicate) {
        // `a >= 1 AND a < 2` is one range, and not two independent halves of the table.
        match range_of(conjunct) {
            Some((column, range)) if columns.get(column).is_some_and(|column| range.fits(column)) => {
                ranges.entry(column).or_default().intersect(range);
            }
            _ => share *= single(conjunct, columns),
        }
    }
    for (column, range) in ranges {
        share *= range.share(&columns[column]);
    }
    share.clamp(0.0, 1.0)
}

/// The values that comparisons with literals leave of a column.
#[derive(Debug, Default)]
struct Range {
    low: Option<Bound>,
    high: Option<Bound>,
}

impl Range {
    /// Whether statistics of `column` tell what the range keeps of it.
    fn fits(&self, column: &ColumnEstimate) -> bool {
        let ends = || self.low.iter().chain(&self.high);
        column.spread.is_some() || column.bounds.is_some() && ends().all(|end| end.value.number().is_some())
    }

    /// Leaves what lies in both ranges.
    fn intersect(&mut self, other: Self) {
        self.low = tighter(self.low.take(), other.low, |own, other| own.value.is_before(&other.value));
        self.high = tighter(self.high.take(), other.high, |own, other| other.value.is_before(&own.value));
    }

    /// The share of the column's rows in the range.
    fn share(&self, column: &ColumnEstimate) -> f64 {
        if let Some(spread) = &column.spread {
            return spread.between(self.low.as_ref(), self.high.as_ref());
        }
        let Some((min, max)) = column.bounds else {
            return INEQUALITY;
        };
        let place = |bound: &Option<Bound>| bound.as_ref().and_then(|bound| bound.value.number());
        let low = place(&self.low).unwrap_or(f64::NEG_INFINITY).max(min);
        let high = place(&self.high).unwrap_or(f64::INFINITY).min(max);
        if high < low {
            return 0.0;
        }
        // Each distinct value stands for a stretch of the scale of its own, so one value is not nothing.
        let stretch = if column.distinct > 1.0 { (max - min) / (column.distinct - 1.0) } else { 1.0 };
        let share = ((high - low + stretch) / (max - min + stretch)).clamp(0.0, 1.0);
        share * (1.0 - column.nulls)
    }
}

/// The bound that leaves less: `other` where it is `inside` of the range of `own`.
fn tighter(
    own: Option<Bound>,
    other: Option<Bound>,
    inside: impl Fn(&Bound, &Bound) -> bool,
) -> Option<Bound> {
    match (own, other) {
        (Some(own), Some(other)) => {
            let same = own.value == other.value;
            let take = if same { !other.inclusive } else { inside(&own, &other) };
            Some(if take { other } else { own })
        }
        (own, other) => own.or(other),
    }
}

/// `column <op> literal`, where it bounds the column.
fn range_of(expr: &Expr) -> Option<(usize, Range)> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    let (column, op, value) = match (column_of(binary.left()), literal_of(binary.right())) {
        (Some(column), Some(value)) => (column, *binary.op(), value),
        _ => (column_of(binary.right())?, binary.op().swap()?, literal_of(binary.left())?),
    };
    let bound = |inclusive| Some(Bound { value: Value::of(value)?, inclusive });
    let range = match op {
        Operator::Lt => Range { high: Some(bound(false)?), low: None },
        Operator::LtEq => Range { high: Some(bound(true)?), low: None },
        Operator::Gt => Range { low: Some(bound(false)?), high: None },
        Operator::GtEq => Range { low: Some(bound(true)?), high: None },
        _ => return None,
    };
    Some((column, range))
}

/// The column that `expr` is, casts aside.
fn column_of(expr: &Expr) -> Option<usize> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(column.index());
    }
    let inner = expr
        .downcast_ref::<CastExpr>()
        .map(CastExpr::expr)
        .or_else(|| expr.downcast_ref::<TryCastExpr>().map(TryCastExpr::expr))?;
    column_of(inner)
}

/// The value that `expr` is, where it is one.
fn literal_of(expr: &Expr) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

/// A predicate on its own.
fn single(expr: &Expr, columns: &[ColumnEstimate]) -> f64 {
    let column = |expr: &Expr| column_of(expr).and_then(|index| columns.get(index));
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return comparison(binary, columns);
    }
    if let Some(value) = literal_of(expr) {
        return if *value == ScalarValue::Boolean(Some(true)) { 1.0 } else { 0.0 };
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return 1.0 - selectivity(not.arg(), columns);
    }
    if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        return column(is_null.arg()).map_or(UNKNOWN, |c| c.nulls);
    }
    if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        return column(is_not_null.arg()).map_or(1.0 - UNKNOWN, |c| 1.0 - c.nulls);
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let share = match column(list.expr()) {
            Some(column) => list.list().iter().map(|entry| one_value(column, entry)).sum(),
            None => FUNCTION_EQUALITY * list.len() as f64,
        };
        let share = share.min(1.0);
        return if list.negated() { 1.0 - share } else { share };
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let known = (!like.case_insensitive()).then(|| column(like.expr())).flatten();
        let known = known.and_then(|column| beginning(column, like.pattern()));
        let share = known.unwrap_or_else(|| pattern(like.pattern()));
        return if like.negated() { 1.0 - share } else { share };
    }
    // A boolean column, or a function that gives one.
    let is_true = Value::Number(1.0);
    column(expr).map_or(UNKNOWN, |c| match &c.spread {
        Some(spread) => spread.equal(&is_true),
        None => 0.5 * (1.0 - c.nulls),
    })
}

/// An operator with two operands, neither of which is known to bound a column's range.
fn comparison(binary: &BinaryExpr, columns: &[ColumnEstimate]) -> f64 {
    let (left, right) = (binary.left(), binary.right());
    let whole = |expr: &Expr| selectivity(expr, columns);
    match binary.op() {
        Operator::And => whole(left) * whole(right),
        Operator::Or => {
            let (a, b) = (whole(left), whole(right));
            a + b - a * b
        }
        Operator::Eq | Operator::IsNotDistinctFrom => equality(left, right, columns),
        Operator::NotEq | Operator::IsDistinctFrom => 1.0 - equality(left, right, columns),
        Operator::LikeMatch | Operator::ILikeMatch => pattern(right),
        Operator::NotLikeMatch | Operator::NotILikeMatch => 1.0 - pattern(right),
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => INEQUALITY,
        _ => UNKNOWN,
    }
}

/// An equality keeps the rows of one value: of the literal, or of whichever column has more of them.
fn equality(left: &Expr, right: &Expr, columns: &[ColumnEstimate]) -> f64 {
    let column = |expr: &Expr| column_of(expr).and_then(|index| columns.get(index));
    match (column(left), column(right)) {
        (Some(a), Some(b)) => 1.0 / a.distinct.max(b.distinct),
        (Some(column), None) => one_value(column, right),
        (None, Some(column)) => one_value(column, left),
        (None, None) => FUNCTION_EQUALITY,
    }
}

/// The share of the rows in which `column` has one value: that of `expr`, where it is a literal.
fn one_value(column: &ColumnEstimate, expr: &Expr) -> f64 {
    let value = literal_of(expr).and_then(Value::of);
    match column.spread.as_ref().zip(value) {
        Some((spread, value)) => spread.equal(&value),
        None => (1.0 - column.nulls) / column.distinct,
    }
}

/// The share of the rows in which an analyzed `column` begins as `pattern` does. What comes behind the first wildcard is
/// taken to keep all of them if it is the only one, else half.
fn beginning(column: &ColumnEstimate, pattern: &Expr) -> Option<f64> {
    let pattern = literal_of(pattern)?.try_as_str()??;
    let end = pattern.find(['%', '_', '\\']).unwrap_or(pattern.len());
    let spread = column.spread.as_ref().filter(|_| end > 0)?;
    Some(match &pattern[end..] {
        "" => spread.equal(&Value::Text(pattern.as_bytes().to_vec())),
        "%" => spread.beginning(&pattern.as_bytes()[..end]),
        _ => 0.5 * spread.beginning(&pattern.as_bytes()[..end]),
    })
}

/// A pattern that begins with text keeps fewer rows than one that may match anywhere.
fn pattern(expr: &Expr) -> f64 {
    let Some(pattern) = literal_of(expr).and_then(|value| value.try_as_str().flatten()) else {
        return UNKNOWN;
    };
    if pattern.starts_with(['%', '_']) { PATTERN } else { PREFIX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Distribution;
    use datafusion::arrow::array::{ArrayRef, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::{binary, col, in_list, is_null, like, lit, not};

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("number", DataType::Int64, true),
            Field::new("text", DataType::Utf8, true),
        ])
    }

    /// 100 numbers from 1 to 100, a tenth of the rows NULL; 20 texts.
    fn share(expr: &Expr) -> f64 {
        let number = ColumnEstimate {
            bounds: Some((1.0, 100.0)),
            nulls: 0.1,
            ..ColumnEstimate::unknown(&DataType::Int64, 100.0)
        };
        let text = ColumnEstimate::unknown(&DataType::Utf8, 20.0);
        (selectivity(expr, &[number, text]) * 1000.0).round() / 1000.0
    }

    fn compare(column: &str, op: Operator, value: impl datafusion::logical_expr::Literal) -> Expr {
        let schema = schema();
        binary(col(column, &schema).unwrap(), op, lit(value), &schema).unwrap()
    }

    fn and(a: Expr, b: Expr) -> Expr {
        binary(a, Operator::And, b, &schema()).unwrap()
    }

    #[test]
    fn comparisons_with_literals_follow_the_statistics() {
        assert_eq!(share(&compare("number", Operator::LtEq, 50_i64)), 0.45);
        assert_eq!(share(&compare("number", Operator::Gt, 1000_i64)), 0.0);
        assert_eq!(share(&compare("text", Operator::Eq, "a")), 0.05);
        assert_eq!(share(&compare("text", Operator::NotEq, "a")), 0.95);
        assert_eq!(share(&compare("text", Operator::Lt, "a")), 0.333);
        let (low, high) =
            (compare("number", Operator::GtEq, 41_i64), compare("number", Operator::LtEq, 50_i64));
        assert_eq!(share(&and(low, high)), 0.09, "one range of ten values, not the product of two halves");
    }

    /// Of ten texts each is twice as common as the next one.
    #[test]
    fn the_spread_of_an_analyzed_column_tells_the_share_of_each_value() {
        let schema = schema();
        let texts = (0..10).flat_map(|k| std::iter::repeat_n(format!("{}{k}", ["b", "a"][k % 2]), 512 >> k));
        let column: ArrayRef = Arc::new(StringArray::from(texts.collect::<Vec<_>>()));
        let spread = Distribution::of(&column, None).unwrap().map(Arc::new);
        let number = ColumnEstimate::unknown(&DataType::Int64, 1023.0);
        let text = ColumnEstimate { spread, ..ColumnEstimate::unknown(&DataType::Utf8, 1023.0) };
        let share =
            |expr: &Expr| (selectivity(expr, &[number.clone(), text.clone()]) * 100.0).round() / 100.0;
        let text = col("text", &schema).unwrap();
        assert_eq!(share(&compare("text", Operator::Eq, "b0")), 0.5);
        assert_eq!(share(&compare("text", Operator::Eq, "a1")), 0.25);
        assert_eq!(share(&compare("text", Operator::NotEq, "b0")), 0.5);
        assert_eq!(share(&compare("text", Operator::Lt, "b")), 0.33);
        let (low, high) = (compare("text", Operator::GtEq, "b"), compare("text", Operator::LtEq, "b0"));
        assert_eq!(share(&and(low, high)), 0.5);
        let list = in_list(Arc::clone(&text), vec![lit("b0"), lit("b2"), lit("c")], &false, &schema).unwrap();
        assert_eq!(share(&list), 0.63);
        let like = |pattern| like(false, false, Arc::clone(&text), lit(pattern), &schema).unwrap();
        assert_eq!(share(&like("b%")), 0.67);
        assert_eq!(share(&like("b%2")), 0.33, "half of what begins so");
        assert_eq!(share(&like("b0")), 0.5);
    }

    #[test]
    fn other_predicates() {
        let schema = schema();
        let number = col("number", &schema).unwrap();
        let text = col("text", &schema).unwrap();
        assert_eq!(share(&is_null(Arc::clone(&number)).unwrap()), 0.1);
        assert_eq!(share(&not(compare("text", Operator::Eq, "a")).unwrap()), 0.95);
        let list = vec![lit("a"), lit("b")];
        assert_eq!(share(&in_list(Arc::clone(&text), list, &false, &schema).unwrap()), 0.1);
        let prefix = like(false, false, Arc::clone(&text), lit("a%"), &schema).unwrap();
        assert_eq!(share(&prefix), PREFIX);
        let either = binary(
            compare("text", Operator::Eq, "a"),
            Operator::Or,
            compare("text", Operator::Eq, "b"),
            &schema,
        );
        assert_eq!(share(&either.unwrap()), 0.098);
        assert_eq!(share(&lit(false)), 0.0);
    }
}
