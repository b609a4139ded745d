//! Arrays of every type.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::*;

/// Some array of every kind that arrow has.
pub(super) fn arrays() -> Vec<ArrayRef> {
    [flat(), nested(), converted()].concat()
}

fn integers() -> ArrayRef {
    Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(1)]))
}

fn texts() -> ArrayRef {
    Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("a text longer than a view is")]))
}

/// Those without a child.
fn flat() -> Vec<ArrayRef> {
    vec![
        Arc::new(NullArray::new(4)),
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])),
        Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(f64::NAN), Some(f64::INFINITY)])),
        Arc::new(Float16Array::from_iter_values([half(1.0), half(-0.0), half(f32::NAN), half(2.0)])),
        Arc::new(Float32Array::from(vec![Some(-0.0), None, Some(f32::NAN), Some(f32::MIN)])),
        Arc::new(Decimal256Array::from(vec![Some(i256::MAX), None, Some(i256::MIN), None])),
        Arc::new(
            Decimal128Array::from(vec![Some(1), None, Some(-3), None])
                .with_precision_and_scale(38, -3)
                .unwrap(),
        ),
        Arc::new(Decimal64Array::from(vec![Some(1), None, Some(-3), None])),
        Arc::new(Decimal32Array::from(vec![Some(1), None, Some(-3), None])),
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(1, -2, 3)),
            None,
            None,
            None,
        ])),
        Arc::new(IntervalDayTimeArray::from(vec![Some(IntervalDayTime::new(-1, 2)), None, None, None])),
        Arc::new(IntervalYearMonthArray::from(vec![Some(-1), None, Some(3), None])),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                [Some([1, 2]), None, None, None].into_iter(),
                2,
            )
            .unwrap(),
        ),
    ]
}

/// Those with children.
fn nested() -> Vec<ArrayRef> {
    let item = Arc::new(Field::new("element", DataType::Int32, true));
    vec![
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            None,
        ])),
        Arc::new(LargeListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1)]),
            None,
            Some(vec![]),
            None,
        ])),
        Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
            [Some(vec![Some(1), None]), None, None, None],
            2,
        )),
        Arc::new(
            ListViewArray::try_new(
                Arc::clone(&item),
                ScalarBuffer::from(vec![2, 0, 0, 1]),
                ScalarBuffer::from(vec![1, 0, 2, 1]),
                integers(),
                None,
            )
            .unwrap(),
        ),
        Arc::new(StructArray::from(vec![
            (item, integers()),
            (Arc::new(Field::new("s", DataType::Utf8, true)), texts()),
        ])),
        Arc::new(map()),
        Arc::new(union(UnionMode::Sparse)),
        Arc::new(union(UnionMode::Dense)),
        Arc::new(
            RunArray::<Int32Type>::try_new(&Int32Array::from(vec![1, 4]), &StringArray::from(vec!["a", "b"]))
                .unwrap(),
        ),
        Arc::new(DictionaryArray::new(UInt8Array::from(vec![Some(1), None, Some(0), Some(1)]), texts())),
    ]
}

/// Those that another one is converted to.
fn converted() -> Vec<ArrayRef> {
    let to = |array: &ArrayRef, data_type: &DataType| cast(array, data_type).unwrap();
    let (integers, texts) = (integers(), texts());
    let mut arrays = Vec::new();
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        let long = to(&integers, &DataType::Int64);
        arrays.push(to(&long, &DataType::Timestamp(unit, None)));
        arrays.push(to(&long, &DataType::Timestamp(unit, Some("+02:00".into()))));
        arrays.push(to(&long, &DataType::Duration(unit)));
    }
    for data_type in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Date32,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
    ] {
        arrays.push(to(&integers, &data_type));
    }
    for data_type in
        [DataType::Date64, DataType::Time64(TimeUnit::Microsecond), DataType::Time64(TimeUnit::Nanosecond)]
    {
        arrays.push(to(&to(&integers, &DataType::Int64), &data_type));
    }
    for data_type in [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
    ] {
        arrays.push(to(&texts, &data_type));
    }
    arrays.extend([integers, texts]);
    arrays
}

fn half(value: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    let wide: ArrayRef = Arc::new(Float32Array::from(vec![value]));
    cast(&wide, &DataType::Float16).unwrap().as_primitive::<Float16Type>().value(0)
}

fn map() -> MapArray {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..4 {
        map.keys().append_value(format!("k{row}"));
        map.values().append_option((row > 1).then_some(row));
        map.append(row != 3).unwrap();
    }
    map.finish()
}

fn union(mode: UnionMode) -> UnionArray {
    let fields = UnionFields::try_new(
        [3, 7],
        [Field::new("i", DataType::Int32, true), Field::new("s", DataType::Utf8, true)],
    )
    .unwrap();
    let (sparse, ids) = (mode == UnionMode::Sparse, ScalarBuffer::from(vec![3i8, 7, 3, 7]));
    let children: Vec<ArrayRef> = match sparse {
        true => vec![
            Arc::new(Int32Array::from(vec![1, 0, 2, 0])),
            Arc::new(StringArray::from(vec!["", "a", "", "b"])),
        ],
        false => vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["a", "b"]))],
    };
    let offsets = (!sparse).then(|| ScalarBuffer::from(vec![0, 0, 1, 1]));
    UnionArray::try_new(fields, ids, offsets, children).unwrap()
}
