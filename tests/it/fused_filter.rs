//! Filters whose conditions are compiled and ordered: the same rows, whatever the conditions and their order.

use datafusion::prelude::{SessionConfig, SessionContext};

use crate::support::{config, picture, query, sorted_rows, sql, verdict, with_layer};

/// 5,000 rows of all the types that conditions are about, each with NULLs.
const ROWS: &str = "CREATE TABLE t AS SELECT \
    v AS id, \
    CASE WHEN v % 7 = 0 THEN NULL ELSE v % 100 END AS a, \
    CASE WHEN v % 11 = 0 THEN NULL ELSE v % 10 END AS b, \
    CAST(v % 1000 AS DECIMAL(15, 2)) / 4 AS price, \
    CASE WHEN v % 13 = 0 THEN NULL ELSE arrow_cast(DATE '2024-01-01' + CAST(v % 400 AS INT), 'Date32') END AS day, \
    CAST(v AS DOUBLE) / 3 AS ratio, \
    arrow_cast(CASE v % 6 WHEN 0 THEN NULL WHEN 1 THEN 'MAIL' WHEN 2 THEN 'SHIP' WHEN 3 THEN '' \
        WHEN 4 THEN 'twelve bytes' ELSE 'a string that is longer than a view' END, 'Utf8View') AS mode, \
    arrow_cast(CASE v % 5 WHEN 0 THEN 'a string that is longer than a view' WHEN 1 THEN 'a string that differs at the end' \
        ELSE concat('name ', v % 50) END, 'Utf8View') AS name, \
    arrow_cast(concat('old ', v % 3), 'Utf8') AS plain, \
    v % 2 = 0 AS flag \
    FROM generate_series(1, 5000) t(v)";

const CONDITIONS: &[&str] = &[
    "mode = 'MAIL'",
    "mode <> 'MAIL'",
    "'SHIP' = mode OR mode = 'MAIL'",
    "mode IN ('MAIL', '', 'twelve bytes')",
    "mode NOT IN ('MAIL', 'twelve bytes')",
    "mode IN ('MAIL', NULL)",
    "mode NOT IN ('MAIL', NULL)",
    "NOT (mode = 'MAIL' OR mode = 'SHIP')",
    "mode = 'a string that is longer than a view'",
    "name IN ('a string that is longer than a view', 'name 7', 'absent')",
    "name <> 'a string that is longer than a view' AND name <> 'a string that differs at the end'",
    "mode = 'MAIL' OR a > 90",
    "name = 'name 7' OR mode = 'MAIL'",
    "mode = name OR name LIKE 'name 1%'",
    "mode = 'MAIL' OR name = 'name 7' OR mode = 'SHIP' OR name = 'name 9'",
    "(mode = 'MAIL' AND a < 50) OR (mode = 'SHIP' AND b > 5) OR flag",
    "plain = 'old 1' AND mode = 'MAIL'",
    "arrow_cast(mode, 'Utf8') = 'MAIL' AND a > 3",
    "day >= DATE '2024-02-01' AND day < DATE '2024-03-01' AND price BETWEEN 10 AND 60.25 AND b < 8",
    "a > 10 AND b > 2 AND a > b AND mode IS NOT NULL",
    "a IS NULL AND b IS NOT NULL",
    "name LIKE '%string%differs%'",
    "name NOT LIKE '%string%end' AND a > 3",
    "mode LIKE 't%b%s' OR mode NOT LIKE '%a%string%'",
    "name LIKE 'a%string%view'",
    "name LIKE '%n%a_e%' AND name LIKE '%a\\%%b%' AND name ILIKE '%A%STRING%'",
    "NOT (mode LIKE '%l%v%')",
    "plain LIKE '%o%1%'",
    "name LIKE '%1' AND mode = 'SHIP' AND a > 1",
    "name NOT LIKE 'name%' AND mode IS NULL",
    "ratio > 100.5 AND ratio < 900 AND flag",
    "flag AND NOT flag",
    "a > 1000 AND mode = 'MAIL'",
    "a < 1000 AND id > 0",
    "substr(name, 1, 4) = 'name' AND a % 3 = 1 AND mode = 'SHIP'",
    "CASE WHEN a > 50 THEN b > 3 ELSE mode = 'MAIL' END AND id < 4000",
    "a + b > 40 AND coalesce(mode, 'none') = 'none'",
];

async fn session(config: SessionConfig) -> SessionContext {
    let (ctx, _) = with_layer(SessionContext::new_with_config(config));
    sql(&ctx, ROWS).await.unwrap();
    ctx
}

async fn plain_and_layered(ctx: &SessionContext, text: &str) -> (Vec<String>, Vec<String>) {
    let layered = sorted_rows(&query(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = false").await.unwrap();
    let plain = sorted_rows(&query(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = true").await.unwrap();
    (plain, layered)
}

#[tokio::test]
async fn the_same_rows_pass() {
    // Many small batches, so that the order of the conditions changes on the way.
    for batch_size in [7, 100, 8192] {
        let ctx = session(config().with_batch_size(batch_size)).await;
        for condition in CONDITIONS {
            let text = format!("SELECT id, mode, a FROM t WHERE {condition}");
            let (plain, layered) = plain_and_layered(&ctx, &text).await;
            assert_eq!(plain, layered, "{condition}, {batch_size} rows a batch");
        }
    }
}

#[tokio::test]
async fn conditions_on_views_are_compiled() {
    let ctx = session(config()).await;
    for (condition, applied) in [
        ("mode = 'MAIL'", true),
        ("plain = 'old 1'", false),
        ("a > 3 AND b < 5", true),
        ("name NOT LIKE '%a%long%'", true),
        ("name LIKE '%string%'", false),
        ("name LIKE '%a_string%view%'", false),
        ("name ILIKE '%a%string%'", false),
        ("plain LIKE '%o%1%'", false),
        ("a > 3", false),
        ("random() > 0.5 AND a > 3", false),
    ] {
        let verdict = verdict(&ctx, "fused_filter", &format!("SELECT id FROM t WHERE {condition}")).await;
        assert_eq!(verdict.starts_with("applied: 1 filters"), applied, "{condition}: {verdict}");
    }
    let verdict = verdict(&ctx, "fused_filter", "SELECT count(*) FROM t").await;
    assert_eq!(verdict, "refused: the plan has no filter");
}

/// A condition that may fail is asked about no row that those before it have dropped, and stays behind them.
#[tokio::test]
async fn a_condition_that_may_fail_keeps_its_place() {
    let ctx = session(config().with_batch_size(64)).await;
    let guarded = "SELECT id, b FROM t WHERE b <> 0 AND id / b > 400 AND a > 0";
    let rows = sorted_rows(&query(&ctx, guarded).await.unwrap());
    let safe = "SELECT id, b FROM t WHERE CASE WHEN b <> 0 THEN id / b > 400 ELSE false END AND a > 0";
    assert_eq!(rows, sorted_rows(&query(&ctx, safe).await.unwrap()));
    assert!(!rows.is_empty());
    let error = query(&ctx, "SELECT id FROM t WHERE id / b > 400 AND b <> 0").await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("divide by zero"), "{error}");
}

#[tokio::test]
async fn enough_rows_are_enough_and_the_selectivity_is_shown() {
    let ctx = session(config().with_batch_size(50)).await;
    let text = "SELECT id FROM t WHERE a > 10 AND b > 2 LIMIT 3";
    assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()).len(), 3);
    let text = "SELECT id FROM t WHERE a > 10 AND b > 2 ORDER BY id LIMIT 20 OFFSET 3";
    let (plain, layered) = plain_and_layered(&ctx, text).await;
    assert_eq!(plain, layered);
    assert_eq!(plain.len(), 20);
    let text = "EXPLAIN ANALYZE SELECT id FROM t WHERE a > 10 AND b > 2";
    let plan = picture(&query(&ctx, text).await.unwrap());
    let line =
        plan.lines().find(|line| line.contains("FusedFilterExec: a@1 > 10 AND b@2 > 2")).unwrap_or(&plan);
    assert!(line.contains("selectivity=") && line.contains("output_rows="), "{plan}");
}
