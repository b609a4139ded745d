//! Files that are corrupt, directories that cannot be used, bounds, and memory that is not there.

use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::StreamExt;

use super::{Ground, ask, from_disk, on_disk, outcome, plain, query, recomputed, sql, stored};
use crate::support::{config, picture, single, sorted_rows};

const TEXT: &str = "SELECT a FROM f ORDER BY a";

#[tokio::test]
async fn a_corrupt_file_is_computed_anew_and_counted() {
    let ground = Ground::new();
    ground.asked(TEXT).await;
    let whole = std::fs::read(&ground.files(".answer")[0]).unwrap();
    // The magic, a length, the key, a checksum, the schema, the rows, the footer; cut off; empty; longer.
    let places = [0, 9, 40, 200, whole.len() / 2, whole.len() - 30, whole.len() - 12, whole.len() - 1];
    let mut broken: Vec<Vec<u8>> = Vec::new();
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        broken.push(bytes);
    }
    broken.extend([whole[..whole.len() - 1].to_vec(), Vec::new(), [whole.as_slice(), b"more"].concat()]);
    for bytes in broken {
        std::fs::write(&ground.files(".answer")[0], bytes).unwrap();
        let (ctx, slipstream) = ground.session().await;
        assert_eq!(ask(&ctx, &slipstream, TEXT).await, stored(&["1", "2"]));
        assert_eq!(on_disk(&ctx, "evicted", "corrupt").await, 1.0);
        drop((ctx, slipstream));
        assert_eq!(ground.asked(TEXT).await, from_disk(&["1", "2"]));
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_said_and_queries_go_on() {
    let ground = Ground::new();
    std::fs::write(ground.answers(), "a file in the way").unwrap();
    let (ctx, slipstream) = ground.session().await;
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, stored(&["1", "2"]));
    let off = "SELECT reason FROM slipstream.cache_stats WHERE tier = 'disk' AND name = 'off'";
    let reason = single(&query(&ctx, off).await.unwrap());
    assert!(
        reason.contains("slipstream.cache.disk.directory '") && reason.contains("cannot be used"),
        "{reason}"
    );
    let explained = picture(&query(&ctx, "EXPLAIN SELECT a + 1 FROM f").await.unwrap());
    assert!(explained.contains("disk_cache: refused: slipstream.cache.disk.directory"), "{explained}");
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "hit", "in memory it is");
    assert_eq!(single(&query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap()), "1");
    // Set once more, it is tried once more.
    std::fs::remove_file(ground.answers()).unwrap();
    for statement in ground.setup().iter().take(2) {
        sql(&ctx, statement).await.unwrap();
    }
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, stored(&["1", "2"]));
    assert_eq!(query(&ctx, off).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);
    drop((ctx, slipstream));
    assert_eq!(ground.asked(TEXT).await, from_disk(&["1", "2"]));
}

/// Waits until this is counted, which another thread does.
async fn until(ctx: &SessionContext, name: &str, reason: &str) {
    for _ in 0..5000 {
        if on_disk(ctx, name, reason).await > 0.0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("{name} {reason} was never counted");
}

/// The directory goes while the process runs: nothing is written, and nobody is told but those who look.
#[tokio::test]
async fn a_directory_that_vanishes_is_no_trouble() {
    let ground = Ground::new();
    let (ctx, slipstream) = ground.session().await;
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "stored");
    until(&ctx, "stored", "").await;
    std::fs::remove_dir_all(ground.answers()).unwrap();
    assert_eq!(ask(&ctx, &slipstream, TEXT).await.0, "hit");
    assert_eq!(ask(&ctx, &slipstream, "SELECT a + 1 FROM f").await.0, "stored");
    until(&ctx, "refused", "io").await;
    query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, TEXT).await, stored(&["1", "2"]));
}

#[tokio::test]
async fn the_directory_keeps_to_its_bound() {
    let ground = Ground::new();
    let (ctx, slipstream) = ground.session().await;
    sql(&ctx, "SET slipstream.cache.disk.max_bytes = 20000").await.unwrap();
    for number in 0..40 {
        ask(&ctx, &slipstream, &format!("SELECT a + {number} FROM f")).await;
    }
    drop((ctx, slipstream));
    let bytes: u64 = ground.files("").iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes > 5000 && bytes <= 20_000, "{bytes}");
    assert_eq!(ground.asked("SELECT a + 39 FROM f").await.0, "hit on disk");
    let (ctx, slipstream) = ground.session().await;
    sql(&ctx, "SET slipstream.cache.disk.max_bytes = 0").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT a + 100 FROM f").await.0, "stored");
    drop((ctx, slipstream));
    assert_eq!(ground.asked("SELECT a + 100 FROM f").await.0, "stored", "0 keeps none");
}

const LARGE: &str = "SELECT x.a * 100 + y.a AS n, CAST(x.a AS VARCHAR) AS s FROM f x CROSS JOIN f y";

/// Without room in memory the rows come from the file, batch by batch, as often as they are asked for.
#[tokio::test]
async fn an_answer_that_does_not_fit_into_memory_is_given_from_its_file() {
    let ground = Ground::new();
    let rows: String = (0..300).map(|row| format!("{row}\n")).collect();
    ground.write("1.csv", &rows, 100);
    let whole = ground.asked(LARGE).await;
    assert_eq!((whole.0.as_str(), whole.1.len()), ("stored", 90_000));
    for (setting, small) in
        [("max_bytes", 1000), ("max_entry_bytes", 1000), ("max_entry_rows", 5), ("min_cost_ms", 3_600_000)]
    {
        let (ctx, slipstream) = ground.session().await;
        sql(&ctx, &format!("SET slipstream.cache.{setting} = {small}")).await.unwrap();
        for _ in 0..2 {
            assert_eq!(
                ask(&ctx, &slipstream, LARGE).await,
                ("hit on disk".to_owned(), whole.1.clone()),
                "{setting}"
            );
        }
        let entries = "SELECT location FROM slipstream.cache";
        assert_eq!(sorted_rows(&query(&ctx, entries).await.unwrap()), ["disk"], "{setting}");
    }
    // A pool that has no memory for a cache.
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool)).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(config(), runtime);
    let slipstream = Slipstream::default();
    ctx.install_slipstream(slipstream.clone()).unwrap();
    for statement in ground.setup() {
        sql(&ctx, &statement).await.unwrap();
    }
    let consumer = MemoryConsumer::new("hungry").register(&pool);
    consumer.try_grow(900 << 10).unwrap();
    assert_eq!(ask(&ctx, &slipstream, LARGE).await, ("hit on disk".to_owned(), whole.1.clone()));
    // What the reader holds is counted, while it reads.
    let mut stream = ctx.query(LARGE).await.unwrap();
    let before = pool.reserved();
    stream.next().await.unwrap().unwrap();
    assert!(pool.reserved() > before || before > 900 << 10, "{before} {}", pool.reserved());
    // The file may go: who reads it has it.
    for file in ground.files(".answer") {
        std::fs::remove_file(file).unwrap();
    }
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert!(rows > 80_000, "{rows}");
    drop(stream);
    assert_eq!(pool.reserved(), 900 << 10, "and gives it back");
    assert_eq!(outcome(&slipstream), "hit on disk");
}

/// Identical queries that find nothing in memory read the file once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identical_queries_read_the_file_once() {
    let ground = Ground::new();
    let rows: String = (0..300).map(|row| format!("{row}\n")).collect();
    ground.write("1.csv", &rows, 100);
    let expected = ground.asked(LARGE).await.1.len();
    let (ctx, _) = ground.session().await;
    let asked = (0..8).map(|_| {
        let ctx = ctx.clone();
        datafusion::common::runtime::SpawnedTask::spawn(async move {
            query(&ctx, LARGE).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>()
        })
    });
    for task in asked.collect::<Vec<_>>() {
        assert_eq!(task.join().await.unwrap(), expected);
    }
    assert_eq!(on_disk(&ctx, "hits", "").await, 1.0);
}

/// Random writers between restarts: what is given is what is there.
#[tokio::test]
async fn answers_are_right_whatever_happens_to_the_files_between_restarts() {
    let ground = Ground::new();
    let (mut seed, mut hits) = (7_u64, 0);
    for round in 0..60_u64 {
        let (ctx, slipstream) = ground.session().await;
        for text in [TEXT, "SELECT count(*), sum(a) FROM f", "SELECT a FROM f WHERE a > 20 ORDER BY a"] {
            let (outcome, rows) = ask(&ctx, &slipstream, text).await;
            assert_eq!(rows, recomputed(&ctx, text).await, "{round} {text} {outcome}");
            hits += usize::from(outcome == "hit on disk");
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = format!("{}.csv", 2 + (seed >> 33) % 3);
        match (seed >> 40) % 5 {
            0 => ground.write(&name, &format!("{}\n", 10 + round % 7), 1000 - round * 3),
            1 => drop(std::fs::remove_file(ground.data().join(&name))),
            2 => ground.write(&name, "", 500),
            3 if !ground.files(".answer").is_empty() => {
                let files = ground.files(".answer");
                let file = &files[usize::try_from(seed >> 45).unwrap() % files.len()];
                let mut bytes = std::fs::read(file).unwrap();
                let place = usize::try_from(seed >> 20).unwrap() % bytes.len();
                bytes[place] ^= 1;
                std::fs::write(file, bytes).unwrap();
            }
            _ => {}
        }
    }
    assert!(hits > 30, "{hits}: this test checks little");
    let (ctx, _) = ground.session().await;
    assert_eq!(plain(&ctx, "SELECT count(*) >= 2 FROM f").await, ["true"]);
}
