//! Writes, DDL, views, functions, settings and users: whatever happens, the answer is the plain engine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt, TableVersions};

use super::{anew, ask, cached, plain, warm};
use crate::support::{config, query, sorted_rows, sql};

#[tokio::test]
async fn writes_to_a_table_are_seen_at_once() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a, b FROM t";
    for statement in [
        "INSERT INTO t VALUES (4, 40)",
        "UPDATE t SET b = 11 WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
        "INSERT INTO t SELECT a + 100, b FROM t",
        "DELETE FROM t",
    ] {
        warm(&ctx, &slipstream, text).await;
        query(&ctx, statement).await.unwrap();
        anew(&ctx, &slipstream, text).await;
    }
}

#[tokio::test]
async fn an_owner_who_writes_past_the_layer_is_seen() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT sum(a) FROM t";
    warm(&ctx, &slipstream, text).await;
    let provider = ctx.table_provider("t").await.unwrap();
    let table = provider.downcast_ref::<MemTable>().unwrap();
    let columns: [Arc<dyn datafusion::arrow::array::Array>; 2] =
        [Arc::new(Int64Array::from(vec![7])), Arc::new(Int64Array::from(vec![7]))];
    let batch = RecordBatch::try_new(table.schema(), columns.to_vec()).unwrap();
    table.batches[0].write().await.push(batch);
    anew(&ctx, &slipstream, text).await;
    // The same number of rows, with another array.
    warm(&ctx, &slipstream, text).await;
    let columns: [Arc<dyn datafusion::arrow::array::Array>; 2] =
        [Arc::new(Int64Array::from(vec![8])), Arc::new(Int64Array::from(vec![7]))];
    let batch = RecordBatch::try_new(table.schema(), columns.to_vec()).unwrap();
    *table.batches[0].write().await.last_mut().unwrap() = batch;
    anew(&ctx, &slipstream, text).await;
}

#[tokio::test]
async fn tables_in_subqueries_views_and_unions_count() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "CREATE VIEW v AS SELECT a FROM u WHERE a > 0").await.unwrap();
    sql(&ctx, "CREATE VIEW w AS SELECT a FROM v").await.unwrap();
    for (number, text) in [
        "SELECT b FROM t WHERE a IN (SELECT a FROM u)",
        "SELECT b FROM t WHERE a NOT IN (SELECT a FROM u)",
        "SELECT b FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
        "SELECT b FROM t WHERE a < (SELECT max(a) FROM u)",
        "SELECT a, (SELECT count(*) FROM u) FROM t",
        "SELECT a FROM t UNION ALL SELECT a FROM u",
        "WITH c AS (SELECT a FROM u) SELECT t.b FROM t JOIN c ON t.a = c.a",
        "SELECT count(*) FROM w",
    ]
    .into_iter()
    .enumerate()
    {
        warm(&ctx, &slipstream, text).await;
        query(&ctx, &format!("INSERT INTO u VALUES ({})", 1 + number % 3)).await.unwrap();
        anew(&ctx, &slipstream, text).await;
    }
}

#[tokio::test]
async fn dropped_and_created_again_it_is_another_table() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT * FROM t";
    warm(&ctx, &slipstream, text).await;
    sql(&ctx, "DROP TABLE t").await.unwrap();
    assert!(query(&ctx, text).await.is_err());
    sql(&ctx, "CREATE TABLE t (a BIGINT, b BIGINT) AS VALUES (1, 10), (2, 20), (3, 31)").await.unwrap();
    anew(&ctx, &slipstream, text).await;
    warm(&ctx, &slipstream, "SELECT a FROM t").await;
    sql(&ctx, "CREATE OR REPLACE TABLE t (a VARCHAR, c DOUBLE) AS VALUES ('x', 1.5)").await.unwrap();
    anew(&ctx, &slipstream, text).await;
    anew(&ctx, &slipstream, "SELECT a FROM t").await;
}

#[tokio::test]
async fn tables_that_change_places_are_not_mixed_up() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "CREATE TABLE other (a BIGINT, b BIGINT) AS VALUES (9, 90)").await.unwrap();
    warm(&ctx, &slipstream, "SELECT sum(b) AS s FROM t").await;
    warm(&ctx, &slipstream, "SELECT sum(b) AS s FROM other").await;
    let (one, other) =
        (ctx.deregister_table("t").unwrap().unwrap(), ctx.deregister_table("other").unwrap().unwrap());
    ctx.register_table("t", other).unwrap();
    ctx.register_table("other", one).unwrap();
    // Each is the table that it was under its other name: the answer moves with it.
    for text in ["SELECT sum(b) AS s FROM t", "SELECT sum(b) AS s FROM other"] {
        let expected = plain(&ctx, text).await;
        assert_eq!(ask(&ctx, &slipstream, text).await, ("hit".to_owned(), expected), "{text}");
    }
}

#[tokio::test]
async fn a_view_that_is_defined_anew_is_another() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "CREATE VIEW v AS SELECT a FROM t WHERE a > 1").await.unwrap();
    sql(&ctx, "CREATE VIEW w AS SELECT a + 1 AS a FROM v").await.unwrap();
    for text in ["SELECT a FROM v", "SELECT sum(a) FROM w", "SELECT b FROM t WHERE a IN (SELECT a FROM v)"] {
        warm(&ctx, &slipstream, text).await;
    }
    sql(&ctx, "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 2").await.unwrap();
    anew(&ctx, &slipstream, "SELECT a FROM v").await;
    anew(&ctx, &slipstream, "SELECT b FROM t WHERE a IN (SELECT a FROM v)").await;
    let expected = plain(&ctx, "SELECT sum(a) FROM w").await;
    assert_eq!(ask(&ctx, &slipstream, "SELECT sum(a) FROM w").await.1, expected);
}

fn adds(amount: i64, volatility: Volatility) -> datafusion::logical_expr::ScalarUDF {
    let function = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let column = arguments[0].clone().into_array(1)?;
        let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
        let sums: Int64Array = column.iter().map(|value| value.map(|value| value + amount)).collect();
        Ok(ColumnarValue::Array(Arc::new(sums)))
    };
    create_udf("adds", vec![DataType::Int64], DataType::Int64, volatility, Arc::new(function))
}

#[tokio::test]
async fn a_function_that_is_registered_again_is_another() {
    let (ctx, slipstream) = cached().await;
    ctx.register_udf(adds(1, Volatility::Immutable));
    let text = "SELECT adds(a) FROM t";
    warm(&ctx, &slipstream, text).await;
    ctx.register_udf(adds(1000, Volatility::Immutable));
    anew(&ctx, &slipstream, text).await;
    warm(&ctx, &slipstream, "SELECT adds(b) FROM t").await;
    for volatility in [Volatility::Volatile, Volatility::Stable] {
        ctx.register_udf(adds(1, volatility));
        let (outcome, _) = ask(&ctx, &slipstream, text).await;
        assert!(outcome.contains("adds() has another value"), "{volatility:?}: {outcome}");
    }
}

#[tokio::test]
async fn a_stable_function_is_its_value() {
    let (ctx, slipstream) = cached().await;
    let value = Arc::new(AtomicI64::new(1));
    let shared = Arc::clone(&value);
    let function = move |_: &[ColumnarValue]| -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(shared.load(Ordering::Relaxed)))))
    };
    ctx.register_udf(create_udf("today", vec![], DataType::Int64, Volatility::Stable, Arc::new(function)));
    let text = "SELECT b FROM t WHERE a = today()";
    warm(&ctx, &slipstream, text).await;
    value.store(2, Ordering::Relaxed);
    anew(&ctx, &slipstream, text).await;
    value.store(1, Ordering::Relaxed);
    assert_eq!(ask(&ctx, &slipstream, text).await, ("hit".to_owned(), vec!["10".to_owned()]));
    warm(&ctx, &slipstream, "SELECT a FROM t WHERE current_date > DATE '2020-01-01'").await;
    for text in ["SELECT now() FROM t", "SELECT a FROM t WHERE random() < 2", "SELECT uuid() FROM t"] {
        for _ in 0..2 {
            let (outcome, _) = ask(&ctx, &slipstream, text).await;
            assert!(outcome.contains("another"), "{text}: {outcome}");
        }
    }
}

#[tokio::test]
async fn settings_that_change_answers_make_other_questions() {
    let (ctx, slipstream) = cached().await;
    let texts = [
        "SELECT b FROM t LEFT JOIN u ON t.a = u.a ORDER BY u.a",
        "SELECT to_timestamp('2020-01-01T00:00:00')",
        "SELECT CAST('x' AS VARCHAR) || a FROM t",
    ];
    for text in texts {
        query(&ctx, text).await.unwrap();
    }
    for statement in [
        "SET datafusion.sql_parser.default_null_ordering = 'nulls_min'",
        "SET datafusion.execution.time_zone = '+05:00'",
        "SET datafusion.execution.enable_ansi_mode = true",
    ] {
        sql(&ctx, statement).await.unwrap();
        for text in texts {
            let in_order = async |prefix: &str| {
                crate::support::picture(&query(&ctx, &format!("{prefix}{text}")).await.unwrap())
            };
            assert_eq!(in_order("").await, in_order("/*+ PLAIN */ ").await, "{statement}: {text}");
        }
    }
    // And those that do not, do not.
    warm(&ctx, &slipstream, "SELECT a FROM t WHERE a > 1").await;
    sql(&ctx, "SET datafusion.execution.batch_size = 100").await.unwrap();
    sql(&ctx, "SET datafusion.execution.target_partitions = 5").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM t WHERE a > 1").await.0, "hit");
}

#[tokio::test]
async fn sessions_share_answers_only_under_one_tag() {
    let (ctx, slipstream) = cached().await;
    let catalog = ctx.catalog("datafusion").unwrap().schema("public").unwrap();
    let other = SessionContext::new_with_config(config());
    other.install_slipstream(slipstream.clone()).unwrap();
    other.register_table("t", catalog.table("t").await.unwrap().unwrap()).unwrap();
    sql(&other, "SET slipstream.cache.enabled = true").await.unwrap();
    let text = "SELECT max(b) FROM t";
    warm(&ctx, &slipstream, text).await;
    assert_eq!(ask(&other, &slipstream, text).await.0, "stored", "each session for itself");
    for session in [&ctx, &other] {
        sql(session, "SET slipstream.cache.tag = 'team'").await.unwrap();
    }
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored");
    assert_eq!(ask(&other, &slipstream, text).await.0, "hit");
    sql(&other, "SET slipstream.cache.tag = 'others'").await.unwrap();
    assert_eq!(ask(&other, &slipstream, text).await.0, "stored");
}

/// A table whose rows are a number that its owner changes.
#[derive(Debug)]
struct Number(Arc<AtomicI64>);

#[async_trait]
impl TableProvider for Number {
    fn schema(&self) -> datafusion::arrow::datatypes::SchemaRef {
        let field = datafusion::arrow::datatypes::Field::new("n", DataType::Int64, true);
        Arc::new(datafusion::arrow::datatypes::Schema::new(vec![field]))
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let column = Arc::new(Int64Array::from(vec![self.0.load(Ordering::Relaxed)]));
        let batch = RecordBatch::try_new(self.schema(), vec![column])?;
        MemTable::try_new(self.schema(), vec![vec![batch]])?.scan(session, projection, filters, limit).await
    }
}

#[derive(Debug)]
struct NumberVersions;

#[async_trait]
impl TableVersions for NumberVersions {
    fn table(&self, table: &dyn TableProvider) -> Option<String> {
        table.downcast_ref::<Number>().map(|number| format!("number {:p}", Arc::as_ptr(&number.0)))
    }

    async fn version(&self, table: &dyn TableProvider) -> Result<String> {
        let number = table.downcast_ref::<Number>().map(|number| number.0.load(Ordering::Relaxed));
        Ok(format!("{number:?}"))
    }
}

#[tokio::test]
async fn a_table_without_a_version_is_kept_for_as_long_as_the_user_says() {
    let (ctx, slipstream) = cached().await;
    let number = Arc::new(AtomicI64::new(1));
    ctx.register_table("number", Arc::new(Number(Arc::clone(&number)))).unwrap();
    let text = "SELECT n FROM number";
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "table number has no version of its data");
    sql(&ctx, "SET slipstream.cache.max_age_ms = 3600000").await.unwrap();
    warm(&ctx, &slipstream, text).await;
    number.store(2, Ordering::Relaxed);
    assert_eq!(ask(&ctx, &slipstream, text).await, ("hit".to_owned(), vec!["1".to_owned()]));
    sql(&ctx, "SET slipstream.cache.max_age_ms = 0").await.unwrap();
    assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()), ["2"], "who allows no age gets none");
}

#[tokio::test]
async fn a_declared_version_is_believed() {
    let slipstream = Slipstream::default().with_table_versions(Arc::new(NumberVersions));
    let ctx = SessionContext::new_with_config(config());
    ctx.install_slipstream(slipstream.clone()).unwrap();
    sql(&ctx, "SET slipstream.cache.enabled = true").await.unwrap();
    let number = Arc::new(AtomicI64::new(1));
    let register = || {
        ctx.deregister_table("number").unwrap();
        ctx.register_table("number", Arc::new(Number(Arc::clone(&number)))).unwrap();
    };
    register();
    warm(&ctx, &slipstream, "SELECT n FROM number").await;
    register();
    let again = ask(&ctx, &slipstream, "SELECT n FROM number").await.0;
    assert_eq!(again, "hit", "another provider of the same table");
    number.store(2, Ordering::Relaxed);
    anew(&ctx, &slipstream, "SELECT n FROM number").await;
}
