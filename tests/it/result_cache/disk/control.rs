//! Modes, functions, system tables and EXPLAIN, where answers are files.

use super::{Ground, ask, counter, from_disk, from_memory, on_disk, query, sql, stored};
use crate::support::{picture, single, sorted_rows};

const TEXT: &str = "SELECT a FROM f ORDER BY a";

#[tokio::test]
async fn modes_mean_the_same_on_disk() {
    let ground = Ground::new();
    let asked = async |mode: &str| {
        let (ctx, slipstream) = ground.session().await;
        sql(&ctx, &format!("SET slipstream.cache.mode = {mode}")).await.unwrap();
        let first = ask(&ctx, &slipstream, TEXT).await;
        assert_eq!(first.1, ["1", "2"], "{mode}");
        (first.0, ask(&ctx, &slipstream, TEXT).await.0)
    };
    let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    assert_eq!(asked("read_only").await, pair("miss", "miss"));
    assert_eq!(ground.files(".answer").len(), 0, "it leaves none");
    assert_eq!(asked("refresh").await, pair("stored", "stored"));
    let file = ground.files(".answer").remove(0);
    let written = std::fs::read(&file).unwrap();
    // One that leaves no answers leaves none in memory either.
    assert_eq!(asked("read_only").await, pair("hit on disk", "hit on disk"));
    assert_eq!(asked("only_if_cached").await, pair("hit on disk", "hit on disk"));
    assert_eq!(asked("off").await, pair("-", "-"));
    assert_eq!(asked("use").await, pair("hit on disk", "hit"));
    assert_eq!(std::fs::read(&file).unwrap(), written, "those who read it leave it as it is");
    assert_eq!(asked("refresh").await, pair("stored", "stored"));
    assert_ne!(std::fs::read(&file).unwrap(), written, "it is replaced");

    let (ctx, slipstream) = ground.session().await;
    sql(&ctx, "SET slipstream.cache.mode = only_if_cached").await.unwrap();
    let error = query(&ctx, "SELECT a + 1 FROM f").await.unwrap_err().to_string();
    assert!(error.contains("there is no answer to it"), "{error}");
    assert_eq!(ask(&ctx, &slipstream, &format!("/*+ CACHE(refresh) */ {TEXT}")).await.0, "stored");
}

#[tokio::test]
async fn explain_the_log_and_the_tables_say_where_an_answer_is() {
    let ground = Ground::new();
    assert_eq!(ground.asked(TEXT).await, stored(&["1", "2"]));
    let (ctx, slipstream) = ground.session().await;
    let entries = "SELECT tier, tables, rows, hits, state, location FROM slipstream.cache ORDER BY location";
    let entries = async || sorted_rows(&query(&ctx, entries).await.unwrap());
    assert_eq!(entries().await, ["result | [f] | 2 | 0 | kept | disk"], "before anybody asked");
    let explained = picture(&query(&ctx, &format!("EXPLAIN {TEXT}")).await.unwrap());
    assert!(explained.contains("result_cache: applied: answered from disk by "), "{explained}");
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, from_disk(&["1", "2"]));
    assert_eq!(
        entries().await,
        ["result | [f] | 2 | 0 | kept | memory", "result | [f] | 2 | 1 | kept | disk"]
    );
    let explained = picture(&query(&ctx, &format!("EXPLAIN {TEXT}")).await.unwrap());
    assert!(explained.contains("(2 rows, made from f)"), "in memory now: {explained}");
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, from_memory(&["1", "2"]));
    for (name, value) in [("hits", 1.0), ("stored", 0.0), ("entries", 1.0)] {
        assert_eq!(on_disk(&ctx, name, "").await, value, "{name}");
    }
    assert!(on_disk(&ctx, "bytes", "").await > 100.0);
    assert_eq!(ask(&ctx, &slipstream, "SELECT a + 1 FROM f").await.0, "stored");
    let log = "SELECT cache FROM slipstream.queries WHERE text = 'SELECT a FROM f ORDER BY a' ORDER BY id";
    assert_eq!(sorted_rows(&query(&ctx, log).await.unwrap()), ["hit", "hit on disk"]);
}

#[tokio::test]
async fn what_is_dropped_does_not_come_back_after_a_restart() {
    let ground = Ground::new();
    let tagged = async |tag: &str, text: &str| {
        let (ctx, slipstream) = ground.session().await;
        sql(&ctx, &format!("SET slipstream.cache.tag = '{tag}'")).await.unwrap();
        ask(&ctx, &slipstream, text).await.0
    };
    let drop = async |call: &str| {
        let (ctx, _) = ground.session().await;
        single(&query(&ctx, &format!("SELECT slipstream_cache_{call}")).await.unwrap())
    };
    for _ in 0..2 {
        tagged("one", TEXT).await;
        tagged("one", "SELECT a + 1 FROM f").await;
        tagged("two", TEXT).await;
    }
    assert_eq!(drop("drop_tag('three')").await, "0");
    assert_eq!(drop("drop_table('g')").await, "0");
    assert_eq!(tagged("two", TEXT).await, "hit on disk");
    assert_eq!(drop("drop_tag('two')").await, "1");
    assert_eq!(tagged("two", TEXT).await, "stored");
    let (ctx, _) = ground.session().await;
    let key = "SELECT key FROM slipstream.cache WHERE tag = 'two'";
    let key = single(&query(&ctx, key).await.unwrap());
    assert_eq!(drop(&format!("drop_entry('{key}')")).await, "1");
    assert_eq!(drop("drop_table('f')").await, "2");
    assert_eq!(tagged("one", TEXT).await, "stored");
    assert_eq!(drop("clear()").await, "1");
    assert_eq!((tagged("one", TEXT).await.as_str(), ground.files(".answer").len()), ("stored", 1));
}

/// An entry in memory and its copy go together, whichever of them is named.
#[tokio::test]
async fn an_entry_is_dropped_with_its_copy() {
    for location in ["memory", "disk"] {
        let ground = Ground::new();
        ground.asked(TEXT).await;
        let (ctx, slipstream) = ground.session().await;
        assert_eq!(ask(&ctx, &slipstream, TEXT).await, from_disk(&["1", "2"]));
        let key = format!("SELECT key FROM slipstream.cache WHERE location = '{location}'");
        let key = single(&query(&ctx, &key).await.unwrap());
        let dropped = format!("SELECT slipstream_cache_drop_entry('{key}')");
        assert_eq!(single(&query(&ctx, &dropped).await.unwrap()), "2", "{location}");
        assert_eq!(ask(&ctx, &slipstream, TEXT).await, stored(&["1", "2"]), "{location}");
    }
}

/// An end that is set holds across a restart, by the wall clock.
#[tokio::test]
async fn an_answers_time_goes_on_while_no_process_runs() {
    let ground = Ground::new();
    let asked = async |ttl: usize| {
        let (ctx, slipstream) = ground.session().await;
        sql(&ctx, &format!("SET slipstream.cache.ttl_ms = {ttl}")).await.unwrap();
        ask(&ctx, &slipstream, TEXT).await.0
    };
    assert_eq!(asked(3_600_000).await, "stored");
    assert_eq!(asked(3_600_000).await, "hit on disk");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let (ctx, slipstream) = ground.session().await;
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "hit on disk");
    let age = "SELECT max(age_ms) >= 500 FROM slipstream.cache WHERE location = 'memory'";
    assert_eq!(single(&query(&ctx, age).await.unwrap()), "true");
    // Whoever allows less does not get it; in memory it is as old as it was on disk.
    sql(&ctx, "SET slipstream.cache.ttl_ms = 1").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "stored");
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    drop((ctx, slipstream));
    let (ctx, slipstream) = ground.session().await;
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "stored", "its own end came");
    assert_eq!(on_disk(&ctx, "evicted", "expired").await, 1.0);
    assert_eq!(counter(&ctx, "hits").await, 0.0);
}

/// A query that is narrower than one whose answer another process has left, and what is computed for it.
#[tokio::test]
async fn an_answer_from_disk_answers_narrower_queries() {
    let ground = Ground::new();
    assert_eq!(ground.asked(TEXT).await, stored(&["1", "2"]));
    let narrower = "SELECT a + 1 FROM f WHERE a > 1";
    let broad = async || {
        let (ctx, slipstream) = ground.session().await;
        sql(&ctx, "SET slipstream.cache.broader = true").await.unwrap();
        (ctx, slipstream)
    };
    {
        let (ctx, slipstream) = broad().await;
        assert_eq!(ask(&ctx, &slipstream, narrower).await, stored(&["3"]), "nobody has asked for more here");
        query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    }
    assert_eq!(ground.asked(TEXT).await, stored(&["1", "2"]));
    {
        let (ctx, slipstream) = broad().await;
        assert_eq!(ask(&ctx, &slipstream, TEXT).await, from_disk(&["1", "2"]));
        assert_eq!(ask(&ctx, &slipstream, narrower).await, ("broader".to_owned(), vec!["3".to_owned()]));
    }
    // What was computed from it is an answer like any other, on disk too.
    assert_eq!(ground.asked(narrower).await, from_disk(&["3"]));
    let (ctx, slipstream) = broad().await;
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, from_disk(&["1", "2"]));
    ground.write("2.csv", "3\n", 50);
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM f WHERE a > 2").await, stored(&["3"]), "it is stale");
}
