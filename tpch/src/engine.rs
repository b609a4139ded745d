//! The two engines under comparison: plain DataFusion, and the same with Slipstream installed.

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
#[derive(Debug, Clone, Default)]
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

/// Makes a context of the engine; its memory pool is always a [`PeakRecordingPool`].
pub(crate) fn context(engine: Engine, options: &EngineOptions) -> Result<SessionContext> {
    let mut config = SessionConfig::new();
    if let Some(partitions) = options.target_partitions {
        config = config.with_target_partitions(partitions);
    }
    let ctx = SessionContext::new_with_config_rt(config, runtime(options)?);
    if engine == Engine::Slipstream {
        ctx.install_slipstream(Slipstream::default())?;
    }
    for (key, value) in &options.settings {
        if engine == Engine::Slipstream || !key.starts_with("slipstream.") {
            set(&ctx, key, value)?;
        }
    }
    Ok(ctx)
}

/// Memory and disk of one context: a fair pool that makes operators spill when there is a limit.
fn runtime(options: &EngineOptions) -> Result<Arc<RuntimeEnv>> {
    let pool: Arc<dyn MemoryPool> = match options.memory_limit_bytes {
        Some(bytes) => Arc::new(FairSpillPool::new(bytes)),
        None => Arc::new(UnboundedMemoryPool::default()),
    };
    let builder = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(PeakRecordingPool::new(pool)));
    match &options.spill_dir {
        Some(dir) => builder.with_temp_file_path(dir).build_arc(),
        None => builder.build_arc(),
    }
}

/// What `SET key = value` does, without a query.
fn set(ctx: &SessionContext, key: &str, value: &str) -> Result<()> {
    let state = ctx.state_ref();
    let mut state = state.write();
    state
        .config_mut()
        .options_mut()
        .set(key, value)
        .map_err(|e| DataFusionError::Configuration(format!("--set {key}={value}: {}", e.strip_backtrace())))
}

/// The most bytes that operators of this context ever had reserved at once.
pub(crate) fn peak_pool_bytes(ctx: &SessionContext) -> usize {
    let env = ctx.runtime_env();
    PeakRecordingPool::from_pool(env.memory_pool.as_ref()).map_or(0, PeakRecordingPool::max_reserved)
}

/// Registers the eight tables from `dir`.
pub(crate) async fn register_tables(ctx: &SessionContext, dir: &Path) -> Result<()> {
    for table in Table::ALL {
        let path = table.path(dir);
        let path = path.to_str().ok_or_else(|| {
            DataFusionError::Configuration(format!("the path {} is not valid UTF-8", path.display()))
        })?;
        ctx.register_parquet(table.name(), path, ParquetReadOptions::default()).await?;
    }
    Ok(())
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
