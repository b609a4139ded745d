//! `worker` (hidden): one engine and one query in a process of its own, driven by lines on standard input.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;

use super::SCRATCH_PREFIX;
use super::measure::Measurement;
use super::protocol::{Done, Reply, Request, from_line, to_line};
use crate::engine::{self, Engine, EngineOptions};
use crate::queries::Query;
use crate::workload::{AnyWorkload, find_query, parse_workload};

/// Arguments of `worker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who answers
    #[arg(long)]
    engine: Engine,
    /// Whose query it is
    #[arg(long, value_parser = parse_workload)]
    workload: AnyWorkload,
    /// Number of the query
    #[arg(long)]
    query: u8,
    /// Folder of the tables
    #[arg(long)]
    data: PathBuf,
    /// Folder of the harness for rows and spill files
    #[arg(long)]
    scratch: PathBuf,
    #[command(flatten)]
    options: engine::EngineArgs,
}

impl Args {
    /// The command line that [`clap`] reads back as these arguments.
    pub(super) fn to_command_line(
        engine: Engine,
        measurement: &Measurement,
        query: &Query,
        scratch: &Path,
        options: &EngineOptions,
    ) -> Vec<std::ffi::OsString> {
        let mut line: Vec<std::ffi::OsString> = vec![
            "worker".into(),
            format!("--engine={engine}").into(),
            format!("--workload={}", measurement.workload.name()).into(),
            format!("--query={}", query.number).into(),
            "--data".into(),
            measurement.data.clone().into(),
            "--scratch".into(),
            scratch.into(),
        ];
        line.extend(options.to_command_line());
        line
    }
}

/// Result batches kept in memory until the clock stops; beyond, they go to the file while it runs.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// Serves requests until standard input ends.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut requests = read_requests(args.scratch.clone());
    let (ctx, query) = match prepare(&args).await {
        Ok(prepared) => prepared,
        Err(e) => {
            reply::<Done>(&failed(&e))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    reply::<Done>(&Reply::Ready)?;
    while let Some(line) = requests.recv().await {
        let Request::Run { rows } = from_line(&line).map_err(DataFusionError::Execution)?;
        match run_query(args.engine, &ctx, query.sql, &rows).await {
            Ok(done) => reply(&Reply::Done(done))?,
            Err(e) => reply::<Done>(&failed(&e))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads standard input on a thread of its own: a worker that is busy must notice that the harness is gone.
pub(crate) fn read_requests(scratch: PathBuf) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
        // The harness is gone without having ended this worker: it was killed, and cannot clean up.
        let name = scratch.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with(SCRATCH_PREFIX) {
            // Nobody is left to report a failure to.
            drop(std::fs::remove_dir_all(&scratch));
        }
        std::process::exit(1);
    });
    receiver
}

/// Makes the context and registers the tables.
async fn prepare(args: &Args) -> Result<(SessionContext, &'static Query)> {
    let query = find_query(args.workload, args.query)?;
    let mut options = args.options.clone().into_options();
    options.spill_dir = Some(args.scratch.clone());
    let ctx = engine::context(args.engine, &options)?;
    args.workload.register(&ctx, &args.data).await?;
    Ok((ctx, query))
}

/// Runs the query; the clock stops at its last batch, before the rows are written.
async fn run_query(engine: Engine, ctx: &SessionContext, sql: &str, rows: &Path) -> Result<Done> {
    let start = crate::clock::now();
    let mut running = engine::start(engine, ctx, sql).await?;
    let mut result = ResultFile::new(running.stream.schema(), rows);
    while let Some(batch) = running.stream.next().await {
        result.push(batch?)?;
    }
    let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
    drop(running.stream);
    Ok(Done {
        elapsed_ms,
        rows: result.finish()?,
        peak_rss_bytes: peak_rss_bytes(),
        peak_pool_bytes: engine::peak_pool_bytes(ctx)? as u64,
        spilled_bytes: spilled_bytes(&running.plan, &mut HashSet::new()) as u64,
    })
}

/// Collects a result, and writes it as an Arrow IPC stream.
struct ResultFile<'a> {
    schema: SchemaRef,
    path: &'a Path,
    /// Opened by the first flush: a query that fails leaves the rows of the run before.
    writer: Option<StreamWriter<BufWriter<File>>>,
    /// Batches not yet written.
    kept: Vec<RecordBatch>,
    kept_bytes: usize,
    /// Rows so far, written or not.
    rows: usize,
}

impl<'a> ResultFile<'a> {
    /// A result without rows.
    fn new(schema: SchemaRef, path: &'a Path) -> Self {
        Self { schema, path, writer: None, kept: vec![], kept_bytes: 0, rows: 0 }
    }

    /// Takes a batch; a small result is not written before the clock stops.
    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.kept_bytes += batch.get_array_memory_size();
        self.kept.push(batch);
        if self.kept_bytes > MAX_KEPT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the batches kept so far.
    fn flush(&mut self) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = File::create(self.path).map_err(|e| {
                    DataFusionError::Execution(format!("cannot write rows to {}: {e}", self.path.display()))
                })?;
                self.writer.insert(StreamWriter::try_new(BufWriter::new(file), &self.schema)?)
            }
        };
        for batch in self.kept.drain(..) {
            writer.write(&batch)?;
        }
        self.kept_bytes = 0;
        Ok(())
    }

    /// Writes what is left, and returns the number of rows.
    fn finish(mut self) -> Result<usize> {
        self.flush()?;
        if let Some(mut writer) = self.writer {
            writer.finish()?;
        }
        Ok(self.rows)
    }
}

/// Bytes spilled by all nodes of a plan that has run; a node with two parents counts once.
fn spilled_bytes(plan: &Arc<dyn ExecutionPlan>, seen: &mut HashSet<*const ()>) -> usize {
    if !seen.insert(Arc::as_ptr(plan).cast()) {
        return 0;
    }
    let own = plan.metrics().and_then(|m| m.spilled_bytes()).unwrap_or_default();
    plan.children().into_iter().map(|child| spilled_bytes(child, seen)).sum::<usize>() + own
}

/// The most memory that this process ever had resident.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Reports an error of the engine.
pub(crate) fn failed<T>(error: &DataFusionError) -> Reply<T> {
    Reply::Failed { message: error.strip_backtrace() }
}

/// Sends a reply to the harness.
pub(crate) fn reply<T: Serialize>(reply: &Reply<T>) -> Result<()> {
    let line = to_line(reply).map_err(DataFusionError::Execution)?;
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{ResultOrder, Verdict, compare_files};

    /// A result larger than what is kept in memory arrives whole.
    #[tokio::test]
    async fn large_result_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = engine::context(Engine::Plain, &EngineOptions::default()).unwrap();
        let sql = "select value, repeat(cast(value as varchar), 10) as t from range(1500000)";
        let (first, second) = (dir.path().join("1.arrow"), dir.path().join("2.arrow"));
        for path in [&first, &second] {
            let done = run_query(Engine::Plain, &ctx, sql, path).await.unwrap();
            assert_eq!((done.rows, done.spilled_bytes), (1_500_000, 0));
            assert!(path.metadata().unwrap().len() > MAX_KEPT_BYTES as u64);
        }
        let order = ResultOrder::of(&format!("{sql} order by value")).unwrap();
        assert_eq!(compare_files(&first, &second, &order).unwrap(), Verdict::Same);
    }

    /// A sort that does not fit into the memory limit: its spilling and the pool's peak are measured.
    #[tokio::test]
    async fn spills_and_peaks_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 40 << 20;
        let options = EngineOptions {
            memory_limit_bytes: Some(limit),
            spill_dir: Some(dir.path().to_owned()),
            target_partitions: Some(1),
            ..Default::default()
        };
        let sql = "select value * 7919 % 1500007 as v, repeat(cast(value as varchar), 10) as t
                   from range(800000) order by v";
        let rows = dir.path().join("rows.arrow");
        for engine in [Engine::Plain, Engine::Slipstream] {
            let ctx = engine::context(engine, &options).unwrap();
            let done = run_query(engine, &ctx, sql, &rows).await.unwrap();
            let pool = done.peak_pool_bytes;
            // What is sorted is about 50 MB, each of which is spilled once or twice.
            assert!((20 << 20..=150 << 20).contains(&done.spilled_bytes), "{} spilled", done.spilled_bytes);
            assert!((1 << 20..=limit as u64).contains(&pool), "{engine}: {pool} in the pool");
            assert!(done.peak_rss_bytes.unwrap_or(u64::MAX) > pool, "{engine}");
        }
    }

    #[tokio::test]
    async fn failing_query_is_reported() {
        let ctx = engine::context(Engine::Plain, &EngineOptions::default()).unwrap();
        let rows = std::env::temp_dir().join("slipstream-tpch-never-written.arrow");
        let error = run_query(Engine::Plain, &ctx, "select 1 / 0", &rows).await.unwrap_err();
        let Reply::Failed { message } = failed::<Done>(&error) else { panic!("not a failure") };
        assert!(message.contains("Divide by zero"), "{message}");
    }
}
