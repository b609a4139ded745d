//! Exchanges that spill from two inputs at once: the plain engine waits for itself (apache/datafusion issue 24883).

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{Result, resources_err};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::{DiskManager, SpillFile, SpillWriter, TempFileFactory};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion_slipstream::SlipstreamContextExt;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{Limited, directory, files, small_batches};
use crate::support::{picture, single, sql};

/// As many groups as rows, in batches of 64: the exchange carries them all.
const TABLE: &str =
    "CREATE TABLE event AS SELECT v % 40009 AS trace, v AS size FROM generate_series(1, 40000) AS t(v)";

const QUERY: &str = "SELECT count(*), sum(n), sum(size) FROM \
    (SELECT trace, count(*) AS n, sum(size) AS size FROM event GROUP BY trace)";

const ROWS: &str = "40000 | 40000 | 800020000";

/// The plain engine hangs in the first of them.
const ATTEMPTS: usize = 3;

/// Without a hang, an attempt takes less than two seconds of unoptimised code.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

const POOL_BYTES: usize = 64 << 20;

/// Has room for all but exchanges, so that they spill every batch.
#[derive(Debug)]
struct NoneForExchanges(GreedyMemoryPool);

impl fmt::Display for NoneForExchanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none for exchanges, else {}", self.0)
    }
}

impl MemoryPool for NoneForExchanges {
    fn name(&self) -> &str {
        "none_for_exchanges"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.0.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.0.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if reservation.consumer().name().starts_with("RepartitionExec") {
            return resources_err!("no room for {}", reservation.consumer().name());
        }
        self.0.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.0.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.0.memory_limit()
    }
}

/// Takes its time to write, so that the second input comes while the first is at it: without that, whether two inputs
/// spill at one time is a matter of luck.
struct SlowFiles(Arc<DiskManager>);

impl TempFileFactory for SlowFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        Ok(Arc::new(SlowFile(self.0.create_tmp_file(description)?)))
    }
}

struct SlowFile(Arc<dyn SpillFile>);

impl SpillFile for SlowFile {
    fn path(&self) -> Option<&Path> {
        self.0.path()
    }

    fn size(&self) -> Option<u64> {
        self.0.size()
    }

    fn read_stream(&self) -> Result<BoxStream<'static, Result<bytes::Bytes>>> {
        self.0.read_stream()
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(SlowWriter(self.0.open_writer()?)))
    }
}

struct SlowWriter(Box<dyn SpillWriter>);

impl Write for SlowWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.flush()
    }
}

impl SpillWriter for SlowWriter {
    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }
}

fn session(plain: bool) -> Limited {
    let pool = Arc::new(NoneForExchanges(GreedyMemoryPool::new(POOL_BYTES)));
    let slow = |directory: &Path| {
        let mode = DiskManagerMode::Directories(vec![directory.to_owned()]);
        let disk = DiskManagerBuilder::default().with_mode(mode).build().unwrap();
        DiskManagerBuilder::default().with_temp_file_factory(Arc::new(SlowFiles(Arc::new(disk))))
    };
    let limited = Limited::plain(pool, small_batches(64), slow);
    if plain { limited } else { limited.layered() }
}

fn spills(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.is::<RepartitionExec>().then(|| plan.metrics()?.spill_count()).flatten().unwrap_or(0);
    own + plan.children().into_iter().map(spills).sum::<usize>()
}

/// How many files the exchanges of the query spilled; `None` where it did not end in time.
async fn attempt(limited: &Limited) -> Option<Result<usize>> {
    sql(&limited.ctx, TABLE).await.unwrap();
    let frame = limited.ctx.sql(QUERY).await.unwrap();
    let task_ctx = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await.unwrap();
    let rows = tokio::time::timeout(ATTEMPT_LIMIT, collect(Arc::clone(&plan), task_ctx)).await.ok()?;
    Some(rows.map(|batches| {
        assert_eq!(single(&batches), ROWS);
        spills(&plan)
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn an_exchange_that_spills_from_two_inputs_ends() {
    let mut spilled = 0;
    for number in 0..ATTEMPTS {
        let limited = session(false);
        let Some(result) = attempt(&limited).await else {
            panic!("attempt {number} did not end in {ATTEMPT_LIMIT:?}");
        };
        spilled += result.unwrap();
        limited.assert_all_given_back(QUERY).await;
    }
    assert!(spilled > 0, "no exchange spilled: the test tests nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "shows the defect of DataFusion 55.2: it fails once the plain engine has been mended"]
async fn the_plain_engine_hangs() {
    let mut ended = 0;
    for _ in 0..ATTEMPTS {
        let limited = session(true);
        match attempt(&limited).await {
            Some(_) => ended += 1,
            None => break,
        }
    }
    assert!(ended < ATTEMPTS, "no attempt hung: the guard is not needed any more");
}

#[tokio::test]
async fn explain_says_which_exchanges_are_guarded_and_only_under_a_limit() {
    let limited = session(false);
    sql(&limited.ctx, TABLE).await.unwrap();
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {QUERY}")).await.unwrap());
    assert!(text.contains("memory_guard: applied: exchanges that spill without waiting"), "{text}");
    sql(&limited.ctx, "SET slipstream.memory_guard.enabled = false").await.unwrap();
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {QUERY}")).await.unwrap());
    assert!(
        text.contains("memory_guard: refused: switched off by slipstream.memory_guard.enabled"),
        "{text}"
    );

    let (ctx, _) = crate::support::layered();
    let text = picture(&sql(&ctx, "EXPLAIN SELECT 1").await.unwrap());
    assert!(text.contains("memory_guard: refused: the session's memory pool has no limit"), "{text}");
}

/// What is spilled by one input is announced before the other's error: its reader must not wait for what never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_is_one_error_and_no_hang() {
    for disk_bytes in [0, 3 << 10, 40 << 10, 300 << 10] {
        let pool = Arc::new(NoneForExchanges(GreedyMemoryPool::new(POOL_BYTES)));
        let limited = Limited::plain(pool, small_batches(64), directory).layered();
        sql(&limited.ctx, TABLE).await.unwrap();
        limited.ctx.runtime_env().disk_manager.set_max_temp_directory_size(disk_bytes).unwrap();
        let error = limited.rows(QUERY).await.unwrap_err().to_string();
        assert!(error.contains("max_temp_directory_size"), "{disk_bytes} bytes of disk: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_spill_directory_that_is_gone_is_one_error() {
    let pool = Arc::new(NoneForExchanges(GreedyMemoryPool::new(POOL_BYTES)));
    let limited = Limited::plain(pool, small_batches(64), directory).layered();
    sql(&limited.ctx, TABLE).await.unwrap();
    for entry in std::fs::read_dir(limited.spills.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let error = limited.rows(QUERY).await.unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_exchange_gives_back_memory_and_files() {
    for parts in [1, 20, 60] {
        let limited = session(false);
        sql(&limited.ctx, TABLE).await.unwrap();
        let mut stream = limited.ctx.query(QUERY).await.unwrap();
        // Its one row comes at the end.
        let mut polls = 0;
        while files(limited.spills.path()) == 0 || polls < parts {
            let row = tokio::time::timeout(Duration::from_millis(2), stream.next()).await;
            assert!(row.is_err(), "the query ended before it spilled");
            polls += 1;
        }
        drop(stream);
        limited.assert_all_given_back(QUERY).await;
    }
}
