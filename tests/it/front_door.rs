//! Installation: what it adds, and what of the caller's it leaves alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::Int64Array;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamBuilderExt, SlipstreamContextExt};

use crate::support::{config, layered, query, single, sql, with_layer};

#[derive(Debug, Default)]
struct CountingPlanner(AtomicUsize);

#[async_trait]
impl QueryPlanner for CountingPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await
    }
}

#[derive(Debug, Default)]
struct CountingRule(AtomicUsize);

impl PhysicalOptimizerRule for CountingRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "counting"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_callers_planner_rules_pool_and_settings_stay() {
    let planner = Arc::new(CountingPlanner::default());
    let rule = Arc::new(CountingRule::default());
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
    let runtime = datafusion::execution::runtime_env::RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool))
        .build_arc()
        .unwrap();
    let mut given = config().with_batch_size(77);
    given.options_mut().execution.parquet.pushdown_filters = true;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(given)
        .with_runtime_env(Arc::clone(&runtime))
        .with_query_planner(Arc::clone(&planner) as _)
        .with_physical_optimizer_rule(Arc::clone(&rule) as _)
        .with_slipstream(Slipstream::default())
        .unwrap()
        .build();
    let ctx = SessionContext::new_with_state(state);

    assert_eq!(single(&query(&ctx, "SELECT 40 + 2").await.unwrap()), "42");
    assert_eq!(single(&sql(&ctx, "SELECT 40 + 3").await.unwrap()), "43");
    assert_eq!(planner.0.load(Ordering::Relaxed), 2, "the caller's planner plans every query once");
    assert_eq!(rule.0.load(Ordering::Relaxed), 2, "the caller's rule sees every plan once");
    assert!(Arc::ptr_eq(&ctx.runtime_env(), &runtime));
    let state = ctx.state();
    assert_eq!(state.config().batch_size(), 77);
    assert!(state.config().options().execution.parquet.pushdown_filters);
}

#[tokio::test]
async fn tables_functions_and_the_session_id_survive_installation_into_a_running_context() {
    let ctx = SessionContext::new_with_config(config());
    let clone = ctx.clone();
    sql(&ctx, "CREATE TABLE t AS VALUES (1), (2)").await.unwrap();
    sql(&ctx, "PREPARE p AS SELECT column1 FROM t").await.unwrap();
    let id = ctx.session_id();
    let (ctx, slipstream) = with_layer(ctx);
    assert_eq!(ctx.session_id(), id);
    assert_eq!(single(&query(&clone, "SELECT sum(column1) FROM t").await.unwrap()), "3");
    assert_eq!(slipstream.query_log().queries().len(), 1, "clones of the context have the layer");
}

#[tokio::test]
async fn every_name_of_a_function_means_the_same_function_after_installation() {
    let ctx = SessionContext::new_with_config(config());
    // An alias that another function takes over: DataFusion's array_has is also called array_contains.
    let mine = datafusion::logical_expr::create_udf(
        "array_contains",
        vec![datafusion::arrow::datatypes::DataType::Int64],
        datafusion::arrow::datatypes::DataType::Int64,
        datafusion::logical_expr::Volatility::Immutable,
        Arc::new(|arguments: &[datafusion::logical_expr::ColumnarValue]| Ok(arguments[0].clone())),
    );
    ctx.register_udf(mine);
    let names = |ctx: &SessionContext| {
        let state = ctx.state();
        let mut names: Vec<(String, String)> =
            state.scalar_functions().iter().map(|(key, f)| (key.clone(), f.name().to_owned())).collect();
        names.extend(state.aggregate_functions().iter().map(|(key, f)| (key.clone(), f.name().to_owned())));
        names.extend(state.window_functions().iter().map(|(key, f)| (key.clone(), f.name().to_owned())));
        // The layer's own come on top.
        names.retain(|(name, _)| !name.starts_with("slipstream_"));
        names.sort();
        names
    };
    let before = names(&ctx);
    let (ctx, _) = with_layer(ctx);
    assert_eq!(names(&ctx), before);
    assert_eq!(single(&sql(&ctx, "SELECT array_contains(7)").await.unwrap()), "7");
    assert!(
        ctx.state().config_options().catalog.create_default_catalog_and_schema,
        "the owner's setting stays"
    );
}

#[tokio::test]
async fn a_pool_given_to_the_layer_becomes_the_sessions() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1234));
    let ctx = SessionContext::new();
    ctx.install_slipstream(Slipstream::default().with_memory_pool(Arc::clone(&pool))).unwrap();
    assert!(Arc::ptr_eq(&ctx.runtime_env().memory_pool, &pool));
}

#[test]
fn a_second_installation_is_refused() {
    let (ctx, _) = layered();
    let error = ctx.install_slipstream(Slipstream::default()).unwrap_err().to_string();
    assert!(error.contains("installed in this session already"), "{error}");
}

#[tokio::test]
async fn query_runs_one_statement_and_says_so() {
    let (ctx, _) = layered();
    for (text, expected) in
        [("SELECT 1; SELECT 2", "got 2"), ("", "no SQL statement"), (" ; ", "no SQL statement")]
    {
        let error = ctx.query(text).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let texts: Vec<String> = ctx
        .parse_query("SELECT ';' ;\n-- note; here\nSELECT 'ä' /* ; */ AS x ;")
        .unwrap()
        .iter()
        .map(|query| query.text().to_owned())
        .collect();
    assert_eq!(texts, ["SELECT ';'", "SELECT 'ä' /* ; */ AS x"]);
}

#[tokio::test]
async fn query_works_on_a_context_without_the_layer() {
    let ctx = SessionContext::new();
    assert_eq!(single(&query(&ctx, "SELECT 1").await.unwrap()), "1");
    query(&ctx, "CREATE TABLE t AS VALUES (1)").await.unwrap();
    query(&ctx, "SET datafusion.execution.batch_size = 9").await.unwrap();
    assert_eq!(ctx.state().config().batch_size(), 9);
}

/// Invariant 9: the plain engine is one switch away, and with nothing to do the plan is DataFusion's.
#[tokio::test]
async fn the_plan_is_datafusions_byte_for_byte() {
    let plain = SessionContext::new_with_config(config());
    let (layer, _) = layered();
    for ctx in [&plain, &layer] {
        sql(ctx, "CREATE TABLE t AS SELECT i, i % 10 AS g FROM generate_series(1, 1000) AS s(i)")
            .await
            .unwrap();
    }
    let statements = [
        "SELECT g, count(*), sum(i) FROM t WHERE i > 10 GROUP BY g ORDER BY g LIMIT 3",
        "SELECT a.i FROM t a JOIN t b ON a.i = b.g WHERE b.i < 50",
        "SELECT a.i FROM t a LEFT JOIN t b ON a.i > b.i + 990",
        "INSERT INTO t SELECT i, g FROM t",
    ];
    for enabled in [true, false] {
        sql(&layer, &format!("SET slipstream.enabled = {enabled}")).await.unwrap();
        for statement in statements {
            let picture = async |ctx: &SessionContext| {
                let plan = ctx.sql(statement).await.unwrap().create_physical_plan().await.unwrap();
                format!("{}", displayable(plan.as_ref()).set_show_statistics(true).indent(true))
            };
            assert_eq!(picture(&layer).await, picture(&plain).await, "{statement}, enabled = {enabled}");
        }
    }
}

#[tokio::test]
async fn switched_off_the_layer_adds_no_node_and_records_nothing() {
    let (ctx, slipstream) = layered();
    sql(&ctx, "SET slipstream.enabled = false").await.unwrap();
    let batches = sql(&ctx, "EXPLAIN SELECT 1").await.unwrap();
    assert!(!crate::support::picture(&batches).contains("slipstream"));
    query(&ctx, "SELECT 1").await.unwrap();
    let recorded = slipstream.query_log().queries();
    assert!(recorded.iter().all(|record| !record.text.contains("SELECT 1")), "{recorded:?}");
    let value = query(&ctx, "SELECT 5").await.unwrap();
    assert_eq!(value[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0), 5);
}
