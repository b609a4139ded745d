//! How the values of a column are spread: the most common ones, and a histogram of the rest.

use std::cmp::Ordering;

use datafusion::arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};

use super::sorted::counted;

/// Most common values that are kept: each is compared with a literal when a query is planned, and beyond a dozen there is
/// little left of most skews.
const MAX_COMMON: usize = 16;
/// Buckets of a histogram. The share of a range is then off by at most two of them, three rows of a hundred.
const MAX_BUCKETS: usize = 64;
/// Of a text the first so many bytes are kept. A longer one is no common value: its beginning may be that of others.
const MAX_TEXT_BYTES: usize = 128;

/// A value on a scale: a number (of a date, a time or a decimal the number that stands for it), or text by its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Whatever has differences that mean something.
    Number(f64),
    /// Text and binary.
    Text(Vec<u8>),
}

impl Value {
    /// The place of `value`; `None` for NULL, NaN, and types without a scale.
    ///
    /// Numbers of more than 53 bits lose their last digits: neighbours may become one value, which estimates bear.
    pub(crate) fn of(value: &ScalarValue) -> Option<Self> {
        let number = match value {
            ScalarValue::Boolean(v) => f64::from(u8::from((*v)?)),
            ScalarValue::Int8(v) => f64::from((*v)?),
            ScalarValue::Int16(v) => f64::from((*v)?),
            ScalarValue::Int32(v) | ScalarValue::Date32(v) | ScalarValue::Time32Second(v) => f64::from((*v)?),
            ScalarValue::Int64(v)
            | ScalarValue::Date64(v)
            | ScalarValue::TimestampSecond(v, _)
            | ScalarValue::TimestampMillisecond(v, _)
            | ScalarValue::TimestampMicrosecond(v, _)
            | ScalarValue::TimestampNanosecond(v, _) => (*v)? as f64,
            ScalarValue::UInt8(v) => f64::from((*v)?),
            ScalarValue::UInt16(v) => f64::from((*v)?),
            ScalarValue::UInt32(v) => f64::from((*v)?),
            ScalarValue::UInt64(v) => (*v)? as f64,
            ScalarValue::Float32(v) => f64::from((*v)?),
            ScalarValue::Float64(v) => (*v)?,
            ScalarValue::Decimal32(v, _, _) => f64::from((*v)?),
            ScalarValue::Decimal64(v, _, _) => (*v)? as f64,
            ScalarValue::Decimal128(v, _, _) => (*v)? as f64,
            ScalarValue::Dictionary(_, value) => return Self::of(value),
            ScalarValue::Binary(v) | ScalarValue::LargeBinary(v) | ScalarValue::BinaryView(v) => {
                return Some(Self::Text(v.as_deref()?.to_vec()));
            }
            _ => return Some(Self::Text(value.try_as_str()??.as_bytes().to_vec())),
        };
        number.is_finite().then_some(Self::Number(number))
    }

    /// The number that it is, on the scale that minima and maxima of files are compared on.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(_) => None,
        }
    }

    /// Whether it comes before `other` in the order of the column.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        before(self, other)
    }

    /// Whether it is kept in part only.
    fn is_long(&self) -> bool {
        matches!(self, Self::Text(text) if text.len() > MAX_TEXT_BYTES)
    }

    /// What is kept of it: enough to tell where it lies, and no page of text.
    fn shortened(mut self) -> Self {
        if let Self::Text(text) = &mut self {
            text.truncate(MAX_TEXT_BYTES);
            text.shrink_to_fit();
        }
        self
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        let text = if let Self::Text(text) = self { text.len() } else { 0 };
        size_of::<Self>() + text
    }

    /// The order of the column; values of two kinds cannot be compared.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// One end of a range.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// Where it ends.
    pub(crate) value: Value,
    /// Whether the value itself is in the range.
    pub(crate) inclusive: bool,
}

/// How the rows of a column are spread over its values, from a sample of them.
///
/// The form is PostgreSQL's (`pg_stats`): the values that are clearly more common than the average one, with their
/// shares; and bounds between which equally many of the other rows lie (an equi-depth histogram, Piatetsky-Shapiro and
/// Connell, SIGMOD 1984).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    /// The most common values, each with its share of all rows.
    common: Vec<(Value, f64)>,
    /// The ends of the histogram's buckets, ascending; one more than there are buckets, or none.
    bounds: Vec<Value>,
    /// Share of all rows that are neither NULL nor have a common value.
    rest: f64,
    /// Distinct values that are not among the common ones.
    rest_distinct: u64,
}

impl Distribution {
    /// The spread of `sample`, in which a row stands for as many rows as any other. `distinct` is the number of distinct
    /// values in the whole column; not given where the sample is the whole column. `None` where the type has no scale.
    pub(crate) fn of(sample: &ArrayRef, distinct: Option<u64>) -> Result<Option<Self>> {
        Ok(counted(sample)?.map(|values| Self::of_counted(values, sample.len() as u64, distinct)))
    }

    /// Splits the counted values into common ones and the rest.
    ///
    /// A value of a small domain is always common, so that a column of three states is known by heart. In a larger one a
    /// value has to occur a quarter more often than the average: else the histogram tells as much (PostgreSQL's rule).
    fn of_counted(values: Vec<(Value, u64)>, rows: u64, distinct: Option<u64>) -> Self {
        let distinct = distinct.unwrap_or(0).max(values.len() as u64);
        let present: u64 = values.iter().map(|(_, count)| count).sum();
        let rows = rows.max(1) as f64;
        // All values where they are few; else those that occur clearly more often than the average, more than once.
        let all = values.len() <= MAX_COMMON && distinct <= MAX_COMMON as u64;
        let least = if all { 0.0 } else { (1.25 * present as f64 / (values.len().max(1) as f64)).max(1.5) };
        let mut places: Vec<usize> = (0..values.len())
            .filter(|place| values[*place].1 as f64 > least && !values[*place].0.is_long())
            .collect();
        // Ties go to the smaller value, so that the same sample gives the same statistics.
        places.sort_by_key(|place| std::cmp::Reverse(values[*place].1));
        places.truncate(MAX_COMMON);
        let common: Vec<(Value, f64)> =
            places.iter().map(|place| (values[*place].0.clone(), values[*place].1 as f64 / rows)).collect();
        let rest: Vec<(Value, u64)> = values
            .into_iter()
            .enumerate()
            .filter(|(place, _)| !places.contains(place))
            .map(|(_, value)| value)
            .collect();
        let left: u64 = rest.iter().map(|(_, count)| count).sum();
        Self {
            rest: left as f64 / rows,
            rest_distinct: distinct.saturating_sub(common.len() as u64),
            bounds: equi_depth(rest, left),
            common,
        }
    }

    /// The share of the rows that have `value`.
    pub(crate) fn equal(&self, value: &Value) -> f64 {
        if let Some((_, share)) = self.common.iter().find(|(common, _)| common == value) {
            return *share;
        }
        let outside = match (self.bounds.first(), self.bounds.last()) {
            (Some(low), Some(high)) => before(value, low) || before(high, value),
            _ => true,
        };
        // A sample does not have the very ends of a column, so a value beyond them is rare rather than impossible.
        let share = self.rest / self.rest_distinct.max(1) as f64;
        if outside { share * 0.1 } else { share }
    }

    /// The share of the rows between `low` and `high`; no bound is no limit.
    ///
    /// ```text
    ///   common    7: 50 %          12: 3 %                      those inside count in full
    ///   buckets   |1    |9  |15 |18      |40             |99    the rest: whole buckets, and parts of the two at the ends
    ///   range          [10 ──────────── 30]
    /// ```
    pub(crate) fn between(&self, low: Option<&Bound>, high: Option<&Bound>) -> f64 {
        let inside = |value: &Value| {
            let above = |bound: &Bound| match bound.value.order(value) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => bound.inclusive,
                _ => false,
            };
            let below = |bound: &Bound| match value.order(&bound.value) {
                Some(Ordering::Less) => true,
                Some(Ordering::Equal) => bound.inclusive,
                _ => false,
            };
            low.is_none_or(above) && high.is_none_or(below)
        };
        let common: f64 = self.common.iter().filter(|(value, _)| inside(value)).map(|(_, share)| share).sum();
        let up_to = high.map_or(1.0, |high| self.rank(&high.value));
        let from = low.map_or(0.0, |low| self.rank(&low.value));
        // Within a bucket a range may be so narrow that it has no width of its own: then it has the rows of one value.
        let one = match (low, high) {
            (Some(low), Some(high)) if low.inclusive && high.inclusive && low.value == high.value => {
                return self.equal(&low.value);
            }
            (Some(low), Some(high)) if before(&low.value, &high.value) => self.one_of_rest(),
            _ => 0.0,
        };
        (common + self.rest * (up_to - from).max(0.0).max(one)).clamp(0.0, 1.0)
    }

    /// The share of the rows whose text begins with `prefix`.
    pub(crate) fn beginning(&self, prefix: &[u8]) -> f64 {
        let low = Bound { value: Value::Text(prefix.to_vec()), inclusive: true };
        let high = next_prefix(prefix).map(|next| Bound { value: Value::Text(next), inclusive: false });
        self.between(Some(&low), high.as_ref())
    }

    /// The most common values with their shares, the largest first.
    pub(crate) fn common(&self) -> &[(Value, f64)] {
        &self.common
    }

    /// Distinct values of the column.
    pub(crate) fn distinct(&self) -> u64 {
        self.common.len() as u64 + self.rest_distinct
    }

    /// Buckets of the histogram.
    pub(crate) fn buckets(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let common: usize = self.common.iter().map(|(value, _)| value.bytes() + size_of::<f64>()).sum();
        size_of::<Self>() + common + self.bounds.iter().map(Value::bytes).sum::<usize>()
    }

    /// The part of the remaining rows that one value of them has, where the histogram does not cover a range at all.
    fn one_of_rest(&self) -> f64 {
        if self.bounds.is_empty() { 0.0 } else { 0.1 / self.rest_distinct.max(1) as f64 }
    }

    /// The share of the histogram's rows that come before `value`.
    fn rank(&self, value: &Value) -> f64 {
        let buckets = self.buckets();
        if buckets == 0 {
            return match self.bounds.first() {
                Some(only) if before(value, only) => 0.0,
                _ => 1.0,
            };
        }
        let above = self.bounds.partition_point(|bound| !before(value, bound));
        if above == 0 {
            return 0.0;
        }
        if above > buckets {
            return 1.0;
        }
        let inside = part(&self.bounds[above - 1], &self.bounds[above], value);
        ((above - 1) as f64 + inside) / buckets as f64
    }
}

/// Whether `a` comes first; values of two kinds are taken to be in no order.
fn before(a: &Value, b: &Value) -> bool {
    a.order(b) == Some(Ordering::Less)
}

/// How much of the way from `low` to `high` lies before `value`: of numbers by their differences, of text by the first
/// six bytes in which the ends differ, read as the digits of a number. What cannot be told is taken for the middle.
fn part(low: &Value, high: &Value, value: &Value) -> f64 {
    match (low, high, value) {
        (Value::Number(low), Value::Number(high), Value::Number(value)) if high > low => {
            ((value - low) / (high - low)).clamp(0.0, 1.0)
        }
        (Value::Text(low), Value::Text(high), Value::Text(value)) => {
            let same = low.iter().zip(high).take_while(|(a, b)| a == b).count();
            let place = |text: &[u8]| {
                let digits = text.iter().skip(same).chain(std::iter::repeat(&0)).take(6);
                digits.fold(0.0, |place, byte| place * 256.0 + f64::from(*byte))
            };
            let (low, high, value) = (place(low), place(high), place(value));
            if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
        }
        _ => 0.5,
    }
}

/// The smallest text that is above all that begin with `prefix`; `None` where there is none.
fn next_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

/// Bounds between which equally many of `rows` values lie, the smallest and the largest among them.
///
/// A value that fills several buckets is a bound several times over; a range that touches it covers all of them.
fn equi_depth(values: Vec<(Value, u64)>, rows: u64) -> Vec<Value> {
    let buckets = (MAX_BUCKETS as u64).min(rows.saturating_sub(1));
    let mut bounds: Vec<Value> = Vec::new();
    let (mut passed, mut next) = (0, 0);
    for (value, count) in values {
        passed += count;
        // Bound `next` is the value of row `next / buckets` of the way.
        while next <= buckets && buckets > 0 && passed * buckets > next * (rows - 1) {
            bounds.push(value.clone().shortened());
            next += 1;
        }
        if buckets == 0 {
            bounds.push(value.shortened());
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    fn at(number: f64, inclusive: bool) -> Bound {
        Bound { value: Value::Number(number), inclusive }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 0.02, "{found} instead of {expected}");
    }

    /// Half of the rows are 7, a tenth is NULL, the others lie between 1,000 and 1,999, dense at the low end.
    fn skewed() -> Distribution {
        let value = |row: i64| match row % 10 {
            0..=4 => Some(7),
            5 => None,
            _ => Some(1000 + (row * row / 1000) % 1000 * (row % 3) / 2),
        };
        let column: ArrayRef = Arc::new(Int64Array::from_iter((0..10_000).map(value)));
        Distribution::of(&column, Some(900)).unwrap().unwrap()
    }

    #[test]
    fn common_values_have_their_own_share_and_the_rest_share_what_is_left() {
        let spread = skewed();
        near(spread.equal(&Value::Number(7.0)), 0.5);
        assert!(spread.equal(&Value::Number(1_500.0)) < 0.01);
        assert!(spread.equal(&Value::Number(5_000.0)) < 0.001);
        near(spread.between(None, Some(&at(7.0, true))), 0.5);
        near(spread.between(None, Some(&at(7.0, false))), 0.0);
        near(spread.between(Some(&at(100.0, false)), None), 0.4);
        near(spread.between(None, None), 0.9);
        assert!(spread.buckets() <= 64 && spread.common().len() <= 16);
    }

    #[test]
    fn ranges_follow_the_histogram_and_not_the_ends_alone() {
        let squares: ArrayRef = Arc::new(Int64Array::from_iter_values((0..10_000).map(|row| row * row)));
        let spread = Distribution::of(&squares, None).unwrap().unwrap();
        // A quarter of the squares lies below a sixteenth of the range.
        near(spread.between(None, Some(&at(6_250_000.0, true))), 0.25);
        near(spread.between(Some(&at(6_250_000.0, true)), Some(&at(25_000_000.0, true))), 0.25);
        assert_eq!(spread.between(Some(&at(2e8, true)), None), 0.0);
    }

    #[test]
    fn text_is_ordered_by_its_bytes_and_prefixes_are_ranges() {
        let names = (0..10_000).map(|row| format!("{}{row:05}", ["alpha", "beta", "gamma", "beta"][row % 4]));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        let spread = Distribution::of(&column, Some(10_000)).unwrap().unwrap();
        near(spread.beginning(b"beta"), 0.5);
        near(spread.beginning(b"delta"), 0.0);
        near(spread.beginning(b"a"), 0.25);
        near(spread.beginning(b"beta05"), 0.05);
        let low = Bound { value: Value::Text(b"b".to_vec()), inclusive: true };
        near(spread.between(Some(&low), None), 0.75);
    }

    #[test]
    fn long_text_is_cut_and_empty_columns_have_nothing() {
        let long: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|_| "x".repeat(10_000))));
        let spread = Distribution::of(&long, None).unwrap().unwrap();
        assert!(spread.bytes() < 10_000 && spread.common().is_empty(), "{spread:?}");
        let empty: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        assert_eq!(Distribution::of(&empty, None).unwrap().unwrap().equal(&Value::Number(1.0)), 0.0);
        assert_eq!(next_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(next_prefix(b"\xff"), None);
    }
}
