//! Modes, hints, SQL functions and system tables.

use super::{ask, cached, counter, outcome, plain, warm};
use crate::support::{picture, query, single, sorted_rows, sql};

#[tokio::test]
async fn modes_say_what_a_query_does_with_the_cache() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a FROM t";
    let mode = async |mode: &str| {
        sql(&ctx, &format!("SET slipstream.cache.mode = {mode}")).await.unwrap();
        ask(&ctx, &slipstream, text).await.0
    };
    assert_eq!(mode("read_only").await, "miss");
    assert_eq!(mode("read_only").await, "miss");
    assert_eq!(mode("refresh").await, "stored");
    assert_eq!(mode("refresh").await, "stored");
    assert_eq!(mode("off").await, "-");
    assert_eq!(mode("read_only").await, "hit");
    assert_eq!(mode("only_if_cached").await, "hit");
    assert_eq!(mode("use").await, "hit");
    sql(&ctx, "SET slipstream.cache.mode = only_if_cached").await.unwrap();
    let error = query(&ctx, "SELECT b FROM t").await.unwrap_err().to_string();
    assert!(error.contains("only_if_cached") && error.contains("no answer"), "{error}");
    let error = query(&ctx, "SELECT random() FROM t").await.unwrap_err().to_string();
    assert!(error.contains("random()"), "{error}");
}

#[tokio::test]
async fn a_hint_says_it_for_one_query() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a FROM t";
    warm(&ctx, &slipstream, text).await;
    assert_eq!(ask(&ctx, &slipstream, &format!("/*+ CACHE(off) */ {text}")).await.0, "-");
    assert_eq!(ask(&ctx, &slipstream, &format!("/*+ CACHE(refresh) */ {text}")).await.0, "stored");
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "hit", "the hint was for one query");
    sql(&ctx, "SET slipstream.cache.enabled = false").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT /*+ CACHE */ a FROM t").await.0, "hit");
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "-");
    let explained = picture(&query(&ctx, "EXPLAIN SELECT /*+ CACHE(often) */ a FROM t").await.unwrap());
    assert!(explained.contains("CACHE(refresh)"), "{explained}");
}

#[tokio::test]
async fn functions_drop_what_they_say_when_they_run() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.tag = 'one'").await.unwrap();
    for text in ["SELECT a FROM t", "SELECT a FROM u", "SELECT t.a FROM t JOIN u ON t.a = u.a"] {
        warm(&ctx, &slipstream, text).await;
    }
    sql(&ctx, "SET slipstream.cache.tag = 'two'").await.unwrap();
    warm(&ctx, &slipstream, "SELECT b FROM t").await;
    let entries = async || single(&query(&ctx, "SELECT count(*) FROM slipstream.cache").await.unwrap());
    let drop =
        async |call: &str| single(&query(&ctx, &format!("SELECT slipstream_cache_{call}")).await.unwrap());
    assert_eq!(entries().await, "4");
    query(&ctx, "EXPLAIN SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(entries().await, "4", "EXPLAIN drops nothing");
    let key = single(&query(&ctx, "SELECT key FROM slipstream.cache WHERE tag = 'two'").await.unwrap());
    assert_eq!(drop(&format!("drop_entry('{key}')")).await, "1");
    assert_eq!(drop("drop_tag('two')").await, "0");
    assert_eq!(drop("drop_table('u')").await, "2");
    assert_eq!(entries().await, "1");
    assert_eq!(drop("clear()").await, "1");
    assert_eq!(entries().await, "0");
    assert_eq!(counter(&ctx, "evicted").await, 4.0);
    sql(&ctx, "SET slipstream.cache.tag = 'one'").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM t").await.0, "stored");
}

#[tokio::test]
async fn system_tables_show_entries_and_counters() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.tag = 'shown'").await.unwrap();
    warm(&ctx, &slipstream, "SELECT t.b FROM t JOIN u ON t.a = u.a").await;
    let text = "SELECT tier, tables, tag, bytes > 0, rows, cost_ms >= 0, hits, age_ms >= 0, state FROM slipstream.cache";
    let rows = sorted_rows(&query(&ctx, text).await.unwrap());
    assert_eq!(rows, ["result | [t, u] | shown | true | 2 | true | 1 | true | kept"]);
    ask(&ctx, &slipstream, "SELECT random() FROM t").await;
    ask(&ctx, &slipstream, "SELECT a FROM t LIMIT 1").await;
    for (name, value) in
        [("hits", 1.0), ("misses", 2.0), ("stored", 1.0), ("entries", 1.0), ("computing", 0.0)]
    {
        assert_eq!(counter(&ctx, name).await, value, "{name}");
    }
    let refused = "SELECT reason, value FROM slipstream.cache_stats WHERE name = 'refused' AND reason IN ('function', 'limit')";
    assert_eq!(sorted_rows(&query(&ctx, refused).await.unwrap()), ["function | 1.0", "limit | 1.0"]);
    sql(&ctx, "DROP TABLE t").await.unwrap();
    assert_eq!(single(&query(&ctx, "SELECT state FROM slipstream.cache").await.unwrap()), "unreachable");
    let memory = "SELECT name, reserved_bytes > 0 FROM slipstream.memory WHERE level = 'cache'";
    assert_eq!(sorted_rows(&query(&ctx, memory).await.unwrap()), ["results | true"]);
}

#[tokio::test]
async fn the_query_log_has_the_outcome() {
    let (ctx, slipstream) = cached().await;
    warm(&ctx, &slipstream, "SELECT max(a) FROM t").await;
    let log = "SELECT cache FROM slipstream.queries WHERE text = 'SELECT max(a) FROM t' ORDER BY id";
    assert_eq!(sorted_rows(&query(&ctx, log).await.unwrap()), ["hit", "stored"]);
    assert_eq!(outcome(&slipstream), "table slipstream.queries has no version of its data");
}

#[tokio::test]
async fn min_repeats_and_min_cost_keep_what_is_worth_it() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.min_repeats = 2").await.unwrap();
    let text = "SELECT a FROM t";
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "miss");
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "miss");
    warm(&ctx, &slipstream, text).await;
    sql(&ctx, "SET slipstream.cache.min_repeats = 0").await.unwrap();
    sql(&ctx, "SET slipstream.cache.min_cost_ms = 600000").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT b FROM t").await.0, "not stored: computing it again is cheap");
}

#[tokio::test]
async fn a_limit_without_an_order_is_kept_where_it_cut_nothing() {
    let (ctx, slipstream) = cached().await;
    warm(&ctx, &slipstream, "SELECT a FROM t LIMIT 100").await;
    warm(&ctx, &slipstream, "SELECT b, count(*) FROM t GROUP BY b LIMIT 100").await;
    warm(&ctx, &slipstream, "SELECT a FROM t ORDER BY a LIMIT 2").await;
    for text in ["SELECT a FROM t LIMIT 2", "SELECT a FROM t LIMIT 3"] {
        for _ in 0..2 {
            let (outcome, _) = ask(&ctx, &slipstream, text).await;
            assert!(outcome.contains("LIMIT without ORDER BY"), "{text}: {outcome}");
        }
    }
    assert_eq!(plain(&ctx, "SELECT count(*) FROM (SELECT a FROM t LIMIT 2)").await, ["2"]);
}

#[tokio::test]
async fn the_manuals_examples_run() {
    let manual = include_str!("../../../docs/CACHE.md");
    let (ctx, _) = crate::support::layered();
    let mut answers = String::new();
    for example in manual.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        for statement in datafusion_slipstream::SlipstreamContextExt::parse_query(&ctx, example).unwrap() {
            let text = statement.text().to_owned();
            let rows = query(&ctx, &text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            answers.push_str(&picture(&rows));
        }
    }
    for part in [
        "(2 rows, made from sale)",
        "random() has another value each time",
        "(3 rows, made from trip): filtered by city > ",
        "refused: the answer has only rows with km > Int64(3)",
        "is used again (of sale)",
        "stored",
        "hit",
    ] {
        assert!(answers.contains(part), "{part}: {answers}");
    }
}
