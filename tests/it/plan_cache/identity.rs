//! Whatever a plan was made from changes: the plan is made anew.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ScalarUDF, TableType, Volatility, WindowUDF, create_udf,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion::{functions_aggregate, functions_window};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt, TableVersions};

use super::{again, anew, ask, plain, planned, warm};
use crate::support::{config, query, sorted_rows, sql};

const TEXTS: &[&str] = &[
    "SELECT a, sum(b) FROM t GROUP BY a",
    "select x.a from t as x where x.b > 10 and x.a in (select a from u)",
    "SELECT a FROM t WHERE b = (SELECT max(b) FROM t x WHERE x.a = t.a)",
    "SELECT a, (SELECT count(*) FROM u) AS n FROM t",
    "WITH c AS (SELECT a FROM u) SELECT t.b FROM t JOIN c ON t.a = c.a",
    "SELECT a FROM t UNION SELECT a FROM u",
    "SELECT a, row_number() OVER (ORDER BY b DESC) FROM t",
    "SELECT unnest(make_array(a, b)) AS v FROM t",
    "SELECT DISTINCT a % 2 FROM t ORDER BY 1 LIMIT 2",
    "SELECT t.a FROM t LEFT JOIN u ON t.a = u.a WHERE u.a IS NULL",
    "SELECT 1 + 1 AS two",
];

#[tokio::test]
async fn the_third_time_it_is_not_planned() {
    let (ctx, slipstream) = planned().await;
    for text in TEXTS {
        warm(&ctx, &slipstream, text).await;
    }
    // Behind a statement nothing matters; within it, everything does.
    assert_eq!(ask(&ctx, &slipstream, &format!("  {} ;\n", TEXTS[0])).await.0, "hit");
    assert_ne!(ask(&ctx, &slipstream, "SELECT a, sum(b) FROM t GROUP BY  a").await.0, "hit");
}

#[tokio::test]
async fn a_plan_freezes_no_rows() {
    let (ctx, slipstream) = planned().await;
    for text in TEXTS {
        warm(&ctx, &slipstream, text).await;
    }
    for statement in [
        "INSERT INTO t VALUES (4, 40), (5, NULL)",
        "DELETE FROM u WHERE a = 2",
        "UPDATE t SET b = b + 1 WHERE a > 1",
        "DELETE FROM t WHERE a < 100",
    ] {
        sql(&ctx, statement).await.unwrap();
        for text in TEXTS {
            again(&ctx, &slipstream, text).await;
        }
    }
}

#[tokio::test]
async fn files_that_come_and_go_are_seen() {
    let (ctx, slipstream) = planned().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("1.csv", "1\n2\n");
    let location = folder.path().to_str().unwrap();
    let options = "OPTIONS ('format.has_header' 'false')";
    let create = format!("CREATE EXTERNAL TABLE f (a BIGINT) STORED AS CSV LOCATION '{location}' {options}");
    sql(&ctx, &create).await.unwrap();
    let text = "SELECT sum(a), count(*) FROM f WHERE a > 1";
    warm(&ctx, &slipstream, text).await;
    sql(&ctx, "INSERT INTO f VALUES (7), (8)").await.unwrap();
    again(&ctx, &slipstream, text).await;
    assert_eq!(ask(&ctx, &slipstream, text).await.1, ["17 | 3"]);
}

/// `SET` makes functions anew that hold settings; a plan is of the same functions where the settings are the same.
#[tokio::test]
async fn a_setting_that_plans_are_not_made_with_leaves_them() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT a FROM t WHERE to_timestamp(a) > to_timestamp(1)";
    warm(&ctx, &slipstream, text).await;
    sql(&ctx, "SET slipstream.query_log.max_entries = 500").await.unwrap();
    again(&ctx, &slipstream, text).await;
    sql(&ctx, "SET datafusion.execution.time_zone = '+05:00'").await.unwrap();
    anew(&ctx, &slipstream, text).await;
}

#[tokio::test]
async fn dropped_and_created_again_it_is_another_table() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT * FROM t";
    warm(&ctx, &slipstream, text).await;
    sql(&ctx, "DROP TABLE t").await.unwrap();
    assert!(query(&ctx, text).await.is_err());
    sql(&ctx, "CREATE TABLE t (a VARCHAR, c DOUBLE) AS VALUES ('x', 1.5)").await.unwrap();
    anew(&ctx, &slipstream, text).await;
    sql(&ctx, "CREATE OR REPLACE TABLE t (c DOUBLE) AS VALUES (2.5)").await.unwrap();
    anew(&ctx, &slipstream, text).await;
    sql(&ctx, "DROP TABLE t").await.unwrap();
    sql(&ctx, "CREATE VIEW t AS SELECT a FROM u").await.unwrap();
    anew(&ctx, &slipstream, text).await;
}

#[tokio::test]
async fn tables_that_change_places_are_not_mixed_up() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "CREATE TABLE other (a BIGINT, b BIGINT) AS VALUES (9, 90)").await.unwrap();
    let texts = ["SELECT sum(b) AS s FROM t", "SELECT sum(b) AS s FROM other"];
    for text in texts {
        warm(&ctx, &slipstream, text).await;
    }
    let (one, other) =
        (ctx.deregister_table("t").unwrap().unwrap(), ctx.deregister_table("other").unwrap().unwrap());
    ctx.register_table("t", other).unwrap();
    ctx.register_table("other", one).unwrap();
    for text in texts {
        anew(&ctx, &slipstream, text).await;
    }
}

#[tokio::test]
async fn a_view_that_is_defined_anew_is_another() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "CREATE VIEW v AS SELECT a FROM t WHERE a > 1").await.unwrap();
    sql(&ctx, "CREATE VIEW w AS SELECT a + 1 AS a FROM v").await.unwrap();
    let texts = ["SELECT a FROM v", "SELECT sum(a) FROM w", "SELECT b FROM t WHERE a IN (SELECT a FROM v)"];
    for text in texts {
        warm(&ctx, &slipstream, text).await;
    }
    sql(&ctx, "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 2").await.unwrap();
    anew(&ctx, &slipstream, texts[0]).await;
    anew(&ctx, &slipstream, texts[2]).await;
    // A view holds the definitions that its own views had when it was defined.
    again(&ctx, &slipstream, texts[1]).await;
    sql(&ctx, "CREATE OR REPLACE VIEW w AS SELECT a + 100 AS a FROM v").await.unwrap();
    anew(&ctx, &slipstream, texts[1]).await;
}

fn adds(name: &str, amount: i64) -> ScalarUDF {
    let function = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let column = arguments[0].clone().into_array(1)?;
        let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
        let sums: Int64Array = column.iter().map(|value| value.map(|value| value + amount)).collect();
        Ok(ColumnarValue::Array(Arc::new(sums)))
    };
    create_udf(name, vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(function))
}

#[tokio::test]
async fn a_function_that_is_registered_again_is_another() {
    let (ctx, slipstream) = planned().await;
    ctx.register_udf(adds("adds", 1));
    // The second one is folded: its plan has no function any more.
    for text in ["SELECT adds(a) FROM t", "SELECT adds(5) AS v"] {
        warm(&ctx, &slipstream, text).await;
        ctx.register_udf(adds("adds", 1000));
        anew(&ctx, &slipstream, text).await;
        ctx.register_udf(adds("adds", 1));
    }
    // One of DataFusion's own, and one that is gone.
    warm(&ctx, &slipstream, "SELECT abs(a) FROM t").await;
    ctx.register_udf(adds("abs", 7));
    anew(&ctx, &slipstream, "SELECT abs(a) FROM t").await;
    warm(&ctx, &slipstream, "SELECT adds(b) FROM t").await;
    ctx.deregister_udf("adds");
    assert!(query(&ctx, "SELECT adds(b) FROM t").await.is_err());
    // A name that comes to mean another kind of function.
    warm(&ctx, &slipstream, "SELECT sum(b) FROM t").await;
    ctx.register_udf(adds("sum", 3));
    anew(&ctx, &slipstream, "SELECT sum(b) FROM t").await;
}

/// One name for one function, then for another; neither is called so in the plan.
#[tokio::test]
async fn an_aggregate_or_a_window_function_that_is_registered_again_is_another() {
    let (ctx, slipstream) = planned().await;
    let aggregate = |function: Arc<AggregateUDF>| {
        ctx.register_udaf(function.as_ref().clone().with_aliases(["folded"]));
    };
    aggregate(functions_aggregate::sum::sum_udaf());
    warm(&ctx, &slipstream, "SELECT folded(b) FROM t").await;
    aggregate(functions_aggregate::min_max::max_udaf());
    anew(&ctx, &slipstream, "SELECT folded(b) FROM t").await;

    let window = |function: Arc<WindowUDF>| {
        ctx.register_udwf(function.as_ref().clone().with_aliases(["place"]));
    };
    let text = "SELECT a, place() OVER (ORDER BY a / 10) AS p FROM t";
    window(functions_window::row_number::row_number_udwf());
    warm(&ctx, &slipstream, text).await;
    window(functions_window::rank::rank_udwf());
    anew(&ctx, &slipstream, text).await;
}

/// Plans `+` as a product.
#[derive(Debug)]
struct Products;

impl ExprPlanner for Products {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::Plus => PlannerResult::Planned(expr.left * expr.right),
            _ => PlannerResult::Original(expr),
        })
    }
}

#[tokio::test]
async fn planners_of_expressions_are_part_of_the_question() {
    let (ctx, slipstream) = planned().await;
    warm(&ctx, &slipstream, "SELECT a + b AS v FROM t").await;
    let state = ctx.state_ref();
    state.write().register_expr_planner(Arc::new(Products)).unwrap();
    anew(&ctx, &slipstream, "SELECT a + b AS v FROM t").await;
    assert_eq!(plain(&ctx, "SELECT a + b AS v FROM t WHERE a = 3").await.last().unwrap().trim(), "90");
}

#[tokio::test]
async fn settings_are_part_of_the_question() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "CREATE SCHEMA s").await.unwrap();
    sql(&ctx, "CREATE TABLE s.t (a BIGINT, b BIGINT) AS VALUES (70, 700)").await.unwrap();
    let texts = [
        "SELECT a, b FROM t WHERE b > 5",
        "SELECT t.a, u.a AS ua FROM t LEFT JOIN s.t AS u ON t.a = u.a ORDER BY u.a, t.a",
        "SELECT to_timestamp('2020-01-01T00:00:00') AS at",
        "SELECT 1.5 AS x",
    ];
    for text in texts {
        warm(&ctx, &slipstream, text).await;
    }
    for statement in [
        "SET datafusion.catalog.default_schema = 's'",
        "SET datafusion.execution.time_zone = '+05:00'",
        "SET datafusion.sql_parser.parse_float_as_decimal = true",
        "SET datafusion.sql_parser.default_null_ordering = 'nulls_min'",
        "SET datafusion.optimizer.max_passes = 1",
    ] {
        sql(&ctx, statement).await.unwrap();
        for text in texts {
            anew(&ctx, &slipstream, text).await;
        }
        for text in texts {
            let expected = query(&ctx, &format!("/*+ PLAIN */ {text}")).await.unwrap();
            let rows = query(&ctx, text).await.unwrap();
            assert_eq!(rows[0].schema(), expected[0].schema(), "{statement}: {text}");
            assert_eq!(sorted_rows(&rows), sorted_rows(&expected), "{statement}: {text}");
        }
    }
}

#[tokio::test]
async fn hints_hold_for_a_plan_that_is_used_again() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT /*+ SET(datafusion.execution.batch_size = 1) */ a FROM t ORDER BY a";
    for _ in 0..4 {
        assert_eq!(query(&ctx, text).await.unwrap().len(), 3, "one row at a time");
    }
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "hit");
    again(&ctx, &slipstream, "SELECT /*+ SET(datafusion.execution.batch_size = 1) */ a FROM t ORDER BY a")
        .await;
    for _ in 0..4 {
        assert_eq!(query(&ctx, "SELECT a FROM t ORDER BY a").await.unwrap().len(), 1, "and no other query");
    }
}

#[tokio::test]
async fn what_a_prepared_statement_runs_is_not_its_text() {
    let (ctx, slipstream) = planned().await;
    for value in 1..4 {
        query(&ctx, &format!("PREPARE p(BIGINT) AS SELECT $1 + {value} AS v")).await.unwrap();
        for _ in 0..4 {
            let (outcome, rows) = ask(&ctx, &slipstream, "EXECUTE p(1)").await;
            assert_eq!(rows, [(1 + value).to_string()], "{outcome}");
        }
        query(&ctx, "DEALLOCATE p").await.unwrap();
    }
}

#[tokio::test]
async fn sessions_of_one_tag_do_not_mix_up_their_tables() {
    let (ctx, slipstream) = planned().await;
    let other = SessionContext::new_with_config(config());
    other.install_slipstream(slipstream.clone()).unwrap();
    sql(&other, "CREATE TABLE t (a BIGINT, b BIGINT) AS VALUES (8, 80)").await.unwrap();
    sql(&other, "SET slipstream.cache.plans = true").await.unwrap();
    for tag in ["", "team"] {
        for session in [&ctx, &other] {
            sql(session, &format!("SET slipstream.cache.tag = '{tag}'")).await.unwrap();
        }
        for _ in 0..5 {
            for session in [&ctx, &other] {
                let text = "SELECT max(b) FROM t";
                assert_eq!(ask(session, &slipstream, text).await.1, plain(session, text).await);
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_table_gives_its_memory_back() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT sum(a) FROM t";
    warm(&ctx, &slipstream, text).await;
    let table = ctx.table_provider("t").await.unwrap();
    let weak = Arc::downgrade(&table);
    drop(table);
    assert!(weak.upgrade().is_some());
    sql(&ctx, "DROP TABLE t").await.unwrap();
    assert!(weak.upgrade().is_none(), "nobody has it but the catalog");
}

/// A table whose owner changes its columns in place.
#[derive(Debug)]
struct Evolving(Mutex<Vec<&'static str>>);

#[async_trait]
impl TableProvider for Evolving {
    fn schema(&self) -> SchemaRef {
        let names = self.0.lock().unwrap();
        let fields: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect();
        Arc::new(Schema::new(fields))
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
        let schema = self.schema();
        let columns = (1..).zip(schema.fields().iter());
        let columns = columns.map(|(value, _)| Arc::new(Int64Array::from(vec![value])) as _).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        MemTable::try_new(schema, vec![vec![batch]])?.scan(session, projection, filters, limit).await
    }
}

#[derive(Debug)]
struct Known;

#[async_trait]
impl TableVersions for Known {
    fn table(&self, table: &dyn TableProvider) -> Option<String> {
        table.is::<Evolving>().then(|| "evolving".to_owned())
    }

    async fn version(&self, _table: &dyn TableProvider) -> Result<String> {
        Ok("1".to_owned())
    }
}

#[tokio::test]
async fn columns_that_change_in_place_are_seen() {
    let slipstream = Slipstream::default().with_table_versions(Arc::new(Known));
    let ctx = SessionContext::new_with_config(config());
    ctx.install_slipstream(slipstream.clone()).unwrap();
    sql(&ctx, "SET slipstream.cache.plans = true").await.unwrap();
    let table = Arc::new(Evolving(Mutex::new(vec!["a", "b"])));
    ctx.register_table("e", Arc::clone(&table) as _).unwrap();
    warm(&ctx, &slipstream, "SELECT * FROM e").await;
    warm(&ctx, &slipstream, "SELECT b FROM e").await;
    *table.0.lock().unwrap() = vec!["b", "c", "a"];
    anew(&ctx, &slipstream, "SELECT * FROM e").await;
    anew(&ctx, &slipstream, "SELECT b FROM e").await;
}
