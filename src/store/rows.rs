//! Profiles as rows, one for each column: what ANALYZE answers, and what `slipstream.statistics` shows.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, StringArray, StringBuilder, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::{Result, ScalarValue};

use super::distribution::Value;
use super::profile::{ColumnProfile, TableProfile};

/// A table's profile and one of its columns: what a row is made from.
type Row<'a> = (&'a TableProfile, &'a ColumnProfile);

/// | column | type | meaning |
/// |---|---|---|
/// | `table_name`, `column_name`, `data_type` | Utf8 | the table's name in full; the Arrow type |
/// | `rows`, `null_count` | UInt64 | counted |
/// | `distinct_count` | UInt64 | NULL not counted; within about 1 %, exact where all rows were sampled |
/// | `min_value`, `max_value` | Utf8 | NULL where there is none, or where it is long |
/// | `avg_width`, `max_width` | Float64, UInt64 | bytes of text and binary |
/// | `sampled_rows` | UInt64 | rows that the next two were made from |
/// | `histogram_buckets` | UInt64 | buckets of equally many rows |
/// | `common_values` | List(Utf8) | the most common values, each with its share of the rows |
pub(crate) fn profile_fields() -> Vec<Field> {
    let column = |name: &str, data_type: DataType, nullable: bool| Field::new(name, data_type, nullable);
    vec![
        column("table_name", DataType::Utf8, false),
        column("column_name", DataType::Utf8, false),
        column("data_type", DataType::Utf8, false),
        column("rows", DataType::UInt64, false),
        column("null_count", DataType::UInt64, false),
        column("distinct_count", DataType::UInt64, false),
        column("min_value", DataType::Utf8, true),
        column("max_value", DataType::Utf8, true),
        column("avg_width", DataType::Float64, true),
        column("max_width", DataType::UInt64, true),
        column("sampled_rows", DataType::UInt64, false),
        column("histogram_buckets", DataType::UInt64, false),
        column("common_values", DataType::new_list(DataType::Utf8, true), false),
    ]
}

/// The columns of [`profile_fields`] for `rows`.
pub(crate) fn profile_columns(rows: &[Row<'_>]) -> Result<Vec<ArrayRef>> {
    let texts = |get: fn(&Row<'_>) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
    };
    let counts = |get: fn(&Row<'_>) -> Option<u64>| -> ArrayRef {
        Arc::new(UInt64Array::from_iter(rows.iter().map(get)))
    };
    let ends = |get: fn(&ColumnProfile) -> Option<&ScalarValue>| -> Result<ArrayRef> {
        let texts = rows.iter().map(|(_, column)| get(column).map(scalar_text).transpose());
        Ok(Arc::new(StringArray::from_iter(texts.collect::<Result<Vec<_>>>()?)))
    };
    let widths = rows.iter().map(|(_, column)| column.widths.map(|(average, _)| average));
    Ok(vec![
        texts(|(table, _)| table.table.to_string()),
        texts(|(_, column)| column.name.clone()),
        texts(|(_, column)| column.data_type.to_string()),
        counts(|(table, _)| Some(table.rows)),
        counts(|(_, column)| Some(column.nulls)),
        counts(|(_, column)| Some(column.distinct)),
        ends(|column| column.min.as_ref())?,
        ends(|column| column.max.as_ref())?,
        Arc::new(Float64Array::from_iter(widths)),
        counts(|(_, column)| column.widths.map(|(_, largest)| largest)),
        counts(|(_, column)| Some(column.sampled)),
        counts(|(_, column)| Some(column.distribution.as_ref().map_or(0, |spread| spread.buckets() as u64))),
        common_values(rows),
    ])
}

/// A value as queries print it.
fn scalar_text(value: &ScalarValue) -> Result<String> {
    Ok(array_value_to_string(&value.to_array()?, 0)?)
}

/// Numbers as they are kept: of dates, times and decimals that is what stands for them, in units of the type.
fn common_values(rows: &[Row<'_>]) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for (_, column) in rows {
        for (value, share) in column.distribution.iter().flat_map(|spread| spread.common()) {
            let value = match value {
                Value::Number(number) => number.to_string(),
                Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            };
            lists.values().append_value(format!("{value}: {:.2} %", share * 100.0));
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}
