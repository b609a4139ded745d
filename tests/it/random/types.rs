//! The column types of the random queries, and the values that data and literals share.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
    StringViewArray,
};
use datafusion::arrow::datatypes::DataType;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    BigInt,
    Decimal,
    Double,
    Date,
    Text,
    Bool,
}

/// In this order, so that a later date has a greater number. One February has 29 days.
const DATES: [&str; 12] = [
    "2023-12-31",
    "2024-01-01",
    "2024-01-02",
    "2024-01-31",
    "2024-02-01",
    "2024-02-28",
    "2024-02-29",
    "2024-03-01",
    "2024-03-31",
    "2024-06-15",
    "2024-12-31",
    "2025-01-01",
];

/// Days since 1970-01-01 of [`DATES`].
const DAYS: [i32; 12] = [19722, 19723, 19724, 19753, 19754, 19781, 19782, 19783, 19813, 19889, 20088, 20089];

/// Some are numbers, so that a number cast to text finds a partner; one is empty; cases differ.
const WORDS: [&str; 10] = ["a", "b", "ab", "", "1", "B", "ä", "2", "b%", "abc"];

impl Type {
    pub(super) const ALL: [Self; 7] =
        [Self::Int, Self::BigInt, Self::Decimal, Self::Double, Self::Date, Self::Text, Self::Bool];

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::BigInt | Self::Decimal | Self::Double)
    }

    /// Whether `=` compares them without a cast in the text of the query.
    pub(super) fn compares_with(self, other: Self) -> bool {
        self == other || (self.is_number() && other.is_number())
    }

    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::BigInt => "BIGINT",
            Self::Decimal => "DECIMAL(10, 2)",
            Self::Double => "DOUBLE",
            Self::Date => "DATE",
            Self::Text => "VARCHAR",
            Self::Bool => "BOOLEAN",
        }
    }

    /// `views`: text as DataFusion reads it from Parquet.
    pub(super) fn arrow(self, views: bool) -> DataType {
        match self {
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Decimal => DataType::Decimal128(10, 2),
            Self::Double => DataType::Float64,
            Self::Date => DataType::Date32,
            Self::Text if views => DataType::Utf8View,
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
        }
    }

    /// The values with these numbers; the numbers are those of [`Self::literal`].
    pub(super) fn array(self, values: &[Option<usize>], views: bool) -> ArrayRef {
        let numbers = values.iter().map(|value| value.map(number));
        let words = values.iter().map(|value| value.map(|at| WORDS[at % WORDS.len()]));
        match self {
            Self::Int => {
                Arc::new(numbers.map(|n| n.map(|n| i32::try_from(n).unwrap())).collect::<Int32Array>())
            }
            Self::BigInt => Arc::new(numbers.collect::<Int64Array>()),
            Self::Decimal => {
                let halves = numbers.map(|n| n.map(|n| i128::from(n) * 50)).collect::<Decimal128Array>();
                Arc::new(halves.with_precision_and_scale(10, 2).unwrap())
            }
            // Halves: sums of them are exact, so that no order of additions shows.
            Self::Double => Arc::new(numbers.map(|n| n.map(|n| n as f64 * 0.5)).collect::<Float64Array>()),
            Self::Date => Arc::new(
                values.iter().map(|value| value.map(|at| DAYS[at % DAYS.len()])).collect::<Date32Array>(),
            ),
            Self::Text if views => Arc::new(words.collect::<StringViewArray>()),
            Self::Text => Arc::new(words.collect::<StringArray>()),
            Self::Bool => Arc::new(
                values.iter().map(|value| value.map(|at| at.is_multiple_of(2))).collect::<BooleanArray>(),
            ),
        }
    }

    /// The value with this number as SQL.
    pub(super) fn literal(self, at: usize) -> String {
        let signed = |text: String| if text.starts_with('-') { format!("({text})") } else { text };
        match self {
            Self::Int | Self::BigInt => signed(number(at).to_string()),
            Self::Decimal => format!("CAST({:.2} AS DECIMAL(10, 2))", number(at) as f64 * 0.5),
            Self::Double => signed(format!("{:.1}", number(at) as f64 * 0.5)),
            Self::Date => format!("DATE '{}'", DATES[at % DATES.len()]),
            Self::Text => format!("'{}'", WORDS[at % WORDS.len()]),
            Self::Bool => if at.is_multiple_of(2) { "TRUE" } else { "FALSE" }.to_owned(),
        }
    }
}

/// One below zero, and zero, are among them.
fn number(at: usize) -> i64 {
    i64::try_from(at).unwrap() - 1
}
