//! Columns drawn row by row, and the types they have.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::error::Result;

use super::draw::{Draw, Seed};

/// Days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date(pub(super) i32);

/// Microseconds since 1970-01-01, without a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamp(pub(super) i64);

/// A number of `P` digits, `S` of them behind the point, as a whole number of its smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal<const P: u8, const S: i8>(pub(super) i64);

/// A value that a column can hold.
pub(super) trait Value: Sized {
    /// The column of these values; the error is that of a decimal's precision.
    fn array(values: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef>;
}

/// Implements [`Value`] for what an array of Arrow is collected from.
macro_rules! value {
    ($($value:ty => $array:ty, $native:expr;)*) => {
        $(impl Value for $value {
            fn array(values: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef> {
                Ok(Arc::new(values.map(|value| value.map($native)).collect::<$array>()))
            }
        })*
    };
}

value! {
    i32 => Int32Array, |value| value;
    i64 => Int64Array, |value| value;
    f64 => Float64Array, |value| value;
    bool => BooleanArray, |value| value;
    String => StringArray, |value| value;
    &'static str => StringArray, |value| value;
    Date => Date32Array, |value: Date| value.0;
    Timestamp => TimestampMicrosecondArray, |value: Timestamp| value.0;
}

impl<const P: u8, const S: i8> Value for Decimal<P, S> {
    fn array(values: impl Iterator<Item = Option<Self>>) -> Result<ArrayRef> {
        let array: Decimal128Array = values.map(|value| value.map(|v| i128::from(v.0))).collect();
        Ok(Arc::new(array.with_precision_and_scale(P, S)?))
    }
}

/// Some rows of a table while its columns are drawn.
#[derive(Debug)]
pub(super) struct Columns {
    table: &'static str,
    rows: Range<u64>,
    fields: Vec<Field>,
    arrays: Result<Vec<ArrayRef>>,
}

impl Columns {
    /// Rows without columns.
    pub(super) fn new(table: &'static str, rows: Range<u64>) -> Self {
        Self { table, rows, fields: vec![], arrays: Ok(vec![]) }
    }

    /// Adds a column without NULLs.
    pub(super) fn add<T: Value>(&mut self, name: &'static str, value: impl Fn(&mut Draw) -> T) {
        self.push(name, false, |draw| Some(value(draw)));
    }

    /// Adds a column with NULLs.
    pub(super) fn nullable<T: Value>(&mut self, name: &'static str, value: impl Fn(&mut Draw) -> Option<T>) {
        self.push(name, true, value);
    }

    /// The rows, or the first error of a column.
    pub(super) fn finish(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays?)?)
    }

    fn push<T: Value>(&mut self, name: &'static str, nullable: bool, value: impl Fn(&mut Draw) -> Option<T>) {
        let Ok(arrays) = &mut self.arrays else {
            return;
        };
        let seed = Seed::new(&format!("{}.{name}", self.table));
        match T::array(self.rows.clone().map(|row| value(&mut seed.at(row)))) {
            Ok(array) => {
                self.fields.push(Field::new(name, array.data_type().clone(), nullable));
                arrays.push(array);
            }
            Err(error) => self.arrays = Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::compute::concat_batches;

    fn columns(rows: Range<u64>) -> RecordBatch {
        let mut columns = Columns::new("test", rows);
        columns.add("id", |d| key(d.row()));
        columns.nullable("price", |d| d.percent(50).then(|| Decimal::<7, 2>(key(d.below(1_000)))));
        columns.add("day", |d| Date(d.int(0..=10)));
        columns.finish().unwrap()
    }

    fn key(n: u64) -> i64 {
        super::super::draw::key64(n)
    }

    /// However a table is cut, its rows are the same.
    #[test]
    fn parts_make_the_whole() {
        let whole = columns(0..100);
        let parts = [columns(0..7), columns(7..7), columns(7..100)];
        assert_eq!(concat_batches(&whole.schema(), &parts).unwrap(), whole);
        let nulls: Vec<usize> = whole.columns().iter().map(|c| c.null_count()).collect();
        assert!(nulls[0] == 0 && (30..70).contains(&nulls[1]) && nulls[2] == 0, "{nulls:?}");
        assert_eq!(columns(0..0).schema(), whole.schema(), "without rows, too");
    }

    #[test]
    fn an_impossible_decimal_is_an_error() {
        let mut columns = Columns::new("test", 0..1);
        columns.add("too_wide", |_| Decimal::<60, 2>(1));
        columns.add("fine", |_| 1_i32);
        assert!(columns.finish().unwrap_err().to_string().contains("precision"));
    }
}
