//! Hints: for one query alone, reported as applied or refused, and never the end of a query.

use crate::support::{layered, picture, query, single, sql};

#[tokio::test]
async fn a_setting_is_changed_for_one_query_alone() {
    let (ctx, _) = layered();
    let shown = "SELECT /*+ SET(datafusion.execution.batch_size = 77) */ value FROM information_schema.df_settings \
                 WHERE name = 'datafusion.execution.batch_size'";
    query(&ctx, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS s(i)").await.unwrap();
    let batches =
        query(&ctx, "SELECT /*+ SET(datafusion.execution.batch_size = 77) */ i FROM t ORDER BY i").await;
    assert_eq!(batches.unwrap()[0].num_rows(), 77);
    assert_ne!(single(&sql(&ctx, shown).await.unwrap()), "77", "the session keeps its own");
    let zone =
        query(&ctx, "SELECT /*+ SET(datafusion.execution.time_zone = '+05:00') */ arrow_typeof(now())").await;
    assert!(single(&zone.unwrap()).contains("+05:00"), "functions follow the setting");
}

#[tokio::test]
async fn each_hint_is_reported_and_a_wrong_one_does_not_fail_the_query() {
    let (ctx, slipstream) = layered();
    let text = "/*+ SETT(a = 1) */ SELECT /*+ SET(slipstream.enable = true), SET(datafusion.execution.batch_size = 9) */ 5";
    assert_eq!(single(&query(&ctx, text).await.unwrap()), "5");
    let record = slipstream.query_log().queries().pop().unwrap();
    let reports: Vec<String> =
        record.rules.iter().map(ToString::to_string).filter(|line| line.starts_with("hint")).collect();
    assert_eq!(reports.len(), 3);
    assert_eq!(reports[0], "hint: refused: SETT(a = 1): unknown hint. Did you mean 'SET'?");
    assert!(
        reports[1].contains("refused") && reports[1].contains("Did you mean 'enabled'?"),
        "{}",
        reports[1]
    );
    assert_eq!(reports[2], "hint: applied: SET(datafusion.execution.batch_size = 9)");
}

#[tokio::test]
async fn plain_leaves_the_plan_alone_and_says_so() {
    let (ctx, slipstream) = layered();
    let join = "SELECT a.column1 FROM (VALUES (1)) a LEFT JOIN (VALUES (1)) b ON a.column1 > b.column1";
    let text = picture(&query(&ctx, &format!("EXPLAIN /*+ PLAIN */ {join}")).await.unwrap());
    assert!(text.contains("hint: applied: PLAIN"), "{text}");
    assert!(!text.contains("nested_loop_join_guard"), "{text}");
    query(&ctx, &format!("{join} /*+ PLAIN */")).await.unwrap();
    let record = slipstream.query_log().queries().pop().unwrap();
    assert_eq!((record.rows, record.rules.len()), (1, 1));
}

#[tokio::test]
async fn dml_takes_hints_too() {
    let (ctx, _) = layered();
    query(&ctx, "CREATE TABLE t (x INT)").await.unwrap();
    let inserted =
        query(&ctx, "INSERT /*+ SET(datafusion.execution.batch_size = 9) */ INTO t VALUES (1), (2)").await;
    assert_eq!(single(&inserted.unwrap()), "2");
    assert_eq!(single(&query(&ctx, "SELECT sum(x) FROM t").await.unwrap()), "3");
}
