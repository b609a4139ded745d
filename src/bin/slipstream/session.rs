//! Opens the session that the command line asked for: what was said becomes what it means.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::{config_datafusion_err, exec_datafusion_err};
use datafusion::config::{ConfigNonZeroUsize, ConfigOptions, Dialect};
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool, UnboundedMemoryPool,
};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{ExplainFormat, LogicalPlan, SetVariable, Statement};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_cli::catalog::DynamicObjectStoreCatalog;
use datafusion_cli::functions::{
    ListFilesCacheFunc, MetadataCacheFunc, ParquetMetadataFunc, StatisticsCacheFunc,
};
use datafusion_cli::object_storage::StdinCarriesCommands;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreRegistry;
use datafusion_cli::pool_type::PoolType;
use datafusion_cli::print_options::PrintOptions;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};

use crate::args::{Args, MemoryLimit};
use crate::interrupt::Interrupt;
use crate::memory;
use crate::report;

/// The part of the machine's memory that queries get when nothing else is said. The rest is for what the pool
/// does not count: batches in flight, the allocator, the system's page cache.
const DEFAULT_MEMORY_PERCENT: u8 = 70;

/// A session, and how it talks.
pub(crate) struct Shell {
    /// The session.
    pub(crate) ctx: SessionContext,
    /// How rows are printed; `\` commands change it.
    pub(crate) print: PrintOptions,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
    /// The directory that the files of the command line are relative to.
    pub(crate) started_in: PathBuf,
    /// How many files include one another at the moment.
    pub(crate) include_depth: usize,
}

impl Shell {
    /// Opens the session.
    pub(crate) async fn open(args: &Args) -> Result<Self> {
        let started_in = enter(args.data_path.as_deref())?;
        let stores = InstrumentedObjectStoreRegistry::new().with_profile_mode(args.object_store_profiling);
        let stores = Arc::new(stores);
        let ctx = SessionContext::new_with_config_rt(config(args)?, runtime(args, Arc::clone(&stores))?);
        let ctx = ctx.enable_url_table();
        ctx.refresh_catalogs().await?;
        profile_local_files(&ctx)?;
        let catalogs = Arc::clone(ctx.state().catalog_list());
        ctx.register_catalog_list(Arc::new(DynamicObjectStoreCatalog::new(catalogs, ctx.state_weak_ref())));
        register_table_functions(&ctx);
        if !args.plain {
            let limit = if layer_limits(args) { memory_bytes(args)?.unwrap_or_default() } else { 0 };
            ctx.install_slipstream(Slipstream::default().with_memory_limit(limit))?;
        }
        for (key, value) in &args.settings {
            set(&ctx, key, value, args.plain).await?;
        }
        let print = PrintOptions {
            format: args.format,
            quiet: args.quiet,
            maxrows: args.maxrows,
            color: args.color,
            instrumented_registry: stores,
        };
        let interrupt = Interrupt::listen(args.is_interactive())?;
        Ok(Self { ctx, print, interrupt, started_in, include_depth: 0 })
    }

    /// The dialect that the next statement is read in.
    pub(crate) fn dialect(&self) -> Dialect {
        self.ctx.copied_config().options().sql_parser.dialect
    }
}

/// Goes to the directory that statements are relative to; answers where that was done.
fn enter(directory: Option<&str>) -> Result<PathBuf> {
    let started_in = env::current_dir()?;
    if let Some(directory) = directory {
        env::set_current_dir(directory)
            .map_err(|error| exec_datafusion_err!("--data-path {directory} cannot be entered: {error}"))?;
    }
    Ok(started_in)
}

/// DataFusion's settings from the environment, then from the command line; plans and NULL are shown as people
/// read them unless the environment says otherwise.
fn config(args: &Args) -> Result<SessionConfig> {
    let mut options = ConfigOptions::from_env()?;
    if let Some(rows) = args.batch_size {
        options.execution.batch_size = ConfigNonZeroUsize::try_new(rows)?;
    }
    if env::var_os("DATAFUSION_EXPLAIN_FORMAT").is_none() {
        options.explain.format = ExplainFormat::Tree;
    }
    if env::var_os("DATAFUSION_FORMAT_NULL").is_none() {
        "NULL".clone_into(&mut options.format.null);
    }
    let config = SessionConfig::from(options).with_information_schema(true);
    Ok(if args.stdin_carries_statements() {
        config.with_extension(Arc::new(StdinCarriesCommands))
    } else {
        config
    })
}

fn runtime(args: &Args, stores: Arc<InstrumentedObjectStoreRegistry>) -> Result<Arc<RuntimeEnv>> {
    let mut builder =
        RuntimeEnvBuilder::new().with_memory_pool(memory_pool(args)?).with_object_store_registry(stores);
    if let Some(bytes) = args.disk_limit {
        // Without a disk an operator says that memory is short; with a full one it would say that the disk is.
        let mode = if bytes == 0 { DiskManagerMode::Disabled } else { DiskManagerMode::OsTmpDirectory };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(bytes);
        builder = builder.with_disk_manager_builder(disk);
    }
    builder.build_arc()
}

/// Whether the layer keeps to the memory limit, and not a pool of DataFusion that somebody asked for.
fn layer_limits(args: &Args) -> bool {
    !args.plain && args.mem_pool_type.is_none()
}

/// The memory limit; `None` for no limit.
fn memory_bytes(args: &Args) -> Result<Option<usize>> {
    Ok(match args.memory_limit {
        Some(MemoryLimit::Unlimited) => None,
        Some(MemoryLimit::Bytes(bytes)) => Some(bytes),
        Some(MemoryLimit::Percent(percent)) => Some(percent_of_memory(percent).ok_or_else(|| {
            exec_datafusion_err!(
                "this system does not tell how much memory it has; give --memory-limit a size, for example 8g"
            )
        })?),
        None => percent_of_memory(DEFAULT_MEMORY_PERCENT),
    })
}

fn memory_pool(args: &Args) -> Result<Arc<dyn MemoryPool>> {
    let bytes = if layer_limits(args) { None } else { memory_bytes(args)? };
    let consumers = NonZeroUsize::new(args.top_memory_consumers);
    let pool_type = args.mem_pool_type.as_ref().unwrap_or(&PoolType::Greedy);
    Ok(match (bytes, pool_type, consumers) {
        (None, _, _) => Arc::new(UnboundedMemoryPool::default()),
        (Some(bytes), PoolType::Greedy, None) => Arc::new(GreedyMemoryPool::new(bytes)),
        (Some(bytes), PoolType::Fair, None) => Arc::new(FairSpillPool::new(bytes)),
        (Some(bytes), PoolType::Greedy, Some(top)) => {
            Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(bytes), top))
        }
        (Some(bytes), PoolType::Fair, Some(top)) => {
            Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), top))
        }
    })
}

fn percent_of_memory(percent: u8) -> Option<usize> {
    let bytes = memory::available_bytes()? / 100 * u64::from(percent);
    usize::try_from(bytes).ok()
}

/// Registers the store of local files, which is there already, once more: only stores that are registered are
/// profiled.
fn profile_local_files(ctx: &SessionContext) -> Result<()> {
    let url = ObjectStoreUrl::local_filesystem();
    let store = ctx.runtime_env().object_store(&url)?;
    ctx.register_object_store(url.as_ref(), store);
    Ok(())
}

/// The table functions that datafusion-cli's users have.
fn register_table_functions(ctx: &SessionContext) {
    let caches = || Arc::clone(&ctx.runtime_env().cache_manager);
    ctx.register_udtf("parquet_metadata", Arc::new(ParquetMetadataFunc {}));
    ctx.register_udtf("metadata_cache", Arc::new(MetadataCacheFunc::new(caches())));
    ctx.register_udtf("statistics_cache", Arc::new(StatisticsCacheFunc::new(caches())));
    ctx.register_udtf("list_files_cache", Arc::new(ListFilesCacheFunc::new(caches())));
}

/// Does what the statement SET does, without the need to quote the value.
async fn set(ctx: &SessionContext, key: &str, value: &str, plain: bool) -> Result<()> {
    let set = SetVariable { variable: key.to_owned(), value: value.to_owned() };
    let done = ctx.execute_logical_plan(LogicalPlan::Statement(Statement::SetVariable(set))).await;
    done.map(drop).map_err(|error| {
        let advice = match nearest_setting(ctx, key) {
            // The name is right, and the error says what is wrong with the value.
            Some(name) if name == key => String::new(),
            _ if key.starts_with("slipstream.") && plain => "; --plain leaves the layer out".to_owned(),
            // The layer's own errors give advice.
            _ if key.starts_with("slipstream.") => String::new(),
            Some(name) => format!("; did you mean '{name}'?"),
            None => "; SHOW ALL lists the settings".to_owned(),
        };
        config_datafusion_err!("--set {key}={value}: {}{advice}", report::describe(&error))
    })
}

/// The setting whose name is most like this one, if it may have been meant: at most a quarter is different.
fn nearest_setting(ctx: &SessionContext, key: &str) -> Option<String> {
    let entries = ctx.copied_config().options().entries();
    let names = entries.into_iter().chain(ctx.runtime_env().config_entries()).map(|entry| entry.key);
    names
        .map(|name| (strsim::damerau_levenshtein(&name, key), name))
        .min()
        .and_then(|(distance, name)| (distance * 4 <= key.len()).then_some(name))
}
