//! What is known of one column.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};

use crate::store::{ColumnProfile, Distribution, Value};

/// What is expected of one column of a result.
#[derive(Debug, Clone)]
pub(crate) struct ColumnEstimate {
    /// Distinct values, NULL not counted. Never more than there are rows.
    pub(crate) distinct: f64,
    /// Distinct values in the table, before any filter.
    pub(crate) domain: f64,
    /// Whether `domain` is no more than the number of rows, since nothing is known of the values.
    pub(crate) guessed: bool,
    /// Smallest and largest value, on a scale where differences mean something.
    pub(crate) bounds: Option<(f64, f64)>,
    /// Share of the rows that are NULL.
    pub(crate) nulls: f64,
    /// Bytes of one value in memory.
    pub(crate) bytes: f64,
    /// How the values are spread, where ANALYZE has found out: shares of the rows of the table, which filters on other
    /// columns are taken to leave as they are.
    pub(crate) spread: Option<Arc<Distribution>>,
}

impl ColumnEstimate {
    /// A column of which the type is known, and that there are `rows` of it.
    pub(crate) fn unknown(data_type: &DataType, rows: f64) -> Self {
        let distinct = if *data_type == DataType::Boolean { 2.0 } else { rows };
        let distinct = distinct.min(rows).max(1.0);
        Self {
            distinct,
            domain: distinct,
            guessed: *data_type != DataType::Boolean,
            bounds: None,
            nulls: 0.0,
            bytes: type_bytes(data_type),
            spread: None,
        }
    }

    /// A column of a source whose statistics are known.
    pub(crate) fn of_source(data_type: &DataType, statistics: &ColumnStatistics, rows: f64) -> Self {
        let mut column = Self::unknown(data_type, rows);
        if let Some(nulls) = statistics.null_count.get_value()
            && rows > 0.0
        {
            column.nulls = (*nulls as f64 / rows).clamp(0.0, 1.0);
        }
        let size = statistics.byte_size.get_value().map(|bytes| *bytes as f64);
        column.bounds = bounds(&statistics.min_value, &statistics.max_value);
        let filled = rows * (1.0 - column.nulls);
        let codes = size.map(|size| (size - levels(column.nulls, rows)).max(0.0));
        if let Some(distinct) = distinct(data_type, statistics, column.bounds, codes, filled) {
            column = Self { distinct, domain: distinct, guessed: false, ..column };
        }
        if is_text(data_type)
            && let Some(size) = size
            && rows > 0.0
        {
            column.bytes += size / rows;
        }
        column
    }

    /// The same column of a source of `rows` rows, with what ANALYZE has found out about it.
    pub(super) fn analyzed(mut self, profile: &ColumnProfile, rows: f64) -> Self {
        self.distinct = (profile.distinct as f64).clamp(1.0, rows.max(1.0));
        self.domain = self.distinct;
        self.guessed = false;
        self.nulls = if rows > 0.0 { (profile.nulls as f64 / rows).clamp(0.0, 1.0) } else { 0.0 };
        if let (Some(min), Some(max)) = (&profile.min, &profile.max)
            && let (Some(low), Some(high)) = (position(min), position(max))
        {
            self.bounds = Some((low, high));
        }
        if let Some((average, _)) = profile.widths {
            self.bytes = type_bytes(&profile.data_type) + average;
        }
        self.spread.clone_from(&profile.distribution);
        self
    }
}

/// The smallest of the bounds that apply, in the order of trust: counted by the writer; the number of values
/// between minimum and maximum; the width of a dictionary code. `None` where none of them applies. `rows` are those that
/// are not NULL, and `codes` are the bytes that their values take in the file.
fn distinct(
    data_type: &DataType,
    statistics: &ColumnStatistics,
    bounds: Option<(f64, f64)>,
    codes: Option<f64>,
    rows: f64,
) -> Option<f64> {
    if let Some(counted) = statistics.distinct_count.get_value() {
        return Some((*counted as f64).clamp(1.0, rows.max(1.0)));
    }
    let bound = match (bounds, codes) {
        (Some((low, high)), _) if is_discrete(data_type) => high - low + 1.0,
        (_, Some(codes)) if is_text(data_type) => dictionary_codes(codes, rows)?,
        _ => return None,
    };
    Some(bound.min(rows).max(1.0))
}

/// The number of values in the dictionary of a text column that takes `size` bytes in its file.
///
/// Parquet bit-packs dictionary codes, so a column of few values takes ⌈log2 of their number⌉ bits a row. Above
/// 16 bits it may as well be short text that is stored as it is; then nothing is known.
fn dictionary_codes(size: f64, rows: f64) -> Option<f64> {
    // In a small file headers and the dictionary itself outweigh the codes.
    if rows < 10_000.0 {
        return None;
    }
    let bits = (size * 8.0 / rows).floor();
    // On average the codes fill three quarters of the range that their width allows.
    (bits <= 16.0).then(|| (0.75 * bits.exp2()).max(1.0))
}

/// The bytes in which a column tells which of its `rows` are NULL.
///
/// They are run-length encoded: about as many bits as the choice has entropy, and hardly any where NULLs stand side by side.
/// Where there are many NULLs that makes all the difference to the few values that are left, so nothing is taken off then:
/// too many distinct values are a bound, too few are not.
fn levels(nulls: f64, rows: f64) -> f64 {
    const MANY: f64 = 0.125;
    if nulls <= 0.0 || nulls > MANY {
        return 0.0;
    }
    let entropy = -(nulls * nulls.log2() + (1.0 - nulls) * (1.0 - nulls).log2());
    entropy * rows / 8.0
}

fn bounds(min: &Precision<ScalarValue>, max: &Precision<ScalarValue>) -> Option<(f64, f64)> {
    let (low, high) = (position(min.get_value()?)?, position(max.get_value()?)?);
    (low <= high).then_some((low, high))
}

/// A value's place on a scale where differences mean something; decimals count in units of their last digit.
fn position(value: &ScalarValue) -> Option<f64> {
    // Of truth values there are two, which says more than that one of them is larger.
    if matches!(value, ScalarValue::Boolean(_)) {
        return None;
    }
    Value::of(value)?.number()
}

/// Whether the values between two bounds can be counted.
fn is_discrete(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Date32 | DataType::Decimal128(..))
}

fn is_text(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// Bytes of one value in memory; of text, what a view takes.
fn type_bytes(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Boolean => 0.125,
        other => other.primitive_width().map_or(16.0, |bytes| bytes as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(min: ScalarValue, max: ScalarValue) -> ColumnStatistics {
        ColumnStatistics::new_unknown()
            .with_min_value(Precision::Exact(min))
            .with_max_value(Precision::Exact(max))
    }

    #[test]
    fn distinct_values_are_bounded_by_their_range() {
        let of = |data_type, min, max| {
            ColumnEstimate::of_source(&data_type, &statistics(min, max), 1000.0).distinct
        };
        assert_eq!(of(DataType::Int64, ScalarValue::from(1_i64), ScalarValue::from(50_i64)), 50.0);
        assert_eq!(of(DataType::Int64, ScalarValue::from(1_i64), ScalarValue::from(9_999_i64)), 1000.0);
        let cents = |value| ScalarValue::Decimal128(Some(value), 15, 2);
        assert_eq!(of(DataType::Decimal128(15, 2), cents(100), cents(299)), 200.0);
        assert_eq!(of(DataType::Float64, ScalarValue::from(0.0), ScalarValue::from(1.0)), 1000.0);
    }

    #[test]
    fn short_codes_tell_of_few_values() {
        let text = |bytes, rows| {
            let statistics = ColumnStatistics::new_unknown().with_byte_size(Precision::Inexact(bytes));
            ColumnEstimate::of_source(&DataType::Utf8View, &statistics, rows).distinct
        };
        assert_eq!(text(1_262_720, 2_000_000.0), 24.0, "five bits a row");
        assert_eq!(text(35_918_685, 1_500_000.0), 1_500_000.0, "text that is stored as it is");
        assert_eq!(text(400, 25.0), 25.0, "a file too small to tell");

        // Of 1.5 million rows six per cent have one of 120 texts, in seven bits each; the rest of the bytes tells which.
        let sparse = |bytes| {
            let statistics = ColumnStatistics::new_unknown()
                .with_byte_size(Precision::Inexact(bytes))
                .with_null_count(Precision::Exact(1_410_392));
            let column = ColumnEstimate::of_source(&DataType::Utf8View, &statistics, 1_500_000.0);
            (column.distinct, column.guessed)
        };
        assert_eq!(
            sparse(191_286),
            (1_500_000.0, true),
            "what tells NULLs apart is not taken for codes, nor off them"
        );
        assert_eq!(
            sparse(90_000),
            (192.0, false),
            "however few bits tell NULLs apart, codes have eight at most"
        );
    }
}
