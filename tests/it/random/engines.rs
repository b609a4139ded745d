//! The two engines in the same configuration, over the same tables.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::SlipstreamContextExt;
use futures::TryStreamExt;

use super::rows::Answer;
use super::setup::Setup;
use super::tables::Data;
use crate::support::with_layer;

/// A query that takes the plain engine longer says nothing and is left out.
pub(super) const PLAIN_LIMIT: Duration = Duration::from_secs(10);

/// The layer has more time than the plain engine, so that a machine that is busy elsewhere is not a failure.
const LAYERED_LIMIT: Duration = Duration::from_secs(60);

/// How a query ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Rows(Answer),
    Failed(String),
    /// An error for want of memory, of an engine that has little.
    Exhausted(String),
    Panicked(String),
    TimedOut(Duration),
}

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

pub(super) struct Engines {
    plain: SessionContext,
    layered: SessionContext,
    in_little_memory: bool,
}

impl Engines {
    /// Sessions of their own for each case, so that a failure depends on nothing that came before it.
    pub(super) async fn open(setup: &Setup, env: &Arc<RuntimeEnv>, data: &Data) -> Result<Self> {
        let engines = Self::without_tables(setup, env, PhysicalOptimizer::new().rules).await?;
        data.register(&engines.plain).await?;
        data.register(&engines.layered).await?;
        Ok(engines)
    }

    /// Where no filter is pushed down a physical plan: without the rules that do so, and over tables in memory. What
    /// the logical plan's own rule pushes down, it pushes by qualified names.
    pub(super) async fn open_unpushed(setup: &Setup, env: &Arc<RuntimeEnv>, data: &Data) -> Result<Self> {
        let mut rules = PhysicalOptimizer::new().rules;
        rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
        let engines = Self::without_tables(&setup.without_pushed_filters(), env, rules).await?;
        data.register_copies(&engines.plain)?;
        data.register_copies(&engines.layered)?;
        Ok(engines)
    }

    async fn without_tables(setup: &Setup, env: &Arc<RuntimeEnv>, rules: Vec<Rule>) -> Result<Self> {
        let session = || {
            let state = SessionStateBuilder::new()
                .with_config(setup.session_config())
                .with_runtime_env(Arc::clone(env))
                .with_default_features()
                .with_physical_optimizer_rules(rules.clone());
            SessionContext::new_with_state(state.build())
        };
        let (plain, (layered, _)) = (session(), with_layer(session()));
        // Tables this small promise little; what is changed only for much would hardly be changed here.
        for rule in ["join_order", "scan_filter"] {
            layered.sql(&format!("SET slipstream.{rule}.min_gain_percent = 0")).await?;
        }
        if !setup.small_queries {
            layered.sql("SET slipstream.small_query.max_rows = 0").await?;
        }
        if let Some(bytes) = setup.memory {
            layered.sql(&format!("SET slipstream.memory.limit = {bytes}")).await?;
        }
        Ok(Self { plain, layered, in_little_memory: setup.memory.is_some() })
    }

    /// What queries that have ended left behind, if anything: tasks that were aborted have a while to end. Files are
    /// looked for in `spills`: what DataFusion 55.2 counts of them is not subtracted where two threads drop the last two
    /// references to a file at one time.
    pub(super) async fn left_behind(&self, spills: &Path) -> Option<String> {
        let left = || (self.layered.runtime_env().memory_pool.reserved(), files(spills));
        for _ in 0..500 {
            if left() == (0, 0) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (memory, files) = left();
        Some(format!("{memory} bytes of memory and {files} spill files are left behind"))
    }

    pub(super) async fn plain(&self, sql: &str) -> Outcome {
        let (ctx, sql) = (self.plain.clone(), sql.to_owned());
        let run = async move {
            let frame = ctx.sql(&sql).await?;
            let task_ctx = Arc::new(frame.task_ctx());
            let plan = frame.create_physical_plan().await?;
            Ok(Answer::of(&plan.schema(), &collect(plan, task_ctx).await?))
        };
        match outcome(PLAIN_LIMIT, run).await {
            Outcome::Exhausted(message) => Outcome::Failed(message),
            outcome => outcome,
        }
    }

    pub(super) async fn layered(&self, sql: &str) -> Outcome {
        let (ctx, sql) = (self.layered.clone(), sql.to_owned());
        let run = async move {
            let stream = ctx.query(&sql).await?;
            let schema = stream.physical_plan().schema();
            Ok(Answer::of(&schema, &stream.try_collect::<Vec<_>>().await?))
        };
        match outcome(LAYERED_LIMIT, run).await {
            // Nobody limits the other engines.
            Outcome::Exhausted(message) if !self.in_little_memory => Outcome::Failed(message),
            outcome => outcome,
        }
    }

    /// The physical plans, plain and layered, or why there is none.
    pub(super) async fn plans(&self, sql: &str) -> [String; 2] {
        let (plain, layered, sql) = (self.plain.clone(), self.layered.clone(), sql.to_owned());
        let plans = async move {
            let plan = match plain.sql(&sql).await {
                Ok(frame) => frame.create_physical_plan().await,
                Err(error) => Err(error),
            };
            let plain = plan.map(|plan| displayable(plan.as_ref()).indent(false).to_string());
            let layered = layered.query(&sql).await.map(|stream| {
                let plan = Arc::clone(stream.physical_plan());
                displayable(plan.as_ref()).indent(false).to_string()
            });
            [plain, layered].map(|plan| plan.unwrap_or_else(|error| error.to_string()))
        };
        let planned = SpawnedTask::spawn(plans).join().await;
        planned.unwrap_or_else(|error| [error.to_string(), error.to_string()])
    }
}

fn files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let count = |path: PathBuf| if path.is_dir() { files(&path) } else { 1 };
    entries.filter_map(std::result::Result::ok).map(|entry| count(entry.path())).sum()
}

/// Runs as a task, since only the runtime's own threads have a stack for deep plans.
async fn outcome(limit: Duration, run: impl Future<Output = Result<Answer>> + Send + 'static) -> Outcome {
    match tokio::time::timeout(limit, SpawnedTask::spawn(run).join()).await {
        Ok(Ok(Ok(answer))) => Outcome::Rows(answer),
        Ok(Ok(Err(error))) if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) => {
            Outcome::Exhausted(error.strip_backtrace())
        }
        Ok(Ok(Err(error))) => Outcome::Failed(error.strip_backtrace()),
        Ok(Err(panic)) => Outcome::Panicked(panic.to_string()),
        Err(_) => Outcome::TimedOut(limit),
    }
}
