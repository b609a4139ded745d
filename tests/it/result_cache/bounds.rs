//! Sizes, who goes first, and memory that is given back to those who need it.

use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::StreamExt;

use super::{ask, cached, counter, plain, warm};
use crate::support::{config, query, single, sorted_rows, sql};

async fn entries(ctx: &SessionContext) -> Vec<String> {
    sorted_rows(&query(ctx, "SELECT rows, hits FROM slipstream.cache").await.unwrap())
}

#[tokio::test]
async fn a_full_cache_takes_in_what_is_asked_now() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.max_entries = 3").await.unwrap();
    for number in 0..20 {
        warm(&ctx, &slipstream, &format!("SELECT a + {number} FROM t")).await;
        assert!(counter(&ctx, "entries").await <= 3.0);
    }
    assert_eq!(counter(&ctx, "evicted").await, 17.0);
    sql(&ctx, "SET slipstream.cache.max_bytes = 0").await.unwrap();
    let (outcome, _) = ask(&ctx, &slipstream, "SELECT a + 100 FROM t").await;
    assert_eq!(outcome, "not stored: the answer is larger than one may be");
}

#[tokio::test]
async fn bytes_are_bounded_and_an_answer_that_is_too_large_goes_by() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.max_bytes = 300000").await.unwrap();
    for number in 1..20 {
        let text =
            format!("SELECT value + {number} AS v, count(*) FROM (SELECT a AS value FROM big) GROUP BY 1");
        if number == 1 {
            sql(&ctx, "CREATE TABLE big AS SELECT i AS a FROM generate_series(1, 5000) AS s(i)")
                .await
                .unwrap();
        }
        warm(&ctx, &slipstream, &text).await;
        assert!(counter(&ctx, "bytes").await <= 300_000.0);
    }
    assert!(counter(&ctx, "evicted").await > 10.0);
    let large = "SELECT x.a, y.a AS b FROM big x JOIN big y ON x.a % 50 = y.a % 50";
    let (outcome, rows) = ask(&ctx, &slipstream, large).await;
    assert_eq!((outcome.as_str(), rows.len()), ("not stored: the answer is larger than one may be", 500_000));
    sql(&ctx, "SET slipstream.cache.max_entry_rows = 2").await.unwrap();
    let (outcome, _) = ask(&ctx, &slipstream, "SELECT a FROM t").await;
    assert_eq!(outcome, "not stored: the answer is larger than one may be");
}

#[tokio::test]
async fn a_small_answer_does_not_hold_a_large_table() {
    let (ctx, slipstream) = cached().await;
    sql(
        &ctx,
        "CREATE TABLE big AS SELECT i, repeat('x', 200) || i AS s FROM generate_series(1, 20000) AS s(i)",
    )
    .await
    .unwrap();
    warm(&ctx, &slipstream, "SELECT s FROM big WHERE i = 777").await;
    warm(&ctx, &slipstream, "SELECT s, i FROM big ORDER BY i DESC LIMIT 3").await;
    let bytes = single(&query(&ctx, "SELECT max(bytes) < 20000 FROM slipstream.cache").await.unwrap());
    assert_eq!(bytes, "true");
}

#[tokio::test]
async fn memory_is_given_back_within_one_request() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(config(), runtime);
    let slipstream = Slipstream::default().with_memory_limit(8 << 20);
    ctx.install_slipstream(slipstream.clone()).unwrap();
    for statement in [
        "SET slipstream.cache.enabled = true",
        "CREATE TABLE big AS SELECT i AS a FROM generate_series(1, 20000) AS s(i)",
    ] {
        sql(&ctx, statement).await.unwrap();
    }
    for number in 0..20 {
        ask(&ctx, &slipstream, &format!("SELECT a + {number} FROM big")).await;
    }
    let held = counter(&ctx, "bytes").await;
    assert!(held > 1e6 && held < (8 << 20) as f64, "{held}");
    // One request of nearly all that there is.
    let consumer = MemoryConsumer::new("hungry").register(&ctx.runtime_env().memory_pool);
    consumer.try_grow(7 << 20).unwrap();
    assert!(counter(&ctx, "bytes").await < 1.5e6, "{}", counter(&ctx, "bytes").await);
    drop(consumer);
    assert_eq!(plain(&ctx, "SELECT count(*) FROM big").await, ["20000"]);
    warm(&ctx, &slipstream, "SELECT max(a) FROM big").await;
}

#[tokio::test]
async fn an_answer_that_is_read_stays_until_it_is_read() {
    let (ctx, slipstream) = cached().await;
    let text = "SELECT a FROM t ORDER BY a";
    warm(&ctx, &slipstream, text).await;
    let mut stream = ctx.query(text).await.unwrap();
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(entries(&ctx).await, Vec::<String>::new());
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 3);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_answer_may_have_an_end() {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.ttl_ms = 1").await.unwrap();
    let text = "SELECT a FROM t";
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored");
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored");
    let reason = "SELECT reason FROM slipstream.cache_stats WHERE name = 'evicted'";
    assert_eq!(single(&query(&ctx, reason).await.unwrap()), "expired");
}
