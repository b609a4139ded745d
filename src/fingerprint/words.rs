//! Words as bytes: the same bytes in every process that means the same, and other bytes for anything else.
//!
//! Nothing here depends on an address, on the order of a map, on a hash, or on this machine. Texts that people read
//! (`Debug`, `Display`) are only taken of what has no other state than they show.

use std::collections::HashMap;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{WindowFrame, WindowFrameBound};

use super::Refusal;

/// A text of bytes. Every piece says its length, or has a fixed one: no two different sequences are the same bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Words(Vec<u8>);

impl Words {
    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A count, a place, a switch, or which kind of word follows.
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// The same of a number of this machine's width.
    pub(crate) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// Bytes with their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A name.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A name that may be missing; an empty one is not.
    pub(crate) fn optional(&mut self, text: Option<&str>) {
        self.number(u64::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    /// A column: its name, its type, whether it may be NULL, and its metadata.
    pub(crate) fn field(&mut self, field: &Field) {
        self.text(field.name());
        self.number(u64::from(field.is_nullable()));
        // Of types that are no dictionary it says nothing.
        self.number(u64::from(field.dict_is_ordered() == Some(true)));
        self.data_type(field.data_type());
        self.metadata(field.metadata());
    }

    /// Metadata by name: a map has another order in each process.
    pub(crate) fn metadata(&mut self, metadata: &HashMap<String, String>) {
        let mut entries: Vec<_> = metadata.iter().collect();
        entries.sort_unstable();
        self.count(entries.len());
        for (name, value) in entries {
            self.text(name);
            self.text(value);
        }
    }

    /// A type with all that is in it. The text of one that holds fields would show their metadata in the order of a map.
    pub(crate) fn data_type(&mut self, data_type: &DataType) {
        let (kind, fields): (&str, Vec<&Field>) = match data_type {
            DataType::List(item) => ("list", vec![item]),
            DataType::LargeList(item) => ("large list", vec![item]),
            DataType::ListView(item) => ("list view", vec![item]),
            DataType::LargeListView(item) => ("large list view", vec![item]),
            DataType::FixedSizeList(item, size) => {
                self.text(&format!("list of {size}"));
                ("item", vec![item])
            }
            DataType::Struct(fields) => ("struct", fields.iter().map(AsRef::as_ref).collect()),
            DataType::Union(fields, mode) => {
                self.text(&format!("{mode:?}"));
                fields.iter().for_each(|(id, _)| self.text(&id.to_string()));
                ("union", fields.iter().map(|(_, field)| field.as_ref()).collect())
            }
            DataType::Map(entries, sorted) => (if *sorted { "sorted map" } else { "map" }, vec![entries]),
            DataType::RunEndEncoded(ends, values) => ("runs", vec![ends, values]),
            DataType::Dictionary(keys, values) => {
                self.text("dictionary");
                self.data_type(keys);
                self.data_type(values);
                return;
            }
            plain => {
                self.text(&format!("{plain:?}"));
                return;
            }
        };
        self.text(kind);
        self.count(fields.len());
        fields.into_iter().for_each(|field| self.field(field));
    }

    /// A literal: its type, and the bytes that arrow's row format has for it, which keep every bit of a value.
    ///
    /// # Errors
    /// The row format has none for its type.
    pub(crate) fn value(&mut self, value: &ScalarValue) -> Result<(), Refusal> {
        let data_type = value.data_type();
        self.data_type(&data_type);
        let refused = |why: &dyn std::fmt::Display| {
            Refusal::new("value", format!("a literal of type {data_type} cannot be written down: {why}"))
        };
        let array: ArrayRef = value.to_array().map_err(|error| refused(&error.strip_backtrace()))?;
        let field = SortField::new(data_type.clone());
        let rows = RowConverter::new(vec![field])
            .and_then(|rows| rows.convert_columns(&[array]))
            .map_err(|error| refused(&error))?;
        self.bytes(rows.row(0).as_ref());
        Ok(())
    }

    /// The rows that a window function looks at.
    ///
    /// # Errors
    /// As [`value`](Self::value), of its bounds.
    pub(crate) fn frame(&mut self, frame: &WindowFrame) -> Result<(), Refusal> {
        self.text(&format!("{:?} {}", frame.units, frame.is_causal()));
        for bound in [&frame.start_bound, &frame.end_bound] {
            match bound {
                WindowFrameBound::CurrentRow => self.number(0),
                WindowFrameBound::Preceding(by) => {
                    self.number(1);
                    self.value(by)?;
                }
                WindowFrameBound::Following(by) => {
                    self.number(2);
                    self.value(by)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::Int32Type;
    use datafusion::common::scalar::ScalarStructBuilder;
    use std::sync::Arc;

    fn bytes(write: impl FnOnce(&mut Words)) -> Vec<u8> {
        let mut words = Words::default();
        write(&mut words);
        words.into_bytes()
    }

    #[test]
    fn values_that_differ_in_a_bit_are_other_words() {
        let values = [
            ScalarValue::Float64(Some(0.0)),
            ScalarValue::Float64(Some(-0.0)),
            ScalarValue::Float64(Some(f64::NAN)),
            ScalarValue::Float64(Some(-f64::NAN)),
            ScalarValue::Float64(None),
            ScalarValue::Float32(Some(0.0)),
            ScalarValue::Null,
            ScalarValue::Utf8(Some(String::new())),
            ScalarValue::Utf8(None),
            ScalarValue::Utf8View(Some(String::new())),
            ScalarValue::Decimal128(Some(1), 10, 2),
            ScalarValue::Decimal128(Some(1), 10, 3),
            ScalarValue::TimestampNanosecond(Some(1), None),
            ScalarValue::TimestampNanosecond(Some(1), Some("UTC".into())),
            ScalarValue::new_interval_mdn(1, 0, 0),
            ScalarValue::new_interval_mdn(0, 30, 0),
            ScalarValue::List(ScalarValue::new_list(&[1i32.into()], &DataType::Int32, true)),
            ScalarValue::List(ScalarValue::new_list(&[1i32.into()], &DataType::Int32, false)),
            ScalarValue::List(ScalarValue::new_list(&[], &DataType::Int32, true)),
            ScalarStructBuilder::new()
                .with_scalar(Field::new("a", DataType::Int32, true), 1i32.into())
                .build()
                .unwrap(),
            ScalarStructBuilder::new()
                .with_scalar(Field::new("b", DataType::Int32, true), 1i32.into())
                .build()
                .unwrap(),
        ];
        let words: Vec<_> = values.iter().map(|value| bytes(|words| words.value(value).unwrap())).collect();
        for (one, bytes) in words.iter().enumerate() {
            let same: Vec<_> = (0..words.len()).filter(|other| words[*other] == *bytes).collect();
            assert_eq!(same, [one], "{:?}", values[one]);
        }
    }

    #[test]
    fn metadata_has_an_order_and_counts() {
        let field = |metadata: &[(&str, &str)]| {
            let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let inner = Field::new("a", DataType::Int32, true).with_metadata(metadata);
            bytes(|words| words.field(&Field::new("l", DataType::List(Arc::new(inner)), true)))
        };
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, "1")).to_vec();
        let mut turned = many.clone();
        turned.reverse();
        assert_eq!(field(&many), field(&turned));
        assert_ne!(field(&many), field(&many[1..]));
    }

    #[test]
    fn types_that_hold_others_are_told_apart() {
        let item = |name: &str| Arc::new(Field::new(name, DataType::Int32, true));
        let types = [
            DataType::Int32,
            DataType::List(item("a")),
            DataType::List(item("b")),
            DataType::LargeList(item("a")),
            DataType::ListView(item("a")),
            DataType::FixedSizeList(item("a"), 1),
            DataType::FixedSizeList(item("a"), 2),
            DataType::Struct(vec![item("a")].into()),
            DataType::Struct(vec![item("a"), item("b")].into()),
            DataType::new_dictionary::<Int32Type>(),
            DataType::FixedSizeBinary(1),
            DataType::Decimal128(10, 2),
            DataType::Decimal256(10, 2),
        ];
        let words: Vec<_> = types.iter().map(|kind| bytes(|words| words.data_type(kind))).collect();
        let different: std::collections::HashSet<_> = words.iter().collect();
        assert_eq!(different.len(), types.len());
    }

    trait Dictionaries {
        fn new_dictionary<K: datafusion::arrow::datatypes::ArrowDictionaryKeyType>() -> Self;
    }

    impl Dictionaries for DataType {
        fn new_dictionary<K: datafusion::arrow::datatypes::ArrowDictionaryKeyType>() -> Self {
            Self::Dictionary(Box::new(K::DATA_TYPE), Box::new(Self::Utf8))
        }
    }
}
