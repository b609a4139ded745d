//! What is answered from the cache, by which road, and how it is seen.

use datafusion::prelude::{col, lit};

use super::{ask, by_sql, cached, is_same_memory, outcome, warm};
use crate::support::{picture, query, single, sorted_rows, sql};

#[tokio::test]
async fn the_second_time_it_is_answered_by_every_road() {
    let (ctx, slipstream) = cached().await;
    warm(&ctx, &slipstream, "SELECT a, sum(b) FROM t GROUP BY a").await;
    // The same plan by another text, by ctx.sql() and by a data frame.
    by_sql(&ctx, "select a, SUM(x.b) from t AS x group by 1").await.unwrap();
    assert_ne!(outcome(&slipstream), "hit", "its second column has another name");
    let frame = || async { ctx.table("t").await.unwrap().filter(col("b").gt(lit(15_i64))).unwrap() };
    frame().await.collect().await.unwrap();
    assert_eq!(outcome(&slipstream), "stored");
    let rows = frame().await.collect().await.unwrap();
    assert_eq!((outcome(&slipstream).as_str(), sorted_rows(&rows).len()), ("hit", 2));
    by_sql(&ctx, "SELECT * FROM t AS other WHERE other.b > 15").await.unwrap();
    assert_eq!(outcome(&slipstream), "hit");
}

#[tokio::test]
async fn rows_come_in_their_order_and_are_not_copied() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a, b FROM t ORDER BY b DESC";
    let first = query(&ctx, text).await.unwrap();
    let second = query(&ctx, text).await.unwrap();
    let third = query(&ctx, text).await.unwrap();
    assert_eq!(outcome(&slipstream), "hit");
    assert_eq!(picture(&first), picture(&second));
    assert!(is_same_memory(&second[0], &third[0]));
    assert_eq!(first[0].schema(), second[0].schema());
}

#[tokio::test]
async fn empty_answers_and_queries_without_tables_are_kept() {
    let (ctx, slipstream) = cached().await;
    warm(&ctx, &slipstream, "SELECT a FROM t WHERE b > 1000").await;
    warm(&ctx, &slipstream, "SELECT 1 AS one").await;
    warm(&ctx, &slipstream, "SELECT count(*) FROM t").await;
    warm(&ctx, &slipstream, "SELECT * FROM (VALUES (1, 'x'), (2, NULL)) v").await;
}

#[tokio::test]
async fn many_partitions_are_one_answer() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "CREATE TABLE wide AS SELECT i, i % 7 AS g FROM generate_series(1, 50000) AS s(i)")
        .await
        .unwrap();
    for text in [
        "SELECT g, count(*), sum(i) FROM wide GROUP BY g",
        "SELECT i FROM wide WHERE g = 3",
        "SELECT x.i FROM wide x JOIN wide y ON x.i = y.i AND x.g > 5",
        "SELECT i, row_number() OVER (PARTITION BY g ORDER BY i) FROM wide ORDER BY i LIMIT 100",
    ] {
        warm(&ctx, &slipstream, text).await;
    }
    let plan = ctx.sql("SELECT g, count(*) FROM wide GROUP BY g").await.unwrap();
    let parts = plan.collect_partitioned().await.unwrap();
    assert_eq!(parts.len(), 1, "an answer that is kept has one partition");
}

#[tokio::test]
async fn explain_says_hit_miss_and_why_not() {
    let (ctx, slipstream) = cached().await;
    let explain = async |text: &str| picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
    let text = "SELECT a FROM t";
    assert!(explain(text).await.contains("result_cache: refused: there is no answer to it yet"));
    warm(&ctx, &slipstream, text).await;
    assert!(explain(text).await.contains("(3 rows, made from t)"), "{}", explain(text).await);
    sql(&ctx, "INSERT INTO t VALUES (4, 40)").await.unwrap();
    assert!(explain(text).await.contains("result_cache: refused: there is no answer to it yet"));
    assert!(explain("SELECT random() FROM t").await.contains("random() has another value each time"));
    assert!(explain("SELECT * FROM slipstream.queries").await.contains("has no version of its data"));
    let analyzed = picture(&query(&ctx, "EXPLAIN ANALYZE SELECT a FROM t").await.unwrap());
    assert!(analyzed.contains("EXPLAIN ANALYZE runs its query"), "{analyzed}");
    sql(&ctx, "SET slipstream.cache.enabled = false").await.unwrap();
    assert!(!explain(text).await.contains("result_cache"), "what is off says nothing");
}

#[tokio::test]
async fn a_hit_is_a_plan_that_says_what_it_is() {
    let (ctx, slipstream) = cached().await;
    warm(&ctx, &slipstream, "SELECT a FROM t").await;
    let stream = datafusion_slipstream::SlipstreamContextExt::query(&ctx, "SELECT a FROM t").await.unwrap();
    let plan =
        datafusion::physical_plan::displayable(stream.physical_plan().as_ref()).indent(false).to_string();
    assert!(plan.starts_with("CachedResultExec: entry="), "{plan}");
    assert!(plan.contains("rows=3, tables=[t]"), "{plan}");
}

#[tokio::test]
async fn off_by_default_nothing_is_kept() {
    let (ctx, slipstream) = crate::support::layered();
    for _ in 0..2 {
        assert_eq!(ask(&ctx, &slipstream, "SELECT 1 AS one").await.0, "-");
    }
    assert_eq!(single(&query(&ctx, "SELECT count(*) FROM slipstream.cache").await.unwrap()), "0");
}

#[tokio::test]
async fn parameters_are_a_part_of_what_is_asked() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "PREPARE p (BIGINT) AS SELECT b FROM t WHERE a = $1").await.unwrap();
    for (value, expected) in [(1, "10"), (2, "20"), (1, "10")] {
        let rows = sorted_rows(&by_sql(&ctx, &format!("EXECUTE p({value})")).await.unwrap());
        assert_eq!(rows, [expected]);
    }
    assert_eq!(outcome(&slipstream), "hit");
}
