//! Aggregates over a clustered key: the same groups as the plain engine's, whatever the order within a row group.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tempfile::TempDir;

use crate::support::{config, limited_runtime, picture, query, sorted_rows, sql, verdict, with_layer};

/// Every aggregate of the queries: with a filter, distinct, over strings and NULLs, with no argument.
const AGGREGATES: &str = "count(*), sum(v), min(s), max(s), avg(v), count(DISTINCT v % 3), \
                          sum(v) FILTER (WHERE v % 2 = 0), count(s), round(stddev(v), 6), bool_and(v > 3)";

/// A column to group by: its name, and how its type is made of a number.
const KEYS: [(&str, DataType); 4] = [
    ("k", DataType::Int64),
    ("small", DataType::Int32),
    ("day", DataType::Date32),
    ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
];

/// Writes rows with `keys` and other columns of their own, in row groups of `rows` each.
fn write(path: &Path, keys: &[i64], rows: usize) {
    let numbers: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let mut columns: Vec<(&str, ArrayRef)> = KEYS
        .iter()
        .map(|(name, data_type)| {
            let narrow = matches!(data_type, DataType::Date32).then_some(DataType::Int32);
            let number = cast(&numbers, &narrow.unwrap_or(DataType::Int64)).unwrap();
            (*name, cast(&number, data_type).unwrap())
        })
        .collect();
    let row = |index: usize| (index as i64 * 7 + 3) % 101;
    let values: Int64Array = (0..keys.len()).map(|index| (index % 5 != 0).then(|| row(index))).collect();
    let names: StringArray =
        (0..keys.len()).map(|index| (index % 3 != 0).then(|| format!("name {}", row(index) % 11))).collect();
    columns.push(("v", Arc::new(values)));
    columns.push(("s", Arc::new(names)));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A layered session that takes tables of any size, with `path` as table `t` and a dimension `d` of even keys.
async fn session(config: SessionConfig, path: &Path) -> SessionContext {
    let config = config.set_usize("datafusion.optimizer.repartition_file_min_size", 1);
    let (ctx, _) = with_layer(SessionContext::new_with_config(config));
    ctx.register_parquet("t", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    sql(&ctx, "SET slipstream.clustered_aggregate.min_rows = 0").await.unwrap();
    sql(
        &ctx,
        "CREATE TABLE d AS SELECT v * 2 AS dk, concat('d', v % 4) AS label FROM generate_series(0, 60) t(v)",
    )
    .await
    .unwrap();
    ctx
}

async fn same_rows(ctx: &SessionContext, text: &str) -> Result<(), TestCaseError> {
    let layered = sorted_rows(&query(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = false").await.unwrap();
    let plain = sorted_rows(&query(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = true").await.unwrap();
    prop_assert_eq!(layered, plain, "{}", text);
    Ok(())
}

/// 40 row groups of 50 rows: `per_key` rows a key, so that a key may begin in one row group and end in the next.
fn rising(per_key: i64) -> Vec<i64> {
    (0..2000).map(|row| row / per_key - 100).collect()
}

#[tokio::test]
async fn groups_are_those_of_the_plain_engine() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    for keys in [
        rising(1),
        rising(3),
        rising(7),
        // Falling within each row group; the row groups rise.
        (0..2000).map(|row| row / 50 * 50 + (49 - row % 50)).collect(),
        // The whole file falls.
        (0..2000).map(|row| -row / 3).collect(),
        // Scattered within each row group, and sharing keys with both neighbours.
        (0..2000).map(|row| row / 50 * 40 + row * 17 % 41).collect(),
    ] {
        write(&path, &keys, 50);
        for batch_size in [1, 7, 8192] {
            let ctx = session(config().with_batch_size(batch_size), &path).await;
            for (key, _) in &KEYS {
                let text = format!("SELECT {key}, {AGGREGATES} FROM t GROUP BY {key}");
                let verdict = verdict(&ctx, "clustered_aggregate", &text).await;
                assert!(verdict.starts_with(&format!("applied: by {key} in 40 row groups")), "{verdict}");
                same_rows(&ctx, &text).await.unwrap();
            }
            same_rows(&ctx, "SELECT s, k, count(*), min(v) FROM t GROUP BY s, k").await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_stands_below_and_above_changes_nothing() {
    let folder = TempDir::new().unwrap();
    // A scan below a join is not split: two files give it two partitions.
    let keys = rising(3);
    let (first, second) = keys.split_at(1025);
    write(&folder.path().join("b.parquet"), first, 50);
    write(&folder.path().join("a.parquet"), second, 50);
    let ctx = session(config(), folder.path()).await;
    for text in [
        // Several keys, one of them clustered; keys with NULLs beside it; no aggregate at all.
        "SELECT k, s, count(*) FROM t GROUP BY k, s",
        "SELECT day, k, sum(v) FROM t GROUP BY day, k",
        "SELECT DISTINCT k FROM t",
        // A filter below and one above; an order; a limit over an order.
        "SELECT k, sum(v) AS total FROM t WHERE v > 20 GROUP BY k HAVING sum(v) > 100 ORDER BY total, k",
        "SELECT k, count(*) FROM t WHERE k BETWEEN 3 AND 90 GROUP BY k ORDER BY k DESC LIMIT 7",
        "SELECT k, count(*) FROM t WHERE k > 100000 GROUP BY k",
        // The key comes through a join's probe side.
        "SELECT k, label, sum(v) FROM t JOIN d ON k = dk GROUP BY k, label",
        // A second aggregate, and a join, above it.
        "SELECT c, count(*) FROM (SELECT k, count(*) AS c FROM t GROUP BY k) GROUP BY c",
        "SELECT a.k, a.c, b.m FROM (SELECT k, count(*) AS c FROM t GROUP BY k) a \
         JOIN (SELECT k, max(v) AS m FROM t GROUP BY k) b ON a.k = b.k",
        "SELECT k, c FROM (SELECT k, count(*) AS c FROM t GROUP BY k) UNION ALL SELECT dk, 1 FROM d",
    ] {
        let verdict = verdict(&ctx, "clustered_aggregate", text).await;
        assert!(verdict.starts_with("applied: by "), "{text}: {verdict}");
        same_rows(&ctx, text).await.unwrap();
    }
}

/// A partitioned join above needs the rows where the exchange would have put them.
/// What a join spills comes after the rows of other row groups.
#[tokio::test]
async fn a_join_below_that_may_spill_keeps_the_two_steps() {
    let folder = TempDir::new().unwrap();
    // A scan below a join is not split: two files give it two partitions.
    let path = folder.path().join("t");
    std::fs::create_dir(&path).unwrap();
    let keys: Vec<_> = (0..20_000).collect();
    for (name, keys) in ["1.parquet", "2.parquet"].iter().zip(keys.chunks(10_000)) {
        write(&path.join(name), keys, 500);
    }
    let config = config()
        .set_bool("datafusion.optimizer.join_reordering", false)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold", 1 << 40)
        .set_usize("datafusion.optimizer.hash_join_single_partition_threshold_rows", 1 << 40);
    let runtime = limited_runtime(6 << 20, folder.path());
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(config, runtime));
    ctx.register_parquet("t", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    for statement in [
        "SET slipstream.clustered_aggregate.min_rows = 0",
        "SET slipstream.join_order.enabled = false",
        "CREATE TABLE wide AS SELECT v AS wk, concat('a text of some length, with the number ', v) AS text \
         FROM generate_series(0, 19999) t(v)",
        "CREATE TABLE small AS SELECT v AS wk, concat('s', v) AS text FROM generate_series(0, 99) t(v)",
    ] {
        sql(&ctx, statement).await.unwrap();
    }
    let text = "SELECT k, count(*), max(text) FROM wide JOIN t ON wk = k GROUP BY k";
    assert_eq!(
        verdict(&ctx, "clustered_aggregate", text).await,
        "refused: a join below may spill, and what it spills comes late"
    );
    let rows = query(&ctx, text).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);

    let text = "SELECT k, count(*), max(text) FROM small JOIN t ON wk = k GROUP BY k";
    assert!(verdict(&ctx, "clustered_aggregate", text).await.starts_with("applied: by k in 40 row groups"));
    let plan = picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
    assert!(!plan.contains("SpillJoinExec"), "{plan}");
    same_rows(&ctx, text).await.unwrap();
}

#[tokio::test]
async fn an_exchange_that_somebody_relies_on_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    write(&path, &rising(3), 50);
    let config = config()
        .set_u64("datafusion.optimizer.hash_join_single_partition_threshold", 0)
        .set_u64("datafusion.optimizer.hash_join_single_partition_threshold_rows", 0)
        .set_bool("datafusion.optimizer.join_reordering", false);
    let ctx = session(config, &path).await;
    let text = "SELECT a.k, a.c, b.m FROM (SELECT k, count(*) AS c FROM t GROUP BY k) a \
                JOIN (SELECT k, max(v) AS m FROM t GROUP BY k) b ON a.k = b.k";
    let plan = picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
    assert!(plan.contains("mode=Partitioned"), "{plan}");
    let lines: Vec<&str> = plan.lines().collect();
    let aggregates: Vec<usize> =
        (1..lines.len()).filter(|line| lines[*line].contains("ClusteredAggregateExec")).collect();
    assert_eq!(aggregates.len(), 2, "{plan}");
    assert!(aggregates.iter().all(|line| lines[line - 1].contains("RepartitionExec")), "{plan}");
    same_rows(&ctx, text).await.unwrap();
}

#[tokio::test]
async fn refusals_say_why() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    write(&path, &rising(3), 50);
    let ctx = session(config(), &path).await;
    let grouped = "SELECT k, count(*) FROM t GROUP BY k";
    for (text, reason) in [
        ("SELECT count(*) FROM t", "the plan has no grouped aggregate in two steps"),
        ("SELECT s, count(*) FROM t GROUP BY s", "s is no integer, date or timestamp"),
        ("SELECT v, count(*) FROM t GROUP BY v", "v may be NULL"),
        ("SELECT k % 9, count(*) FROM t GROUP BY k % 9", "no group key is a column"),
        ("SELECT k, array_agg(v ORDER BY s) FROM t GROUP BY k", "an aggregate needs an order"),
        ("SELECT k, s, count(*) FROM t GROUP BY ROLLUP (k, s)", "grouping sets"),
        ("SELECT label, count(*) FROM d GROUP BY label", "no Parquet files"),
        (
            "SELECT k, count(*) FROM (SELECT * FROM t UNION ALL SELECT * FROM t) GROUP BY k",
            "rows do not arrive",
        ),
    ] {
        let verdict = verdict(&ctx, "clustered_aggregate", text).await;
        assert!(verdict.starts_with("refused: ") && verdict.contains(reason), "{text}: {verdict}");
        same_rows(&ctx, text).await.unwrap();
    }
    let with = async |setting: &str| {
        let ctx = session(config(), &path).await;
        sql(&ctx, &format!("SET {setting}")).await.unwrap();
        verdict(&ctx, "clustered_aggregate", grouped).await
    };
    let verdict = with("slipstream.clustered_aggregate.min_rows = 2001").await;
    assert_eq!(verdict, "refused: the table has 2000 rows only");
    let verdict = with("datafusion.execution.enable_file_stream_work_stealing = false").await;
    assert_eq!(verdict, "refused: partitions may be executed apart from each other");
    let verdict = with("slipstream.clustered_aggregate.enabled = false").await;
    assert!(verdict.contains("switched off by slipstream.clustered_aggregate.enabled"), "{verdict}");

    write(&path, &(0..2000).map(|row| row % 1000).collect::<Vec<_>>(), 50);
    let verdict = with("slipstream.clustered_aggregate.min_rows = 0").await;
    assert_eq!(verdict, "refused: row groups overlap in k");
    write(&path, &rising(3), 700);
    let verdict = with("slipstream.clustered_aggregate.min_rows = 0").await;
    assert_eq!(verdict, "refused: 3 row groups are too few to share out");
    write(&path, &rising(25), 50);
    let verdict = with("slipstream.clustered_aggregate.min_rows = 0").await;
    assert_eq!(verdict, "refused: row groups have too few keys of their own");
}

/// A footer that tells of other rows than the file has must not lose a group.
#[tokio::test]
async fn a_file_that_changed_after_planning_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.parquet");
    write(&path, &rising(3), 50);
    let ctx = session(config(), &path).await;
    let plan = ctx.sql("SELECT k, count(*) FROM t GROUP BY k").await.unwrap();
    let plan = plan.create_physical_plan().await.unwrap();
    write(&path, &rising(3).iter().map(|key| key + 5000).collect::<Vec<_>>(), 50);
    let fresh = SessionContext::new_with_config(config());
    let error = datafusion::physical_plan::collect(plan, fresh.task_ctx()).await.unwrap_err().to_string();
    assert!(error.contains("outside the minima and maxima of all row groups"), "{error}");
}

#[derive(Debug, Clone)]
struct Case {
    keys: Vec<i64>,
    row_group: usize,
    batch_size: usize,
    partitions: usize,
}

/// Keys that rise from row group to row group, in any order within one; neighbours may share a key.
fn case() -> impl Strategy<Value = Case> {
    let shape = (4_usize..30, 20_usize..60, 1_i64..4, any::<bool>(), 1_usize..200, 2_usize..5);
    shape.prop_flat_map(|(groups, row_group, per_key, touching, batch_size, partitions)| {
        let rows = groups * row_group;
        proptest::collection::vec(any::<u32>(), rows).prop_map(move |order| {
            let mut keys: Vec<i64> = (0..rows)
                .map(|row| {
                    let within = (row % row_group) as i64 / per_key;
                    let first = (row / row_group) as i64 * (row_group as i64 + i64::from(!touching));
                    first + within * row_group as i64 * per_key / (row_group as i64)
                })
                .collect();
            if touching {
                // The last row of a row group has the next one's first key.
                for row in (row_group..rows).step_by(row_group) {
                    keys[row - 1] = keys[row];
                }
            }
            for (group, order) in keys.chunks_mut(row_group).zip(order.chunks(row_group)) {
                // A third of the row groups stays in order.
                if order[0] % 3 > 0 {
                    let mut shuffled: Vec<_> = group.iter().copied().zip(order).collect();
                    shuffled.sort_by_key(|(_, order)| **order);
                    group.iter_mut().zip(shuffled).for_each(|(key, (from, _))| *key = from);
                }
            }
            Case { keys, row_group, batch_size, partitions }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_order_within_row_groups_gives_the_same_groups(case in case()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("t.parquet");
            write(&path, &case.keys, case.row_group);
            let config = config().with_batch_size(case.batch_size).with_target_partitions(case.partitions);
            let ctx = session(config, &path).await;
            for keys in ["k", "s, k", "k, v"] {
                same_rows(&ctx, &format!("SELECT {keys}, {AGGREGATES} FROM t GROUP BY {keys}")).await?;
            }
            same_rows(&ctx, "SELECT k, sum(v) FROM t WHERE v % 7 > 2 GROUP BY k HAVING count(*) > 1").await
        })?;
    }
}
