//! The workload `star` from outside: its data is always the same, and both engines have the same rows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Queries that are meant to have no rows: NOT IN over a column with NULLs, and the table without rows.
const EMPTY: [u64; 2] = [18, 45];

/// How the program ended, and what it wrote.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program in a folder.
fn run(folder: &Path, line: &str) -> Finished {
    let output = Command::new(env!("CARGO_BIN_EXE_slipstream-tpch"))
        .current_dir(folder)
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Generates scale factor 0.002 into `data`, and returns what went to standard error.
fn generate(folder: &TempDir) -> String {
    let done = run(folder.path(), "generate --workload star --scale-factor 0.002 --out data");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    done.stderr
}

/// All files below a data folder with their content, by their path in it; the lock is no data.
fn files(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".generate.lock") {
                found.insert(path.strip_prefix(data).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Two runs write the same bytes, and so does one that goes on where another one was broken off.
#[test]
fn generation_is_deterministic_and_resumed() {
    let (unbroken, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    generate(&unbroken);
    let data = broken.path().join("data");
    let expected = files(&unbroken.path().join("data"));
    for name in
        ["play/play-0.parquet", "play/play-5.parquet", "voucher.csv", "takedown.parquet", "manifest.json"]
    {
        assert!(expected.contains_key(Path::new(name)), "{name} is not among {:?}", expected.keys());
    }

    generate(&broken);
    let same = || files(&data) == expected;
    assert!(same(), "two runs differ");

    // A table that was not finished, one whose file is not whole, and the rest of a broken run.
    fs::remove_file(data.join("play/play-3.parquet")).unwrap();
    fs::write(data.join("voucher.csv"), "half").unwrap();
    fs::create_dir(data.join("play.tmp")).unwrap();
    fs::write(data.join("play.tmp/play-0.parquet"), "half").unwrap();
    let stderr = generate(&broken);
    assert!(stderr.contains("play: 3000 rows in 6 row groups"), "{stderr}");
    assert!(stderr.contains("voucher: 1000 rows, ") && !stderr.contains("ticket"), "{stderr}");
    assert!(same(), "a run that was resumed differs");
    assert_eq!(generate(&broken), "", "nothing was missing");
}

/// Neither scale factors nor workloads are mixed in a folder.
#[test]
fn folders_hold_one_workload() {
    let folder = tempfile::tempdir().unwrap();
    generate(&folder);
    let before = files(&folder.path().join("data"));
    for (line, message) in [
        ("generate --workload star -s 0.001 --out data", "holds scale factor 0.002, not 0.001"),
        ("run --workload star -s 0.001 --data data", "holds scale factor 0.002, not 0.001"),
        ("run -s 0.002 --data data", "was written by star 1, this program writes TPC-H with tpchgen"),
        ("generate -s 0.002 --out data", "was written by star 1"),
    ] {
        let done = run(folder.path(), line);
        assert_eq!(done.code, Some(1), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{line}: {}", done.stderr);
    }
    assert!(files(&folder.path().join("data")) == before, "the folder was changed");

    fs::remove_file(folder.path().join("data/manifest.json")).unwrap();
    let done = run(folder.path(), "run --workload star -s 0.002 --data data");
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    assert!(done.stderr.contains("has no manifest.json"), "{}", done.stderr);
}

#[test]
fn wrong_names_and_numbers_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for (line, code, message) in [
        ("run --workload tpcx -s 0.002", 2, "there is no workload \"tpcx\", there are tpch, star"),
        ("generate --workload Star -s 0.002", 2, "there is no workload \"Star\""),
        (
            "run --workload star -s 0.002 --queries 1,200",
            1,
            "not a query of Star schema: they are numbered 1 to ",
        ),
        ("query 99 --workload star", 1, "numbered 1 to "),
    ] {
        let done = run(folder.path(), line);
        assert_eq!(done.code, Some(code), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{line}: {}", done.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "data was generated");
    let done = run(folder.path(), "query 12 --workload star");
    assert!(done.stdout.starts_with("-- Star 12: "), "{}", done.stdout);
}

/// All queries on both engines: the same rows, and some of them wherever there should be.
#[test]
fn both_engines_have_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let done = run(
        folder.path(),
        "run --workload star --scale-factor 0.01 --iterations 1 --target-partitions 2 --json run.json",
    );
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.starts_with("Star schema scale factor 0.01: one run"), "{}", done.stdout);
    assert!(folder.path().join("tpch/data/star-sf0.01/manifest.json").exists(), "{}", done.stderr);

    let report: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(report["settings"]["workload"], "star");
    assert_eq!(report["versions"]["generator"], "star 1");
    let queries = report["queries"].as_array().unwrap();
    assert!(queries.len() >= 48, "{}", queries.len());
    for query in queries {
        let number = query["query"].as_u64().unwrap();
        assert_eq!(query["same_rows"], true, "{query}");
        let rows = query["plain"]["rows"].as_u64().unwrap();
        assert_eq!(rows == 0, EMPTY.contains(&number), "query {number} has {rows} rows");
        assert!(rows <= 1_000, "query {number} has {rows} rows");
    }
}
