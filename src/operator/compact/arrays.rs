//! View arrays inside a batch, at any depth: finding them, judging them, copying them.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayDataBuilder, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array,
};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;

use super::ledger::Ledger;

/// Whether arrays of this type have views, at any depth.
///
/// A dictionary's values, an encoded run's and a union's are left alone: they are shared or rare.
pub(crate) fn has_views(data_type: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        List(field) | LargeList(field) | FixedSizeList(field, _) | Map(field, _) => {
            has_views(field.data_type())
        }
        Struct(fields) => fields.iter().any(|field| has_views(field.data_type())),
        _ => false,
    }
}

/// What copying did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    /// Bytes of the buffers that the arrays held, each list counted for itself.
    pub(super) before: usize,
    /// Bytes of the buffers they hold now.
    pub(super) after: usize,
}

/// Which view arrays of `batch` are to be copied, in the order in which they are met; one ledger for each.
pub(super) fn loose_arrays(batch: &RecordBatch, ledgers: &mut Vec<Ledger>) -> Vec<bool> {
    let mut loose = Vec::new();
    for column in batch.columns() {
        judge(column, ledgers, &mut loose);
    }
    loose
}

/// Nested arrays are walked in the order of their children, and so do [`copy`] and [`count`]: an array is known by how many
/// came before it. Children of a sliced list are judged whole, as they are held whole.
fn judge(array: &ArrayRef, ledgers: &mut Vec<Ledger>, loose: &mut Vec<bool>) {
    if let Some((views, buffers)) = parts(array) {
        let place = loose.len();
        if ledgers.len() == place {
            ledgers.push(Ledger::default());
        }
        loose.push(ledgers[place].is_loose(views, buffers));
    } else if has_views(array.data_type()) {
        for child in array.to_data().child_data() {
            judge(&make_array(child.clone()), ledgers, loose);
        }
    }
}

/// The views of a view array, and the buffers they point into.
fn parts(array: &ArrayRef) -> Option<(&[u128], &[Buffer])> {
    match array.data_type() {
        DataType::Utf8View => {
            let array = array.as_string_view();
            Some((array.views(), array.data_buffers()))
        }
        DataType::BinaryView => {
            let array = array.as_binary_view();
            Some((array.views(), array.data_buffers()))
        }
        _ => None,
    }
}

/// `batch` with its `loose` arrays copied into buffers of their own.
///
/// # Errors
/// Where arrow refuses to put the arrays together again, which would be a defect.
pub(super) fn compacted(batch: &RecordBatch, loose: &[bool]) -> Result<(RecordBatch, Copied)> {
    let mut copied = Copied::default();
    let mut place = 0;
    let columns = batch
        .columns()
        .iter()
        .map(|column| copy(column, loose, &mut place, &mut copied))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok((RecordBatch::try_new_with_options(batch.schema(), columns, &options)?, copied))
}

/// `batch` with all of its view arrays copied.
///
/// # Errors
/// As [`compacted`].
pub(in crate::operator) fn compacted_whole(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut arrays = 0;
    batch.columns().iter().for_each(|column| count(column, &mut arrays));
    Ok(compacted(batch, &vec![true; arrays])?.0)
}

fn count(array: &ArrayRef, arrays: &mut usize) {
    if parts(array).is_some() {
        *arrays += 1;
    } else if has_views(array.data_type()) {
        array.to_data().child_data().iter().for_each(|child| count(&make_array(child.clone()), arrays));
    }
}

fn copy(array: &ArrayRef, loose: &[bool], place: &mut usize, copied: &mut Copied) -> Result<ArrayRef> {
    if let Some((_, buffers)) = parts(array) {
        let this = loose.get(*place).copied().unwrap_or_default();
        *place += 1;
        if !this {
            return Ok(Arc::clone(array));
        }
        copied.before += buffers.iter().map(Buffer::capacity).sum::<usize>();
        let own: ArrayRef = match array.data_type() {
            DataType::Utf8View => Arc::new(array.as_string_view().gc()),
            _ => Arc::new(array.as_binary_view().gc()),
        };
        copied.after += parts(&own).map_or(0, |(_, buffers)| buffers.iter().map(Buffer::capacity).sum());
        return Ok(own);
    }
    if !has_views(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    let data = array.to_data();
    let children = data
        .child_data()
        .iter()
        .map(|child| Ok(copy(&make_array(child.clone()), loose, place, copied)?.to_data()))
        .collect::<Result<Vec<_>>>()?;
    let rebuilt = ArrayDataBuilder::from(data).child_data(children).build()?;
    Ok(make_array(rebuilt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ListArray, StringViewArray, StructArray, UInt32Array};
    use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
    use datafusion::arrow::compute::take;
    use datafusion::arrow::datatypes::{Field, Schema};

    const LONG: &str = "a string that does not fit into its view";

    /// Every hundredth of 10,000 long strings, some NULL: plain, in a struct, and in a list.
    fn sparse() -> RecordBatch {
        let all = (0..10_000).map(|v| (v % 700 != 0).then(|| format!("{LONG} {v}")));
        let all: ArrayRef = Arc::new(all.collect::<StringViewArray>());
        let kept = UInt32Array::from_iter_values((0..10_000).step_by(100));
        let text = take(&all, &kept, None).unwrap();
        let field = Arc::new(Field::new("s", DataType::Utf8View, true));
        let nulls = Some(NullBuffer::from_iter((0..100).map(|v| v % 3 != 0)));
        let inside =
            StructArray::new(vec![Arc::clone(&field)].into(), vec![Arc::clone(&text)], nulls.clone());
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(1, 100));
        let list = ListArray::new(field, offsets, Arc::clone(&text), nulls);
        let batch = RecordBatch::try_from_iter([
            ("text", text),
            ("struct", Arc::new(inside) as ArrayRef),
            ("list", Arc::new(list) as ArrayRef),
        ]);
        batch.unwrap()
    }

    #[test]
    fn copies_have_the_values_and_not_the_buffers() {
        let batch = sparse();
        let loose = loose_arrays(&batch, &mut Vec::new());
        assert_eq!(loose, [true, true, true]);
        for batch in [batch.clone(), batch.slice(7, 31), batch.slice(0, 0)] {
            let (compact, copied) = compacted(&batch, &loose).unwrap();
            assert_eq!(compact, batch);
            assert!(copied.after * 20 < copied.before, "{copied:?}");
        }
    }

    #[test]
    fn a_batch_without_columns_keeps_its_rows() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert_eq!(compacted(&batch, &[]).unwrap().0.num_rows(), 7);
    }
}
