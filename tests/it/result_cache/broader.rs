//! What is computed from the answer to a broader query: the rows, the order and the schema of the plain engine.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::RecordBatchStream;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::{counter, external, outcome, recomputed, write_aged};
use crate::support::{layered, picture, query, single, sorted_rows, sql};

/// Columns of all types that compare, with NULLs, duplicates, NaN and both zeros. `at` has no duplicates.
const WIDE: &str = "CREATE TABLE w AS SELECT
    CASE WHEN i % 29 = 0 THEN NULL ELSE i % 7 END AS k,
    CAST(i % 4 AS INT) AS g,
    CASE WHEN i % 13 = 0 THEN NULL ELSE i * 37 % 101 - 50 END AS n,
    CAST(CAST(i * 31 % 997 AS DOUBLE) / 100 AS DECIMAL(10, 2)) AS d,
    CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN CAST('NaN' AS DOUBLE) WHEN 2 THEN -0.0 WHEN 3 THEN 0.0
        ELSE CAST(i AS DOUBLE) / 8 - 20 END AS f,
    CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'Zoe' WHEN 3 THEN 'ä' WHEN 4 THEN 'ab' ELSE 'b' END AS s,
    arrow_cast(CAST(19700 + i % 40 AS INT), 'Date32') AS day,
    arrow_cast(1700000000 + i * 3600, 'Timestamp(s)') AS at,
    arrow_cast(1700000000 + i % 50 * 3600, 'Timestamp(ms, \"+02:00\")') AS z,
    CASE WHEN i % 11 = 0 THEN NULL ELSE i % 3 = 0 END AS flag
    FROM generate_series(0, 599) AS series(i)";

/// A session that looks for broader answers, with two tables.
pub(super) async fn broad() -> (SessionContext, Slipstream) {
    let (ctx, slipstream) = layered();
    for statement in [
        WIDE,
        "CREATE TABLE v AS VALUES (1, 'one', 10), (2, 'two', 20), (2, 'deux', 25), (5, NULL, 50), (NULL, 'none', 0), (9, 'nine', 90)",
        "CREATE TABLE x (k BIGINT, name VARCHAR, c BIGINT) AS SELECT column1, column2, column3 FROM v",
        "SET slipstream.cache.enabled = true",
        "SET slipstream.cache.broader = true",
    ] {
        sql(&ctx, statement).await.unwrap();
    }
    (ctx, slipstream)
}

/// The rows as they come, as text.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    picture(batches).lines().filter(|line| line.starts_with('|')).skip(1).map(str::to_owned).collect()
}

/// The schema and the rows.
pub(super) async fn answer(ctx: &SessionContext, text: &str) -> (SchemaRef, Vec<RecordBatch>) {
    let stream = ctx.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let schema = stream.schema();
    (schema, stream.try_collect().await.unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// What was said of a broader answer to the last query.
pub(super) fn said(slipstream: &Slipstream) -> String {
    let record = slipstream.query_log().queries().pop().unwrap();
    let report = record.rules.iter().find(|report| report.rule == "broader_answer");
    report.map_or_else(|| "-".to_owned(), |report| report.verdict.to_string())
}

/// Asks, and compares rows, order and schema with the plain engine; what came of it, and what was said.
pub(super) async fn right(ctx: &SessionContext, slipstream: &Slipstream, text: &str) -> (String, String) {
    let (schema, found) = answer(ctx, text).await;
    let came = (outcome(slipstream), said(slipstream));
    let (expected_schema, expected) = answer(ctx, &format!("/*+ PLAIN */ {text}")).await;
    assert_eq!(schema, expected_schema, "{text}: {came:?}");
    for batch in &found {
        assert_eq!(batch.schema(), expected_schema, "{text}: {came:?}");
    }
    assert_eq!(sorted_rows(&found), sorted_rows(&expected), "{text}: {came:?}");
    // The query's own, not one in parentheses.
    if text.rsplit(')').next().is_some_and(|end| end.contains("ORDER BY")) {
        assert_eq!(rows(&found), rows(&expected), "{text}: {came:?}");
    }
    came
}

async fn given(ctx: &SessionContext, slipstream: &Slipstream, broader: &str, text: &str) -> String {
    query(ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    let first = right(ctx, slipstream, broader).await;
    assert_eq!(first.0, "stored", "{broader}");
    let (outcome, said) = right(ctx, slipstream, text).await;
    assert_eq!(outcome, "broader", "{broader}\n{text}\n{said}");
    said
}

/// Broader queries, each with queries that are computed from their answers.
const GIVEN: &[(&str, &[&str])] = &[
    (
        "SELECT k, n, s FROM w WHERE n > 3",
        &[
            "SELECT s FROM w WHERE n > 5",
            "SELECT n AS m, k, s AS t FROM w WHERE n > 3 AND k = 2",
            "SELECT k FROM w AS other WHERE n BETWEEN 10 AND 20",
            "SELECT k + n FROM w WHERE n IN (7, 8, 9, 10, 90)",
            "SELECT k FROM w WHERE n = 4 OR n = 40",
            "SELECT s FROM w WHERE n > 3 AND s IS NULL",
            "SELECT s FROM w WHERE n > 3 AND (s LIKE 'a%' OR k IS NULL)",
            "SELECT n FROM (SELECT n, k FROM w WHERE n > 3) WHERE n % 2 = 0 AND k <> 3",
            "WITH c AS (SELECT n, s FROM w) SELECT s, n FROM c WHERE n >= 4",
            "SELECT k, n FROM w WHERE n > 30 ORDER BY n DESC, k",
            "SELECT n / k FROM w WHERE n > 10 AND k > 0 ORDER BY n, k",
            "SELECT k, count(*), sum(n), max(s), min(n) FROM w WHERE n > 8 GROUP BY k",
            "SELECT count(*) FROM w WHERE n > 3",
            "SELECT DISTINCT s FROM w WHERE n > 3",
            "SELECT sum(n) FROM w WHERE n > 5000",
            "SELECT k FROM w WHERE n > 5000",
        ],
    ),
    (
        "SELECT * FROM w",
        &[
            "SELECT k FROM w WHERE s >= 'a' AND s < 'b'",
            "SELECT day, d FROM w WHERE day < DATE '2023-12-20' AND d >= 2.25",
            "SELECT at FROM w WHERE at > TIMESTAMP '2023-11-20T00:00:00' ORDER BY at LIMIT 5",
            "SELECT z, g FROM w WHERE z < TIMESTAMP '2023-11-16T00:00:00+00:00'",
            "SELECT f FROM w WHERE f > 1.5",
            "SELECT f FROM w WHERE f = 0.0 OR f < -3",
            "SELECT f FROM w WHERE f <> 'NaN'",
            "SELECT flag, g FROM w WHERE flag",
            "SELECT n, g FROM w WHERE NOT flag AND g IN (1, 3)",
            "SELECT sum(d), avg(d), median(d), bit_xor(n), bool_or(flag), count(DISTINCT g), count(n) FROM w",
            "SELECT g, sum(n) FILTER (WHERE flag), count(*) FILTER (WHERE s = 'b') FROM w GROUP BY g HAVING count(*) > 20",
            "SELECT n % 5, max(at), min(z), sum(d) FROM w WHERE n IS NOT NULL GROUP BY n % 5 ORDER BY 1",
        ],
    ),
    (
        "SELECT k, s, n * 2 AS twice, upper(s) AS u FROM w WHERE day >= DATE '2023-12-10'",
        &[
            "SELECT n * 2 + 1, upper(s) FROM w WHERE day >= DATE '2023-12-10' AND k = 1",
            "SELECT upper(s) FROM w WHERE day >= DATE '2023-12-10' AND upper(s) = 'ZOE'",
            "SELECT sum(n * 2) FROM w WHERE day >= DATE '2023-12-10'",
        ],
    ),
    (
        "SELECT k, n FROM w WHERE g IN (1, 2, 3)",
        &[
            "SELECT n FROM w WHERE g IN (1, 2, 3) AND k > 2",
            "SELECT k FROM w WHERE (g = 1 OR g = 2 OR g = 3) AND n > 2",
        ],
    ),
];

/// Groups.
const ROLLED_UP: &[(&str, &[&str])] = &[
    (
        "SELECT k, g, s, count(*) AS c, count(n) AS cn, sum(n) AS sn, sum(d) AS sd, min(s) AS ls, max(at) AS m, \
         bool_and(flag) AS b, bit_or(n) AS o, bit_xor(n) AS e, sum(n) FILTER (WHERE flag) AS fl, avg(d) AS a FROM w \
         WHERE n > -40 GROUP BY k, g, s",
        &[
            "SELECT k, g, count(*), count(n), sum(n), sum(d), min(s), max(at) FROM w WHERE n > -40 GROUP BY k, g",
            "SELECT g, bool_and(flag), bit_or(n), bit_xor(n), sum(n) FILTER (WHERE flag) FROM w WHERE n > -40 GROUP BY g",
            "SELECT count(*), sum(n), sum(d) + 1 FROM w WHERE n > -40",
            "SELECT count(*), sum(n), sum(d), max(at), bool_and(flag) FROM w WHERE n > -40 AND k = 99",
            "SELECT g + 1, sum(n) * 2 FROM w WHERE n > -40 AND k < 4 GROUP BY g + 1",
            "SELECT k % 2, sum(n) FROM w WHERE n > -40 GROUP BY k % 2",
            "SELECT s, count(*) FROM w WHERE n > -40 AND s IS NOT NULL GROUP BY s HAVING count(*) > 3 ORDER BY 2 DESC, 1 LIMIT 2",
            "SELECT k, g, s, avg(d) FROM w WHERE n > -40 AND g = 2 GROUP BY s, g, k",
            "SELECT k, g, s FROM w WHERE n > -40 GROUP BY k, g, s HAVING sum(n) > 10",
            "SELECT DISTINCT s, g FROM w WHERE n > -40",
            "SELECT k, g, sum(n) FROM w WHERE n > -40 GROUP BY k, g HAVING sum(n) > 0 AND count(*) > 15",
            "SELECT max(k), min(g) FROM w WHERE n > -40",
            "SELECT g, count(*) FROM w WHERE n > -40 AND (k = 1 OR s = 'b') GROUP BY g",
        ],
    ),
    (
        "SELECT DISTINCT k, g, day FROM w",
        &["SELECT DISTINCT k FROM w WHERE g = 2", "SELECT g, max(day) FROM w GROUP BY g"],
    ),
    // Nothing: a total of nothing is not the total of no groups.
    (
        "SELECT k, count(*), count(n), sum(n), min(s), sum(d) FROM w WHERE g = 99 GROUP BY k",
        &["SELECT count(*), count(n), sum(n), min(s), sum(d) FROM w WHERE g = 99"],
    ),
    (
        "SELECT sum(n) AS total, count(*) AS c FROM w",
        &["SELECT count(*) * 2 FROM w", "SELECT sum(n) FROM w HAVING count(*) > 3"],
    ),
    (
        "SELECT f, count(*) AS c FROM w GROUP BY f",
        &["SELECT count(*) AS c, f FROM w GROUP BY f HAVING count(*) > 20"],
    ),
];

/// Orders and limits.
const CUT: &[(&str, &[&str])] = &[
    (
        "SELECT k, n, at FROM w ORDER BY n DESC NULLS LAST, at LIMIT 50",
        &[
            "SELECT at FROM w ORDER BY n DESC NULLS LAST, at LIMIT 10",
            "SELECT k, n FROM w ORDER BY n DESC NULLS LAST, at LIMIT 20 OFFSET 30",
        ],
    ),
    // By a column that the answer does not show: its rows stay in their order.
    (
        "SELECT s, d FROM w WHERE g < 3 ORDER BY at LIMIT 60",
        &[
            "SELECT d FROM w WHERE g < 3 ORDER BY at LIMIT 20",
            "SELECT s FROM w WHERE g < 3 ORDER BY at LIMIT 5 OFFSET 50",
        ],
    ),
    (
        "SELECT s, d FROM w ORDER BY at",
        &["SELECT d FROM w ORDER BY at LIMIT 20 OFFSET 7", "SELECT d FROM w WHERE d > 3 ORDER BY at"],
    ),
    // A limit that cut nothing off.
    (
        "SELECT k, n FROM w WHERE g = 1 LIMIT 100000",
        &[
            "SELECT n FROM w WHERE g = 1 AND k > 2",
            "SELECT count(*) FROM w WHERE g = 1",
            "SELECT k, n FROM w WHERE g = 1",
        ],
    ),
    (
        "SELECT k, at FROM w WHERE n > 40 ORDER BY at LIMIT 100000 OFFSET 10",
        &[
            "SELECT k FROM w WHERE n > 40 ORDER BY at OFFSET 15",
            "SELECT k FROM w WHERE n > 40 ORDER BY at LIMIT 7 OFFSET 12",
        ],
    ),
    (
        "SELECT g, count(*) AS c, sum(n) AS t FROM w GROUP BY g ORDER BY t, g LIMIT 3",
        &["SELECT g, sum(n) AS t FROM w GROUP BY g ORDER BY t, g LIMIT 2"],
    ),
];

/// Several tables.
const JOINED: &[(&str, &[&str])] = &[
    (
        "SELECT w.k, w.n, x.name, x.c FROM w JOIN x ON w.k = x.k WHERE x.c > 5",
        &[
            "SELECT w.n FROM w JOIN x ON w.k = x.k WHERE x.c > 10 AND w.n > 3",
            "SELECT x.name, count(*), sum(w.n) FROM w JOIN x ON w.k = x.k WHERE x.c > 5 GROUP BY x.name",
            // Said of one key, and by DataFusion of the other, too.
            "SELECT w.n, x.name FROM w JOIN x ON w.k = x.k WHERE x.c > 5 AND w.k > 1",
            "SELECT x.k FROM w JOIN x ON w.k = x.k WHERE x.c > 5 AND x.k = 2",
        ],
    ),
    (
        "SELECT w.k, w.n, w.at, x.name, x.c FROM w LEFT JOIN x ON w.k = x.k",
        &[
            "SELECT w.n, x.name FROM w LEFT JOIN x ON w.k = x.k WHERE w.n > 10",
            "SELECT w.n FROM w LEFT JOIN x ON w.k = x.k WHERE x.name IS NULL",
            "SELECT w.n, x.c FROM w LEFT JOIN x ON w.k = x.k WHERE w.k > 1 AND w.k < 6",
            "SELECT x.c, count(*), count(x.name) FROM w LEFT JOIN x ON w.k = x.k GROUP BY x.c",
            "SELECT w.at, x.c FROM w LEFT JOIN x ON w.k = x.k ORDER BY w.at, x.c LIMIT 9",
        ],
    ),
    (
        "SELECT w.k, w.n, x.name, x.k AS xk FROM w FULL JOIN x ON w.k = x.k AND x.c < 60",
        &[
            "SELECT n, name FROM (SELECT w.n, x.name FROM w FULL JOIN x ON w.k = x.k AND x.c < 60) WHERE coalesce(n, 1) = 1 OR name = 'two' ORDER BY 1, 2",
        ],
    ),
    (
        "SELECT n, k, s FROM w WHERE k IN (SELECT k FROM x)",
        &[
            "SELECT n FROM w WHERE k IN (SELECT k FROM x) AND k > 1",
            "SELECT s, count(*) FROM w WHERE k IN (SELECT k FROM x) AND n < 9 GROUP BY s",
        ],
    ),
    (
        "SELECT n, k FROM w WHERE NOT EXISTS (SELECT 1 FROM x WHERE x.k = w.k)",
        &["SELECT n FROM w WHERE NOT EXISTS (SELECT 1 FROM x WHERE x.k = w.k) AND k > 3"],
    ),
    (
        "SELECT k, c, name FROM x WHERE k NOT IN (SELECT k FROM w WHERE k IS NOT NULL)",
        &["SELECT name FROM x WHERE k NOT IN (SELECT k FROM w WHERE k IS NOT NULL) AND k > 5"],
    ),
    (
        "SELECT a.k, b.k AS bk, a.name FROM x a CROSS JOIN x b WHERE a.c < b.c",
        &["SELECT a.name FROM x a CROSS JOIN x b WHERE a.c < b.c AND b.k = 2"],
    ),
    // Parts that are neither scans nor joins are relations of their own.
    (
        "SELECT k, r, n FROM (SELECT k, n, row_number() OVER (PARTITION BY k ORDER BY at) AS r FROM w)",
        &[
            "SELECT n FROM (SELECT k, n, row_number() OVER (PARTITION BY k ORDER BY at) AS r FROM w) WHERE r = 1",
        ],
    ),
    (
        "SELECT m, many FROM (SELECT k AS m, count(*) AS many FROM w GROUP BY k) JOIN x ON m = x.k",
        &[
            "SELECT many FROM (SELECT k AS m, count(*) AS many FROM w GROUP BY k) JOIN x ON m = x.k WHERE many > 70",
        ],
    ),
];

async fn all_are_given(groups: &[(&str, &[&str])]) {
    let (ctx, slipstream) = broad().await;
    for (broader, texts) in groups {
        for text in *texts {
            given(&ctx, &slipstream, broader, text).await;
        }
    }
}

#[tokio::test]
async fn fewer_rows_and_columns() {
    all_are_given(GIVEN).await;
}

#[tokio::test]
async fn fewer_groups() {
    all_are_given(ROLLED_UP).await;
}

#[tokio::test]
async fn other_orders_and_limits() {
    all_are_given(CUT).await;
}

#[tokio::test]
async fn joins_and_other_sources() {
    all_are_given(JOINED).await;
}

/// Answers of many batches, and exchanges that would mix them up.
#[tokio::test]
async fn an_order_that_no_column_shows_is_kept() {
    let (ctx, slipstream) = broad().await;
    for statement in
        ["SET datafusion.execution.batch_size = 8", "SET datafusion.execution.target_partitions = 4"]
    {
        sql(&ctx, statement).await.unwrap();
    }
    let text = "SELECT n * 2 FROM w WHERE n > -30 AND k <> 2 ORDER BY at LIMIT 300 OFFSET 4";
    given(&ctx, &slipstream, "SELECT k, n FROM w ORDER BY at, k", text).await;
    given(&ctx, &slipstream, "SELECT k, n FROM w", "SELECT k, sum(n) FROM w GROUP BY k ORDER BY k").await;
    // Computed of rows that were sorted.
    let kept = "SELECT k, n, at FROM w";
    given(&ctx, &slipstream, kept, "SELECT n * 2, at FROM w WHERE k <> 2 ORDER BY at DESC").await;
    given(&ctx, &slipstream, kept, "SELECT n * 2, at FROM w ORDER BY at DESC LIMIT 200").await;
    given(&ctx, &slipstream, kept, "SELECT sum(n) * 2, at FROM w GROUP BY at ORDER BY at").await;
}

/// A scan that was told to stop after some rows, by whoever built the plan, has only those.
#[tokio::test]
async fn a_scan_that_stops_is_not_the_table() {
    use datafusion::datasource::provider_as_source;
    use datafusion::logical_expr::{LogicalPlanBuilder, col};
    let (ctx, slipstream) = broad().await;
    let folder = TempDir::new().unwrap();
    let lines: String = (0..20).map(|line| format!("{line}\n")).collect();
    write_aged(&folder.path().join("a.csv"), &lines, 100);
    external(&ctx, "files", folder.path()).await;
    let table = provider_as_source(ctx.table_provider("files").await.unwrap());
    let plan = LogicalPlanBuilder::scan_with_filters_fetch("files", table, None, vec![], Some(5)).unwrap();
    let plan = plan.project([col("a")]).unwrap().limit(0, Some(100_000)).unwrap().build().unwrap();
    let found = ctx.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(right(&ctx, &slipstream, "SELECT count(*) FROM files").await.0, "stored");
}

/// The plan of the query is that of its tables, the answer is not: EXPLAIN says so, and the log and the counters have it.
#[tokio::test]
async fn it_is_said_what_was_done() {
    let (ctx, slipstream) = broad().await;
    let text = "SELECT g, sum(n) FROM w WHERE k > 3 GROUP BY g";
    let explain = format!("EXPLAIN {text}");
    let none = "broader_answer: refused: no answer of the same tables and joins is kept";
    assert!(picture(&query(&ctx, &explain).await.unwrap()).contains(none));
    let said = given(&ctx, &slipstream, "SELECT g, k, sum(n) FROM w GROUP BY g, k", text).await;
    assert!(said.ends_with("(32 rows, made from w): filtered by k > Int64(3), rolled up"), "{said}");
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    query(&ctx, "SELECT g, k, sum(n) FROM w GROUP BY g, k").await.unwrap();
    let explained = picture(&query(&ctx, &explain).await.unwrap());
    assert!(explained.contains("result_cache: refused: there is no answer to it yet"), "{explained}");
    assert!(explained.contains("broader_answer: applied: answered by"), "{explained}");
    assert_eq!(counter(&ctx, "broader_hits").await, 1.0, "EXPLAIN does not count");
    let log = "SELECT count(*) FROM slipstream.queries WHERE cache = 'broader'";
    assert_eq!(single(&query(&ctx, log).await.unwrap()), "1");
    // Of the broader one, which was used, the weight grows.
    query(&ctx, text).await.unwrap();
    let hits = "SELECT hits FROM slipstream.cache WHERE rows = 32";
    assert_eq!(single(&query(&ctx, hits).await.unwrap()), "1");
}

#[tokio::test]
async fn it_is_off_by_default_and_needs_the_cache() {
    let (ctx, slipstream) = broad().await;
    sql(&ctx, "SET slipstream.cache.broader = DEFAULT").await.unwrap();
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, "SELECT k FROM w WHERE n > 3").await, ("stored".into(), "-".into()));
    let bytes = "SELECT sum(bytes) FROM slipstream.cache";
    let without: f64 = single(&query(&ctx, bytes).await.unwrap()).parse().unwrap();
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    sql(&ctx, "SET slipstream.cache.broader = true").await.unwrap();
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    query(&ctx, "SELECT k FROM w WHERE n > 3").await.unwrap();
    let with: f64 = single(&query(&ctx, bytes).await.unwrap()).parse().unwrap();
    assert!(with > without + 500.0, "what was asked is counted: {without} and {with}");
    sql(&ctx, "SET slipstream.cache.enabled = false").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, "SELECT k FROM w WHERE n > 4").await, ("-".into(), "-".into()));
}

/// A derived answer is an answer: kept under its own question, unless its age matters.
#[tokio::test]
async fn what_is_computed_is_kept_unless_answers_age() {
    let (ctx, slipstream) = broad().await;
    let text = "SELECT k FROM w WHERE n > 4";
    given(&ctx, &slipstream, "SELECT k, n FROM w", text).await;
    assert_eq!(right(&ctx, &slipstream, text).await.0, "hit");
    sql(&ctx, "SET slipstream.cache.min_cost_ms = 60000").await.unwrap();
    let cheap = "SELECT k FROM w WHERE n > 6";
    assert_eq!(right(&ctx, &slipstream, cheap).await.0, "broader");
    assert_eq!(right(&ctx, &slipstream, cheap).await.0, "broader", "it was too cheap to be kept");
    for statement in ["SET slipstream.cache.min_cost_ms = 0", "SET slipstream.cache.ttl_ms = 3600000"] {
        sql(&ctx, statement).await.unwrap();
    }
    let aged = "SELECT k FROM w WHERE n > 8";
    assert_eq!(right(&ctx, &slipstream, aged).await.0, "broader");
    assert_eq!(right(&ctx, &slipstream, aged).await.0, "broader", "it would seem to be new");
}

#[tokio::test]
async fn an_answer_whose_time_is_over_is_not_used() {
    let (ctx, slipstream) = broad().await;
    sql(&ctx, "SET slipstream.cache.ttl_ms = 1").await.unwrap();
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(right(&ctx, &slipstream, "SELECT k FROM w").await.0, "stored");
    // Its own end counts, whatever the session allows by now.
    query(&ctx, "SELECT k, g FROM w").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    sql(&ctx, "SET slipstream.cache.ttl_ms = 0").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, "SELECT g FROM w").await.0, "stored");
    // Kept without an end, and asked by one who wants none that is older than this.
    sql(&ctx, "SET slipstream.cache.ttl_ms = 0").await.unwrap();
    query(&ctx, "SELECT k, n, s FROM w").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    sql(&ctx, "SET slipstream.cache.ttl_ms = 1").await.unwrap();
    assert_ne!(right(&ctx, &slipstream, "SELECT s FROM w").await.0, "broader");
}

#[tokio::test]
async fn after_a_change_it_is_computed_anew() {
    let (ctx, slipstream) = broad().await;
    let (broader, text) = ("SELECT k, c, name FROM x", "SELECT name, c FROM x WHERE k = 2");
    given(&ctx, &slipstream, broader, text).await;
    for change in [
        "INSERT INTO x VALUES (2, 'zwei', 22)",
        "DELETE FROM x WHERE c = 20",
        "UPDATE x SET c = 21 WHERE name = 'deux'",
        "CREATE OR REPLACE TABLE x (k BIGINT, name VARCHAR, c BIGINT) AS VALUES (2, 'two', 1)",
    ] {
        query(&ctx, change).await.unwrap();
        assert_eq!(right(&ctx, &slipstream, text).await.0, "stored", "{change}");
        query(&ctx, broader).await.unwrap();
        assert_eq!(right(&ctx, &slipstream, "SELECT c FROM x WHERE k = 2").await.0, "broader", "{change}");
        query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
        query(&ctx, broader).await.unwrap();
    }
}

#[tokio::test]
async fn files_that_others_write_are_seen() {
    let (ctx, slipstream) = broad().await;
    let folder = TempDir::new().unwrap();
    write_aged(&folder.path().join("a.csv"), "1\n2\n3\n", 100);
    external(&ctx, "files", folder.path()).await;
    query(&ctx, "SELECT a FROM files WHERE a > 0").await.unwrap();
    let text = "SELECT sum(a) FROM files WHERE a > 1";
    assert_eq!(right(&ctx, &slipstream, text).await.0, "broader");
    write_aged(&folder.path().join("b.csv"), "40\n", 90);
    let (_, found) = answer(&ctx, "SELECT sum(a) FROM files WHERE a > 2").await;
    assert_eq!(outcome(&slipstream), "stored");
    assert_eq!(sorted_rows(&found), recomputed(&ctx, "SELECT sum(a) FROM files WHERE a > 2").await);
}

#[tokio::test]
async fn every_mode_does_what_it_says() {
    let (ctx, slipstream) = broad().await;
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    let text = |hint: &str, at: usize| format!("/*+ CACHE({hint}) */ SELECT k FROM w WHERE n > {at}");
    let ask = async |hint: &str, at: usize| {
        query(&ctx, &text(hint, at)).await.unwrap();
        outcome(&slipstream)
    };
    assert_eq!(ask("only_if_cached", 1).await, "broader");
    assert_eq!(ask("read_only", 2).await, "broader");
    assert_eq!(ask("read_only", 2).await, "broader", "it leaves none");
    assert_eq!(ask("refresh", 3).await, "stored");
    assert_eq!(said(&slipstream), "refused: slipstream.cache.mode = refresh computes anew");
    assert_eq!(ask("off", 4).await, "-");
    let error = query(&ctx, "/*+ CACHE(only_if_cached) */ SELECT k FROM w WHERE d > 3").await.unwrap_err();
    assert!(error.to_string().contains("there is no answer to it"), "{error}");
    // The answer that a refresh leaves is one that others are computed from.
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(ask("refresh", 3).await, "stored");
    assert_eq!(right(&ctx, &slipstream, "SELECT count(*) FROM w WHERE n > 3").await.0, "broader");
}

#[tokio::test]
async fn an_answer_stays_while_another_is_computed_from_it() {
    let (ctx, slipstream) = broad().await;
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    let mut stream = ctx.query("SELECT n FROM w WHERE n > 0").await.unwrap();
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    query(&ctx, "DROP TABLE w").await.unwrap();
    let mut found = 0;
    while let Some(batch) = stream.next().await {
        found += batch.unwrap().num_rows();
    }
    assert!(found > 200, "{found}");
    drop(stream);
    let used =
        "SELECT coalesce(sum(value), 0) FROM slipstream.cache_stats WHERE name = 'bytes' AND tier = 'result'";
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(single(&query(&ctx, used).await.unwrap()), "0.0");
    assert_eq!(
        slipstream
            .query_log()
            .queries()
            .iter()
            .filter(|query| query.cache.as_deref() == Some("broader"))
            .count(),
        1
    );
}

/// The smallest answer that will do is taken.
#[tokio::test]
async fn of_several_answers_the_smallest_is_taken() {
    let (ctx, slipstream) = broad().await;
    for text in
        ["SELECT * FROM w", "SELECT k, g, sum(n) FROM w GROUP BY k, g", "SELECT k, n FROM w WHERE n > 9000"]
    {
        query(&ctx, text).await.unwrap();
    }
    let (outcome, said) = right(&ctx, &slipstream, "SELECT g, sum(n) FROM w GROUP BY g").await;
    assert_eq!(outcome, "broader");
    assert!(said.contains("(32 rows"), "{said}");
}
