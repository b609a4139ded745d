//! Batches have fewer rows where rows are wide or memory is short, and the rows stay the same.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tempfile::TempDir;

use crate::support::{config, limited_runtime, picture, sql, with_layer};

const MB: usize = 1 << 20;

/// A file of 160 rows of one megabyte of text each, and one of 160 rows with lists of 100,000 numbers. Compressed they are
/// small.
async fn wide_files(folder: &TempDir) {
    let ctx =
        SessionContext::new_with_config(SessionConfig::new().with_batch_size(4).with_target_partitions(1));
    for (name, select) in [
        (
            "wide",
            "SELECT v * 37 % 160 AS k, concat(v, repeat('abcdefgh', 131072)) AS t FROM generate_series(0, 159) s(v)",
        ),
        ("listed", "SELECT v * 37 % 160 AS k, range(v, v + 100000) AS l FROM generate_series(0, 159) s(v)"),
    ] {
        let path = folder.path().join(format!("{name}.parquet"));
        let copy = format!(
            "COPY ({select}) TO '{}' STORED AS PARQUET OPTIONS (compression 'zstd(1)')",
            path.display()
        );
        sql(&ctx, &copy).await.unwrap();
    }
}

async fn register(ctx: &SessionContext, folder: &TempDir) {
    for name in ["wide", "listed"] {
        let path = folder.path().join(format!("{name}.parquet"));
        ctx.register_parquet(name, path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    }
    sql(ctx, "CREATE TABLE small AS SELECT v AS k, v % 3 AS g FROM generate_series(0, 159, 2) s(v)")
        .await
        .unwrap();
}

async fn plain(folder: &TempDir, limit: Option<usize>) -> SessionContext {
    let ctx = match limit {
        Some(bytes) => SessionContext::new_with_config_rt(config(), limited_runtime(bytes, folder.path())),
        None => SessionContext::new_with_config(config()),
    };
    register(&ctx, folder).await;
    ctx
}

async fn layered(folder: &TempDir, limit: Option<usize>) -> SessionContext {
    with_layer(plain(folder, limit).await).0
}

/// A hash for each row, in order; megabytes of text are no good message.
fn hashes(batches: &[RecordBatch]) -> Vec<u64> {
    let mut hashes = Vec::new();
    for batch in batches {
        let options = FormatOptions::default();
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let mut hasher = DefaultHasher::new();
            columns.iter().for_each(|column| column.value(row).to_string().hash(&mut hasher));
            hashes.push(hasher.finish());
        }
    }
    hashes
}

/// Rows, and the plan that gave them.
async fn run(
    ctx: &SessionContext,
    text: &str,
) -> datafusion::common::Result<(Vec<RecordBatch>, Arc<dyn ExecutionPlan>)> {
    let plan = ctx.sql(text).await?.create_physical_plan().await?;
    let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await?;
    Ok((batches, plan))
}

/// The values of metric `name` in all nodes whose line begins with `node`.
fn metric(plan: &Arc<dyn ExecutionPlan>, node: &str, name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    if displayable(plan.as_ref()).one_line().to_string().starts_with(node)
        && let Some(metrics) = plan.metrics()
    {
        let metrics = metrics.aggregate_by_name();
        found.extend(
            metrics
                .iter()
                .filter(|metric| metric.value().name() == name)
                .map(|metric| metric.value().as_usize()),
        );
    }
    found.extend(plan.children().into_iter().flat_map(|child| metric(child, node, name)));
    found
}

/// Bytes of a batch of the scan of the wide file, on average.
fn scanned(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let bytes: usize = metric(plan, "DataSourceExec: file_groups", "output_bytes").iter().sum();
    let batches: usize = metric(plan, "DataSourceExec: file_groups", "output_batches").iter().sum();
    bytes / batches.max(1)
}

#[tokio::test]
async fn megabyte_rows_are_sorted_aggregated_and_joined_in_64_mb() {
    let folder = TempDir::new().unwrap();
    wide_files(&folder).await;
    let free = plain(&folder, None).await;
    let tight = plain(&folder, Some(64 * MB)).await;
    let ctx = layered(&folder, Some(64 * MB)).await;

    let sort = "SELECT k, t FROM wide ORDER BY k DESC";
    let error = run(&tight, sort).await.unwrap_err().to_string();
    assert!(error.contains("Resources exhausted"), "the plain engine: {error}");
    for text in [
        sort,
        "SELECT k % 4 AS g, count(*), max(t) FROM wide WHERE k > 3 GROUP BY 1 ORDER BY 1",
        "SELECT g, wide.k, t FROM wide JOIN small ON wide.k = small.k ORDER BY wide.k LIMIT 7",
        "SELECT k, l FROM listed ORDER BY k",
    ] {
        let (expected, unlimited) = run(&free, text).await.unwrap();
        let (rows, plan) = run(&ctx, text).await.unwrap();
        assert_eq!(hashes(&rows), hashes(&expected), "{text}");
        let largest = rows.iter().map(RecordBatch::get_array_memory_size).max().unwrap();
        assert!(largest <= 8 * MB, "{text}: a batch of {largest} bytes");
        assert!(scanned(&unlimited) > 50 * MB, "{text}: {}", scanned(&unlimited));
        assert!(scanned(&plan) <= 4 * MB, "{text}: {}", scanned(&plan));
        let rows = metric(&plan, "DataSourceExec: file_groups", "batch_rows");
        assert!(rows.iter().all(|rows| (1..=4).contains(rows)) && !rows.is_empty(), "{text}: {rows:?}");
        // A join keeps its build side as long as its plan.
        drop(plan);
        assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
    }
    let text = picture(&sql(&ctx, &format!("EXPLAIN ANALYZE {sort}")).await.unwrap());
    let scan = text.lines().find(|line| line.contains("DataSourceExec")).unwrap();
    assert!(scan.contains("batch_rows=") && scan.contains("batch_size_shrunk="), "{scan}");
    assert!(text.contains("batch_size: applied: rows of up to 10"), "{text}");
}

#[tokio::test]
async fn without_a_limit_very_wide_rows_come_in_small_batches_too() {
    let folder = TempDir::new().unwrap();
    wide_files(&folder).await;
    let ctx = layered(&folder, None).await;
    let (_, plan) = run(&ctx, "SELECT max(length(t)) FROM wide WHERE t <> ''").await.unwrap();
    assert_eq!(metric(&plan, "DataSourceExec: file_groups", "batch_rows"), [8], "16 MB");
    assert_eq!(
        metric(&plan, "AggregateExec", "batch_rows"),
        [0; 0],
        "a narrow node above a wide one keeps its rows"
    );

    sql(&ctx, "SET slipstream.batch_size.target_bytes = 4194304").await.unwrap();
    let (_, plan) = run(&ctx, "SELECT k FROM wide WHERE t <> ''").await.unwrap();
    assert_eq!(metric(&plan, "DataSourceExec: file_groups", "batch_rows"), [2]);
    sql(&ctx, "SET slipstream.batch_size.min_rows = 50").await.unwrap();
    let (_, plan) = run(&ctx, "SELECT k FROM wide WHERE t <> ''").await.unwrap();
    assert_eq!(metric(&plan, "DataSourceExec: file_groups", "batch_rows"), [50]);
    sql(&ctx, "SET slipstream.batch_size.enabled = false").await.unwrap();
    let (_, plan) = run(&ctx, "SELECT k FROM wide WHERE t <> ''").await.unwrap();
    assert!(metric(&plan, "DataSourceExec: file_groups", "batch_rows").is_empty());
}

#[tokio::test]
async fn a_batch_size_follows_pressure_and_comes_back() {
    let folder = TempDir::new().unwrap();
    wide_files(&folder).await;
    let ctx = layered(&folder, Some(512 * MB)).await;
    let held = MemoryConsumer::new("held").register(&ctx.runtime_env().memory_pool);
    let mut rows = Vec::new();
    for reserved in [0, 300 * MB, 400 * MB, 0] {
        held.resize(reserved);
        let (_, plan) = run(&ctx, "SELECT count(*) FROM wide WHERE t <> ''").await.unwrap();
        rows.extend(metric(&plan, "DataSourceExec: file_groups", "batch_rows"));
    }
    assert_eq!(rows, [4, 2, 1, 4]);
}

#[tokio::test]
async fn a_batch_that_is_there_already_is_cut_before_it_is_sorted() {
    let texts = StringArray::from_iter_values(
        (0..100).map(|row| format!("{:03}{}", row * 7 % 100, "y".repeat(200_000))),
    );
    let batch = RecordBatch::try_from_iter([("t", Arc::new(texts) as _)]).unwrap();
    let folder = TempDir::new().unwrap();
    let config = || SessionConfig::new().with_target_partitions(1).with_sort_spill_reservation_bytes(2 << 20);
    let text = "SELECT t FROM big ORDER BY t";
    let free = SessionContext::new_with_config(config());
    let tight = SessionContext::new_with_config_rt(config(), limited_runtime(16 * MB, folder.path()));
    let (ctx, _) =
        with_layer(SessionContext::new_with_config_rt(config(), limited_runtime(16 * MB, folder.path())));
    for ctx in [&free, &tight, &ctx] {
        ctx.register_batch("big", batch.clone()).unwrap();
    }
    let error = run(&tight, text).await.unwrap_err().to_string();
    assert!(error.contains("Resources exhausted"), "the plain engine: {error}");
    let (expected, _) = run(&free, text).await.unwrap();
    let (rows, plan) = run(&ctx, text).await.unwrap();
    assert_eq!(hashes(&rows), hashes(&expected));
    assert!(metric(&plan, "SortExec", "spill_count")[0] > 0);
    let pieces: usize = metric(&plan, "DataSourceExec", "batch_pieces").iter().sum();
    assert!(pieces >= 40, "{pieces}");
}

#[tokio::test]
async fn ordinary_tables_keep_their_batches() {
    let folder = TempDir::new().unwrap();
    let write = plain_session();
    let path = folder.path().join("ordinary.parquet");
    let copy = format!(
        "COPY (SELECT v AS k, v % 10 AS g, concat('name of ', v) AS t FROM generate_series(1, 60000) s(v)) TO '{}' STORED AS PARQUET",
        path.display()
    );
    sql(&write, &copy).await.unwrap();
    let (layered, _) = with_layer(plain_session());
    let (limited, _) =
        with_layer(SessionContext::new_with_config_rt(config(), limited_runtime(256 * MB, folder.path())));
    let text = "SELECT g, t, k FROM o WHERE k % 3 > 0 ORDER BY t";
    let sizes = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
    let mut found = Vec::new();
    for ctx in [&write, &layered, &limited] {
        ctx.register_parquet("o", path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
        let (rows, plan) = run(ctx, text).await.unwrap();
        for name in ["batch_rows", "batches_cut"] {
            assert!(metric(&plan, "", name).is_empty(), "{name}");
        }
        found.push((sizes(&rows), hashes(&rows)));
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}

fn plain_session() -> SessionContext {
    SessionContext::new_with_config(config())
}
