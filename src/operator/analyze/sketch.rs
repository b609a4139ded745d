//! What is gathered of a table's columns while its rows pass by.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;

use super::sample::Sample;
use crate::store::{ColumnProfile, Distribution};

/// Minima and maxima that take more bytes are not kept.
const MAX_END_BYTES: usize = 1024;

/// Sketches of all columns of a part of a table, and a sample of its rows.
pub(super) struct TableSketch {
    rows: u64,
    columns: Vec<ColumnSketch>,
    sample: Sample,
    /// The columns that are sampled: those whose values have a place on a scale.
    scaled: Vec<usize>,
}

impl TableSketch {
    /// For rows of `schema`; each part of a table has a seed of its own.
    pub(super) fn new(schema: &SchemaRef, seed: u64) -> Result<Self> {
        let fields = schema.fields();
        let scaled: Vec<usize> =
            (0..fields.len()).filter(|index| has_scale(fields[*index].data_type())).collect();
        let sampled = Arc::new(schema.project(&scaled)?);
        let columns = fields.iter().map(|field| ColumnSketch::new(field.data_type()));
        Ok(Self {
            rows: 0,
            columns: columns.collect::<Result<_>>()?,
            sample: Sample::new(sampled, seed),
            scaled,
        })
    }

    /// Adds the rows of `batch`.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for (sketch, column) in self.columns.iter_mut().zip(batch.columns()) {
            sketch.add(column)?;
        }
        if self.scaled.is_empty() { Ok(()) } else { self.sample.add(&batch.project(&self.scaled)?) }
    }

    /// Adds what was gathered of another part.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        self.rows += other.rows;
        for (sketch, column) in self.columns.iter_mut().zip(other.columns) {
            sketch.merge(column)?;
        }
        if self.scaled.is_empty() { Ok(()) } else { self.sample.merge(other.sample) }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.sample.bytes() + self.columns.iter().map(ColumnSketch::bytes).sum::<usize>()
    }

    /// The number of rows, and the profiles of the columns; `places` are their indices in the table.
    pub(super) fn finish(
        self,
        schema: &SchemaRef,
        places: &[usize],
    ) -> Result<(u64, Vec<Arc<ColumnProfile>>)> {
        let sample = if self.scaled.is_empty() { None } else { Some(self.sample.finish()?) };
        let mut profiles = Vec::new();
        for (index, (sketch, field)) in self.columns.into_iter().zip(schema.fields()).enumerate() {
            let scaled = self.scaled.iter().position(|scaled| *scaled == index);
            let sampled = scaled.zip(sample.as_ref()).map(|(place, sample)| sample.column(place));
            let place = places.get(index).copied().unwrap_or(index);
            profiles.push(Arc::new(sketch.finish(place, field, self.rows, sampled)?));
        }
        profiles.sort_by_key(|profile| profile.index);
        Ok((self.rows, profiles))
    }
}

/// What is gathered of one column: DataFusion's own accumulators where it has them.
struct ColumnSketch {
    nulls: u64,
    /// Of hashes, since `approx_distinct` does not take all types: HyperLogLog with 16,384 registers, 0.8 % off.
    distinct: Box<dyn Accumulator>,
    ends: Option<[Box<dyn Accumulator>; 2]>,
    width_sum: u64,
    width_max: u64,
}

impl ColumnSketch {
    /// For values of `data_type`.
    fn new(data_type: &DataType) -> Result<Self> {
        let ends = if has_scale(data_type) {
            Some([accumulator(min_udaf(), data_type)?, accumulator(max_udaf(), data_type)?])
        } else {
            None
        };
        let distinct = accumulator(approx_distinct_udaf(), &DataType::UInt64)?;
        Ok(Self { nulls: 0, distinct, ends, width_sum: 0, width_max: 0 })
    }

    /// Adds a batch's values. All accumulators leave NULLs out by themselves; hashes have to be told.
    fn add(&mut self, column: &ArrayRef) -> Result<()> {
        self.nulls += column.logical_null_count() as u64;
        let mut hashes = vec![0; column.len()];
        create_hashes([column], &RandomState::default(), &mut hashes)?;
        let hashes: ArrayRef = Arc::new(UInt64Array::new(hashes.into(), column.logical_nulls()));
        self.distinct.update_batch(&[hashes])?;
        for end in self.ends.iter_mut().flatten() {
            end.update_batch(&[Arc::clone(column)])?;
        }
        let (sum, max) = widths(column);
        self.width_sum += sum;
        self.width_max = self.width_max.max(max);
        Ok(())
    }

    /// Adds what was gathered of another part of the same column.
    fn merge(&mut self, other: Self) -> Result<()> {
        self.nulls += other.nulls;
        self.width_sum += other.width_sum;
        self.width_max = self.width_max.max(other.width_max);
        merge_state(&mut self.distinct, other.distinct)?;
        for (own, other) in self.ends.iter_mut().flatten().zip(other.ends.into_iter().flatten()) {
            merge_state(own, other)?;
        }
        Ok(())
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        self.distinct.size() + self.ends.iter().flatten().map(|end| end.size()).sum::<usize>()
    }

    /// The profile of the column, of which `sampled` are the values of the sampled rows, of `rows` in all.
    ///
    /// Where the sample is the whole column its distinct values are counted; a HyperLogLog would be off by one or two in
    /// small tables, which are those whose plans depend on it most.
    fn finish(
        mut self,
        index: usize,
        field: &Field,
        rows: u64,
        sampled: Option<&ArrayRef>,
    ) -> Result<ColumnProfile> {
        let present = rows - self.nulls;
        let estimated = match self.distinct.evaluate()? {
            ScalarValue::UInt64(Some(distinct)) => distinct.min(present),
            _ => present,
        };
        let whole = sampled.is_some_and(|sampled| sampled.len() as u64 == rows);
        let distribution = match sampled {
            Some(sampled) => Distribution::of(sampled, (!whole).then_some(estimated))?,
            None => None,
        };
        let exact = distribution.as_ref().filter(|_| whole).map(|spread| spread.distinct());
        let end = |end: Option<Box<dyn Accumulator>>| -> Result<Option<ScalarValue>> {
            let value = end.map(|mut end| end.evaluate()).transpose()?;
            Ok(value.filter(|value| !value.is_null() && value.size() <= MAX_END_BYTES))
        };
        let (min, max) = match self.ends {
            Some([min, max]) => (end(Some(min))?, end(Some(max))?),
            None => (None, None),
        };
        let average = self.width_sum as f64 / present.max(1) as f64;
        Ok(ColumnProfile {
            index,
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            distinct: exact.unwrap_or(estimated),
            nulls: self.nulls,
            min,
            max,
            widths: is_text(field.data_type()).then_some((average, self.width_max)),
            sampled: sampled.map_or(0, |sampled| sampled.len() as u64),
            distribution: distribution.map(Arc::new),
        })
    }
}

/// One of DataFusion's accumulators for a column of `data_type`.
fn accumulator(function: Arc<AggregateUDF>, data_type: &DataType) -> Result<Box<dyn Accumulator>> {
    let schema = Arc::new(Schema::new(vec![Field::new("a", data_type.clone(), true)]));
    AggregateExprBuilder::new(function, vec![Arc::new(Column::new("a", 0))])
        .schema(schema)
        .alias("a")
        .build()?
        .create_accumulator()
}

/// Adds the state of one accumulator to another of the same function.
fn merge_state(own: &mut Box<dyn Accumulator>, mut other: Box<dyn Accumulator>) -> Result<()> {
    let state = other.state()?.iter().map(|value| value.to_array()).collect::<Result<Vec<_>>>()?;
    own.merge_batch(&state)
}

/// Whether values of the type have an order that [`Distribution`] understands.
fn has_scale(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        DataType::Decimal256(..) => false,
        DataType::Boolean | DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => true,
        other => other.is_numeric() && *other != DataType::Float16 || is_text(other),
    }
}

/// Whether the width of a value depends on the value.
fn is_text(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, Dictionary, LargeBinary, LargeUtf8, Utf8, Utf8View};
    match data_type {
        Dictionary(_, values) => is_text(values),
        other => matches!(other, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView),
    }
}

/// The sum and the largest of the widths of a column's texts, NULL not counted.
fn widths(column: &ArrayRef) -> (u64, u64) {
    fn fold<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> (u64, u64) {
        values.flatten().fold((0, 0), |(sum, max), value| {
            let width = value.len() as u64;
            (sum + width, max.max(width))
        })
    }
    match column.data_type() {
        DataType::Utf8 => fold(column.as_string::<i32>().iter().map(|v| v.map(str::as_bytes))),
        DataType::LargeUtf8 => fold(column.as_string::<i64>().iter().map(|v| v.map(str::as_bytes))),
        DataType::Utf8View => fold(column.as_string_view().iter().map(|v| v.map(str::as_bytes))),
        DataType::Binary => fold(column.as_binary::<i32>().iter()),
        DataType::LargeBinary => fold(column.as_binary::<i64>().iter()),
        DataType::BinaryView => fold(column.as_binary_view().iter()),
        DataType::Dictionary(_, values) if is_text(values) => {
            // The rows count, not the entries of the dictionary.
            cast(column, values).map_or((0, 0), |plain| widths(&plain))
        }
        _ => (0, 0),
    }
}
