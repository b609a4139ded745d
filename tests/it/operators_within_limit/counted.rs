//! Operators that DataFusion counts and that cannot spill: merges of many streams, aggregates without groups.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::{Limited, Peaks, directory, exhausted, small_batches};
use crate::support::{sorted_rows, sql};

const PARTITIONS: i64 = 120;

/// 120 partitions of 20 rows of 5 kB: 12 MB.
fn wide(ctx: &SessionContext) {
    let batch = |partition: i64| {
        let keys = (0..20).map(|row| row * PARTITIONS + (partition * 7) % PARTITIONS);
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(keys.map(|key| format!("{key:>5000}"))));
        RecordBatch::try_from_iter([("v", values), ("s", texts)]).unwrap()
    };
    let partitions: Vec<Vec<RecordBatch>> = (0..PARTITIONS).map(|partition| vec![batch(partition)]).collect();
    let table = MemTable::try_new(partitions[0][0].schema(), partitions).unwrap();
    ctx.register_table("wide", Arc::new(table)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_many_streams_of_wide_rows_gives_rows_or_one_error() {
    let query = "SELECT v, length(s) FROM (SELECT v, s FROM wide ORDER BY v LIMIT 100000)";
    let config = small_batches(16).with_target_partitions(120);
    let plain = SessionContext::new_with_config(config.clone());
    wide(&plain);
    let expected = sorted_rows(&sql(&plain, query).await.unwrap());
    let mut errors = 0;
    for pool_bytes in [256 << 20, 40 << 20, 16 << 20, 8 << 20, 2 << 20, 300 << 10] {
        let limited = Limited::new(pool_bytes, config.clone());
        wide(&limited.ctx);
        match limited.rows(query).await {
            Ok(rows) => assert_eq!(rows, expected, "in {pool_bytes} bytes"),
            Err(error) => {
                exhausted(&error);
                errors += 1;
            }
        }
    }
    assert!((1..5).contains(&errors), "{errors} of 6 limits are errors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_finds_no_memory_says_what_to_do() {
    let limited = Limited::new(3 << 20, small_batches(16).with_target_partitions(120));
    let query = "SELECT v, s FROM sorted ORDER BY v";
    let ctx = &limited.ctx;
    wide(ctx);
    let order = vec![vec![datafusion::prelude::col("v").sort(true, false)]];
    let table = ctx.table_provider("wide").await.unwrap();
    let table = table.downcast_ref::<MemTable>().unwrap();
    let mut partitions = Vec::new();
    for partition in &table.batches {
        partitions.push(partition.read().await.clone());
    }
    let sorted = MemTable::try_new(partitions[0][0].schema(), partitions).unwrap().with_sort_order(order);
    ctx.register_table("sorted", Arc::new(sorted)).unwrap();
    let error = exhausted(&limited.rows(query).await.unwrap_err());
    assert!(error.contains("a merge of sorted streams needs memory for a batch of each"), "{error}");
}

const TABLE: &str = "CREATE TABLE t AS SELECT v, concat('some text that is too long to be inline ', v) AS s \
    FROM generate_series(1, 30000) AS t(v)";

const AGGREGATES: [&str; 5] = [
    "SELECT length(array_to_string(array_agg(s), ',')) FROM t",
    "SELECT length(string_agg(s, ',' ORDER BY v)) FROM t",
    "SELECT count(DISTINCT s), count(DISTINCT v) FROM t",
    "SELECT median(v), median(DISTINCT v) FROM t",
    "SELECT percentile_cont(0.3) WITHIN GROUP (ORDER BY v) FROM t",
];

async fn rows(pool_bytes: usize, query: &str) -> Result<Vec<String>> {
    let limited = Limited::new(pool_bytes, small_batches(1024));
    sql(&limited.ctx, TABLE).await.unwrap();
    limited.rows(query).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_without_groups_are_counted_and_fail_with_one_error() {
    for query in AGGREGATES {
        let expected = super::expected(small_batches(1024), &[TABLE], query).await;
        assert_eq!(rows(64 << 20, query).await.unwrap(), expected, "{query}");
        // The least that any of them holds is 240 kB of integers.
        let error = exhausted(&rows(100 << 10, query).await.unwrap_err());
        assert!(error.contains("Failed to allocate additional"), "{query}: {error}");
    }
    let error = exhausted(&rows(100 << 10, AGGREGATES[3]).await.unwrap_err());
    assert!(error.contains("an aggregate without GROUP BY keeps all values"), "{error}");
}

/// 30,000 integers of eight bytes, in the final aggregate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_aggregate_keeps_is_what_is_counted() {
    let pool = Arc::new(Peaks::new(256 << 20));
    let limited = Limited::plain(Arc::clone(&pool) as _, small_batches(1024), directory).layered();
    sql(&limited.ctx, TABLE).await.unwrap();
    limited.rows("SELECT length(array_to_string(array_agg(v), ',')) FROM t").await.unwrap();
    let (peak, held) = (pool.peak("AggregateStream"), 8 * 30_000);
    assert!(peak.abs_diff(held) <= held / 10, "{peak} bytes counted, {held} held");
}
