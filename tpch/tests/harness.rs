//! The harness from outside: its processes, files, exit codes, and what becomes of them when it is killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A folder for one test: `data` for tables, `tmp` for temporary files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.tmp()).unwrap();
        folder
    }

    /// A folder with data of scale factor 0.01, copied from one that lasts as long as the build does.
    fn with_data() -> Self {
        static GENERATE: Once = Once::new();
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("harness-sf0.01");
        let folder = Self::new();
        GENERATE.call_once(|| {
            let mut generate = folder.command("generate -s 0.01");
            assert!(generate.arg("--out").arg(&shared).status().unwrap().success());
        });
        fs::create_dir(folder.data()).unwrap();
        for file in fs::read_dir(shared).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.data().join(file.file_name())).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn tmp(&self) -> PathBuf {
        self.path("tmp")
    }

    /// The program under test, with the folder's data as its own.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream-tpch"));
        command
            .env("TMPDIR", self.tmp())
            .current_dir(self.0.path())
            .args(line.split(' '))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Finished {
        Finished::from(self.command(line).output().unwrap())
    }

    /// Generates into `data`, and returns what went to standard error.
    fn generate(&self, scale_factor: &str) -> String {
        let done = self.run(&format!("generate --scale-factor {scale_factor} --out data"));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stderr
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// What the harness left in its folder for temporary files.
    fn leftovers(&self) -> Vec<PathBuf> {
        fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// How the program ended, and what it wrote.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Waits until a condition holds, for at most 20 seconds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 20 s");
}

#[test]
fn run_generates_measures_and_compares() {
    let folder = Folder::new();
    let done = folder.run(
        "run --scale-factor 0.01 --data data --queries 1,6,18 --iterations 2 --json run.json \
         --set datafusion.execution.batch_size=4096",
    );
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
    assert!(done.stderr.contains("lineitem: 60175 rows"), "{}", done.stderr);
    assert!(done.stdout.contains("rows     same in 3 of 3 queries"), "{}", done.stdout);
    assert_eq!(folder.leftovers(), Vec::<PathBuf>::new());

    let report = folder.json("run.json");
    let queries = report["queries"].as_array().unwrap();
    let numbers: Vec<_> = queries.iter().map(|q| q["query"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 6, 18]);
    for query in queries {
        assert_eq!(query["same_rows"], true);
        for engine in ["plain", "slipstream"] {
            let engine = &query[engine];
            assert_eq!(engine["times_ms"].as_array().unwrap().len(), 2);
            assert!(engine["times_ms"][0].as_f64().unwrap() > 0.0);
            assert!(engine["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
            assert!(engine["peak_pool_bytes"].is_u64());
            assert_eq!(engine["spilled_bytes"], 0);
            assert_eq!(engine["error"], Value::Null);
        }
    }
    // Q1 aggregates, and operators reserve memory for that.
    assert!(queries[0]["plain"]["peak_pool_bytes"].as_u64().unwrap() > 0);
    for ratio in ["total_ratio", "geomean_ratio", "worst_ratio"] {
        assert!(report[ratio].as_f64().unwrap() > 0.0, "{ratio}");
    }
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    assert_eq!(report["settings"]["set"][0][1], "4096");
}

#[test]
fn one_engine_runs_alone_and_under_a_limit() {
    let folder = Folder::with_data();
    let done = folder.run(
        "run -s 0.01 --data data --queries 6 --iterations 1 --engines plain --memory-limit 64MB \
         --target-partitions 1 --json run.json",
    );
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let report = folder.json("run.json");
    assert_eq!(report["settings"]["memory_limit_bytes"], 64 << 20);
    assert_eq!(report["settings"]["target_partitions"], 1);
    assert_eq!(report["queries"][0]["slipstream"], Value::Null);
    assert_eq!(report["queries"][0]["same_rows"], Value::Null);
    assert_eq!(report["total_ratio"], Value::Null);
}

/// An engine that cannot run is a line in the table and a failed run, not a crash of the harness.
#[test]
fn failing_engines_are_reported() {
    let folder = Folder::with_data();
    // As long as the manifest says, but not Parquet.
    let nation = folder.data().join("nation.parquet");
    let size = fs::metadata(&nation).unwrap().len();
    fs::write(&nation, vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    let done = folder.run("run -s 0.01 --data data --queries 1");
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    for engine in ["plain failed: ", "slipstream failed: "] {
        let line = done.stdout.lines().find(|line| line.trim_start().starts_with(engine)).unwrap_or_default();
        assert!(line.contains("Parquet"), "{}", done.stdout);
    }
    assert!(done.stdout.contains("no query ran on both engines"), "{}", done.stdout);
}

/// With too little memory for any aggregation both engines fail; the layer's failure fails the run.
#[test]
fn failure_under_a_limit_is_reported() {
    let folder = Folder::with_data();
    let done = folder
        .run("run -s 0.01 --data data --queries 1,6 --iterations 1 --memory-limit 10KB --json run.json");
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    let report = folder.json("run.json");
    for engine in ["plain", "slipstream"] {
        let error = report["queries"][0][engine]["error"].as_str().unwrap();
        assert!(error.contains("Resources exhausted"), "{error}");
        assert_eq!(report["queries"][0][engine]["peak_pool_bytes"], Value::Null);
    }
    // Q6 reserves nothing worth mentioning.
    assert_eq!(report["queries"][1]["same_rows"], true);
    assert!(done.stdout.contains("(1 of 2 queries)"), "{}", done.stdout);
}

#[test]
fn wrong_options_are_refused_before_any_work() {
    let folder = Folder::new();
    for (options, code, message) in [
        ("--set datafusion.no_such=1", 1, "--set datafusion.no_such=1"),
        ("--set slipstream.no_such=1", 1, "--set slipstream.no_such=1"),
        ("--set no_such=1", 2, "neither a setting datafusion.* nor slipstream.*"),
        ("--memory-limit 12XB", 2, "is not a size"),
        ("--queries 23", 1, "numbered 1 to 22"),
        ("--engines duckdb", 2, "possible values: plain, slipstream"),
        ("--iterations 0", 2, "0 is not in 1.."),
        ("--json no/such/folder/x.json", 1, "cannot write no/such/folder/x.json"),
    ] {
        let done = folder.run(&format!("run -s 0.01 --data data {options}"));
        assert_eq!(done.code, Some(code), "{options}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{options}: {}", done.stderr);
        assert!(!folder.data().exists(), "{options}: data was generated");
    }
}

#[test]
fn scale_factors_are_not_mixed() {
    let folder = Folder::new();
    folder.generate("0.001");
    let lineitem = folder.data().join("lineitem.parquet");
    let before = fs::read(&lineitem).unwrap();
    for command in ["generate -s 0.002 --out data", "run -s 0.002 --data data"] {
        let done = folder.run(command);
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains("holds scale factor 0.001, not 0.002"), "{}", done.stderr);
    }
    assert!(fs::read(lineitem).unwrap() == before, "the file was changed");
}

/// Complete tables are kept, incomplete ones are written again, and the result is that of an unbroken run.
#[test]
fn killed_generate_is_resumed() {
    let (unbroken, broken) = (Folder::with_data(), Folder::new());
    let data = broken.data();
    let mut killed = broken.command("generate -s 0.01 --out data").stderr(Stdio::null()).spawn().unwrap();
    eventually("lineitem is begun", || data.join("lineitem.parquet.tmp").exists());
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!data.join("region.parquet").exists(), "killed too late to prove anything");

    // What a kill may leave besides: a file that was renamed but not entered.
    fs::write(data.join("orders.parquet"), "half").unwrap();
    broken.generate("0.01");
    assert_eq!(broken.json("data/manifest.json"), unbroken.json("data/manifest.json"));
    for table in ["lineitem", "orders", "region"] {
        let file = format!("{table}.parquet");
        let same = fs::read(data.join(&file)).unwrap() == fs::read(unbroken.data().join(&file)).unwrap();
        assert!(same, "{file} differs");
    }
    assert!(!data.join("lineitem.parquet.tmp").exists());

    fs::write(data.join("part.parquet"), "half").unwrap();
    let stderr = broken.generate("0.01");
    assert!(stderr.contains("part: 2000 rows") && !stderr.contains("lineitem"), "{stderr}");
    assert_eq!(broken.generate("0.01"), "", "nothing was missing");
}

/// The processes whose parent is `pid`.
#[cfg(target_os = "linux")]
fn children(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

/// However the harness ends, its workers end, and their rows and spill files are removed.
#[test]
#[cfg(target_os = "linux")]
fn workers_do_not_outlive_the_harness() {
    let folder = Folder::with_data();
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let mut run = folder
            .command("run -s 0.01 --data data --queries 1 --iterations 60000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("both workers have run", || {
            let written = |file| folder.leftovers().iter().any(|scratch| scratch.join(file).exists());
            written("plain.arrow") && written("slipstream.arrow")
        });
        let workers = children(run.id());
        assert_eq!(workers.len(), 2);
        let sent = Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(run.wait().unwrap().code(), code, "{signal}");
        eventually("the workers have ended", || {
            workers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
        eventually("temporary files are removed", || folder.leftovers().is_empty());
    }
}

/// Without DuckDB the engines are compared with each other, and the user is told.
#[test]
fn verify_says_what_it_compared() {
    let folder = Folder::with_data();
    let done = folder.run("verify -s 0.01 --data data --python no-such-python");
    assert_eq!(done.code, Some(0), "{}", done.stdout);
    assert!(done.stdout.ends_with("22 of 22 on both engines\n"), "{}", done.stdout);
    assert!(done.stderr.contains("no-such-python cannot be run"), "{}", done.stderr);
    assert!(done.stderr.contains("The engines are only compared with each other."), "{}", done.stderr);
}

/// Answers that differ make `verify` fail; an interpreter that lies stands for engines that err.
#[test]
#[cfg(unix)]
fn verify_finds_wrong_answers() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with_data();
    let python = folder.path("python");
    let answers = r#"{"version":"0","answers":{"6":{"types":["exact"],"rows":[["1.5"]]},
        "15":{"types":["exact","exact","exact","exact","exact"],"rows":[]}}}"#;
    fs::write(&python, format!("#!/bin/sh\ncat > /dev/null\ncat << END\n{answers}\nEND\n")).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let done = folder.run("verify -s 0.01 --data data --python ./python");
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.ends_with("0 of 22 on both engines\n"), "{}", done.stdout);
    for engine in ["plain", "slipstream"] {
        let wrong = format!("{engine}: row 1: expected (1.5), found (1193053.2253)");
        assert!(done.stdout.contains(&wrong), "{}", done.stdout);
        assert!(done.stdout.contains(&format!("{engine}: 0 rows of 5 columns expected, 1 of 5 found")));
    }
}
