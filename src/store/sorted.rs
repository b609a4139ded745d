//! Equal values of a sorted column, counted.

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::{SortOptions, partition, sort};
use datafusion::common::{Result, ScalarValue};

use super::distribution::Value;

/// The values of `column` in ascending order, NULLs left out, each with the number of times that it occurs; `None`
/// for types whose values have no place on a scale.
pub(super) fn counted(column: &ArrayRef) -> Result<Option<Vec<(Value, u64)>>> {
    let Some(first) = (0..column.len()).find(|row| column.is_valid(*row)) else {
        return Ok(Some(Vec::new()));
    };
    // The first value tells for all whether the type has a scale.
    if Value::of(&ScalarValue::try_from_array(column, first)?).is_none() {
        return Ok(None);
    }
    let sorted = sort(column.as_ref(), Some(SortOptions { descending: false, nulls_first: false }))?;
    // NULLs stand last, where they can be cut off.
    let sorted = sorted.slice(0, column.len() - column.null_count());
    let mut values = Vec::new();
    for range in partition(&[ArrayRef::clone(&sorted)])?.ranges() {
        if let Some(value) = Value::of(&ScalarValue::try_from_array(&sorted, range.start)?) {
            values.push((value, range.len() as u64));
        }
    }
    Ok(Some(values))
}
