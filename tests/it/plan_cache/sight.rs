//! EXPLAIN, system tables, modes and hints, bounds, memory.

use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};

use super::{FIRST, again, ask, planned, warm};
use crate::support::{config, picture, query, single, sorted_rows, sql};

/// The plans that are kept: tables and hits.
pub(super) async fn plans(ctx: &SessionContext) -> Vec<String> {
    let text = "SELECT tables, hits, state FROM slipstream.cache WHERE tier = 'plan'";
    sorted_rows(&query(ctx, text).await.unwrap())
}

/// A counter of this tier.
async fn counter(ctx: &SessionContext, name: &str) -> f64 {
    let text = format!(
        "SELECT coalesce(sum(value), 0) FROM slipstream.cache_stats WHERE name = '{name}' AND tier = 'plan'"
    );
    single(&query(ctx, &text).await.unwrap()).parse().unwrap()
}

#[tokio::test]
async fn it_is_off_unless_it_is_asked_for() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "SET slipstream.cache.plans = DEFAULT").await.unwrap();
    for _ in 0..4 {
        assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM t").await.0, "-");
    }
    assert_eq!(plans(&ctx).await, Vec::<String>::new());
}

#[tokio::test]
async fn explain_and_the_tables_say_what_happened() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT a FROM t WHERE a > 1";
    let explain = async || picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
    assert!(explain().await.contains("plan_cache: refused: no plan of it is kept yet"));
    warm(&ctx, &slipstream, text).await;
    let said = explain().await;
    assert!(
        said.contains("plan_cache: applied: the plan ") && said.contains("is used again (of t)"),
        "{said}"
    );
    assert_eq!(plans(&ctx).await, ["[t] | 2 | kept"]);
    let row = "SELECT cached_plan, parse_ms IS NULL AS unparsed, rules_applied[1] FROM slipstream.queries \
               WHERE cached_plan = 'hit' ORDER BY id DESC LIMIT 1";
    let row = single(&query(&ctx, row).await.unwrap());
    assert!(row.starts_with("hit | true | plan_cache: the plan "), "{row}");
    assert_eq!(counter(&ctx, "hits").await, 2.0);
    assert_eq!((counter(&ctx, "entries").await, counter(&ctx, "stored").await), (1.0, 1.0));
    assert!(counter(&ctx, "bytes").await > 1000.0 && counter(&ctx, "seconds_saved").await > 0.0);
    sql(&ctx, "DROP TABLE t").await.unwrap();
    assert_eq!(plans(&ctx).await, ["[t] | 2 | unreachable"]);
}

#[tokio::test]
async fn plans_are_dropped_as_answers_are() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "SET slipstream.cache.tag = 'team'").await.unwrap();
    let drops =
        async |call: &str| single(&query(&ctx, &format!("SELECT slipstream_cache_{call}")).await.unwrap());
    let fill = async || {
        for text in ["SELECT a FROM t", "SELECT a FROM u", "SELECT t.a FROM public.t JOIN u ON t.a = u.a"] {
            query(&ctx, text).await.unwrap();
            query(&ctx, text).await.unwrap();
            again(&ctx, &slipstream, text).await;
        }
    };
    fill().await;
    assert_eq!(drops("drop_table('t')").await, "2");
    assert_eq!(drops("drop_tag('others')").await, "0");
    fill().await;
    assert_eq!(drops("drop_tag('team')").await, "3");
    fill().await;
    let key = "SELECT key FROM slipstream.cache WHERE tables = make_array('u')";
    let key = single(&query(&ctx, key).await.unwrap());
    assert_eq!(drops(&format!("drop_entry('{key}')")).await, "1");
    assert_eq!(drops("clear()").await, "2");
    assert_eq!(plans(&ctx).await, Vec::<String>::new());
}

#[tokio::test]
async fn modes_hold_for_plans_too() {
    let (ctx, slipstream) = planned().await;
    let text = "SELECT a FROM t";
    let mode = async |mode: &str| sql(&ctx, &format!("SET slipstream.cache.mode = {mode}")).await.unwrap();
    mode("read_only").await;
    for _ in 0..4 {
        assert!(ask(&ctx, &slipstream, text).await.0.contains("leaves nothing"));
    }
    mode("use").await;
    warm(&ctx, &slipstream, text).await;
    mode("read_only").await;
    again(&ctx, &slipstream, text).await;
    mode("refresh").await;
    for _ in 0..2 {
        assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored");
    }
    mode("off").await;
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "-");
    mode("use").await;
    again(&ctx, &slipstream, text).await;
    for hint in ["CACHE(off)", "CACHE(refresh)", "PLAIN"] {
        let text = format!("SELECT /*+ {hint} */ a FROM t");
        for _ in 0..4 {
            assert_ne!(ask(&ctx, &slipstream, &text).await.0, "hit", "{hint}");
        }
    }
}

#[tokio::test]
async fn both_tiers_work_together() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "SET slipstream.cache.enabled = true").await.unwrap();
    let text = "SELECT a, sum(b) FROM t GROUP BY a";
    warm(&ctx, &slipstream, text).await;
    let last = || slipstream.query_log().queries().pop().unwrap();
    ask(&ctx, &slipstream, text).await;
    assert_eq!((last().cache.as_deref(), last().cached_plan.as_deref()), (Some("hit"), Some("hit")));
    sql(&ctx, "INSERT INTO t VALUES (9, 90)").await.unwrap();
    again(&ctx, &slipstream, text).await;
    ask(&ctx, &slipstream, text).await;
    assert_eq!(last().cache.as_deref(), Some("hit"));
}

#[tokio::test]
async fn number_and_bytes_are_bounded() {
    let (ctx, slipstream) = planned().await;
    sql(&ctx, "SET slipstream.cache.max_entries = 3").await.unwrap();
    for number in 0..20 {
        warm(&ctx, &slipstream, &format!("SELECT a + {number} AS a FROM t")).await;
        assert!(counter(&ctx, "entries").await <= 3.0);
    }
    assert_eq!(counter(&ctx, "evicted").await, 17.0);
    again(&ctx, &slipstream, "SELECT a + 19 AS a FROM t").await;
    assert_eq!(ask(&ctx, &slipstream, "SELECT a + 2 AS a FROM t").await.0, "stored", "it was dropped");
    sql(&ctx, "SET slipstream.cache.max_entries = 1000").await.unwrap();
    sql(&ctx, "SET slipstream.cache.max_bytes = 100000").await.unwrap();
    for number in 100..130 {
        warm(&ctx, &slipstream, &format!("SELECT a + {number} AS a FROM t")).await;
        assert!(counter(&ctx, "bytes").await <= 25_000.0);
    }
    assert!(counter(&ctx, "entries").await > 1.0);
    sql(&ctx, "SET slipstream.cache.max_bytes = 1000").await.unwrap();
    query(&ctx, "SELECT a + 200 AS a FROM t").await.unwrap();
    let (outcome, _) = ask(&ctx, &slipstream, "SELECT a + 200 AS a FROM t").await;
    assert_eq!(outcome, "not stored: the plan is larger than one may be");
}

/// Plans and answers together keep to the one bound.
#[tokio::test]
async fn all_tiers_share_one_bound() {
    let (ctx, _) = planned().await;
    sql(&ctx, "SET slipstream.cache.enabled = true").await.unwrap();
    sql(&ctx, "SET slipstream.cache.max_bytes = 100000").await.unwrap();
    sql(&ctx, "CREATE TABLE big AS SELECT i AS a FROM generate_series(1, 1000) AS s(i)").await.unwrap();
    for number in 0..40 {
        for _ in 0..2 {
            query(&ctx, &format!("SELECT a + {number} AS a FROM big")).await.unwrap();
        }
        let text = "SELECT sum(value) FROM slipstream.cache_stats WHERE name = 'bytes'";
        let bytes: f64 = single(&query(&ctx, text).await.unwrap()).parse().unwrap();
        assert!(bytes <= 100_000.0, "{bytes}");
    }
    let text = "SELECT tier, count(*) > 2 FROM slipstream.cache GROUP BY tier";
    assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()), ["plan | true", "result | true"]);
}

#[tokio::test]
async fn memory_is_reserved_and_given_back_to_those_who_need_it() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool)).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(config(), runtime);
    let slipstream = Slipstream::default().with_memory_limit(1 << 20);
    ctx.install_slipstream(slipstream.clone()).unwrap();
    sql(&ctx, "SET slipstream.cache.plans = true").await.unwrap();
    sql(&ctx, "CREATE TABLE t (a BIGINT) AS VALUES (1)").await.unwrap();
    for number in 0..20 {
        warm(&ctx, &slipstream, &format!("SELECT a + {number} AS a FROM t")).await;
    }
    let held = pool.reserved();
    let bytes = counter(&ctx, "bytes").await;
    assert!(held as f64 >= bytes && bytes > 20_000.0, "{held} {bytes}");
    let runtime_pool = Arc::clone(&ctx.runtime_env().memory_pool);
    let needs = MemoryConsumer::new("somebody").register(&runtime_pool);
    needs.try_grow((1 << 20) - 4096).unwrap();
    assert!(counter(&ctx, "evicted").await >= 15.0);
    drop(needs);
    let (outcome, _) = ask(&ctx, &slipstream, "SELECT a + 1000 AS a FROM t").await;
    assert_eq!(outcome, FIRST);
}
