//! A session whose configuration carries the scope of one query.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, Session};
use datafusion::common::{DFSchema, Result};
use datafusion::config::{ConfigOptions, TableOptions};
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::ExtensionTypeRegistryRef;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::SessionConfig;

use super::planner::BasePlanner;
use super::rule_order::Rule;
use super::small_query::{fitted, in_one_partition, may_be_small};
use crate::config::SlipstreamOptions;
use crate::physical::LayerStatistics;
use crate::scope::QueryScope;
use crate::store::Knowledge;

/// Everything of `inner`, but for the configuration.
///
/// Copying the configuration costs microseconds, where a copy of the `SessionState` would copy its function
/// maps too. Code that downcasts the session reaches `inner`.
pub(super) struct ScopedSession<'a> {
    inner: &'a dyn Session,
    planner: &'a BasePlanner,
    config: SessionConfig,
    /// The session's own providers behind the layer's, where DataFusion's rules ask them.
    statistics: Option<StatisticsRegistry>,
    /// Set when somebody changes them; a copy for each query would be thrown away.
    table_options: Option<TableOptions>,
    /// Where they are not the session's own.
    rules: Option<Vec<Rule>>,
}

impl<'a> ScopedSession<'a> {
    /// `inner` for one query, whose rules find `scope` and `knowledge` in the configuration.
    pub(super) fn new(
        inner: &'a dyn Session,
        planner: &'a BasePlanner,
        scope: QueryScope,
        knowledge: &Knowledge,
    ) -> Self {
        let mut config = inner.config().clone();
        let footers = inner.runtime_env().cache_manager.get_file_metadata_cache();
        let limit = memory_limit(inner);
        config.options_mut().extensions.insert(scope.with_footers(footers).with_memory_limit(limit));
        config.options_mut().extensions.insert(knowledge.clone());
        let statistics = registry(inner, config.options(), knowledge);
        let rules = may_be_small(config.options()).then(|| fitted(inner));
        Self { inner, planner, config, statistics, table_options: None, rules }
    }

    /// The same, which plans without rules: a plan as it is translated from the logical one.
    pub(super) fn bare(mut self) -> Self {
        self.rules = Some(Vec::new());
        self
    }

    /// The same for a plan of one partition that knows of nothing beside it: rules put no exchanges in, and no filters that
    /// are made while it runs.
    pub(super) fn secluded(mut self) -> Self {
        in_one_partition(self.config.options_mut());
        self
    }
}

/// The most memory that a query can get: of the session's pool, and by the layer's settings.
fn memory_limit(session: &dyn Session) -> Option<usize> {
    let pool = match session.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Infinite => None,
        MemoryLimit::Finite(bytes) => Some(bytes),
        MemoryLimit::Unknown => Some(0),
    };
    let options = session.config_options().extensions.get::<SlipstreamOptions>();
    let own = options.map(|options| [options.process.memory_limit(), options.memory_query_limit]);
    own.into_iter().flatten().filter(|limit| *limit > 0).chain(pool).min()
}

/// The layer's statistics in front of the session's own, or of DataFusion's; only where a rule would ask for them.
fn registry(
    inner: &dyn Session,
    config: &ConfigOptions,
    knowledge: &Knowledge,
) -> Option<StatisticsRegistry> {
    let options = SlipstreamOptions::active(config).filter(|_| config.optimizer.use_statistics_registry)?;
    let own = inner.statistics_registry().cloned();
    let mut registry = own.unwrap_or_else(StatisticsRegistry::default_with_builtin_providers);
    registry.register(Arc::new(LayerStatistics::new(knowledge.clone(), options.clone())));
    Some(registry)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Session for ScopedSession<'_> {
    fn session_id(&self) -> &str {
        self.inner.session_id()
    }

    fn config(&self) -> &SessionConfig {
        &self.config
    }

    fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        self.inner.catalog_list()
    }

    fn config_options(&self) -> &ConfigOptions {
        self.config.options()
    }

    fn query_planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        self.inner.query_planner()
    }

    fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.inner.optimize(plan)
    }

    fn physical_optimizers(&self) -> &[Rule] {
        self.rules.as_deref().unwrap_or_else(|| self.inner.physical_optimizers())
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.statistics.as_ref().or_else(|| self.inner.statistics_registry())
    }

    async fn create_physical_plan(&self, logical_plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        // A table that plans a query of its own is part of this query: not to be recorded as another.
        self.planner.plan(&self.inner.optimize(logical_plan)?, self).await
    }

    fn create_physical_expr(&self, expr: Expr, df_schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner.create_physical_expr(expr, df_schema)
    }

    fn scalar_functions(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        self.inner.scalar_functions()
    }

    fn higher_order_functions(&self) -> &HashMap<String, Arc<HigherOrderUDF>> {
        self.inner.higher_order_functions()
    }

    fn aggregate_functions(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        self.inner.aggregate_functions()
    }

    fn window_functions(&self) -> &HashMap<String, Arc<WindowUDF>> {
        self.inner.window_functions()
    }

    fn extension_type_registry(&self) -> &ExtensionTypeRegistryRef {
        self.inner.extension_type_registry()
    }

    fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        self.inner.runtime_env()
    }

    fn execution_props(&self) -> &ExecutionProps {
        self.inner.execution_props()
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn table_options(&self) -> &TableOptions {
        self.table_options.as_ref().unwrap_or_else(|| self.inner.table_options())
    }

    fn default_table_options(&self) -> TableOptions {
        self.table_options().combine_with_session_config(self.config_options())
    }

    fn table_options_mut(&mut self) -> &mut TableOptions {
        self.table_options.get_or_insert_with(|| self.inner.table_options().clone())
    }

    fn task_ctx(&self) -> Arc<TaskContext> {
        self.inner.task_ctx()
    }
}
