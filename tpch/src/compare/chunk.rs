//! Rows of a result in a form that compares: exact columns as sortable bytes, float columns as numbers.

use std::cmp::Ordering;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::arrow::record_batch::RecordBatchReader;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;

use super::{BatchResult, ResultOrder};

/// Floats may differ by this much of the larger one: sums add up in another order on each run.
const RELATIVE_TOLERANCE: f64 = 1e-9;

/// Reads a result row by row.
pub(super) struct RowReader<R> {
    batches: R,
    /// Encodes all columns.
    all: Encoder,
    /// Encodes the sort keys.
    key: Encoder,
    chunk: Option<Arc<Chunk>>,
    /// The next row's place in the chunk.
    at: usize,
}

impl<R: RecordBatchReader + Iterator<Item = BatchResult>> RowReader<R> {
    /// Prepares to read; the sort keys are looked up in the result's schema.
    pub(super) fn try_new(batches: R, order: &ResultOrder) -> Result<Self> {
        let schema = batches.schema();
        let all = (0..schema.fields().len()).collect();
        let keys = order.columns(&schema);
        let all = Encoder::try_new(&schema, all)?;
        let key = Encoder::try_new(&schema, keys)?;
        Ok(Self { batches, all, key, chunk: None, at: 0 })
    }

    /// The next row, which stays the next one.
    pub(super) fn peek(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(chunk) = self.chunk.as_ref().filter(|c| self.at < c.batch.num_rows()) {
                return Ok(Some(Row { chunk: Arc::clone(chunk), at: self.at }));
            }
            let Some(batch) = self.batches.next().transpose()? else {
                return Ok(None);
            };
            let chunk = Chunk { all: self.all.encode(&batch)?, key: self.key.encode(&batch)?, batch };
            self.chunk = Some(Arc::new(chunk));
            self.at = 0;
        }
    }

    /// Takes the next row.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>> {
        let row = self.peek()?;
        self.at += usize::from(row.is_some());
        Ok(row)
    }
}

/// Encodes some columns of each batch.
struct Encoder {
    /// Places of the columns that compare exactly.
    exact: Vec<usize>,
    /// Places of the columns that compare within a tolerance.
    floats: Vec<usize>,
    converter: RowConverter,
}

impl Encoder {
    /// An encoder of the columns at these places.
    fn try_new(schema: &Schema, columns: Vec<usize>) -> Result<Self> {
        let (floats, exact): (Vec<usize>, Vec<usize>) =
            columns.into_iter().partition(|at| schema.field(*at).data_type().is_floating());
        let fields = exact.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        Ok(Self { exact, floats, converter: RowConverter::new(fields)? })
    }

    /// Encodes the columns of a batch.
    fn encode(&self, batch: &RecordBatch) -> Result<Encoded> {
        let exact: Vec<ArrayRef> = self.exact.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let exact = if exact.is_empty() { None } else { Some(self.converter.convert_columns(&exact)?) };
        let floats =
            self.floats.iter().map(|at| canonical_floats(batch.column(*at))).collect::<Result<_>>()?;
        Ok(Encoded { exact, floats })
    }
}

/// Widens floats to 64 bits; one zero and one NaN remain, so that sorting does not tell their bits apart.
fn canonical_floats(column: &ArrayRef) -> Result<Float64Array> {
    let column = cast(column, &DataType::Float64)?;
    let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
    Ok(column.as_primitive::<Float64Type>().unary(canonical))
}

/// Encoded columns of a batch.
struct Encoded {
    /// Bytes of each row's exact columns; `None` when there is no such column.
    exact: Option<Rows>,
    floats: Vec<Float64Array>,
}

impl Encoded {
    /// Orders row `a` of `self` against row `b` of `other`, without any tolerance.
    fn cmp(&self, a: usize, other: &Self, b: usize) -> Ordering {
        let floats = || {
            let pairs = self.floats.iter().zip(&other.floats);
            let mut orders = pairs.map(|(x, y)| match (value(x, a), value(y, b)) {
                (Some(x), Some(y)) => x.total_cmp(&y),
                (x, y) => x.is_some().cmp(&y.is_some()),
            });
            orders.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        };
        self.cmp_exact(a, other, b).then_with(floats)
    }

    /// Whether the rows are the same, floats within the tolerance.
    fn same(&self, a: usize, other: &Self, b: usize) -> bool {
        self.cmp_exact(a, other, b).is_eq()
            && self.floats.iter().zip(&other.floats).all(|(x, y)| match (value(x, a), value(y, b)) {
                (Some(x), Some(y)) => floats_agree(x, y),
                (x, y) => x.is_none() && y.is_none(),
            })
    }

    /// Orders the exact columns of two rows.
    fn cmp_exact(&self, a: usize, other: &Self, b: usize) -> Ordering {
        match (&self.exact, &other.exact) {
            (Some(x), Some(y)) => x.row(a).cmp(&y.row(b)),
            _ => Ordering::Equal,
        }
    }
}

/// A float, or `None` for NULL.
fn value(array: &Float64Array, at: usize) -> Option<f64> {
    array.is_valid(at).then(|| array.value(at))
}

/// Whether two floats are the same number: NaN is, as are both zeros; infinities only exactly.
pub(crate) fn floats_agree(a: f64, b: f64) -> bool {
    let within = || (a - b).abs() <= RELATIVE_TOLERANCE * a.abs().max(b.abs());
    a == b || (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite() && within())
}

/// A batch and the encodings of its rows.
struct Chunk {
    batch: RecordBatch,
    all: Encoded,
    key: Encoded,
}

/// One row of a result.
#[derive(Clone)]
pub(super) struct Row {
    chunk: Arc<Chunk>,
    at: usize,
}

impl Row {
    /// Whether ORDER BY holds the rows equal.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.chunk.key.same(self.at, &other.chunk.key, other.at)
    }

    /// Whether the rows are the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.chunk.all.same(self.at, &other.chunk.all, other.at)
    }

    /// Any total order which brings the same rows to the same places.
    pub(super) fn canonical_cmp(&self, other: &Self) -> Ordering {
        self.chunk.all.cmp(self.at, &other.chunk.all, other.at)
    }

    /// Whether keeping this row keeps the same batch alive as the other one.
    pub(super) fn same_chunk(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunk, &other.chunk)
    }

    /// Bytes that this row keeps alive.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk.batch.get_array_memory_size()
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let options = FormatOptions::default().with_null("NULL");
        for (i, column) in self.chunk.batch.columns().iter().enumerate() {
            let cells = ArrayFormatter::try_new(column, &options).map_err(|_| std::fmt::Error)?;
            write!(f, "{}{}", if i == 0 { "(" } else { ", " }, cells.value(self.at))?;
        }
        f.write_str(")")
    }
}
