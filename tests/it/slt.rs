//! Runs the files of `tests/slt` in every mode: the same answers are required in all of them.
//!
//! | mode | session |
//! |---|---|
//! | `plain` | DataFusion alone |
//! | `slipstream` | with the layer, through `ctx.query()` |
//! | `tiny_memory` | with the layer, a pool of [`TINY_MEMORY_BYTES`] that spills, and small batches |
//! | `warm_cache` | with the result cache on, and with what files and parts of queries have in common: a query whose answer was kept is asked again, and the answer from the cache is what is compared |
//! | `warm_plans` | with the cache of plans on: a query is asked until its plan is used again, and that answer is what is compared |
//!
//! The expected rows follow from the SQL standard, not from what an engine once printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt, SlipstreamOptions};
use datafusion_sqllogictest::{
    DFColumnType, DFOutput, DFSqlLogicTestError, convert_batches, convert_schema_to_types,
    df_value_validator, value_normalizer,
};
use futures::TryStreamExt;
use sqllogictest::{AsyncDB, DBOutput, Runner, parse_file, strict_column_validator};
use tempfile::TempDir;

use crate::support::{config, limited_runtime, project, single, sql, with_layer};

/// Small enough that the larger sorts, aggregates and joins of the files spill, and large enough for their hash
/// tables, which cannot.
const TINY_MEMORY_BYTES: usize = 2 * 1024 * 1024;

/// Small batches meet the boundaries between batches far more often, and fit many into a tiny pool.
const TINY_BATCH_ROWS: usize = 128;

/// What a spilling sort keeps for its merge; DataFusion's 10 MiB would not fit at all.
const TINY_SORT_RESERVATION_BYTES: usize = 64 * 1024;

/// A record that takes this long hangs; the slowest takes seconds.
const RECORD_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Slipstream,
    TinyMemory,
    WarmCache,
    WarmPlans,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Slipstream => "slipstream",
            Self::TinyMemory => "tiny_memory",
            Self::WarmCache => "warm_cache",
            Self::WarmPlans => "warm_plans",
        })
    }
}

impl Mode {
    /// A fresh session; `spills` is where it may write.
    fn session(self, spills: &Path) -> (SessionContext, Slipstream) {
        match self {
            Self::Plain => (SessionContext::new_with_config(config()), Slipstream::default()),
            Self::Slipstream => with_layer(SessionContext::new_with_config(config())),
            Self::WarmCache | Self::WarmPlans => {
                let options = SlipstreamOptions {
                    cache_enabled: self == Self::WarmCache,
                    cache_file_aggregates: self == Self::WarmCache,
                    cache_subplans: self == Self::WarmCache,
                    cache_plans: self == Self::WarmPlans,
                    ..SlipstreamOptions::default()
                };
                let mut config = config();
                config.options_mut().extensions.insert(options);
                with_layer(SessionContext::new_with_config(config))
            }
            Self::TinyMemory => {
                let config = config()
                    .with_batch_size(TINY_BATCH_ROWS)
                    .with_sort_spill_reservation_bytes(TINY_SORT_RESERVATION_BYTES);
                let runtime = limited_runtime(TINY_MEMORY_BYTES, spills);
                with_layer(SessionContext::new_with_config_rt(config, runtime))
            }
        }
    }
}

/// The connection under test.
struct Database {
    ctx: SessionContext,
    slipstream: Slipstream,
    mode: Mode,
    /// Answers, or plans, that came from the cache.
    hits: Arc<AtomicUsize>,
}

impl Database {
    async fn rows(&self, sql: &str) -> Result<(Arc<Schema>, Vec<RecordBatch>)> {
        if self.mode == Mode::Plain {
            let frame = self.ctx.sql(sql).await?;
            let task_ctx = Arc::new(frame.task_ctx());
            let plan = frame.create_physical_plan().await?;
            return Ok((plan.schema(), collect(plan, task_ctx).await?));
        }
        let rows = self.rows_of_layer(sql).await?;
        if self.mode == Mode::WarmPlans {
            return self.with_kept_plan(sql, rows).await;
        }
        if self.mode != Mode::WarmCache || self.outcome() != "stored" {
            return Ok(rows);
        }
        let warm = self.rows_of_layer(sql).await?;
        assert_eq!(self.outcome(), "hit", "{sql}");
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(warm)
    }

    /// The rows of `sql` once its plan is kept; `first` where it is no query, or its plan is not kept.
    async fn with_kept_plan(
        &self,
        sql: &str,
        first: (Arc<Schema>, Vec<RecordBatch>),
    ) -> Result<(Arc<Schema>, Vec<RecordBatch>)> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if !["SELECT", "WITH", "VALUES"].contains(&word.as_str()) {
            return Ok(first);
        }
        let outcome = || {
            let last = self.slipstream.query_log().queries().pop();
            last.and_then(|record| record.cached_plan.clone()).unwrap_or_default()
        };
        let mut rows = first;
        if outcome().contains("first time") {
            rows = self.rows_of_layer(sql).await?;
        }
        if outcome() == "stored" {
            rows = self.rows_of_layer(sql).await?;
            assert_eq!(outcome(), "hit", "{sql}");
        }
        self.hits.fetch_add(usize::from(outcome() == "hit"), Ordering::Relaxed);
        Ok(rows)
    }

    async fn rows_of_layer(&self, sql: &str) -> Result<(Arc<Schema>, Vec<RecordBatch>)> {
        let stream = self.ctx.query(sql).await?;
        Ok((stream.physical_plan().schema(), stream.try_collect().await?))
    }

    /// What the cache did for the last query.
    fn outcome(&self) -> String {
        let last = self.slipstream.query_log().queries().pop();
        last.and_then(|record| record.cache.clone()).unwrap_or_default()
    }
}

#[async_trait]
impl AsyncDB for Database {
    type Error = DFSqlLogicTestError;
    type ColumnType = DFColumnType;

    async fn run(&mut self, sql: &str) -> Result<DFOutput, DFSqlLogicTestError> {
        let (schema, batches) = self.rows(sql).await?;
        let types = convert_schema_to_types(schema.fields());
        let rows = convert_batches(&schema, batches, false)?;
        if types.is_empty() { Ok(DBOutput::StatementComplete(0)) } else { Ok(DBOutput::Rows { types, rows }) }
    }

    fn engine_name(&self) -> &str {
        "DataFusion"
    }

    async fn shutdown(&mut self) {}
}

/// What one file did in one mode.
struct FileRun {
    failures: Vec<String>,
    spilled_bytes: u64,
    hits: usize,
}

async fn run_file(mode: Mode, path: PathBuf) -> FileRun {
    let spills = TempDir::new().unwrap();
    let (ctx, slipstream) = mode.session(spills.path());
    let hits = Arc::new(AtomicUsize::new(0));
    let mut runner = Runner::new(|| {
        let (slipstream, hits) = (slipstream.clone(), Arc::clone(&hits));
        let database = Database { ctx: ctx.clone(), slipstream, mode, hits };
        async move { Ok(database) }
    });
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(value_normalizer);
    runner.with_validator(df_value_validator);
    let mut failures = vec![];
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    for record in parse_file(&path).unwrap() {
        let text = record.to_string();
        match tokio::time::timeout(RECORD_LIMIT, runner.run_async(record)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                failures.push(format!("{mode}::{name}:{} {}", error.location().line(), error.kind()));
            }
            // The statement may hold the session's locks: nothing after it can be trusted.
            Err(_) => {
                failures.push(format!("{mode}::{name} did not end in {RECORD_LIMIT:?}:\n{text}"));
                return FileRun { failures, spilled_bytes: 0, hits: 0 };
            }
        }
    }
    let spilled_bytes = match mode {
        Mode::Plain => 0,
        _ => spilled_bytes(&ctx).await,
    };
    FileRun { failures, spilled_bytes, hits: hits.load(Ordering::Relaxed) }
}

/// Summed over the queries that the layer's log still holds.
async fn spilled_bytes(ctx: &SessionContext) -> u64 {
    let sum = sql(ctx, "SELECT coalesce(sum(spilled_bytes), 0) FROM slipstream.queries").await.unwrap();
    single(&sum).parse().unwrap()
}

/// Runs all files and fails with every record that is not as its file expects.
fn run_all(mode: Mode) -> Vec<(String, u64)> {
    let folder = project().join("tests/slt");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    paths.sort();
    assert!(!paths.is_empty(), "tests/slt holds no .slt file");
    // Development builds need more than tokio's 2 MiB for deeply nested plans.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(16 * 1024 * 1024).build();
    let runtime = runtime.unwrap();
    let mut failures = vec![];
    let mut spilled = vec![];
    let mut hits = 0;
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // As a task, since only the runtime's own threads have the larger stack.
        let run = runtime.block_on(async { SpawnedTask::spawn(run_file(mode, path)).join().await.unwrap() });
        failures.extend(run.failures);
        spilled.push((name, run.spilled_bytes));
        hits += run.hits;
    }
    eprintln!("{spilled:?}");
    // A mode that answers nothing from the cache would test nothing that `slipstream` does not.
    let warm = matches!(mode, Mode::WarmCache | Mode::WarmPlans);
    assert!(!warm || hits > 100, "{hits} answers came from the cache");
    assert!(failures.is_empty(), "{} records failed:\n\n{}", failures.len(), failures.join("\n"));
    spilled
}

#[test]
fn plain() {
    run_all(Mode::Plain);
}

#[test]
fn slipstream() {
    run_all(Mode::Slipstream);
}

#[test]
fn warm_cache() {
    run_all(Mode::WarmCache);
}

#[test]
fn warm_plans() {
    run_all(Mode::WarmPlans);
}

#[test]
fn tiny_memory() {
    let spilled = run_all(Mode::TinyMemory);
    // A mode that stops spilling would go on passing, and test nothing that `slipstream` does not.
    for name in ["aggregate.slt", "sort_limit.slt", "window.slt"] {
        let bytes = spilled.iter().find(|(file, _)| file == name).map_or(0, |(_, bytes)| *bytes);
        assert!(bytes > 0, "{name} did not spill in {TINY_MEMORY_BYTES} bytes: {spilled:?}");
    }
}
