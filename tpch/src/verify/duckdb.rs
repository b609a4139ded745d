//! Answers of DuckDB, by its Python package, for scale factors that nobody publishes answers of.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::{DataFusionError, Result};
use serde::{Deserialize, Serialize};

use super::Answer;
use super::matching::first_unmatched;
use crate::compare::{ResultOrder, floats_agree};
use crate::queries::{QUERIES, Query};
use crate::tables::Table;

/// The program that asks DuckDB.
const SCRIPT: &str = include_str!("../../peers/answers.py");

/// The program's exit code where the package is not installed.
const NOT_INSTALLED: i32 = 3;

/// What the program reads.
#[derive(Serialize)]
struct Request {
    /// Where each table is.
    tables: BTreeMap<&'static str, PathBuf>,
    /// The text of each query.
    queries: BTreeMap<u8, &'static str>,
}

/// What the program writes.
#[derive(Debug, Deserialize)]
pub(super) struct Answers {
    /// Version of DuckDB.
    pub(super) version: String,
    answers: BTreeMap<u8, DuckdbAnswer>,
}

/// The answer to one query.
#[derive(Debug, Deserialize)]
struct DuckdbAnswer {
    types: Vec<ColumnKind>,
    /// Cells as text, `None` for NULL.
    rows: Vec<Vec<Option<String>>>,
}

/// How the cells of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ColumnKind {
    /// Integers, decimals, dates, text.
    Exact,
    /// Doubles.
    Float,
}

/// Asks DuckDB all queries; the inner error says that it is not installed.
pub(super) fn ask(python: &Path, data: &Path) -> Result<Result<Answers, String>> {
    let tables = Table::ALL.map(|table| (table.name(), table.path(data)));
    let queries = QUERIES.map(|query| (query.number, query.sql));
    let request = Request { tables: tables.into(), queries: queries.into() };
    let request = serde_json::to_vec(&request).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return Ok(Err(format!("{} cannot be run: {e}", python.display()))),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // Without the package the program ends before it reads; its exit code tells.
        drop(stdin.write_all(&request));
    }
    let output = child.wait_with_output()?;
    if output.status.code() == Some(NOT_INSTALLED) {
        let python = python.display();
        return Ok(Err(format!(
            "{python} has no package duckdb (install it with: {python} -m pip install duckdb)"
        )));
    }
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(DataFusionError::Execution(format!("DuckDB failed: {}", error.trim())));
    }
    let answers =
        serde_json::from_slice(&output.stdout).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(Ok(answers))
}

impl Answers {
    /// Compares an engine's answer with DuckDB's; the text shows the first difference.
    pub(super) fn difference(&self, query: &Query, answer: &Answer) -> Result<Option<String>> {
        let Some(duckdb) = self.answers.get(&query.number) else {
            return Ok(Some("DuckDB gave no answer".to_owned()));
        };
        let rows = cells(answer)?;
        let types: Vec<&DataType> = answer.schema.fields().iter().map(|f| f.data_type()).collect();
        if rows.len() != duckdb.rows.len() || types.len() != duckdb.types.len() {
            return Ok(Some(format!(
                "{} rows of {} columns expected, {} of {} found",
                duckdb.rows.len(),
                duckdb.types.len(),
                rows.len(),
                types.len()
            )));
        }
        let order = ResultOrder::of(query.sql)?;
        let keys = order.columns(&answer.schema);
        let agree = |column: usize, ours: usize, theirs: usize| {
            cells_agree(
                types[column],
                duckdb.types[column],
                &rows[ours][column],
                &duckdb.rows[theirs][column],
            )
        };
        let tied = |a: usize, b: usize| keys.iter().all(|key| rows[a][*key] == rows[b][*key]);
        // Where LIMIT ends inside of a group, either choice of its rows is right.
        let cut =
            |row: usize| order.limit == Some(rows.len()) && tied(row, rows.len() - 1) && !keys.is_empty();
        let same = |ours: usize, theirs: usize| {
            let keys_only = cut(ours);
            (0..types.len()).all(|c| (keys_only && !keys.contains(&c)) || agree(c, ours, theirs))
        };
        Ok(first_unmatched(rows.len(), duckdb.rows.len(), tied, same).map(|row| {
            format!("row {}: expected {}, found {}", row + 1, show(&duckdb.rows[row]), show(&rows[row]))
        }))
    }
}

/// All cells of an answer as text, `None` for NULL.
fn cells(answer: &Answer) -> Result<Vec<Vec<Option<String>>>> {
    let options = FormatOptions::default();
    let mut rows = vec![];
    for batch in &answer.batches {
        let formats: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells = batch.columns().iter().zip(&formats);
            cells
                .map(|(column, format)| column.is_valid(row).then(|| format.value(row).to_string()))
                .collect()
        }));
    }
    Ok(rows)
}

/// Whether our cell and DuckDB's hold the same value.
///
/// Integers, decimals, dates and text are exact in both engines and compared as such. An average, or a quotient of
/// decimals, is a float in DuckDB and a decimal of fixed scale in DataFusion, which cuts the digits beyond the
/// scale: there one unit of the last digit is allowed besides the relative tolerance of floats.
fn cells_agree(ours: &DataType, theirs: ColumnKind, a: &Option<String>, b: &Option<String>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return a.is_none() && b.is_none();
    };
    let last_digit = match ours {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => 10_f64.powi(-i32::from(*scale)),
        _ => 0.0,
    };
    let numbers = || a.parse::<f64>().ok().zip(b.parse::<f64>().ok());
    match theirs {
        ColumnKind::Float => {
            numbers().is_some_and(|(a, b)| floats_agree(a, b) || (a - b).abs() <= last_digit)
        }
        ColumnKind::Exact if ours.is_floating() => numbers().is_some_and(|(a, b)| floats_agree(a, b)),
        ColumnKind::Exact if ours.is_numeric() => without_zeros(a) == without_zeros(b),
        ColumnKind::Exact => a == b,
    }
}

/// A number without zeros at the end of its fraction: scales differ between the engines.
fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// A row for a message.
fn show(row: &[Option<String>]) -> String {
    let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect();
    format!("({})", cells.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_depends_on_the_types() {
        let text = |t: &str| Some(t.to_owned());
        let decimal = DataType::Decimal128(19, 6);
        let check = |ours: &DataType, theirs, a, b| cells_agree(ours, theirs, &text(a), &text(b));
        // An average: 25.537587116854997 is cut to the decimal's scale.
        assert!(check(&decimal, ColumnKind::Float, "25.537587", "25.537587116854997"));
        assert!(!check(&decimal, ColumnKind::Float, "25.537585", "25.537587116854997"));
        // A sum: exact in both.
        assert!(check(&decimal, ColumnKind::Exact, "25.537500", "25.5375"));
        assert!(check(&decimal, ColumnKind::Exact, "100", "100.00"));
        assert!(!check(&decimal, ColumnKind::Exact, "25.537500", "25.537501"));
        assert!(!check(&decimal, ColumnKind::Exact, "1000000000000.01", "1000000000000.02"));
        assert!(check(&DataType::Float64, ColumnKind::Float, "1.0000000001", "1.0"));
        assert!(!check(&DataType::Float64, ColumnKind::Float, "1.00000001", "1.0"));
        assert!(check(&DataType::Int64, ColumnKind::Exact, "10", "10"));
        assert!(!check(&DataType::Int64, ColumnKind::Exact, "10", "1"));
        assert!(!check(&DataType::Utf8View, ColumnKind::Exact, "a ", "a"));
        assert!(cells_agree(&decimal, ColumnKind::Float, &None, &None));
        assert!(!cells_agree(&decimal, ColumnKind::Float, &None, &text("0")));
    }

    #[test]
    fn missing_python_or_package_is_no_failure() {
        let reason = ask(Path::new("no-such-python"), Path::new("data")).unwrap().unwrap_err();
        assert!(reason.contains("no-such-python cannot be run"), "{reason}");
    }
}
