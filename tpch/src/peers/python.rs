//! The Python processes that ask DuckDB and Polars.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use serde::{Deserialize, Serialize};

use super::report::{Peer, PeerReport};
use crate::queries::Query;
use crate::run::process::WorkerProcess;
use crate::tables::Table;

/// The program; handed over as an argument, so that this binary works without its sources.
const SCRIPT: &str = include_str!("../../peers/run.py");

/// The program's exit code where packages are missing.
const NOT_INSTALLED: i32 = 3;

/// How the program begins the reason for which an engine does not know a query.
const NOT_SUPPORTED: &str = "not supported: ";

/// An interpreter that has both packages.
#[derive(Debug)]
pub(super) struct Python {
    program: PathBuf,
    pub(super) versions: Versions,
}

/// Versions of the packages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Versions {
    pub(super) duckdb: String,
    pub(super) polars: String,
}

/// One query for one engine.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) peer: Peer,
    pub(super) query: &'a Query,
    pub(super) data: &'a Path,
    pub(super) threads: u16,
    pub(super) memory_limit_bytes: Option<usize>,
    pub(super) scratch: &'a Path,
    pub(super) iterations: u16,
    pub(super) timeout: Duration,
}

/// A job as the program reads it.
#[derive(Serialize)]
struct Argument<'a> {
    engine: Peer,
    tables: BTreeMap<&'static str, PathBuf>,
    sql: &'a str,
    threads: u16,
    memory_limit_bytes: Option<usize>,
    scratch: &'a Path,
}

/// The figures of one run.
#[derive(Debug, Deserialize)]
struct Done {
    elapsed_ms: f64,
    rows: u64,
    peak_rss_bytes: Option<u64>,
}

impl Python {
    /// Asks the interpreter for the packages' versions; the error says how to install them.
    pub(super) fn find(program: &Path) -> Result<Self> {
        let invalid = |text: String| DataFusionError::Configuration(text);
        let name = program.display();
        let output = Command::new(program)
            .args(["-c", SCRIPT, "check"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| invalid(format!("{name} cannot be run: {e}; name another with --python")))?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() == Some(NOT_INSTALLED) {
            return Err(invalid(format!(
                "{name} cannot import {}; install what is compared with:\n  \
                 {name} -m pip install -r tpch/peers/requirements.txt",
                stdout.split_whitespace().collect::<Vec<_>>().join(" and ")
            )));
        }
        if !output.status.success() {
            return Err(invalid(format!("{name} failed ({}): {}", output.status, stderr.trim())));
        }
        let versions = serde_json::from_str(&stdout)
            .map_err(|e| invalid(format!("{name} answered \"{}\": {e}", stdout.trim())))?;
        Ok(Self { program: program.to_owned(), versions })
    }

    /// Runs a query `1 + iterations` times in one process; the first run is not timed.
    pub(super) async fn measure(&self, job: &Job<'_>) -> Result<PeerReport> {
        let argument = Argument {
            engine: job.peer,
            tables: Table::ALL.map(|table| (table.name(), table.path(job.data))).into(),
            sql: job.query.sql,
            threads: job.threads,
            memory_limit_bytes: job.memory_limit_bytes,
            scratch: job.scratch,
        };
        let argument =
            serde_json::to_string(&argument).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let mut command = Command::new(&self.program);
        command.args(["-c", SCRIPT, &argument]);
        let mut report = PeerReport::default();
        let mut worker = match WorkerProcess::<Done>::spawn(&mut command, job.timeout).await? {
            Ok(worker) => worker,
            Err(message) => {
                report.error = Some(message);
                return Ok(report);
            }
        };
        for iteration in 0..=job.iterations {
            match worker.run(&"run").await {
                Ok(done) => {
                    if iteration > 0 {
                        report.times_ms.push(done.elapsed_ms);
                    }
                    report.rows = Some(done.rows);
                    report.peak_rss_bytes = done.peak_rss_bytes;
                }
                Err(message) => {
                    match message.strip_prefix(NOT_SUPPORTED) {
                        Some(reason) => report.not_supported = Some(reason.to_owned()),
                        None => report.error = Some(message),
                    }
                    break;
                }
            }
        }
        report.summarize();
        Ok(report)
    }
}
