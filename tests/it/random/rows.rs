//! Whether two answers are the same: as multisets, floats to 1e-9 relative, in the order that ORDER BY fixes.

use std::cmp::Ordering;
use std::fmt::{Display, Formatter};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, SchemaRef};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

const RELATIVE_TOLERANCE: f64 = 1e-9;

/// As many rows as a report shows.
const SHOWN_ROWS: usize = 20;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Float(f64),
    Other(String),
}

pub(super) type Row = Vec<Cell>;

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) columns: Vec<(String, DataType)>,
    pub(super) rows: Vec<Row>,
}

impl Answer {
    pub(super) fn of(schema: &SchemaRef, batches: &[RecordBatch]) -> Self {
        let columns =
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        Self { columns, rows: batches.iter().flat_map(rows).collect() }
    }

    /// What `actual` has that this one has not, or the other way round. `keys` are the columns of ORDER BY.
    pub(super) fn difference(&self, actual: &Self, keys: &[usize]) -> Option<String> {
        if self.columns != actual.columns {
            return Some(format!("columns {:?} expected, {:?} found", self.columns, actual.columns));
        }
        if self.rows.len() != actual.rows.len() {
            return Some(format!("{} rows expected, {} found", self.rows.len(), actual.rows.len()));
        }
        let key = |row: &Row| keys.iter().map(|at| row[*at].clone()).collect::<Row>();
        let mut pairs = self.rows.iter().zip(&actual.rows).enumerate();
        if let Some((at, _)) = pairs.find(|(_, (want, have))| !same(&key(want), &key(have))) {
            return Some(format!("row {} is out of order", at + 1));
        }
        let (mut want, mut have) = (self.rows.clone(), actual.rows.clone());
        want.sort_by(compare);
        have.sort_by(compare);
        let differs = want.iter().zip(&have).find(|(want, have)| !same(want, have));
        // Rows with floats that differ a little may have sorted differently.
        differs
            .filter(|_| !matched(&want, have.clone()))
            .map(|(want, have)| format!("the row {} is expected, {} is found", text(want), text(have)))
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "{} rows of ({})", self.rows.len(), names.join(", "))?;
        for row in self.rows.iter().take(SHOWN_ROWS) {
            write!(f, "\n  {}", text(row))?;
        }
        if self.rows.len() > SHOWN_ROWS { f.write_str("\n  …") } else { Ok(()) }
    }
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let mut rows = vec![Row::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        let cells = ArrayFormatter::try_new(column, &options).unwrap();
        let floats = column.as_primitive_opt::<Float64Type>();
        for (at, row) in rows.iter_mut().enumerate() {
            row.push(match floats {
                _ if column.is_null(at) => Cell::Null,
                // Adding zero makes a negative zero positive.
                Some(floats) => Cell::Float(floats.value(at) + 0.0),
                None => Cell::Other(cells.value(at).to_string()),
            });
        }
    }
    rows
}

fn compare(left: &Row, right: &Row) -> Ordering {
    let rank = |cell: &Cell| match cell {
        Cell::Null => 0,
        Cell::Float(_) => 1,
        Cell::Other(_) => 2,
    };
    let cells = left.iter().zip(right).map(|(left, right)| match (left, right) {
        (Cell::Float(left), Cell::Float(right)) => left.total_cmp(right),
        (Cell::Other(left), Cell::Other(right)) => left.cmp(right),
        _ => rank(left).cmp(&rank(right)),
    });
    cells.fold(Ordering::Equal, Ordering::then)
}

fn same(left: &Row, right: &Row) -> bool {
    left.iter().zip(right).all(|(left, right)| match (left, right) {
        (Cell::Float(left), Cell::Float(right)) => {
            left == right
                || (left.is_nan() && right.is_nan())
                || (left - right).abs() <= RELATIVE_TOLERANCE * left.abs().max(right.abs())
        }
        _ => left == right,
    })
}

/// Whether each row finds a partner.
fn matched(want: &[Row], mut have: Vec<Row>) -> bool {
    want.iter().all(|want| {
        let partner = have.iter().position(|have| same(want, have));
        partner.map(|at| have.swap_remove(at)).is_some()
    })
}

fn text(row: &Row) -> String {
    let cells: Vec<String> = row
        .iter()
        .map(|cell| match cell {
            Cell::Null => "NULL".to_owned(),
            Cell::Float(value) => format!("{value:?}"),
            Cell::Other(text) => text.clone(),
        })
        .collect();
    format!("({})", cells.join(" | "))
}
