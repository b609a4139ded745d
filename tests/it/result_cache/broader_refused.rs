//! What is not computed from another answer, each with its reason: rows, columns or bits would be missing or might be others.

use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};

use super::broader::{broad, right};
use super::counter;
use crate::support::{query, sorted_rows, sql};

async fn refused(ctx: &SessionContext, slipstream: &Slipstream, broader: &str, text: &str, why: &str) {
    query(ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    query(ctx, broader).await.unwrap_or_else(|error| panic!("{broader}: {error}"));
    let (outcome, said) = right(ctx, slipstream, text).await;
    assert_ne!(outcome, "broader", "{broader}\n{text}\n{said}");
    assert!(said.contains(why), "{broader}\n{text}\n{said}");
}

const NO_SOURCE: &str = "no answer of the same tables and joins is kept";

/// Broader query, query, reason.
const REFUSED: &[(&str, &str, &str)] = &[
    // Rows that the answer has not.
    ("SELECT k, n FROM w WHERE n > 3", "SELECT k FROM w WHERE n > 2", "only rows with n > Int64(3)"),
    ("SELECT k, n FROM w WHERE n > 3", "SELECT k FROM w WHERE n >= 3", "only rows with n > Int64(3)"),
    ("SELECT k, n FROM w WHERE n > 3", "SELECT k FROM w", "only rows with"),
    ("SELECT k, n FROM w WHERE n > 3", "SELECT k FROM w WHERE n IN (3, 4, 5, 6)", "only rows with"),
    ("SELECT k, n FROM w WHERE n <> 3", "SELECT k FROM w WHERE n > 2", "only rows with"),
    ("SELECT k, n FROM w WHERE n IS NOT NULL", "SELECT k FROM w WHERE k > 2", "only rows with n IS NOT NULL"),
    ("SELECT k, n FROM w WHERE n > 3 AND s = 'b'", "SELECT k FROM w WHERE n > 5", "only rows with s ="),
    ("SELECT k, s FROM w WHERE s > 'a'", "SELECT k FROM w WHERE s > 'Z'", "only rows with"),
    ("SELECT f FROM w WHERE f > 0.0", "SELECT f FROM w WHERE f > 1.5", "only rows with f > Float64(0)"),
    ("SELECT f FROM w WHERE f >= -0.0", "SELECT f FROM w WHERE f >= 0.0", "only rows with"),
    (
        "SELECT z FROM w WHERE z > TIMESTAMP '2023-11-16T00:00:00'",
        "SELECT z FROM w WHERE z > TIMESTAMP '2023-11-15T23:30:00'",
        "only rows with",
    ),
    // Columns that it has not.
    ("SELECT k, n FROM w", "SELECT s FROM w", "s is not in the answer"),
    ("SELECT k FROM w", "SELECT k FROM w WHERE n > 3", "n is not in the answer"),
    ("SELECT k + n AS a FROM w", "SELECT k - n FROM w", "is not in the answer"),
    ("SELECT k FROM w", "SELECT k FROM w ORDER BY at LIMIT 3", "at is not in the answer"),
    // Conditions that may fail for rows that a plain plan does not look at.
    ("SELECT n, k FROM w", "SELECT n FROM w WHERE n / (k + 100) = 0", "might fail"),
    ("SELECT d, k FROM w", "SELECT k FROM w WHERE CAST(d AS INT) + k = 5", "might fail"),
    // Groups.
    ("SELECT k, sum(n) FROM w GROUP BY k", "SELECT k FROM w", "the query asks for rows"),
    ("SELECT k, sum(n) AS t FROM w GROUP BY k", "SELECT sum(n) FROM w WHERE g = 1", "g is not in the answer"),
    (
        "SELECT k, sum(n) AS t FROM w GROUP BY k",
        "SELECT g, sum(n) FROM w GROUP BY g",
        "g is not in the answer",
    ),
    (
        "SELECT k, sum(n) AS t FROM w GROUP BY k HAVING sum(n) > 3",
        "SELECT sum(n) FROM w",
        "only rows with sum(n)",
    ),
    (
        "SELECT k, sum(n) AS t FROM w GROUP BY k HAVING sum(n) > 3",
        "SELECT k, sum(n) AS t FROM w GROUP BY k",
        "only rows with sum(n)",
    ),
    ("SELECT sum(n), count(*) FROM w", "SELECT sum(n) FROM w WHERE 1 = g", "the total of other rows"),
    ("SELECT sum(n), count(*) FROM w", "SELECT k, sum(n) FROM w GROUP BY k", "the answer is a total"),
    ("SELECT k, f, sum(n) FROM w GROUP BY k, f", "SELECT f, sum(n) FROM w GROUP BY f", "may be -0.0 or 0.0"),
    (
        "SELECT k, f, sum(n) FROM w GROUP BY k, f",
        "SELECT k, f, sum(n) FROM w WHERE f < 3.5 GROUP BY k, f",
        "groups of floats",
    ),
    ("SELECT f, k FROM w", "SELECT DISTINCT f FROM w", "may be -0.0 or 0.0"),
    // Aggregates that are not made of themselves.
    (
        "SELECT k, g, avg(d) AS a FROM w GROUP BY k, g",
        "SELECT k, avg(d) FROM w GROUP BY k",
        "cannot be made of the same",
    ),
    (
        "SELECT k, g, sum(f) AS a FROM w GROUP BY k, g",
        "SELECT k, sum(f) FROM w GROUP BY k",
        "cannot be made of the same",
    ),
    (
        "SELECT k, g, max(f) AS a FROM w GROUP BY k, g",
        "SELECT k, max(f) FROM w GROUP BY k",
        "cannot be made of the same",
    ),
    (
        "SELECT k, g, median(n) AS a FROM w GROUP BY k, g",
        "SELECT k, median(n) FROM w GROUP BY k",
        "cannot be made of the same",
    ),
    (
        "SELECT k, g, count(DISTINCT n), count(*) FROM w GROUP BY k, g",
        "SELECT k, count(DISTINCT n), count(*) FROM w GROUP BY k",
        "cannot be made of the same",
    ),
    (
        "SELECT k, g, sum(n) FILTER (WHERE flag) FROM w GROUP BY k, g",
        "SELECT k, sum(n) FROM w GROUP BY k",
        "is not in the answer",
    ),
    (
        "SELECT k, g, sum(n) FROM w GROUP BY k, g",
        "SELECT k, sum(n) FILTER (WHERE k > 1) FROM w GROUP BY k",
        "is not in the answer",
    ),
    (
        "SELECT k, g, count(*) FROM w GROUP BY k, g",
        "SELECT k, count(n) FROM w GROUP BY k",
        "is not in the answer",
    ),
    ("SELECT k, n, s FROM w", "SELECT array_agg(n ORDER BY n, k) FROM w", "depends on the order"),
    ("SELECT k, n, f FROM w", "SELECT k, sum(f * 8) FROM w WHERE f > 1.5 AND f < 60 GROUP BY k", "of floats"),
    ("SELECT k, n, f FROM w", "SELECT avg(n) FROM w", "of floats"),
    ("SELECT k, n, f FROM w", "SELECT stddev(n) FROM w", "may depend on the order"),
    (
        "SELECT k, g, count(*) FROM w GROUP BY ROLLUP (k, g)",
        "SELECT k, count(*) FROM w GROUP BY k",
        NO_SOURCE,
    ),
    (
        "SELECT k, g, count(*) FROM w GROUP BY k, g",
        "SELECT k, g, count(*) FROM w GROUP BY ROLLUP (k, g)",
        NO_SOURCE,
    ),
    // Limits.
    (
        "SELECT k, at FROM w ORDER BY at LIMIT 10",
        "SELECT k FROM w ORDER BY at LIMIT 11",
        "only the first of its rows",
    ),
    (
        "SELECT k, at FROM w ORDER BY at LIMIT 10",
        "SELECT k FROM w ORDER BY at LIMIT 6 OFFSET 5",
        "only the first of its rows",
    ),
    (
        "SELECT k, at FROM w ORDER BY at LIMIT 10",
        "SELECT k FROM w ORDER BY at DESC LIMIT 5",
        "only the first of its rows",
    ),
    (
        "SELECT k, at FROM w ORDER BY at LIMIT 10",
        "SELECT k FROM w WHERE k > 3 ORDER BY at LIMIT 2",
        "only the first of its rows",
    ),
    ("SELECT k, at FROM w ORDER BY at LIMIT 10", "SELECT count(*) FROM w", "only the first of its rows"),
    (
        "SELECT k, at FROM w ORDER BY at OFFSET 10",
        "SELECT k FROM w ORDER BY at LIMIT 5 OFFSET 9",
        "only the first of its rows",
    ),
    (
        "SELECT k, n FROM w ORDER BY n NULLS FIRST, at LIMIT 10",
        "SELECT k FROM w ORDER BY n NULLS LAST, at LIMIT 5",
        "only the first of its rows",
    ),
    (
        "SELECT g, sum(n) AS t FROM w GROUP BY g ORDER BY t LIMIT 3",
        "SELECT sum(n) FROM w",
        "only the first of its rows",
    ),
    (
        "SELECT n FROM (SELECT n, k FROM w ORDER BY at LIMIT 9) WHERE k > 1",
        "SELECT n FROM w WHERE k > 1",
        NO_SOURCE,
    ),
    (
        "SELECT k, g, count(*) FROM w GROUP BY k, g",
        "SELECT g, sum(k) FROM w GROUP BY g",
        "is not in the answer",
    ),
    // Other sources.
    (
        "SELECT w.n, x.c FROM w LEFT JOIN x ON w.k = x.k AND w.n < x.c",
        "SELECT w.n, x.c FROM w LEFT JOIN x ON w.k = x.k AND w.n > x.c",
        NO_SOURCE,
    ),
    (
        "SELECT n FROM w WHERE EXISTS (SELECT 1 FROM x WHERE x.k = w.k)",
        "SELECT n FROM w WHERE NOT EXISTS (SELECT 1 FROM x WHERE x.k = w.k)",
        NO_SOURCE,
    ),
    (
        "SELECT k, count(*) AS many FROM w GROUP BY k",
        "SELECT max(many), count(*) FROM (SELECT k, count(*) AS many FROM w GROUP BY k)",
        NO_SOURCE,
    ),
    ("SELECT k FROM w", "SELECT k FROM x", NO_SOURCE),
    ("SELECT w.k FROM w LEFT JOIN x ON w.k = x.k", "SELECT w.k FROM w JOIN x ON w.k = x.k", NO_SOURCE),
    (
        "SELECT w.k, x.c FROM w LEFT JOIN x ON w.k = x.k AND x.c > 10",
        "SELECT w.k, x.c FROM w LEFT JOIN x ON w.k = x.k AND x.c > 20",
        NO_SOURCE,
    ),
    (
        "SELECT w.k, x.c FROM w LEFT JOIN x ON w.k = x.k",
        "SELECT w.k, x.c FROM w LEFT JOIN (SELECT * FROM x WHERE c > 20) x ON w.k = x.k",
        NO_SOURCE,
    ),
    (
        "SELECT w.k, x.c FROM w FULL JOIN x ON w.k = x.k",
        "SELECT w.k, x.c FROM (SELECT * FROM w WHERE n > 3) w FULL JOIN x ON w.k = x.k",
        NO_SOURCE,
    ),
    (
        "SELECT w.k, y FROM w LEFT JOIN (SELECT k, coalesce(name, '?') AS y FROM x) x ON w.k = x.k",
        "SELECT w.k, name FROM w LEFT JOIN x ON w.k = x.k",
        NO_SOURCE,
    ),
    (
        "SELECT k FROM w WHERE k IN (SELECT k FROM x WHERE c > 3)",
        "SELECT k FROM w WHERE k IN (SELECT k FROM x WHERE c > 30)",
        NO_SOURCE,
    ),
    (
        "SELECT c FROM x WHERE k NOT IN (SELECT k FROM w)",
        "SELECT c FROM x WHERE k NOT IN (SELECT k FROM w WHERE k > 1) AND k > 1",
        NO_SOURCE,
    ),
    ("SELECT k FROM w UNION ALL SELECT k FROM x", "SELECT k FROM w", NO_SOURCE),
    ("SELECT k, n FROM w", "SELECT k FROM w WHERE n > (SELECT min(c) FROM x)", "a query of its own"),
    (
        "SELECT k, arrow_typeof(n) FROM w",
        "SELECT arrow_field(k) FROM w",
        "depends on where its rows are from",
    ),
];

#[tokio::test]
async fn what_is_not_certain_is_computed() {
    let (ctx, slipstream) = broad().await;
    for (broader, text, why) in REFUSED {
        refused(&ctx, &slipstream, broader, text, why).await;
    }
    let kinds = "SELECT reason FROM slipstream.cache_stats WHERE name = 'refused' AND reason LIKE 'broader%'";
    let kinds = sorted_rows(&query(&ctx, kinds).await.unwrap());
    let expected = [
        "broader aggregate",
        "broader filter",
        "broader group",
        "broader limit",
        "broader none",
        "broader order",
        "broader output",
        "broader shape",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(counter(&ctx, "broader_hits").await, 0.0);
}

/// Volatile functions have no key at all, and what has another value tomorrow is the value that it has today.
#[tokio::test]
async fn functions_that_change_have_no_shape() {
    let (ctx, slipstream) = broad().await;
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    query(&ctx, "SELECT k FROM w WHERE n > 3 AND random() < 2").await.unwrap();
    assert_eq!(super::broader::said(&slipstream), "-");
    assert!(super::outcome(&slipstream).contains("random()"));
    let (outcome, said) = right(&ctx, &slipstream, "SELECT k FROM w WHERE n > 3 AND k < 2").await;
    assert_eq!(outcome, "broader", "{said}");
}

/// Who asks, and under which settings, is a part of the source.
#[tokio::test]
async fn answers_of_others_are_not_used() {
    let (ctx, slipstream) = broad().await;
    for statement in [
        "SET slipstream.cache.tag = 'one'",
        "SET slipstream.cache.tag = 'two'",
        "SET datafusion.execution.time_zone = '+05:00'",
        "SET datafusion.sql_parser.default_null_ordering = 'nulls_first'",
    ] {
        query(&ctx, "SELECT z, k FROM w").await.unwrap();
        sql(&ctx, statement).await.unwrap();
        let (outcome, said) = right(&ctx, &slipstream, "SELECT z FROM w WHERE k = 1").await;
        assert_eq!(outcome, "stored", "{statement}: {said}");
        assert!(said.contains(NO_SOURCE), "{statement}: {said}");
    }
    let other = SessionContext::new();
    other.install_slipstream(slipstream.clone()).unwrap();
    let table = ctx.table_provider("w").await.unwrap();
    other.register_table("w", table).unwrap();
    for statement in ["SET slipstream.cache.enabled = true", "SET slipstream.cache.broader = true"] {
        sql(&other, statement).await.unwrap();
    }
    query(&ctx, "SELECT z, k FROM w").await.unwrap();
    let (outcome, _) = right(&other, &slipstream, "SELECT z FROM w WHERE k = 2").await;
    assert_eq!(outcome, "stored");
}

/// A condition that fails for some rows fails as it does on the plain engine, or is asked of the same rows.
#[tokio::test]
async fn no_row_is_asked_what_a_plain_plan_does_not_ask_it() {
    let (ctx, slipstream) = broad().await;
    sql(&ctx, "SET slipstream.cache.mode = use").await.unwrap();
    query(&ctx, "SELECT k, n FROM w").await.unwrap();
    for text in [
        "SELECT n / k FROM w WHERE k > 0",
        "SELECT sum(n / k) FROM w WHERE k > 0",
        "SELECT sum(n / k) FILTER (WHERE k > 0) FROM w WHERE k <> 0",
    ] {
        assert_eq!(right(&ctx, &slipstream, text).await.0, "broader", "{text}");
    }
    for text in ["SELECT n / k FROM w", "SELECT n FROM w WHERE n / k > 2"] {
        let error = query(&ctx, text).await.unwrap_err().to_string();
        assert!(error.contains("ivide by zero"), "{text}: {error}");
    }
}
