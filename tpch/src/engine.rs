//! The two engines under comparison: plain DataFusion, and the same with Slipstream installed.

use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, PeakRecordingPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use serde::{Deserialize, Serialize};

use crate::error::message;
use crate::sizes::parse_bytes;
use crate::tables::Table;

/// Who answers the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// DataFusion as it comes.
    Plain,
    /// DataFusion with the layer.
    Slipstream,
}

impl Display for Engine {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Slipstream => "slipstream",
        })
    }
}

/// What a run may set; the same for both engines, but for settings `slipstream.*`, which the plain one lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EngineOptions {
    /// Degree of parallelism; without it DataFusion's default, the cores of the machine.
    pub(crate) target_partitions: Option<usize>,
    /// Bytes which operators may reserve before they spill; without it there is no limit.
    pub(crate) memory_limit_bytes: Option<usize>,
    /// Where spill files go; without it the system's folder for temporary files.
    pub(crate) spill_dir: Option<PathBuf>,
    /// `key = value` pairs, applied in this order.
    pub(crate) settings: Vec<(String, String)>,
}

impl EngineOptions {
    /// The command line that [`EngineArgs`] reads back as these options, but for the spill folder.
    pub(crate) fn to_command_line(&self) -> Vec<OsString> {
        let limit = self.memory_limit_bytes.map(|n| format!("--memory-limit={n}"));
        let partitions = self.target_partitions.map(|n| format!("--target-partitions={n}"));
        let settings = self.settings.iter().map(|(key, value)| format!("--set={key}={value}"));
        limit.into_iter().chain(partitions).chain(settings).map(OsString::from).collect()
    }

    /// What the environment of a worker with these options tells its allocator, the C library's, unless the caller's tells it
    /// something already. It is the same for both engines.
    ///
    /// - Each thread gets an arena, eight times the number of cores, of which each keeps what its threads have freed. Where memory
    ///   is limited two are enough, and what is freed by one thread is there for the others.
    /// - What is freed at the end of an arena goes back to the system beyond a threshold, which grows with the largest block
    ///   that the process has ever freed. So one that has not yet freed a large block gives pages back after each batch that
    ///   it reads, and takes them again for the next: the less memory an engine takes, the slower. A process that has run
    ///   for some time is at the upper end, and where memory is not limited workers begin there.
    pub(crate) fn allocator_environment(&self) -> Vec<(&'static str, &'static str)> {
        const LIMITED: &[(&str, &str)] = &[("MALLOC_ARENA_MAX", "2")];
        const UNLIMITED: &[(&str, &str)] =
            &[("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "67108864")];
        let environment = if self.memory_limit_bytes.is_some() { LIMITED } else { UNLIMITED };
        let said = std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("MALLOC_"));
        if said { Vec::new() } else { environment.to_vec() }
    }
}

/// The options of an engine on the command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Memory that operators may reserve before they spill to disk, such as 128MB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
    /// Degree of parallelism [default: the number of cores]
    #[arg(long, value_name = "P", value_parser = parse_partitions)]
    target_partitions: Option<usize>,
    /// A setting; `slipstream.*` only goes to the engine with the layer (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
}

impl EngineArgs {
    /// What the command line says.
    pub(crate) fn into_options(self) -> EngineOptions {
        EngineOptions {
            target_partitions: self.target_partitions,
            memory_limit_bytes: self.memory_limit,
            spill_dir: None,
            settings: self.settings,
        }
    }
}

/// Parses a positive number of partitions.
fn parse_partitions(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// Parses `key=value`.
fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    let key = key.trim();
    if !key.starts_with("datafusion.") && !key.starts_with("slipstream.") {
        return Err(format!("\"{key}\" is neither a setting datafusion.* nor slipstream.*"));
    }
    Ok((key.to_owned(), value.trim().to_owned()))
}

/// Makes a context of the engine; its memory pool records its peak, see [`peak_pool_bytes`].
pub(crate) fn context(engine: Engine, options: &EngineOptions) -> Result<SessionContext> {
    let pool = Arc::new(PeakRecordingPool::new(memory_pool(engine, options)));
    // An extension, since what is installed later may wrap the runtime's pool: then it is not found there.
    let mut config = SessionConfig::new().with_extension(Arc::clone(&pool));
    if let Some(partitions) = options.target_partitions {
        config = config.with_target_partitions(partitions);
    }
    let ctx = SessionContext::new_with_config_rt(config, runtime(pool, options)?);
    if engine == Engine::Slipstream {
        let limit = options.memory_limit_bytes.unwrap_or_default();
        ctx.install_slipstream(Slipstream::default().with_memory_limit(limit))?;
    }
    for (key, value) in &options.settings {
        if engine == Engine::Slipstream || !key.starts_with("slipstream.") {
            set(&ctx, key, value)?;
        }
    }
    Ok(ctx)
}

/// A fair pool that makes operators of the plain engine spill when there is a limit, else one that only counts: the layer
/// keeps to the limit by a policy of its own.
fn memory_pool(engine: Engine, options: &EngineOptions) -> Arc<dyn MemoryPool> {
    match (engine, options.memory_limit_bytes) {
        (Engine::Plain, Some(bytes)) => Arc::new(FairSpillPool::new(bytes)),
        _ => Arc::new(UnboundedMemoryPool::default()),
    }
}

/// Memory and disk of one context.
fn runtime(pool: Arc<PeakRecordingPool>, options: &EngineOptions) -> Result<Arc<RuntimeEnv>> {
    let builder = RuntimeEnvBuilder::new().with_memory_pool(pool);
    match &options.spill_dir {
        Some(dir) => builder.with_temp_file_path(dir).build_arc(),
        None => builder.build_arc(),
    }
}

/// What `SET key = value` does, without a query.
pub(crate) fn set(ctx: &SessionContext, key: &str, value: &str) -> Result<()> {
    let state = ctx.state_ref();
    let mut state = state.write();
    state
        .config_mut()
        .options_mut()
        .set(key, value)
        .map_err(|e| DataFusionError::Configuration(format!("--set {key}={value}: {}", message(&e))))
}

/// The most bytes that operators of this context ever had reserved at once.
pub(crate) fn peak_pool_bytes(ctx: &SessionContext) -> Result<usize> {
    let pool = ctx.state_ref().read().config().get_extension::<PeakRecordingPool>();
    let pool = pool.ok_or_else(|| DataFusionError::Internal("the pool's recorder was removed".to_owned()))?;
    Ok(pool.max_reserved())
}

/// Registers the eight tables of TPC-H from `dir`.
pub(crate) async fn register_tables(ctx: &SessionContext, dir: &Path) -> Result<()> {
    for table in Table::ALL {
        ctx.register_parquet(table.name(), utf8(&table.path(dir))?, ParquetReadOptions::default()).await?;
    }
    Ok(())
}

/// A path as DataFusion takes it.
pub(crate) fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        DataFusionError::Configuration(format!("the path {} is not valid UTF-8", path.display()))
    })
}

/// A started query: its rows, and the plan that produces them (for the metrics, once the rows are drained).
pub(crate) struct Running {
    /// The rows.
    pub(crate) stream: SendableRecordBatchStream,
    /// The physical plan.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
}

/// Starts one statement by the engine's own front door: `ctx.sql` or `ctx.query`.
pub(crate) async fn start(engine: Engine, ctx: &SessionContext, sql: &str) -> Result<Running> {
    match engine {
        Engine::Plain => {
            let df = ctx.sql(sql).await?;
            let task_ctx = Arc::new(df.task_ctx());
            let plan = df.create_physical_plan().await?;
            Ok(Running { stream: execute_stream(Arc::clone(&plan), task_ctx)?, plan })
        }
        Engine::Slipstream => {
            let stream = ctx.query(sql).await?;
            let plan = Arc::clone(stream.physical_plan());
            Ok(Running { stream: Box::pin(stream), plan })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: EngineArgs,
    }

    fn parse(line: impl IntoIterator<Item = OsString>) -> Result<EngineOptions, clap::Error> {
        Line::try_parse_from(std::iter::once("x".into()).chain(line)).map(|l| l.args.into_options())
    }

    /// A worker gets the options of the harness.
    #[test]
    fn options_survive_the_command_line() {
        let setting = ("datafusion.sql_parser.dialect".to_owned(), "a=b, c".to_owned());
        let options = EngineOptions {
            target_partitions: Some(3),
            memory_limit_bytes: Some(1_000_001),
            spill_dir: None,
            settings: vec![setting.clone(), setting],
        };
        assert_eq!(parse(options.to_command_line()).unwrap(), options);
        assert_eq!(parse([]).unwrap(), EngineOptions::default());
        for bad in ["--set=x", "--set=foo.bar=1", "--target-partitions=0", "--memory-limit=12XB"] {
            assert!(parse([bad.into()]).is_err(), "{bad}");
        }
    }

    /// Both engines keep to the limit, and count what they reserve.
    #[tokio::test]
    async fn the_memory_limit_holds_in_both_engines() {
        let options = EngineOptions { memory_limit_bytes: Some(4 << 20), ..Default::default() };
        let sql = |rows: usize| format!("SELECT array_length(array_agg(value)) FROM range(0, {rows})");
        for engine in [Engine::Plain, Engine::Slipstream] {
            let ctx = context(engine, &options).unwrap();
            ctx.sql(&sql(100_000)).await.unwrap().collect().await.unwrap();
            let peak = peak_pool_bytes(&ctx).unwrap();
            assert!((800_000..4 << 20).contains(&peak), "{engine}: {peak}");
            let error = ctx.sql(&sql(10_000_000)).await.unwrap().collect().await.unwrap_err();
            assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{engine}: {error}");
        }
    }

    /// Settings reach the engine they are for; wrong ones are named.
    #[test]
    fn settings_are_applied() {
        let with = |key: &str, value: &str| EngineOptions {
            settings: vec![(key.to_owned(), value.to_owned())],
            ..Default::default()
        };
        for engine in [Engine::Plain, Engine::Slipstream] {
            let ctx = context(engine, &with("datafusion.execution.batch_size", "77")).unwrap();
            assert_eq!(ctx.copied_config().batch_size(), 77);
            let error = context(engine, &with("datafusion.no_such", "1")).err().unwrap().to_string();
            assert!(error.contains("--set datafusion.no_such=1"), "{error}");
        }
        // The plain engine has no such setting, and does not see it.
        context(Engine::Plain, &with("slipstream.no_such", "1")).unwrap();
        assert!(context(Engine::Slipstream, &with("slipstream.no_such", "1")).is_err());
    }
}
