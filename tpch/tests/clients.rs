//! `clients` and `peers` from outside: what they print and write, and how they end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Runs the program in a folder, which is its folder for temporary files, too.
fn run(folder: &TempDir, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipstream-tpch"))
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs `clients` over generated data, and returns its exit code, table and figures.
fn clients(folder: &TempDir, options: &str) -> (Option<i32>, String, Value) {
    let line = "clients --scale-factor 0.01 --data data --clients 2 --seconds 1 --json out.json";
    let output = run(folder, &format!("{line} {options}"));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("queries/s"), "{stdout}\n{}", text(&output.stderr));
    (output.status.code(), stdout, json(&folder.path().join("out.json")))
}

#[test]
fn clients_of_both_engines_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, figures) = clients(&folder, "--slices 2 --queries 1,6,14");
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(figures["settings"]["queries"], serde_json::json!([1, 6, 14]));
    assert!(figures["machine"]["cores"].as_u64().unwrap() > 0, "{figures}");
    for engine in ["plain", "slipstream"] {
        let engine = &figures[engine];
        let number = |name: &str| engine[name].as_f64().unwrap();
        // Two clients, two slices, at least one query each.
        assert!(number("queries") >= 4.0, "{engine}");
        assert!(number("seconds") >= 1.0 && number("seconds") < 60.0, "{engine}");
        assert!(
            (number("queries_per_second") - number("queries") / number("seconds")).abs() < 1e-6,
            "{engine}"
        );
        let ordered = 0.0 < number("p50_ms") && number("p50_ms") <= number("p95_ms");
        assert!(ordered && number("p95_ms") <= number("p99_ms"), "{engine}");
        assert_eq!((number("samples"), number("failures")), (number("queries"), 0.0), "{engine}");
    }
    let rate = |engine: &str| figures[engine]["queries_per_second"].as_f64().unwrap();
    let ratio = figures["ratio"].as_f64().unwrap();
    assert!((ratio - rate("slipstream") / rate("plain")).abs() < 1e-9, "{figures}");
    assert!(stdout.contains(&format!("slipstream / plain: {ratio:.3}")), "{stdout}");
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "only the data and the JSON file stay");

    // With its caches the layer answers the same, and more often where it has the answers.
    let (code, stdout, figures) = clients(&folder, "--queries 1,6 --slices 1 --caches");
    assert_eq!(code, Some(0), "{stdout}");
    let names: Vec<_> = figures["caches"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["plans", "results", "both", "cold plans", "cold results", "writes"]);
    let baselines: Vec<_> =
        figures["caches"].as_array().unwrap().iter().map(|row| row["baseline"]["queries"].as_u64()).collect();
    assert!(matches!(baselines[..], [None, None, None, Some(1..), Some(1..), None]), "{baselines:?}");
    let ratio = |place: usize| figures["caches"][place]["ratio"].as_f64().unwrap();
    assert!(ratio(1) > 2.0 * ratio(4), "{figures}");
    assert!(stdout.contains("results / plain: "), "{stdout}");

    // Failures of the layer are counted, shown with their first message, and are the exit code.
    let (code, stdout, figures) =
        clients(&folder, "--queries 18 --slices 1 --memory-limit 100KB --target-partitions 1");
    assert_eq!(code, Some(1), "{stdout}");
    assert!(figures["slipstream"]["failures"].as_u64().unwrap() >= 2, "{figures}");
    assert!(stdout.contains("first failure: Q18: "), "{stdout}");
}

/// An interpreter without the packages: the real one, which is kept from looking where packages are installed.
#[cfg(unix)]
#[test]
fn peers_name_the_packages_that_are_missing() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("bare-python");
    fs::write(&python, "#!/bin/sh\nexec python3 -I -S \"$@\"\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&folder, &format!("peers --scale-factor 0.01 --python {}", python.display()));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot import duckdb and polars"), "{error}");
    assert!(error.contains("bare-python -m pip install -r tpch/peers/requirements.txt"), "{error}");
    assert!(!folder.path().join("tpch").exists(), "data was generated although nothing could be compared");

    let output = run(&folder, "peers --scale-factor 0.01 --python no-such-program");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("no-such-program cannot be run"), "{error}");
}
