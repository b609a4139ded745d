//! Many clients, random queries, random cancellations, and limits that change all the while.
//!
//! | test | how long | seed |
//! |---|---|---|
//! | `short` | 3 seconds, or until all has happened, in every `cargo test` | fixed |
//! | `long` (ignored) | 60 seconds, or `STRESS_SECONDS`, with four times as many clients | drawn and printed, or `STRESS_SEED` |
//!
//! Every answer is the plain engine's, every error says that memory, disk or the queue is too small, every query ends, and
//! afterwards nothing is held, in memory or on disk.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::support::{config, query, sorted_rows, sql};

/// A query that takes this long hangs: the slowest takes a second where it has the machine for itself.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Queries with a hole, which one of [`HOLES`] fills.
const QUERIES: [&str; 9] = [
    "SELECT f.v, d.name FROM f JOIN d ON f.k = d.k AND f.v % 7 <> {}",
    "SELECT f.v, f.s, d.k FROM f FULL JOIN d ON f.k = d.k WHERE f.v IS NULL OR f.v % 5 <> {}",
    "SELECT f.v, f.s FROM f WHERE f.k NOT IN (SELECT k FROM d WHERE k IS NOT NULL AND k % 6 = {})",
    "SELECT a.v, b.v, b.s FROM f a JOIN f b ON a.v = b.v + {}",
    "SELECT k, s, count(*), max(v) FROM f WHERE v % 9 <> {} GROUP BY k, s",
    "SELECT count(DISTINCT s), sum(v) FROM f WHERE k % 4 <> {}",
    "SELECT s, v FROM f WHERE v % 8 <> {} ORDER BY s DESC, v LIMIT 1500",
    "SELECT v, sum(v) OVER (PARTITION BY k), row_number() OVER (PARTITION BY k ORDER BY v) FROM f WHERE v % 6 <> {}",
    "WITH g AS (SELECT k, count(*) AS n, max(s) AS s FROM f GROUP BY k) \
     SELECT x.k, x.n, y.s, d.name FROM g x JOIN g y ON x.k = y.k LEFT JOIN d ON x.k = d.k + {}",
];

const HOLES: u64 = 4;

/// What an administrator may do. Caches and queues are of all clients.
const SETTINGS: [&str; 10] = [
    "slipstream.memory.limit = '16MB'",
    "slipstream.memory.limit = '4MB'",
    "slipstream.memory.limit = '1MB'",
    "slipstream.memory.limit = '300kB'",
    "slipstream.memory.limit = 0",
    "slipstream.memory.unspillable_reserve = 30",
    "slipstream.memory.unspillable_reserve = 0",
    "slipstream.admission.max_queries = 2",
    "slipstream.admission.max_queries = 0",
    "slipstream.disk.limit = '20MB'",
];

/// xorshift: the numbers need to be many, not good.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % end
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn query(&mut self) -> String {
        let hole = self.below(HOLES).to_string();
        self.of(&QUERIES).replace("{}", &hole)
    }
}

fn table(rows: i64, columns: impl Fn(&[i64]) -> Vec<(&'static str, ArrayRef)>) -> Arc<MemTable> {
    let rows: Vec<i64> = (0..rows).collect();
    let batches: Vec<RecordBatch> = rows
        .chunks(400)
        .map(|rows| {
            RecordBatch::try_from_iter_with_nullable(
                columns(rows).into_iter().map(|(name, values)| (name, values, true)),
            )
        })
        .collect::<Result<_, _>>()
        .unwrap();
    let schema = batches[0].schema();
    Arc::new(MemTable::try_new(schema, batches.chunks(2).map(<[RecordBatch]>::to_vec).collect()).unwrap())
}

/// Half a megabyte of facts, with NULL keys and a frequent one, and a few names.
fn register(ctx: &SessionContext) {
    let key = |row: &i64| match row % 20 {
        3 => None,
        4 => Some(7),
        _ => Some(row * 7919 % 700),
    };
    let ints = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let texts = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let facts = table(4000, |rows| {
        vec![
            ("k", ints(rows.iter().map(key).collect())),
            ("v", ints(rows.iter().copied().map(Some).collect())),
            ("s", texts(rows.iter().map(|row| format!("{:>90}", row * 31 % 997)).collect())),
        ]
    });
    let names = table(900, |rows| {
        vec![
            ("k", ints(rows.iter().map(|row| Some(row * 2)).collect())),
            ("name", texts(rows.iter().map(|row| format!("name {row}")).collect())),
        ]
    });
    ctx.register_table("f", facts).unwrap();
    ctx.register_table("d", names).unwrap();
}

/// How queries ended.
#[derive(Default)]
struct Counts {
    answers: AtomicUsize,
    spilled: AtomicUsize,
    exhausted: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Counts {
    /// Whether there was something of each kind, and enough to compare.
    fn all_happened(&self) -> bool {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        of(&self.answers) > 20
            && [&self.spilled, &self.exhausted, &self.cancelled].iter().all(|count| of(count) > 0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let (answers, exhausted, cancelled) = (of(&self.answers), of(&self.exhausted), of(&self.cancelled));
        write!(
            f,
            "{answers} answers, {exhausted} errors, {cancelled} cancelled, {} spilled",
            of(&self.spilled)
        )
    }
}

/// What all clients share.
struct Server {
    slipstream: Slipstream,
    runtime: Arc<RuntimeEnv>,
    expected: HashMap<String, Vec<String>>,
    over: AtomicBool,
    counts: Counts,
}

impl Server {
    fn session(&self) -> SessionContext {
        let config = config().with_batch_size(256).with_sort_spill_reservation_bytes(32 << 10);
        let config = config.set_u64("datafusion.optimizer.hash_join_single_partition_threshold_rows", 500);
        let ctx = SessionContext::new_with_config_rt(config, Arc::clone(&self.runtime));
        ctx.install_slipstream(self.slipstream.clone()).unwrap();
        register(&ctx);
        ctx
    }

    /// Asks, and compares or turns away, until time is up.
    async fn client(self: Arc<Self>, mut dice: Dice) {
        let ctx = self.session();
        while !self.over.load(Ordering::Relaxed) {
            let text = dice.query();
            if dice.below(4) > 0 {
                let Ok(answer) = timeout(TIME_LIMIT, query(&ctx, &text)).await else {
                    panic!("{text} did not end in {TIME_LIMIT:?}");
                };
                match answer {
                    Ok(rows) => {
                        assert!(sorted_rows(&rows) == self.expected[&text], "{text}: other rows");
                        self.counts.answers.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => self.failed(&text, &error),
                }
                continue;
            }
            let patience = Duration::from_micros(dice.below(60_000));
            let asked = async { ctx.query(&text).await?.try_for_each(|_| futures::future::ok(())).await };
            match timeout(patience, asked).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.failed(&text, &error),
                Err(_) => {
                    self.counts.cancelled.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn failed(&self, text: &str, error: &DataFusionError) {
        let message = error.to_string();
        let clear = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
            || message.contains("SET slipstream.disk.limit");
        assert!(clear, "{text}: {message}");
        self.counts.exhausted.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes the limits of all, and looks at who holds what.
    async fn administrator(self: Arc<Self>, mut dice: Dice) {
        let ctx = self.session();
        while !self.over.load(Ordering::Relaxed) {
            sql(&ctx, &format!("SET {}", dice.of(&SETTINGS))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(dice.below(80))).await;
            if dice.below(5) == 0 {
                query(&ctx, "RESET slipstream.disk.limit").await.unwrap();
            }
            let spilled =
                self.slipstream.query_log().queries().iter().filter(|query| query.spilled_bytes > 0).count();
            self.counts.spilled.fetch_max(spilled, Ordering::Relaxed);
        }
    }
}

async fn expected() -> HashMap<String, Vec<String>> {
    let plain = SessionContext::new_with_config(config());
    register(&plain);
    let mut expected = HashMap::new();
    for query in QUERIES {
        for hole in 0..HOLES {
            let text = query.replace("{}", &hole.to_string());
            let rows = sorted_rows(&sql(&plain, &text).await.unwrap());
            assert!(!rows.is_empty(), "{text} has no rows to compare");
            expected.insert(text, rows);
        }
    }
    expected
}

fn files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let count = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { 1 };
    entries.filter_map(Result::ok).map(|entry| count(entry.path())).sum()
}

async fn run(clients: u64, length: Duration, seed: u64) {
    let spills = TempDir::new().unwrap();
    let runtime = RuntimeEnvBuilder::new().with_temp_file_path(spills.path()).build_arc().unwrap();
    let server = Arc::new(Server {
        slipstream: Slipstream::default(),
        runtime,
        expected: expected().await,
        over: AtomicBool::new(false),
        counts: Counts::default(),
    });
    let dice = |client: u64| Dice((seed ^ client.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
    let mut tasks: Vec<_> =
        (0..clients).map(|client| SpawnedTask::spawn(Arc::clone(&server).client(dice(client)))).collect();
    tasks.push(SpawnedTask::spawn(Arc::clone(&server).administrator(dice(clients))));
    let begun = Instant::now();
    // On a machine that is busy elsewhere it takes longer until all has happened.
    while begun.elapsed() < length || (!server.counts.all_happened() && begun.elapsed() < length + TIME_LIMIT)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.join().await.unwrap();
    }
    println!("{}", server.counts);
    let reserved = || server.runtime.memory_pool.reserved();
    for _ in 0..1000 {
        if reserved() == 0 && files(spills.path()) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((reserved(), files(spills.path())), (0, 0), "bytes and files are left");
    let ctx = server.session();
    query(&ctx, "RESET slipstream.memory.limit").await.unwrap();
    let held = "SELECT level, name, reserved_bytes FROM slipstream.memory WHERE reserved_bytes > 0 AND level <> 'cache'";
    assert_eq!(sorted_rows(&sql(&ctx, held).await.unwrap()), Vec::<String>::new());
    assert!(server.counts.all_happened(), "{}", server.counts);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn short() {
    run(5, Duration::from_secs(3), 20_260_101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes a minute; STRESS_SECONDS makes it longer"]
async fn long() {
    use std::hash::{BuildHasher, RandomState};
    let seed = number("STRESS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("the same clients again: STRESS_SEED={seed}");
    run(20, Duration::from_secs(number("STRESS_SECONDS").unwrap_or(60)), seed).await;
}
