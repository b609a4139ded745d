//! What the rows of an array take in memory, whatever the buffers hold besides.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch};
use datafusion::arrow::datatypes::DataType;

/// Bytes of the buffers of `batch`: never less than its rows take, and cheap to find out. Buffers that columns share count
/// once for each.
pub(super) fn held_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.get_buffer_memory_size()).sum()
}

/// Bytes of the rows of `columns` alone, as if each array had buffers of its own.
pub(crate) fn used_bytes(columns: &[ArrayRef]) -> usize {
    columns.iter().map(used).sum()
}

fn used(array: &ArrayRef) -> usize {
    const VIEW: usize = 16;
    let nulls = if array.nulls().is_some() { array.len() / 8 } else { 0 };
    nulls
        + match array.data_type() {
            DataType::Utf8View => array.len() * VIEW + array.as_string_view().total_buffer_bytes_used(),
            DataType::BinaryView => array.len() * VIEW + array.as_binary_view().total_buffer_bytes_used(),
            DataType::List(_) => used_list::<i32>(array),
            DataType::LargeList(_) => used_list::<i64>(array),
            DataType::Map(_, _) => {
                let map = array.as_map();
                let (from, to) = (map.value_offsets().first(), map.value_offsets().last());
                let (from, to) = (offset(from), offset(to));
                let entries: ArrayRef = Arc::new(map.entries().slice(from, to - from));
                array.len() * size_of::<i32>() + used(&entries)
            }
            DataType::FixedSizeList(_, _) => used(array.as_fixed_size_list().values()),
            DataType::Struct(_) => used_bytes(array.as_struct().columns()),
            // The values are shared by all batches of a dictionary, and are not cut.
            DataType::Dictionary(key, _) => array.len() * key.primitive_width().unwrap_or(0),
            _ => {
                let data = array.to_data();
                data.get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size())
            }
        }
}

fn used_list<O: OffsetSizeTrait>(array: &ArrayRef) -> usize {
    let list = array.as_list::<O>();
    let (from, to) = (offset(list.value_offsets().first()), offset(list.value_offsets().last()));
    array.len() * size_of::<O>() + used(&list.values().slice(from, to - from))
}

/// An array without rows may have no offsets.
fn offset<O: OffsetSizeTrait>(offset: Option<&O>) -> usize {
    offset.map_or(0, |offset| offset.as_usize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, ListArray, StringArray, StringViewArray, StructArray};
    use datafusion::arrow::datatypes::{Field, Int32Type};

    #[test]
    fn a_slice_counts_its_rows_and_not_its_buffers() {
        let text = "x".repeat(1000);
        let texts = || std::iter::repeat_n(text.as_str(), 100);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(7); 250]); 100]);
        let structs = StructArray::from(vec![(
            Arc::new(Field::new("s", DataType::Utf8, false)),
            Arc::new(StringArray::from_iter_values(texts())) as ArrayRef,
        )]);
        let arrays: [ArrayRef; 4] = [
            Arc::new(StringArray::from_iter_values(texts())),
            Arc::new(StringViewArray::from_iter_values(texts())),
            Arc::new(lists),
            Arc::new(structs),
        ];
        for array in arrays {
            let (whole, tenth) = (used_bytes(&[Arc::clone(&array)]), used_bytes(&[array.slice(20, 10)]));
            let kind = array.data_type();
            assert!((100_000..110_000).contains(&whole), "{kind}: {whole}");
            assert!((10_000..11_000).contains(&tenth), "{kind}: {tenth}");
            assert!(used_bytes(&[array.slice(5, 0)]) < 16, "{kind}");
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        assert_eq!(used_bytes(&[numbers]), 800);
    }
}
