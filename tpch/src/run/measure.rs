//! One query on the engines of a run: runs alternate, one worker computes at a time, rows are compared each time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};

use super::SCRATCH_PREFIX;
use super::process::WorkerProcess;
use super::protocol::Request;
use super::report::{EngineReport, QueryReport};
use super::worker;
use crate::compare::{ResultOrder, Verdict, compare_files};
use crate::engine::{Engine, EngineOptions};
use crate::queries::Query;
use crate::workload::AnyWorkload;

/// What all queries of a run have in common.
#[derive(Debug)]
pub(super) struct Measurement {
    /// Whose tables they are.
    pub(super) workload: AnyWorkload,
    /// Who runs, the plain engine first.
    pub(super) engines: Vec<Engine>,
    /// Timed runs on each engine.
    pub(super) iterations: usize,
    /// How long one run may take.
    pub(super) timeout: Duration,
    /// Folder of the tables.
    pub(super) data: PathBuf,
    /// Options of both engines.
    pub(super) options: EngineOptions,
}

/// One engine's part in a query.
struct Side {
    engine: Engine,
    /// Gone once the engine has failed.
    worker: Option<WorkerProcess>,
    report: EngineReport,
    /// Where the rows of the last run are.
    rows: PathBuf,
}

impl Measurement {
    /// Runs a query `1 + iterations` times on each engine: A B A B …, the first run of each is not timed.
    pub(super) async fn query(&self, query: &Query) -> Result<QueryReport> {
        let order = ResultOrder::of(query.sql)?;
        // Spill files of a worker that was killed go with the query's folder; the workers are ended before.
        let folder = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir()?;
        let scratch = folder.path();
        let mut report = QueryReport { query: query.number, ..Default::default() };
        let mut sides = vec![];
        for engine in &self.engines {
            sides.push(self.side(*engine, query, scratch, &self.options).await?);
        }
        for iteration in 0..=self.iterations {
            for side in &mut sides {
                side.run(iteration > 0).await;
            }
            if let [plain, slipstream] = sides.as_slice()
                && plain.worker.is_some()
                && slipstream.worker.is_some()
            {
                record(&mut report, compare(&plain.rows, &slipstream.rows, &order).await);
            }
        }
        if let [plain, slipstream] = sides.as_slice()
            && plain.worker.is_none()
            && slipstream.worker.is_some()
            && self.options.memory_limit_bytes.is_some()
        {
            let verdict = self.compare_without_limit(query, scratch, &slipstream.rows, &order).await?;
            record(&mut report, verdict);
        }
        for side in sides {
            match side.engine {
                Engine::Plain => report.plain = Some(side.report),
                Engine::Slipstream => report.slipstream = Some(side.report),
            }
        }
        Ok(report)
    }

    /// Starts an engine's worker.
    async fn side(
        &self,
        engine: Engine,
        query: &Query,
        scratch: &Path,
        options: &EngineOptions,
    ) -> Result<Side> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(worker::Args::to_command_line(engine, self, query, scratch, options));
        command.envs(options.allocator_environment());
        let mut report = EngineReport::default();
        let worker = match WorkerProcess::spawn(&mut command, self.timeout).await? {
            Ok(worker) => Some(worker),
            Err(message) => {
                report.error = Some(message);
                None
            }
        };
        let rows = scratch.join(format!("{engine}.arrow"));
        Ok(Side { engine, worker, report, rows })
    }

    /// Compares the layer's rows with those which the plain engine has when memory is not limited.
    async fn compare_without_limit(
        &self,
        query: &Query,
        scratch: &Path,
        rows: &Path,
        order: &ResultOrder,
    ) -> Result<Result<Verdict>> {
        let unlimited = EngineOptions { memory_limit_bytes: None, ..self.options.clone() };
        let mut plain = self.side(Engine::Plain, query, scratch, &unlimited).await?;
        plain.run(false).await;
        Ok(match plain.report.error {
            None => compare(&plain.rows, rows, order).await,
            Some(error) => Err(DataFusionError::Execution(format!(
                "the plain engine fails even without the memory limit: {error}"
            ))),
        })
    }
}

impl Side {
    /// Runs the query once; after a failure this engine is out for this query.
    async fn run(&mut self, timed: bool) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        match worker.run(&Request::Run { rows: self.rows.clone() }).await {
            Ok(done) => {
                let report = &mut self.report;
                if timed {
                    report.times_ms.push(done.elapsed_ms);
                }
                report.rows = Some(done.rows);
                report.peak_rss_bytes = done.peak_rss_bytes;
                report.peak_pool_bytes = Some(done.peak_pool_bytes);
                report.spilled_bytes = report.spilled_bytes.max(Some(done.spilled_bytes));
            }
            Err(message) => {
                self.report.error = Some(message);
                self.worker = None;
            }
        }
    }
}

/// Compares on another thread, so that Ctrl-C is heard meanwhile.
async fn compare(expected: &Path, actual: &Path, order: &ResultOrder) -> Result<Verdict> {
    let (expected, actual, order) = (expected.to_owned(), actual.to_owned(), order.clone());
    let task = SpawnedTask::spawn_blocking(move || compare_files(&expected, &actual, &order));
    task.join_unwind().await.map_err(|e| DataFusionError::External(Box::new(e)))?
}

/// Enters a verdict; the first difference stays, whatever later runs bring.
fn record(report: &mut QueryReport, verdict: Result<Verdict>) {
    if report.difference.is_some() {
        return;
    }
    match verdict {
        Ok(Verdict::Same) => report.same_rows = Some(true),
        Ok(verdict @ Verdict::Different(_)) => {
            report.same_rows = Some(false);
            report.difference = Some(verdict.to_string());
        }
        Err(error) => {
            report.same_rows = None;
            report.difference = Some(format!("rows not compared: {}", error.strip_backtrace()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_not_forgotten() {
        let mut report = QueryReport::default();
        record(&mut report, Ok(Verdict::Same));
        assert_eq!(report.same_rows, Some(true));
        record(&mut report, Ok(Verdict::Different("row 1".to_owned())));
        record(&mut report, Ok(Verdict::Same));
        assert_eq!(report.same_rows, Some(false));
        assert_eq!(report.difference.as_deref(), Some("different rows: row 1"));

        let mut report = QueryReport { same_rows: Some(true), ..Default::default() };
        record(&mut report, Err(DataFusionError::Execution("no file".to_owned())));
        assert_eq!(report.same_rows, None, "an iteration that was not compared is not the same");
    }
}
