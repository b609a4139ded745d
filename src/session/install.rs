//! Installs the layer into a session, and leaves alone what the session's owner configured.

use std::sync::Arc;

use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList, TableFunction};
use datafusion::common::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::Slipstream;
use super::analyze::{ANALYZE_FUNCTION, AnalyzeFunction};
use super::cache_functions::cache_functions;
use super::functions::keep_functions;
use super::planner::SlipstreamPlanner;
use super::rule_order::splice;
use crate::config::SlipstreamOptions;
use crate::error::config_error;
use crate::insight::{Caches, SCHEMA_NAME, system_schema};

/// Installs the layer into a session that is being built.
pub trait SlipstreamBuilderExt: Sized {
    /// Installs the layer: settings, rules, query planner, system tables.
    ///
    /// Call it last before `build()`: it extends what the builder holds by then, and a later
    /// `with_query_planner`, `with_physical_optimizer_rules`, `with_config` or `with_catalog_list` replaces it.
    /// Kept as they are: catalogs, tables, object stores, functions, the caller's rules and query planner (which
    /// plans every query, inside the layer's), the runtime, and every `datafusion.*` setting, save that the
    /// default catalog is created here and not in `build()`, since the system tables go into it.
    ///
    /// Settings start from [`SlipstreamOptions`] in the session's configuration where there is one, else from
    /// the environment (`SLIPSTREAM_*`), else from their defaults. Those that belong to the process
    /// ([`ProcessOptions`](crate::ProcessOptions)) start from the first session that `slipstream` is installed in.
    ///
    /// ```
    /// use datafusion::execution::session_state::SessionStateBuilder;
    /// use datafusion::prelude::SessionContext;
    /// use datafusion_slipstream::{Slipstream, SlipstreamBuilderExt};
    ///
    /// # fn main() -> datafusion::common::Result<()> {
    /// let state = SessionStateBuilder::new_with_default_features().with_slipstream(Slipstream::default())?.build();
    /// let ctx = SessionContext::new_with_state(state);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The layer is installed already; a `SLIPSTREAM_*` variable is wrong.
    fn with_slipstream(self, slipstream: Slipstream) -> Result<Self>;
}

impl SlipstreamBuilderExt for SessionStateBuilder {
    fn with_slipstream(mut self, slipstream: Slipstream) -> Result<Self> {
        let base = self.query_planner().take();
        if base.as_deref().is_some_and(SlipstreamPlanner::is) {
            return Err(config_error(
                "the layer is installed in this session already; change it by SET slipstream.<setting>",
            ));
        }
        let mut config = self.config().take().unwrap_or_default();
        install_settings(&mut config, &slipstream)?;
        install_pool(&mut self, &slipstream)?;
        install_system_tables(&mut self, &mut config, &slipstream);
        install_rules(&mut self, &slipstream);
        install_functions(&mut self, &slipstream);
        Ok(self.with_config(config).with_query_planner(Arc::new(SlipstreamPlanner::new(base, slipstream))))
    }
}

/// [`SlipstreamBuilderExt::with_slipstream`] on a context that is in use already: its state is replaced, so that
/// all clones of the context have the layer from their next query on.
pub(super) fn install_into(context: &SessionContext, slipstream: Slipstream) -> Result<()> {
    let state = context.state_ref();
    let mut state = state.write();
    let session_id = state.session_id().to_owned();
    let creates_catalog = state.config_options().catalog.create_default_catalog_and_schema;
    let builder = SessionStateBuilder::new_from_existing(state.clone()).with_session_id(session_id);
    let mut layered = keep_functions(builder, &state).with_slipstream(slipstream)?.build();
    // Rebuilding a session switches it off, or its catalog would be made anew; it is the owner's to see.
    layered.config_mut().options_mut().catalog.create_default_catalog_and_schema = creates_catalog;
    *state = layered;
    Ok(())
}

fn install_settings(config: &mut SessionConfig, slipstream: &Slipstream) -> Result<()> {
    let given = config.options().extensions.get::<SlipstreamOptions>().cloned();
    let mut options = given.map_or_else(SlipstreamOptions::from_env, Ok)?;
    slipstream.governor().adopt(&options.process);
    options.process = Arc::clone(slipstream.governor().settings());
    config.options_mut().extensions.insert(options);
    Ok(())
}

fn install_pool(builder: &mut SessionStateBuilder, slipstream: &Slipstream) -> Result<()> {
    let runtime = builder.runtime_env().get_or_insert_default();
    if let Some(memory_pool) = slipstream.memory_pool() {
        *runtime = Arc::new(RuntimeEnv { memory_pool: Arc::clone(memory_pool), ..runtime.as_ref().clone() });
    }
    // A limit that is set later holds for the layer's queries alone, and the session's pool stays what it is.
    if slipstream.governor().settings().memory_limit() > 0 {
        let memory_pool = slipstream.governor().runtime_pool(&runtime.memory_pool);
        *runtime = Arc::new(RuntimeEnv { memory_pool, ..runtime.as_ref().clone() });
    }
    Ok(())
}

fn install_rules(builder: &mut SessionStateBuilder, slipstream: &Slipstream) {
    let optimizer = builder.physical_optimizers().get_or_insert_default();
    let (rules, homeless) = splice(&optimizer.rules, slipstream.clock());
    *optimizer = PhysicalOptimizer::with_rules(rules);
    for rule in homeless {
        log::warn!(
            "slipstream: rule {rule} is not installed: the session's list of physical rules lacks the rule of \
             DataFusion that it stands next to"
        );
    }
}

/// Functions, for those who hand plans to the session and not text.
fn install_functions(builder: &mut SessionStateBuilder, slipstream: &Slipstream) {
    let functions = builder.table_functions().get_or_insert_default();
    let analyze = Arc::new(AnalyzeFunction::new(slipstream.clone()));
    let analyze = TableFunction::new(ANALYZE_FUNCTION.to_owned(), analyze);
    functions.insert(ANALYZE_FUNCTION.to_owned(), Arc::new(analyze));
    builder.scalar_functions().get_or_insert_default().extend(cache_functions(
        slipstream.results(),
        slipstream.plans(),
        slipstream.disk(),
    ));
}

/// Puts the schema of the system tables into the session's default catalog.
fn install_system_tables(
    builder: &mut SessionStateBuilder,
    config: &mut SessionConfig,
    slipstream: &Slipstream,
) {
    let name = config.options().catalog.default_catalog.clone();
    let catalogs: Arc<dyn CatalogProviderList> =
        Arc::clone(builder.catalog_list().get_or_insert_with(|| Arc::new(MemoryCatalogProviderList::new())));
    if config.options().catalog.create_default_catalog_and_schema {
        let factories = builder.table_factories().clone().unwrap_or_default();
        let runtime = Arc::clone(builder.runtime_env().get_or_insert_default());
        let catalog = SessionStateDefaults::default_catalog(config, &factories, &runtime);
        catalogs.register_catalog(name.clone(), Arc::new(catalog));
        config.options_mut().catalog.create_default_catalog_and_schema = false;
    }
    let Some(catalog) = catalogs.catalog(&name) else {
        log::warn!("slipstream: there is no catalog '{name}' to put the schema {SCHEMA_NAME} into");
        return;
    };
    let statistics = Arc::clone(slipstream.knowledge().statistics());
    let governor = Arc::clone(slipstream.governor());
    let caches = Caches {
        results: Arc::clone(slipstream.results()),
        plans: Arc::clone(slipstream.plans()),
        disk: Arc::clone(slipstream.disk()),
    };
    let clock = Arc::clone(slipstream.clock());
    let schema = system_schema(Arc::clone(slipstream.query_log()), statistics, governor, caches, clock);
    if let Err(error) = catalog.register_schema(SCHEMA_NAME, schema) {
        log::warn!("slipstream: catalog '{name}' takes no schema {SCHEMA_NAME}: {error}");
    }
}
