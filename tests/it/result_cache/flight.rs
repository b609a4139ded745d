//! Identical queries at one time: one computes, and whatever happens to it, the others get their rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::StreamExt;

use super::{anew, ask, cached, outcome};
use crate::support::{query, sorted_rows, sql};

/// What the function `slowly` does, and how often it was called.
#[derive(Default)]
struct Slowly {
    calls: AtomicUsize,
    /// Calls that fail, from the first on.
    fail: AtomicI64,
    /// Calls that panic.
    panic: AtomicI64,
}

/// A session whose function `slowly(a)` takes 50 ms for each batch.
async fn slow() -> (SessionContext, Slipstream, Arc<Slowly>) {
    let (ctx, slipstream) = cached().await;
    let slowly = Arc::new(Slowly::default());
    let shared = Arc::clone(&slowly);
    let function = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        shared.calls.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        if shared.fail.fetch_sub(1, Ordering::Relaxed) > 0 {
            return exec_err!("slowly failed, as the test asked for");
        }
        assert!(shared.panic.fetch_sub(1, Ordering::Relaxed) <= 0, "slowly panicked, as the test asked for");
        Ok(arguments[0].clone())
    };
    let function = create_udf(
        "slowly",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(function),
    );
    ctx.register_udf(function);
    (ctx, slipstream, slowly)
}

const TEXT: &str = "SELECT slowly(a) AS a FROM t ORDER BY 1";

fn spawn(ctx: &SessionContext) -> SpawnedTask<Result<Vec<String>>> {
    let ctx = ctx.clone();
    SpawnedTask::spawn(async move { query(&ctx, TEXT).await.map(|rows| sorted_rows(&rows)) })
}

async fn join(task: SpawnedTask<Result<Vec<String>>>) -> std::result::Result<Vec<String>, String> {
    match tokio::time::timeout(Duration::from_secs(30), task.join()).await.unwrap() {
        Ok(rows) => rows.map_err(|error| error.to_string()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identical_queries_compute_once() {
    let (ctx, slipstream, slowly) = slow().await;
    let tasks: Vec<_> = (0..8).map(|_| spawn(&ctx)).collect();
    for task in tasks {
        assert_eq!(join(task).await.unwrap(), ["1", "2", "3"]);
    }
    assert_eq!(slowly.calls.load(Ordering::Relaxed), 1);
    let outcomes: Vec<_> =
        slipstream.query_log().queries().iter().filter_map(|record| record.cache.clone()).collect();
    let count = |what: &str| outcomes.iter().filter(|outcome| *outcome == what).count();
    assert_eq!(count("stored"), 1, "{outcomes:?}");
    assert_eq!(count("waited") + count("hit"), 7, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_fails_fails_alone() {
    let (ctx, _, slowly) = slow().await;
    slowly.fail.store(1, Ordering::Relaxed);
    let tasks: Vec<_> = (0..6).map(|_| spawn(&ctx)).collect();
    let mut failed = 0;
    for task in tasks {
        match join(task).await {
            Ok(rows) => assert_eq!(rows, ["1", "2", "3"]),
            Err(error) => {
                assert!(error.contains("as the test asked for"), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    assert_eq!(slowly.calls.load(Ordering::Relaxed), 2, "one failed, one took over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_panics_panics_alone() {
    let (ctx, _, slowly) = slow().await;
    slowly.panic.store(1, Ordering::Relaxed);
    let tasks: Vec<_> = (0..6).map(|_| spawn(&ctx)).collect();
    let mut ended = 0;
    for task in tasks {
        ended += usize::from(join(task).await.is_err());
    }
    assert_eq!(ended, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_is_cancelled_hands_over() {
    let (ctx, _, slowly) = slow().await;
    let leader = spawn(&ctx);
    while slowly.calls.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let follower = spawn(&ctx);
    drop(leader);
    assert_eq!(join(follower).await.unwrap(), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_leader_that_nobody_asks_any_more_is_left_alone() {
    let (ctx, slipstream, slowly) = slow().await;
    sql(&ctx, "SET datafusion.execution.batch_size = 1").await.unwrap();
    let mut leader = ctx.query(TEXT).await.unwrap();
    let first = leader.next().await.unwrap().unwrap();
    assert!(first.num_rows() < 3, "the leader has more to give");
    // On the same task: the leader cannot go on while this one waits.
    let rows = tokio::time::timeout(Duration::from_secs(30), query(&ctx, TEXT)).await.unwrap();
    assert_eq!(sorted_rows(&rows.unwrap()), ["1", "2", "3"]);
    assert_eq!(outcome(&slipstream), "stored");
    assert!(slowly.calls.load(Ordering::Relaxed) > 1);
    let rest: usize = leader.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>().await.iter().sum();
    assert_eq!(first.num_rows() + rest, 3);
}

#[tokio::test]
async fn nothing_is_kept_of_a_query_that_is_read_in_part() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET datafusion.execution.batch_size = 1").await.unwrap();
    let text = "SELECT a FROM t ORDER BY a";
    let mut stream = ctx.query(text).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1);
    drop(stream);
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored", "it was not kept before");
}

/// A result that was computed from the old data is not kept after the change, whenever the change came.
#[tokio::test]
async fn a_change_while_a_query_runs_keeps_its_answer_out() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a FROM t ORDER BY a";
    // Planned before, read after.
    let stream = ctx.query(text).await.unwrap();
    sql(&ctx, "INSERT INTO t VALUES (4, 40)").await.unwrap();
    let rows: usize = stream.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>().await.iter().sum();
    assert_eq!(rows, 3, "what it saw when it was planned");
    assert_eq!(outcome(&slipstream), "-", "the INSERT is the last one");
    anew(&ctx, &slipstream, text).await;
    // Read in part before, the rest after.
    sql(&ctx, "SET datafusion.execution.batch_size = 1").await.unwrap();
    let text = "SELECT b FROM t ORDER BY b";
    let mut stream = ctx.query(text).await.unwrap();
    stream.next().await.unwrap().unwrap();
    sql(&ctx, "DELETE FROM t WHERE a = 4").await.unwrap();
    while let Some(batch) = stream.next().await {
        batch.unwrap();
    }
    anew(&ctx, &slipstream, text).await;
}

/// Two queries of one text that were planned before and after a change do not share an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_of_newer_data_computes_for_itself() {
    let (ctx, _, slowly) = slow().await;
    let leader = spawn(&ctx);
    while slowly.calls.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sql(&ctx, "INSERT INTO t VALUES (4, 40)").await.unwrap();
    let follower = spawn(&ctx);
    assert_eq!(join(leader).await.unwrap(), ["1", "2", "3"]);
    assert_eq!(join(follower).await.unwrap(), ["1", "2", "3", "4"]);
}
