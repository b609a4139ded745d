//! Bad input is a clear error, never a panic, and the session goes on.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion_slipstream::QueryStatus;
use tempfile::TempDir;

use crate::support::{layered, query, single};

fn write(path: &Path, column: ArrayRef) {
    let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn external(name: &str, location: &Path) -> String {
    format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}'", location.display())
}

#[tokio::test]
async fn syntax_errors_have_a_line_and_a_column() {
    let (ctx, _) = layered();
    let error = query(&ctx, "SELECT *\n  FORM t").await.unwrap_err().to_string();
    assert!(error.contains("Line: 2, Column: 3"), "{error}");
    let error = query(&ctx, "SELECT 'open").await.unwrap_err().to_string();
    assert!(error.contains("Line: 1"), "{error}");
    assert_eq!(single(&query(&ctx, "SELECT 1").await.unwrap()), "1", "the session goes on");
}

#[tokio::test]
async fn missing_truncated_and_mismatching_files_are_errors() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let numbers = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..10_000)) };
    write(&path("whole.parquet"), numbers());
    let bytes = fs::read(path("whole.parquet")).unwrap();
    fs::write(path("truncated.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    // A whole footer over pages that are gone.
    let mut damaged = bytes.clone();
    damaged[4..bytes.len() / 2].fill(0xff);
    fs::write(path("damaged.parquet"), &damaged).unwrap();
    fs::create_dir(path("mixed")).unwrap();
    write(&path("mixed/1.parquet"), numbers());
    write(&path("mixed/2.parquet"), Arc::new(StringArray::from(vec!["a"; 10])));

    let (ctx, slipstream) = layered();
    for (name, file, part) in [
        ("missing", "missing.parquet", "missing.parquet"),
        ("truncated", "truncated.parquet", "arquet"),
        ("damaged", "damaged.parquet", "arquet"),
        ("mixed", "mixed/", "x"),
    ] {
        let created = query(&ctx, &external(name, &path(file))).await;
        let result = match created {
            Ok(_) => query(&ctx, &format!("SELECT sum(x) FROM {name}")).await,
            failed => failed,
        };
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
        assert_eq!(slipstream.query_log().queries().pop().unwrap().status, QueryStatus::Failed, "{name}");
        assert_eq!(single(&query(&ctx, "SELECT 1").await.unwrap()), "1", "the session goes on after {name}");
    }
}
