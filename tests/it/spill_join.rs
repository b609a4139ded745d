//! Hash joins under a memory limit, through SQL: the rows of the plain engine, whatever the limit.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tempfile::TempDir;

use crate::support::{config, limited_runtime, picture, query, single, sorted_rows, with_layer};

/// Less than the build sides need, and enough for the rest of the plans.
const LIMIT: usize = 1 << 20;

/// Less than a table of the keys alone needs.
const TIGHT: usize = 700_000;

/// Every join type that SQL reaches, from both sides.
const JOINS: [&str; 12] = [
    "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k",
    "SELECT l.v, r.text FROM l JOIN r ON l.k = r.k AND l.v < r.v",
    "SELECT l.v, r.v FROM l LEFT JOIN r ON l.k = r.k",
    "SELECT l.v, r.v FROM l RIGHT JOIN r ON l.k = r.k AND l.v % 3 < r.v % 3",
    "SELECT l.text, r.v FROM l FULL JOIN r ON l.k = r.k",
    "SELECT l.v, l.text FROM l WHERE EXISTS (SELECT 1 FROM r WHERE l.k = r.k AND r.v > l.v)",
    "SELECT r.v, r.text FROM r WHERE EXISTS (SELECT 1 FROM l WHERE l.k = r.k)",
    "SELECT l.v, l.text FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE l.k = r.k)",
    "SELECT r.v, r.text FROM r WHERE NOT EXISTS (SELECT 1 FROM l WHERE l.k = r.k AND l.v > r.v)",
    "SELECT l.v, l.text FROM l WHERE EXISTS (SELECT 1 FROM r WHERE l.k = r.k) OR l.v % 100 = 3",
    "SELECT l.v, l.text FROM l WHERE l.k NOT IN (SELECT k FROM r WHERE k IS NOT NULL AND k % 3 = 0)",
    "SELECT l.v, r.v FROM l JOIN r ON (l.k IS NOT DISTINCT FROM r.k) AND (l.k IS NOT NULL OR (l.v < 300 AND r.v < 300))",
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// `rows` rows whose keys are `key(row)`.
fn batches(rows: i64, key: impl Fn(i64) -> Option<i64>) -> Vec<RecordBatch> {
    (0..rows)
        .step_by(1000)
        .map(|begin| {
            let numbers = || begin..(begin + 1000).min(rows);
            let keys = Int64Array::from_iter(numbers().map(&key));
            let values = Int64Array::from_iter_values(numbers());
            let text = StringArray::from_iter_values(numbers().map(|row| format!("{row:>80}")));
            RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values), Arc::new(text)]).unwrap()
        })
        .collect()
}

fn write(directory: &Path, name: &str, batches: &[RecordBatch]) {
    let table = directory.join(name);
    std::fs::create_dir(&table).unwrap();
    for (part, batches) in batches.chunks(batches.len().div_ceil(2)).enumerate() {
        let file = File::create(table.join(format!("{part}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema(), None).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
    }
}

/// `l` and `r` in Parquet files, 20,000 rows each: about 2 MB, of which a hash join needs more than twice as much.
fn tables(directory: &Path) {
    write(directory, "l", &batches(20_000, |row| (row % 97 != 0).then_some(row * 7 % 15_000)));
    write(directory, "r", &batches(20_000, |row| (row % 89 != 0).then_some(row * 11 % 25_000)));
}

async fn register(ctx: &SessionContext, directory: &Path) {
    for table in ["l", "r"] {
        let path = directory.join(table).display().to_string();
        ctx.register_parquet(table, &path, ParquetReadOptions::default()).await.unwrap();
    }
}

/// Joins in both modes: with the thresholds at zero they are partitioned.
fn partitioned(config: SessionConfig) -> SessionConfig {
    let zero = |config: SessionConfig, key| config.set_u64(key, 0);
    let config = zero(config, "datafusion.optimizer.hash_join_single_partition_threshold");
    zero(config, "datafusion.optimizer.hash_join_single_partition_threshold_rows")
}

fn collected(config: SessionConfig) -> SessionConfig {
    let all = |config: SessionConfig, key| config.set_u64(key, 1 << 40);
    let config = all(config, "datafusion.optimizer.hash_join_single_partition_threshold");
    all(config, "datafusion.optimizer.hash_join_single_partition_threshold_rows")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_that_do_not_fit_give_the_rows_of_the_plain_engine() {
    let data = TempDir::new().unwrap();
    tables(data.path());
    let plain = SessionContext::new_with_config(config());
    register(&plain, data.path()).await;
    let mut expected = Vec::new();
    for join in JOINS {
        expected.push(sorted_rows(&plain.sql(join).await.unwrap().collect().await.unwrap()));
    }
    for config in [partitioned(config()), collected(config())] {
        let spill = TempDir::new().unwrap();
        let runtime = limited_runtime(TIGHT, spill.path());
        let (ctx, slipstream) =
            with_layer(SessionContext::new_with_config_rt(config.with_batch_size(1024), runtime));
        register(&ctx, data.path()).await;
        let mut spilled = 0;
        for (join, expected) in JOINS.iter().zip(&expected) {
            let rows = tokio::time::timeout(Duration::from_secs(120), query(&ctx, join)).await.unwrap();
            assert_eq!(&sorted_rows(&rows.unwrap()), expected, "{join}");
            let record = slipstream.query_log().queries().pop().unwrap();
            spilled += usize::from(record.spilled_bytes > 0);
            assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0, "{join}");
        }
        assert!(spilled >= 9, "{spilled} of {} spilled", JOINS.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_rule_the_same_join_fails_and_with_it_the_plan_says_so() {
    let data = TempDir::new().unwrap();
    tables(data.path());
    let spill = TempDir::new().unwrap();
    let runtime = limited_runtime(1 << 20, spill.path());
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(partitioned(config()), runtime));
    register(&ctx, data.path()).await;
    let join = "SELECT count(*) AS n FROM l JOIN r ON l.k = r.k AND l.text < r.text";
    let plan = picture(&query(&ctx, &format!("EXPLAIN {join}")).await.unwrap());
    assert!(plan.contains("SpillJoinExec: mode=") && plan.contains(", join_type=Inner, on=["), "{plan}");
    assert!(plan.contains("spill_join: applied: may spill: Inner"), "{plan}");
    let rows = single(&query(&ctx, join).await.unwrap());

    let ran = picture(&query(&ctx, &format!("EXPLAIN ANALYZE {join}")).await.unwrap());
    let line = ran.lines().find(|line| line.contains("SpillJoinExec")).unwrap();
    for metric in
        ["spill_count=", "spilled_bytes=", "spilled_rows=", "spilled_partitions=", "build_input_rows="]
    {
        assert!(line.contains(metric), "{metric}: {line}");
    }

    query(&ctx, "SET slipstream.spill_join.enabled = false").await.unwrap();
    let error = query(&ctx, join).await.unwrap_err().to_string();
    assert!(error.contains("Resources exhausted") && error.contains("HashJoinInput"), "{error}");
    let plain = SessionContext::new_with_config(config());
    register(&plain, data.path()).await;
    assert_eq!(single(&plain.sql(join).await.unwrap().collect().await.unwrap()), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_or_with_a_small_build_side_the_plan_is_datafusions() {
    let data = TempDir::new().unwrap();
    tables(data.path());
    let (ctx, _) = with_layer(SessionContext::new_with_config(config()));
    register(&ctx, data.path()).await;
    let plan = picture(&query(&ctx, "EXPLAIN SELECT l.v FROM l JOIN r ON l.k = r.k").await.unwrap());
    assert!(plan.contains("spill_join: refused: memory is not limited"), "{plan}");
    assert!(!plan.contains("SpillJoinExec"), "{plan}");

    let spill = TempDir::new().unwrap();
    let runtime = limited_runtime(1 << 30, spill.path());
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(config(), runtime));
    let join =
        "EXPLAIN SELECT a.column1 FROM (VALUES (1), (2)) a JOIN (VALUES (2)) b ON a.column1 = b.column1";
    let plan = picture(&query(&ctx, join).await.unwrap());
    assert!(plan.contains("spill_join: refused: Inner (its build side is small)"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_relied_on_keeps_the_join() {
    let data = TempDir::new().unwrap();
    write(data.path(), "o", &batches(3000, Some));
    write(data.path(), "p", &batches(9000, Some));
    let spill = TempDir::new().unwrap();
    let runtime = limited_runtime(LIMIT, spill.path());
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(config(), runtime));
    for name in ["o", "p"] {
        let file = data.path().join(name).join("0.parquet");
        let create = format!(
            "CREATE EXTERNAL TABLE {name} (k BIGINT, v BIGINT NOT NULL, text VARCHAR) STORED AS PARQUET \
             WITH ORDER (v ASC) LOCATION '{}'",
            file.display()
        );
        query(&ctx, &create).await.unwrap();
    }
    let ordered = "SELECT p.v FROM o JOIN p ON o.k = p.k ORDER BY p.v";
    let plan = picture(&query(&ctx, &format!("EXPLAIN {ordered}")).await.unwrap());
    assert!(plan.contains("spill_join: refused: Inner (the order of its rows is relied on)"), "{plan}");
    let unordered = "SELECT count(*) FROM o JOIN p ON o.k = p.k AND o.text <= p.text";
    let plan = picture(&query(&ctx, &format!("EXPLAIN {unordered}")).await.unwrap());
    assert!(plan.contains("spill_join: applied"), "{plan}");
}

/// One hash partition has nearly all build rows and spills; the other fits, and waits for all of them before it reads its
/// probe rows by the dynamic filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_fit_do_not_wait_for_those_that_spill() {
    let data = TempDir::new().unwrap();
    write(data.path(), "l", &batches(20_000, |row| Some(if row % 50 == 0 { row } else { 7 })));
    write(data.path(), "r", &batches(4000, |row| Some(row * 5)));
    let join = "SELECT l.v, r.v, l.text FROM l JOIN r ON l.k = r.k";
    let plain = SessionContext::new_with_config(config());
    register(&plain, data.path()).await;
    let expected = sorted_rows(&plain.sql(join).await.unwrap().collect().await.unwrap());
    let spill = TempDir::new().unwrap();
    let runtime = limited_runtime(LIMIT, spill.path());
    let config = partitioned(config()).with_target_partitions(4).with_batch_size(512);
    let (ctx, slipstream) = with_layer(SessionContext::new_with_config_rt(config, runtime));
    ctx.sql("SET slipstream.join_order.enabled = false").await.unwrap().collect().await.unwrap();
    register(&ctx, data.path()).await;
    // The larger table first: it is the build side.
    let swapped = "SELECT l.v, r.v, l.text FROM l LEFT JOIN r ON l.k = r.k WHERE r.v IS NOT NULL OR l.v < 0";
    for sql in [join, swapped] {
        let rows = tokio::time::timeout(Duration::from_secs(60), query(&ctx, sql)).await.unwrap().unwrap();
        assert_eq!(sorted_rows(&rows), expected, "{sql}");
    }
    let spilled: u64 = slipstream.query_log().queries().iter().map(|record| record.spilled_bytes).sum();
    assert!(spilled > 0);
}
