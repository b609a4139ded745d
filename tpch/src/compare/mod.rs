//! Whether two results are the same rows: exact, floats to a relative 1e-9, in the order that ORDER BY fixes.
//!
//! ```text
//! ORDER BY k:   expected            actual
//!               k=3  a              k=3  a      one group: the same rows in any order
//!               k=2  b, c           k=2  c, b   one group: the same rows in any order
//!               k=1  d              k=1  e      LIMIT cut this group: only k must agree
//! ```
//! Rows that ORDER BY holds equal form a group, and a group is compared as a multiset. Without ORDER BY the whole
//! result is one group. Where LIMIT ends inside a group, either choice of rows is right, so that the keys decide.

mod chunk;
mod order;

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::record_batch::RecordBatchReader;
use datafusion::error::{DataFusionError, Result};

pub(crate) use chunk::floats_agree;
use chunk::{Row, RowReader};
pub(crate) use order::ResultOrder;

/// Most bytes of batches that one group may keep in memory.
const MAX_GROUP_BYTES: usize = 1 << 30;

/// Groups up to this size are matched row by row when sorting by floats did not pair them.
const MAX_MATCHED_ROWS: usize = 1_000;

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same rows.
    Same,
    /// Other rows; the text shows the first difference.
    Different(String),
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => f.write_str("same rows"),
            Self::Different(what) => write!(f, "different rows: {what}"),
        }
    }
}

/// Compares two results that workers left in Arrow IPC files.
pub(crate) fn compare_files(expected: &Path, actual: &Path, order: &ResultOrder) -> Result<Verdict> {
    let open = |path: &Path| -> Result<StreamReader<BufReader<File>>> {
        let file = File::open(path).map_err(|e| {
            DataFusionError::Execution(format!("cannot read the rows in {}: {e}", path.display()))
        })?;
        Ok(StreamReader::try_new(BufReader::new(file), None)?)
    };
    compare(open(expected)?, open(actual)?, order)
}

/// Compares two results, reading both once and keeping one group of each in memory.
pub(crate) fn compare(
    expected: impl RecordBatchReader,
    actual: impl RecordBatchReader,
    order: &ResultOrder,
) -> Result<Verdict> {
    if let Some(what) = schema_difference(&expected.schema(), &actual.schema()) {
        return Ok(Verdict::Different(what));
    }
    let mut expected = RowReader::try_new(expected, order)?;
    let mut actual = RowReader::try_new(actual, order)?;
    let mut done = 0;
    loop {
        let mut group = read_group(&mut expected)?;
        let Some(key) = group.first().cloned() else {
            return rest_of(&mut actual, done);
        };
        let mut other = take_rows(&mut actual, group.len())?;
        if other.len() < group.len() {
            let want = done + group.len() + count_rest(&mut expected)?;
            return Ok(Verdict::Different(format!("{want} rows expected, {} found", done + other.len())));
        }
        let cut = order.limit == Some(done + group.len()) && expected.peek()?.is_none();
        let either_choice = cut && other.iter().all(|row| row.same_key(&key));
        let difference = if either_choice { None } else { group_difference(&mut group, &mut other) };
        if let Some((want, have)) = difference {
            let place = match group.len() {
                1 => format!("row {}", done + 1),
                rows => format!("rows {} to {}", done + 1, done + rows),
            };
            return Ok(Verdict::Different(format!("{place}: expected {want}, found {have}")));
        }
        done += group.len();
    }
}

/// Names and types must agree; what a plan knows about NULLs need not.
fn schema_difference(expected: &Schema, actual: &Schema) -> Option<String> {
    let (want, have) = (expected.fields(), actual.fields());
    if want.len() != have.len() {
        return Some(format!("{} columns expected, {} found", want.len(), have.len()));
    }
    want.iter().zip(have).find_map(|(want, have)| {
        let differs = want.name() != have.name() || want.data_type() != have.data_type();
        differs.then(|| {
            format!(
                "column \"{}\" of type {} expected, \"{}\" of type {} found",
                want.name(),
                want.data_type(),
                have.name(),
                have.data_type()
            )
        })
    })
}

/// Reads the rows that share the next sort key.
fn read_group<R: RecordBatchReader>(rows: &mut RowReader<R>) -> Result<Vec<Row>> {
    let mut group: Vec<Row> = vec![];
    let mut bytes = 0;
    while let Some(row) = rows.peek()? {
        if let Some(previous) = group.last() {
            if !row.same_key(previous) {
                break;
            }
            if !row.same_chunk(previous) {
                bytes += row.chunk_bytes();
            }
        }
        if bytes > MAX_GROUP_BYTES {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "more than {} GiB of rows are equal by ORDER BY: too many to compare",
                MAX_GROUP_BYTES >> 30
            )));
        }
        group.extend(rows.next_row()?);
    }
    Ok(group)
}

/// Reads up to `count` rows.
fn take_rows<R: RecordBatchReader>(rows: &mut RowReader<R>, count: usize) -> Result<Vec<Row>> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        match rows.next_row()? {
            Some(row) => taken.push(row),
            None => break,
        }
    }
    Ok(taken)
}

/// The verdict when the expected rows have ended after `done` rows.
fn rest_of<R: RecordBatchReader>(actual: &mut RowReader<R>, done: usize) -> Result<Verdict> {
    Ok(match count_rest(actual)? {
        0 => Verdict::Same,
        more => Verdict::Different(format!("{done} rows expected, {} found", done + more)),
    })
}

/// Counts the rows not yet read.
fn count_rest<R: RecordBatchReader>(rows: &mut RowReader<R>) -> Result<usize> {
    let mut count = 0;
    while rows.next_row()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Compares two groups of the same size as multisets; the texts are of a pair that does not match.
fn group_difference(expected: &mut [Row], actual: &mut [Row]) -> Option<(String, String)> {
    expected.sort_by(Row::canonical_cmp);
    actual.sort_by(Row::canonical_cmp);
    let (want, have) = expected.iter().zip(actual.iter()).find(|(a, b)| !a.same(b))?;
    if expected.len() <= MAX_MATCHED_ROWS && matched(expected, actual) {
        return None;
    }
    Some((want.to_string(), have.to_string()))
}

/// Whether each row finds a partner; for floats that differ within the tolerance and so sort differently.
fn matched(expected: &[Row], actual: &[Row]) -> bool {
    let mut free: Vec<&Row> = actual.iter().collect();
    expected.iter().all(|row| {
        let partner = free.iter().position(|other| row.same(other));
        partner.map(|at| free.swap_remove(at)).is_some()
    })
}

/// What a reader of batches yields.
pub(crate) type BatchResult = Result<datafusion::arrow::array::RecordBatch, ArrowError>;

#[cfg(test)]
mod tests;
