//! The memory pool with three levels: limits while queries run, refusals, admission, spill files, and back to zero.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryLimit};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{QueryRecord, QueryStatus, QueryStream, Slipstream, SlipstreamContextExt};
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::{config, layered, picture, query, single, sorted_rows, sql, with_layer};

/// A session that shares `slipstream`.
fn session(slipstream: &Slipstream) -> SessionContext {
    // Small batches, as a small limit asks for: a sort holds several of them at least.
    let ctx = SessionContext::new_with_config(config().with_batch_size(1024));
    ctx.install_slipstream(slipstream.clone()).unwrap();
    ctx
}

fn limited(bytes: usize) -> (SessionContext, Slipstream) {
    let slipstream = Slipstream::default().with_memory_limit(bytes);
    (session(&slipstream), slipstream)
}

/// Sorts `rows` rows of some 60 bytes.
fn sorting(rows: usize) -> String {
    format!(
        "SELECT repeat('x', 50) || (i * 7919 % {rows}) AS s FROM generate_series(1, {rows}) AS t(i) ORDER BY s"
    )
}

/// Keeps all rows in memory, and cannot spill.
fn keeping(rows: usize) -> String {
    format!("SELECT array_length(array_agg(value)) FROM range(0, {rows})")
}

fn exhausted(result: Result<Vec<RecordBatch>>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    error.strip_backtrace()
}

fn last(slipstream: &Slipstream) -> Arc<QueryRecord> {
    slipstream.query_log().queries().pop().unwrap()
}

async fn first_batch(ctx: &SessionContext, sql: &str) -> QueryStream {
    let mut stream = ctx.query(sql).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream
}

fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

async fn until(what: &str, condition: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_limit_holds_for_everyone_and_says_so() {
    let (ctx, slipstream) = limited(2 << 20);
    assert!(
        matches!(ctx.runtime_env().memory_pool.memory_limit(), MemoryLimit::Finite(bytes) if bytes == 2 << 20)
    );
    let error = exhausted(query(&ctx, &keeping(1_000_000)).await);
    for part in [
        "Failed to allocate additional",
        "of query 1: of the process limit of 2.0 MB",
        "SET slipstream.memory.limit, or --memory-limit",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(last(&slipstream).refused_grows > 0);
    // Without a record, and with the layer switched off.
    query(&ctx, "SET slipstream.query_log.enabled = false").await.unwrap();
    assert!(exhausted(query(&ctx, &keeping(1_000_000)).await).contains("of a query without a record"));
    query(&ctx, "SET slipstream.enabled = false").await.unwrap();
    assert!(exhausted(query(&ctx, &keeping(1_000_000)).await).contains("of others than queries"));
    assert_eq!(single(&query(&ctx, &keeping(1000)).await.unwrap()), "1000");
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn a_refusal_names_who_holds_the_memory() {
    let (ctx, _) = limited(32 << 20);
    let holder = first_batch(&ctx, &sorting(100_000)).await;
    let error = exhausted(sql(&ctx, &keeping(10_000_000)).await);
    assert!(error.contains("Most is held by "), "{error}");
    assert!(error.contains("] (can spill) of query 1: ") || error.contains("] of query 1: "), "{error}");
    drop(holder);
}

#[tokio::test]
async fn set_changes_the_limit_of_running_queries_and_of_all_sessions() {
    let slipstream = Slipstream::default();
    let (one, other) = (session(&slipstream), session(&slipstream));
    let mut running = first_batch(&one, &sorting(200_000)).await;
    let held = one.runtime_env().memory_pool.reserved();
    assert!(held > 1 << 20, "{held}");
    other.sql("SET slipstream.memory.limit = '1MB'").await.unwrap();
    assert_eq!(
        single(&query(&one, "SHOW slipstream.memory.limit").await.unwrap()),
        "slipstream.memory.limit | 1048576"
    );
    assert!(exhausted(query(&one, &keeping(1000)).await).contains("0.0 B are free"), "nobody gets more");
    // What runs keeps what it has, and ends, one way or the other.
    let end = loop {
        match running.next().await {
            Some(Ok(_)) => {}
            end => break end.transpose().map(|_| vec![]),
        }
    };
    if end.is_err() {
        exhausted(end);
    }
    assert_eq!(single(&query(&one, &keeping(1000)).await.unwrap()), "1000", "now it fits");
    query(&one, "RESET slipstream.memory.limit").await.unwrap();
    assert_eq!(single(&query(&other, &keeping(1_000_000)).await.unwrap()), "1000000");
}

#[tokio::test]
async fn a_querys_limit_is_its_own() {
    let (ctx, slipstream) = layered();
    query(&ctx, "SET slipstream.memory.query_limit = '1MB'").await.unwrap();
    let error = exhausted(query(&ctx, &keeping(1_000_000)).await);
    assert!(
        error.contains("of the query limit of 1024.0 KB") || error.contains("of the query limit of 1.0 MB"),
        "{error}"
    );
    assert!(error.contains("SET slipstream.memory.query_limit"), "{error}");
    let hinted =
        keeping(1_000_000).replacen("SELECT", "SELECT /*+ SET(slipstream.memory.query_limit = 0) */", 1);
    assert_eq!(single(&query(&ctx, &hinted).await.unwrap()), "1000000");
    let process = "SELECT /*+ SET(slipstream.memory.limit = 1) */ 5";
    assert_eq!(single(&query(&ctx, process).await.unwrap()), "5");
    let rules = &last(&slipstream).rules;
    assert!(
        rules.iter().any(|rule| rule.to_string().contains("belongs to all queries of the process")),
        "{rules:?}"
    );
    assert_eq!(
        single(&query(&ctx, "SHOW slipstream.memory.limit").await.unwrap()),
        "slipstream.memory.limit | 0"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_side_by_side_finish_under_one_limit() {
    let (ctx, slipstream) = limited(32 << 20);
    let queries = (0..3).map(|_| {
        let ctx = ctx.clone();
        async move {
            query(&ctx, &sorting(300_000)).await.map(|rows| rows.iter().map(RecordBatch::num_rows).sum())
        }
    });
    let all = timeout(Duration::from_secs(120), futures::future::join_all(queries)).await.unwrap();
    for rows in all {
        assert_eq!(rows.map_err(|error: DataFusionError| error.strip_backtrace()), Ok(300_000_usize));
    }
    let records = slipstream.query_log().queries();
    assert!(records.iter().any(|record| record.spilled_bytes > 0 && record.refused_grows > 0), "{records:?}");
    assert!(records.iter().all(|record| record.peak_memory_bytes <= 32 << 20), "{records:?}");
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
}

#[tokio::test]
async fn the_sessions_own_pool_keeps_its_limit() {
    let pool = Arc::new(FairSpillPool::new(4 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
    let small = config().with_batch_size(1024);
    let (ctx, slipstream) = with_layer(SessionContext::new_with_config_rt(small, runtime));
    let error = exhausted(query(&ctx, &keeping(1_000_000)).await);
    assert!(error.contains("limit of the session's memory pool of 4.0 MB"), "{error}");
    assert!(error.contains("SET datafusion.runtime.memory_limit"), "{error}");
    // Ten megabytes that a sort sets aside by default would not be there.
    let rows: usize = query(&ctx, &sorting(120_000)).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!((rows, last(&slipstream).error.clone()), (120_000, None));
}

/// A hash join whose table all partitions share, so that the plan's node keeps it.
const JOIN: &str = "SELECT a.i, b.i FROM t AS a JOIN t AS b ON a.i = b.i";

#[tokio::test]
async fn a_stream_that_has_ended_holds_nothing() {
    let (ctx, _) = layered();
    query(&ctx, "CREATE TABLE t AS SELECT i FROM generate_series(1, 50000) AS s(i)").await.unwrap();
    let mut stream = ctx.query(JOIN).await.unwrap();
    let before = displayable(stream.physical_plan().as_ref()).indent(true).to_string();
    assert!(before.contains("HashJoinExec: mode=CollectLeft"), "{before}");
    let mut held = 0;
    while let Some(batch) = stream.next().await {
        batch.unwrap();
        held = held.max(ctx.runtime_env().memory_pool.reserved());
    }
    assert!(held > 0, "the join's table is counted");
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0, "while the stream is still there");
    assert!(stream.next().await.is_none());
    let plan = stream.physical_plan();
    assert_eq!(displayable(plan.as_ref()).indent(true).to_string(), before, "what is left looks the same");
    assert_eq!(plan.metrics().unwrap().output_rows(), Some(50_000));
    assert!(plan.execute(0, ctx.task_ctx()).is_err());

    let mut failing = ctx.query(&format!("SELECT 1 / (x - 49999) FROM ({JOIN}) AS j(x, y)")).await.unwrap();
    let error = loop {
        match failing.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(error, Some(Err(_))), "{error:?}");
    until("memory is free after an error", || ctx.runtime_env().memory_pool.reserved() == 0).await;
}

#[tokio::test]
async fn the_memory_table_shows_every_level() {
    let (ctx, _) = limited(64 << 20);
    query(&ctx, "SET slipstream.memory.query_limit = '40MB'").await.unwrap();
    let holder = first_batch(&ctx, &sorting(100_000)).await;
    let shown = query(
        &ctx,
        "SELECT level, query_id, name, spillable, reserved_bytes > 0, peak_bytes >= reserved_bytes, limit_bytes \
         FROM slipstream.memory WHERE level <> 'operator' OR name LIKE 'ExternalSorter[%'",
    );
    let rows = sorted_rows(&shown.await.unwrap());
    assert!(
        rows.iter().any(|row| row == "process |  | all queries and caches |  | true | true | 67108864"),
        "{rows:?}"
    );
    assert!(rows.iter().any(|row| row == "query | 2 | query 2 |  | true | true | 41943040"), "{rows:?}");
    assert!(rows.iter().any(|row| row.starts_with("operator | 2 | ExternalSorter[0] | true | ")), "{rows:?}");
    drop(holder);
    until("the memory is free", || ctx.runtime_env().memory_pool.reserved() == 0).await;
    let shown = "SELECT level, reserved_bytes FROM slipstream.memory WHERE reserved_bytes > 0";
    assert_eq!(sorted_rows(&query(&ctx, shown).await.unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn the_query_table_shows_the_steps_of_pressure() {
    let (ctx, _) = limited(4 << 20);
    query(&ctx, &sorting(60_000)).await.unwrap();
    let shown = "SELECT refused_grows > 0, reclaimed_bytes, queued_ms, spilled_bytes > 0 FROM slipstream.queries WHERE id = 1";
    assert_eq!(single(&query(&ctx, shown).await.unwrap()), "true | 0 | 0.0 | true");
}

#[tokio::test]
async fn queries_wait_for_their_turn() {
    let (ctx, slipstream) = layered();
    for setting in ["max_queries = 1", "max_queued = 1"] {
        query(&ctx, &format!("SET slipstream.admission.{setting}")).await.unwrap();
    }
    let running = first_batch(&ctx, &sorting(50_000)).await;
    // An open stream that nobody has polled takes no turn, and does no work.
    let mut waiting = ctx.query("SELECT 42").await.unwrap();
    assert!(futures::poll!(waiting.next()).is_pending());
    assert_eq!(last(&slipstream).status, QueryStatus::Queued);
    let error = exhausted(query(&ctx, "SELECT 43").await);
    assert!(error.contains("SET slipstream.admission.max_queued"), "{error}");
    assert_eq!(last(&slipstream).status, QueryStatus::Failed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(running);
    let rows = timeout(Duration::from_secs(30), waiting.try_collect::<Vec<_>>()).await.unwrap().unwrap();
    assert_eq!(single(&rows), "42");
    let records = slipstream.query_log().queries();
    let waited = records.iter().find(|record| record.text == "SELECT 42").unwrap();
    assert!(
        waited.queued >= Duration::from_millis(20) && waited.execute.unwrap() >= waited.queued,
        "{waited:?}"
    );
    assert_eq!(waited.status, QueryStatus::Finished);
    // Statements that run no query wait for nobody; one that is planned inside another does not wait for itself.
    query(&ctx, "CREATE TABLE t AS SELECT 1 AS x").await.unwrap();
    let explained = query(&ctx, "EXPLAIN ANALYZE SELECT x FROM t ORDER BY x").await.unwrap();
    assert!(picture(&explained).contains("DataSourceExec"));
}

#[tokio::test]
async fn a_query_that_waits_can_time_out_and_be_cancelled() {
    let (ctx, slipstream) = layered();
    query(&ctx, "SET slipstream.admission.max_queries = 1").await.unwrap();
    let running = first_batch(&ctx, &sorting(50_000)).await;
    // SET runs no query and needs no turn.
    query(&ctx, "SET slipstream.admission.timeout_ms = 50").await.unwrap();
    let error = exhausted(timeout(Duration::from_secs(90), query(&ctx, "SELECT 1")).await.unwrap());
    assert!(error.contains("waited 50 ms for its turn (SET slipstream.admission.timeout_ms)"), "{error}");

    ctx.sql("SET slipstream.admission.timeout_ms = 0").await.unwrap();
    let mut cancelled = ctx.query("SELECT 2").await.unwrap();
    let mut next = ctx.query("SELECT 3").await.unwrap();
    assert!(futures::poll!(cancelled.next()).is_pending() && futures::poll!(next.next()).is_pending());
    drop(cancelled);
    assert_eq!(last(&slipstream).text, "SELECT 3");
    let records = slipstream.query_log().queries();
    let status = records.iter().find(|record| record.text == "SELECT 2").map(|record| record.status);
    assert_eq!(status, Some(QueryStatus::Cancelled));
    drop(running);
    assert_eq!(next.try_collect::<Vec<_>>().await.unwrap().len(), 1);
    // Nobody is left in the queue, or counted as running.
    assert_eq!(single(&query(&ctx, "SELECT 4").await.unwrap()), "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_a_query_have_one_turn() {
    let (ctx, _) = layered();
    query(&ctx, "SET slipstream.admission.max_queries = 1").await.unwrap();
    ctx.sql("CREATE TABLE t AS SELECT i % 7 AS k FROM generate_series(1, 10000) AS s(i)").await.unwrap();
    let frame = ctx.sql("SELECT k, count(*) FROM t GROUP BY k").await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let streams = datafusion::physical_plan::execute_stream_partitioned(plan, ctx.task_ctx()).unwrap();
    assert_eq!(streams.len(), 2);
    let all = futures::future::try_join_all(streams.into_iter().map(TryStreamExt::try_collect::<Vec<_>>));
    let rows: usize = timeout(Duration::from_secs(30), all)
        .await
        .unwrap()
        .unwrap()
        .concat()
        .iter()
        .map(RecordBatch::num_rows)
        .sum();
    assert_eq!(rows, 7);
    assert_eq!(single(&query(&ctx, "SELECT 4").await.unwrap()), "4");
}

#[tokio::test]
async fn spill_files_keep_to_their_limit_and_directory() {
    let place = TempDir::new().unwrap();
    let (ctx, _) = limited(4 << 20);
    query(&ctx, &format!("SET slipstream.disk.directory = '{}'", place.path().display())).await.unwrap();
    query(&ctx, "SET slipstream.disk.query_limit = '100MB'").await.unwrap();
    let running = first_batch(&ctx, &sorting(100_000)).await;
    assert!(files(place.path()) > 0, "it spilled there");
    drop(running);
    until("files are gone", || files(place.path()) == 0).await;
    until("folders are gone", || std::fs::read_dir(place.path()).unwrap().count() == 0).await;

    query(&ctx, "SET slipstream.disk.query_limit = '300kB'").await.unwrap();
    let error = query(&ctx, &sorting(100_000)).await.unwrap_err().strip_backtrace();
    assert!(
        error.contains("spill files of one query may take 300.0 KB (SET slipstream.disk.query_limit)"),
        "{error}"
    );
    query(&ctx, "RESET slipstream.disk.query_limit").await.unwrap();
    query(&ctx, "SET slipstream.disk.limit = '200kB'").await.unwrap();
    let error = query(&ctx, &sorting(100_000)).await.unwrap_err().strip_backtrace();
    assert!(
        error.contains("spill files of all queries may take 200.0 KB (SET slipstream.disk.limit)"),
        "{error}"
    );
    query(&ctx, "RESET slipstream.disk.limit").await.unwrap();
    query(&ctx, "SET slipstream.disk.directory = '/dev/null/nowhere'").await.unwrap();
    let error = query(&ctx, &sorting(100_000)).await.unwrap_err().strip_backtrace();
    assert!(error.contains("slipstream.disk.directory '/dev/null/nowhere'"), "{error}");
    until("all is free", || files(place.path()) == 0 && ctx.runtime_env().memory_pool.reserved() == 0).await;
}

#[tokio::test]
async fn without_settings_for_disks_the_runtimes_own_manager_stays() {
    let place = TempDir::new().unwrap();
    let builder = RuntimeEnvBuilder::new().with_temp_file_path(place.path());
    let small = || config().with_batch_size(1024);
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(small(), builder.build_arc().unwrap()));
    query(&ctx, "SET slipstream.memory.limit = '4MB'").await.unwrap();
    let running = first_batch(&ctx, &sorting(100_000)).await;
    assert!(files(place.path()) > 0 && ctx.runtime_env().disk_manager.used_disk_space() > 0);
    drop(running);
    // Who switched spilling off does not get it back by a limit.
    let mode = DiskManagerMode::Disabled;
    let builder =
        RuntimeEnvBuilder::new().with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode));
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(small(), builder.build_arc().unwrap()));
    query(&ctx, "SET slipstream.memory.limit = '4MB'").await.unwrap();
    query(&ctx, &format!("SET slipstream.disk.directory = '{}'", place.path().display())).await.unwrap();
    exhausted(query(&ctx, &sorting(100_000)).await);
}
