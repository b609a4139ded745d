//! What is not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, LogicalPlan, LogicalPlanBuilder, Volatility, create_udf, lit};
use datafusion::optimizer::analyzer::AnalyzerRule;
use datafusion_slipstream::SlipstreamContextExt;
use futures::StreamExt;

use super::{ask, never, plain, planned};
use crate::support::{query, sql};

#[tokio::test]
async fn values_that_a_plan_would_freeze() {
    let (ctx, slipstream) = planned().await;
    let value = Arc::new(AtomicI64::new(1));
    let shared = Arc::clone(&value);
    let function = move |_: &[ColumnarValue]| -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(shared.load(Ordering::Relaxed)))))
    };
    ctx.register_udf(create_udf("today", vec![], DataType::Int64, Volatility::Stable, Arc::new(function)));
    sql(&ctx, "CREATE VIEW recent AS SELECT b FROM t WHERE a = today()").await.unwrap();
    let why = "has another value in another statement";
    for text in [
        "SELECT now() FROM t",
        "SELECT current_date",
        "SELECT a FROM t WHERE random() < 2",
        "SELECT a FROM t WHERE a IN (SELECT a FROM u WHERE current_date > DATE '2020-01-01')",
        "SELECT uuid() FROM t",
        "SELECT b FROM t WHERE a = today()",
        "SELECT b FROM recent",
    ] {
        never(&ctx, &slipstream, text, why).await;
    }
    for step in [2, 3, 1] {
        value.store(step, Ordering::Relaxed);
        for text in ["SELECT b FROM t WHERE a = today()", "SELECT b FROM recent"] {
            assert_eq!(ask(&ctx, &slipstream, text).await.1, [(10 * step).to_string()]);
        }
    }
}

#[tokio::test]
async fn tables_that_are_made_while_a_statement_is_planned() {
    let (ctx, slipstream) = planned().await;
    never(&ctx, &slipstream, "SELECT * FROM generate_series(1, 3)", "is no table of a catalog").await;
    never(&ctx, &slipstream, "SELECT * FROM t, generate_series(1, 3) AS s(i)", "is no table of a catalog")
        .await;
    never(&ctx, &slipstream, "SELECT count(*) FROM slipstream.memory", "may be planned in another way").await;
    never(&ctx, &slipstream, "SHOW TABLES", "").await;
    never(&ctx, &slipstream, "SELECT table_name FROM information_schema.tables", "").await;
    let recursive =
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT i FROM r";
    never(&ctx, &slipstream, recursive, "").await;
    for text in ["INSERT INTO u VALUES (1)", "SET datafusion.execution.batch_size = 100", "DESCRIBE t"] {
        for _ in 0..4 {
            query(&ctx, text).await.unwrap();
        }
    }
    assert_eq!(super::sight::plans(&ctx).await, Vec::<String>::new());
}

/// Lets only rows through that a number of its owner's says.
#[derive(Debug)]
struct OnlyFor(Arc<AtomicI64>);

impl AnalyzerRule for OnlyFor {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let limit = i32::try_from(self.0.load(Ordering::Relaxed)).unwrap();
        LogicalPlanBuilder::from(plan).limit(0, usize::try_from(limit).ok())?.filter(lit(true))?.build()
    }

    fn name(&self) -> &'static str {
        "only_for"
    }
}

#[tokio::test]
async fn plans_of_rules_of_the_sessions_own() {
    let (ctx, slipstream) = planned().await;
    super::warm(&ctx, &slipstream, "SELECT a FROM u ORDER BY a").await;
    let user = Arc::new(AtomicI64::new(1));
    ctx.add_analyzer_rule(Arc::new(OnlyFor(Arc::clone(&user))));
    let text = "SELECT a FROM t ORDER BY a";
    never(&ctx, &slipstream, text, "the session has analyzer rules of its own").await;
    assert_eq!(ask(&ctx, &slipstream, text).await.1, ["1"]);
    user.store(2, Ordering::Relaxed);
    assert_eq!(ask(&ctx, &slipstream, text).await.1, ["1", "2"]);
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM u ORDER BY a").await.1, ["2", "3"]);
    user.store(1, Ordering::Relaxed);
    assert_eq!(
        ask(&ctx, &slipstream, "SELECT a FROM u ORDER BY a").await.1,
        ["2"],
        "a plan from before the rule"
    );
}

/// A catalog whose table is another one each time.
#[derive(Debug)]
struct Restless {
    asked: AtomicUsize,
    views: [Arc<dyn TableProvider>; 2],
    inner: MemorySchemaProvider,
}

#[async_trait]
impl SchemaProvider for Restless {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, _name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed) % 2;
        Ok(Some(Arc::clone(&self.views[turn])))
    }

    fn table_exist(&self, _name: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn a_table_that_changed_while_it_was_planned() {
    let (ctx, slipstream) = planned().await;
    let view = async |sql: &str| {
        let plan = ctx.state().create_logical_plan(sql).await.unwrap();
        Arc::new(ViewTable::new(plan, Some(sql.to_owned()))) as Arc<dyn TableProvider>
    };
    let views = [view("SELECT a FROM t").await, view("SELECT a FROM t WHERE a > 1").await];
    let restless = Restless { asked: AtomicUsize::new(0), views, inner: MemorySchemaProvider::new() };
    let catalog = ctx.catalog("datafusion").unwrap();
    catalog.register_schema("restless", Arc::new(restless)).unwrap();
    // Which of the two a query sees is open; that no plan of it is kept is not.
    never(&ctx, &slipstream, "SELECT a FROM restless.v", "changed").await;
}

#[tokio::test]
async fn statements_that_end_early_leave_nothing_wrong() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT a FROM t ORDER BY a";
    for _ in 0..3 {
        let mut stream = ctx.query(text).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
    }
    assert_eq!(ask(&ctx, &slipstream, text).await, ("hit".to_owned(), plain(&ctx, text).await));
    for _ in 0..4 {
        assert!(query(&ctx, "SELECT nothing FROM t").await.is_err());
        assert!(query(&ctx, "SELECT $1").await.is_err());
        assert!(query(&ctx, "SELECT 1; SELECT 2").await.is_err());
    }
}
