//! Windows: `WindowAggExec` by pieces, `BoundedWindowAggExec` accounted.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result;
use datafusion_slipstream::SlipstreamContextExt;
use futures::StreamExt;

use super::{Limited, Peaks, directory, exhausted, expected, small_batches};
use crate::support::{picture, sql};

/// 20,000 rows: some 200 groups of 100 and NULL, a text, and values with NULLs.
const TABLE: &str = "CREATE TABLE t AS SELECT CASE WHEN v % 211 = 0 THEN NULL ELSE v % 200 END AS k, v, \
    CASE WHEN v % 7 = 0 THEN NULL ELSE v * 31 % 1009 END AS x, concat('text ', v % 97) AS s \
    FROM generate_series(1, 20000) AS t(v)";

/// Frames that look at the whole group, over groups.
const GROUPED: [&str; 6] = [
    "SELECT k, v, x, count(*) OVER (PARTITION BY k), sum(x) OVER (PARTITION BY k) FROM t",
    "SELECT k, v, s, ntile(4) OVER (PARTITION BY k ORDER BY v), percent_rank() OVER (PARTITION BY k ORDER BY x, v) FROM t",
    "SELECT k, v, last_value(s) OVER (PARTITION BY k ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t",
    "SELECT k, s, v, max(s) OVER (PARTITION BY k, s), min(x) OVER (PARTITION BY k) FROM t",
    // Groups of many batches, some of which begin with a batch.
    "SELECT v, count(*) OVER (PARTITION BY v / 768), sum(v) OVER (PARTITION BY v / 768) FROM t",
    "SELECT k, v, avg(x) OVER (PARTITION BY k ORDER BY v ROWS BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING) FROM t WHERE v < 0",
];

/// Frames that need all rows at one time.
const UNGROUPED: [&str; 2] =
    ["SELECT v, sum(x) OVER () FROM t", "SELECT v, s, ntile(7) OVER (ORDER BY v) FROM t"];

/// Frames that a window with bounded memory evaluates.
const BOUNDED: [&str; 4] = [
    "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) FROM t",
    "SELECT k, v, sum(x) OVER (PARTITION BY k ORDER BY v ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING) FROM t",
    "SELECT v, lead(s, 5) OVER (ORDER BY v) FROM t",
    "SELECT v, sum(x) OVER (ORDER BY v RANGE BETWEEN 10 PRECEDING AND CURRENT ROW) FROM t",
];

async fn rows(pool_bytes: usize, query: &str) -> Result<Vec<String>> {
    let limited = Limited::new(pool_bytes, small_batches(256));
    // The table is not of the query, and is not in its pool.
    sql(&limited.ctx, TABLE).await.unwrap();
    limited.rows(query).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_over_groups_give_all_rows_in_less_than_their_input() {
    for query in GROUPED.iter().chain(&BOUNDED) {
        let expected = expected(small_batches(256), &[TABLE], query).await;
        for pool_bytes in [64 << 20, 2 << 20] {
            let rows = rows(pool_bytes, query).await;
            assert_eq!(rows.unwrap(), expected, "{query} in {pool_bytes} bytes");
        }
        for pool_bytes in [900 << 10, 400 << 10, 200 << 10] {
            match rows(pool_bytes, query).await {
                Ok(rows) => assert_eq!(rows, expected, "{query} in {pool_bytes} bytes"),
                Err(error) => drop(exhausted(&error)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_needs_all_rows_fails_with_its_name_and_what_to_do() {
    for query in UNGROUPED {
        let expected = expected(small_batches(256), &[TABLE], query).await;
        assert_eq!(rows(64 << 20, query).await.unwrap(), expected, "{query}");
        let error = exhausted(&rows(600 << 10, query).await.unwrap_err());
        assert!(error.contains("a window without PARTITION BY, and cannot spill"), "{error}");
        assert!(error.contains("Raise the memory limit"), "{error}");
        assert!(error.contains("the window sum(t.x)") || error.contains("the window ntile("), "{error}");
    }
    let one_group = "SELECT v, sum(x) OVER (PARTITION BY x % 1) FROM t WHERE x > 0";
    let error = exhausted(&rows(600 << 10, one_group).await.unwrap_err());
    assert!(
        error.contains("one group of PARTITION BY t.x % 1") || error.contains("one group of PARTITION BY x"),
        "{error}"
    );
    let far = "SELECT v, lead(s, 19000) OVER (ORDER BY v) FROM t";
    let error = exhausted(&rows(600 << 10, far).await.unwrap_err());
    assert!(error.contains("the window lead("), "{error}");
}

/// 100,000 rows of two integers, and one more for the window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accounted_is_what_is_held() {
    let rows = 100_000;
    let table = format!("CREATE TABLE n AS SELECT 1 AS k, v FROM generate_series(1, {rows}) AS t(v)");
    let pool = Arc::new(Peaks::new(256 << 20));
    let limited = Limited::plain(Arc::clone(&pool) as _, small_batches(8192), directory).layered();
    sql(&limited.ctx, &table).await.unwrap();
    let window = "SELECT v, count(*) OVER () FROM n";
    let result = limited.ctx.query(window).await.unwrap();
    let batches: Vec<_> = result.collect().await;
    assert!(batches.len() > 1, "one batch of all rows: {}", batches.len());
    // The input, its copy, and the new column, eight bytes a value each.
    let held = 8 * rows * 3;
    let peak = pool.peak("WindowAggExec");
    assert!(peak.abs_diff(held) <= held / 10, "{peak} bytes accounted, {held} held");

    // The 5,000 rows that wait, and the 256 that were read last, two times.
    let bounded = "SELECT v, lead(v, 50000) OVER (ORDER BY v) FROM n";
    sql(&limited.ctx, bounded).await.unwrap();
    let held = 8 * 2 * (50_000 + 8192);
    let peak = pool.peak("BoundedWindowAggExec");
    assert!(peak.abs_diff(held) <= held / 10, "{peak} bytes accounted, {held} held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_window_gives_back_what_it_holds() {
    for query in GROUPED.iter().chain(&UNGROUPED).chain(&BOUNDED) {
        for running_ms in [1, 40, 120] {
            let limited = Limited::new(8 << 20, small_batches(64));
            sql(&limited.ctx, TABLE).await.unwrap();
            let mut stream = limited.ctx.query(query).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(running_ms), stream.next()).await;
            drop(stream);
            limited.assert_all_given_back(query).await;
        }
    }
}

/// Of some 2 MB that the plain engine holds at one time, and does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_over_groups_holds_a_small_part_of_its_input() {
    let pool = Arc::new(Peaks::new(2 << 20));
    let limited = Limited::plain(Arc::clone(&pool) as _, small_batches(256), directory).layered();
    sql(&limited.ctx, TABLE).await.unwrap();
    limited.rows(GROUPED[1]).await.unwrap();
    let peak = pool.peak("WindowAggExec");
    assert!((16 << 10..320 << 10).contains(&peak), "{peak} bytes");
}

#[tokio::test]
async fn explain_says_what_was_done_to_windows() {
    let limited = Limited::new(8 << 20, small_batches(64));
    sql(&limited.ctx, TABLE).await.unwrap();
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN ANALYZE {}", GROUPED[0])).await.unwrap());
    assert!(text.contains("windows by pieces: 1"), "{text}");
    assert!(text.contains("WindowAggExec") && text.contains("output_rows=20.00 K"), "{text}");
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {}", BOUNDED[0])).await.unwrap());
    assert!(text.contains("windows accounted: 1"), "{text}");
}
