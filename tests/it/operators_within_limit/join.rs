//! Cross joins spill, sort-merge joins share, nested-loop joins can be cancelled.

use std::time::Duration;

use datafusion::common::Result;
use datafusion::prelude::SessionConfig;
use datafusion_slipstream::SlipstreamContextExt;
use futures::StreamExt;
use tokio::time::Instant;

use super::{Limited, exhausted, expected, small_batches};
use crate::support::{picture, sql};

/// A megabyte each: 100 rows, and 60.
const WIDE: [&str; 2] = [
    "CREATE TABLE a AS SELECT v, repeat(chr(65 + CAST(v % 26 AS INT)), 10000) AS s FROM generate_series(1, 100) AS t(v)",
    "CREATE TABLE b AS SELECT v, repeat(chr(97 + CAST(v % 26 AS INT)), 17000) AS s FROM generate_series(1, 60) AS t(v)",
];

const CROSS: [&str; 4] = [
    "SELECT a.v, b.v, length(a.s), length(b.s), left(a.s, 1), left(b.s, 1) FROM a CROSS JOIN b",
    "SELECT a.v, left(b.s, 1) FROM a CROSS JOIN (SELECT * FROM b WHERE v < 0) b",
    "SELECT a.v, left(b.s, 1) FROM (SELECT * FROM a WHERE v < 0) a CROSS JOIN b",
    "SELECT a.v, left(b.s, 1) FROM (SELECT DISTINCT v, s FROM a) a CROSS JOIN b",
];

async fn rows(setup: &[&str], pool_bytes: usize, config: SessionConfig, query: &str) -> Result<Vec<String>> {
    let limited = Limited::new(pool_bytes, config);
    for statement in setup {
        sql(&limited.ctx, statement).await.unwrap();
    }
    limited.rows(query).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cross_join_whose_sides_do_not_fit_gives_all_rows() {
    for query in CROSS {
        let config = small_batches(4);
        let expected = expected(config.clone(), &WIDE, query).await;
        for pool_bytes in [64 << 20, 4 << 20] {
            let rows = rows(&WIDE, pool_bytes, config.clone(), query).await;
            assert_eq!(rows.unwrap(), expected, "{query} in {pool_bytes} bytes");
        }
        for pool_bytes in [700 << 10, 300 << 10, 100 << 10] {
            match rows(&WIDE, pool_bytes, config.clone(), query).await {
                Ok(rows) => assert_eq!(rows, expected, "{query} in {pool_bytes} bytes"),
                Err(error) => drop(exhausted(&error)),
            }
        }
    }
    // Half of the smaller side.
    let expected = expected(small_batches(4), &WIDE, CROSS[0]).await;
    assert_eq!(expected.len(), 6000);
    assert_eq!(rows(&WIDE, 500 << 10, small_batches(4), CROSS[0]).await.unwrap(), expected);
}

#[tokio::test]
async fn explain_says_what_was_done_to_joins() {
    let limited = Limited::new(64 << 20, small_batches(64));
    for statement in WIDE {
        sql(&limited.ctx, statement).await.unwrap();
    }
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {}", CROSS[0])).await.unwrap());
    assert!(text.contains("cross joins that spill: 1"), "{text}");
    assert!(
        text.contains("NestedLoopJoinExec: join_type=Inner") && !text.contains("CrossJoinExec"),
        "{text}"
    );
    let scalar = "EXPLAIN SELECT a.v, m FROM a CROSS JOIN (SELECT max(v) AS m FROM b) b";
    let text = picture(&sql(&limited.ctx, scalar).await.unwrap());
    assert!(text.contains("CrossJoinExec"), "a side of one row is left alone: {text}");
}

/// Keys with up to 40 rows each, NULLs, and keys without a partner on both sides.
const KEYED: [&str; 2] = [
    "CREATE TABLE l AS SELECT CASE WHEN v % 17 = 0 THEN NULL ELSE v % 100 END AS k, nullif(v, 0) AS v, \
     repeat('x', 200) AS s FROM generate_series(1, 4000) AS t(v)",
    "CREATE TABLE r AS SELECT CASE WHEN v % 13 = 0 THEN NULL ELSE v % 110 + 5 END AS k, nullif(v, 0) AS w, \
     repeat('y', 300) AS s FROM generate_series(1, 600) AS t(v)",
];

const MERGED: [&str; 8] = [
    "SELECT l.k, l.v, r.w, length(l.s || r.s) FROM l JOIN r ON l.k = r.k",
    "SELECT l.k, l.v, r.w, length(r.s) FROM l LEFT JOIN r ON l.k = r.k AND l.v > r.w * 3",
    "SELECT l.k, l.v, r.w, length(l.s) FROM l RIGHT JOIN r ON l.k = r.k AND l.v > r.w * 3",
    "SELECT l.k, l.v, r.w, length(l.s), length(r.s) FROM l FULL JOIN r ON l.k = r.k AND l.v % 3 = r.w % 3",
    "SELECT l.k, l.v, l.s FROM l WHERE EXISTS (SELECT 1 FROM r WHERE r.k = l.k AND r.w > l.v)",
    "SELECT l.k, l.v FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.k = l.k AND r.w > l.v)",
    "SELECT r.k, r.w FROM r WHERE r.k IN (SELECT k FROM l WHERE l.v % 7 = 3)",
    "SELECT l.k, l.v FROM l WHERE l.v < 9 OR EXISTS (SELECT 1 FROM r WHERE r.k = l.k)",
];

fn merge_joins(batch_rows: usize) -> SessionConfig {
    small_batches(batch_rows)
        .set_bool("datafusion.optimizer.prefer_hash_join", false)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold", 0)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold_rows", 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_joins_give_all_rows_or_one_error() {
    let limited = Limited::new(64 << 20, merge_joins(64));
    for statement in KEYED {
        sql(&limited.ctx, statement).await.unwrap();
    }
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {}", MERGED[0])).await.unwrap());
    assert!(text.contains("sort-merge joins counted as spillable: 1"), "{text}");
    for query in MERGED {
        let expected = expected(small_batches(256), &KEYED, query).await;
        for pool_bytes in [64 << 20, 4 << 20] {
            let rows = rows(&KEYED, pool_bytes, merge_joins(64), query).await;
            assert_eq!(rows.unwrap(), expected, "{query} in {pool_bytes} bytes");
        }
        for pool_bytes in [1 << 20, 500 << 10, 200 << 10] {
            match rows(&KEYED, pool_bytes, merge_joins(64), query).await {
                Ok(rows) => assert_eq!(rows, expected, "{query} in {pool_bytes} bytes"),
                Err(error) => drop(exhausted(&error)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_joins_end_with_batches_of_one_row() {
    let small = KEYED.map(|statement| statement.replace("4000", "300").replace("600", "90"));
    let small: Vec<&str> = small.iter().map(String::as_str).collect();
    for query in MERGED {
        let expected = expected(small_batches(256), &small, query).await;
        for batch_rows in [1, 2, 3] {
            let rows = rows(&small, 64 << 20, merge_joins(batch_rows), query).await;
            assert_eq!(rows.unwrap(), expected, "{query} with {batch_rows} rows a batch");
        }
    }
}

/// 8,192 rows a batch against 200,000 that match none: more than a minute of unoptimised code without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nested_loop_join_is_cancelled_within_a_probe_batch() {
    let limited = Limited::new(256 << 20, small_batches(8192));
    sql(&limited.ctx, "CREATE TABLE build AS SELECT v AS b FROM generate_series(1, 200000) AS t(v)")
        .await
        .unwrap();
    sql(&limited.ctx, "CREATE TABLE probe AS SELECT v AS p FROM generate_series(1, 300000) AS t(v)")
        .await
        .unwrap();
    let query = "SELECT b, p FROM build JOIN probe ON b + p < 0";
    let mut stream = limited.ctx.query(query).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.next()).await;
    let dropped = Instant::now();
    drop(stream);
    limited.assert_all_given_back(query).await;
    assert!(dropped.elapsed() < Duration::from_secs(5), "{:?}", dropped.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_joins_give_back_memory_and_files() {
    for (setup, query, config) in [(&WIDE, CROSS[0], small_batches(4)), (&KEYED, MERGED[0], merge_joins(64))]
    {
        for running_ms in [5, 50, 250] {
            let limited = Limited::new(500 << 10, config.clone());
            for statement in setup {
                sql(&limited.ctx, statement).await.unwrap();
            }
            let mut stream = limited.ctx.query(query).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(running_ms), async {
                while stream.next().await.is_some_and(|batch| batch.is_ok()) {}
            })
            .await;
            drop(stream);
            limited.assert_all_given_back(query).await;
        }
    }
}
