//! Operators that DataFusion 55.2 does not limit: with the layer they give the same rows, or one clear error.

mod aggregate;
mod counted;
mod exchange;
mod join;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tempfile::TempDir;

use crate::support::{config, sorted_rows, sql, with_layer};

/// A query that takes this long hangs; the slowest takes seconds.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A session with a limit, and what was given out below it.
struct Limited {
    ctx: SessionContext,
    spills: TempDir,
}

impl Limited {
    /// A session with the layer and a greedy pool of `bytes`.
    fn new(bytes: usize, config: SessionConfig) -> Self {
        Self::plain(Arc::new(GreedyMemoryPool::new(bytes)), config, directory).layered()
    }

    /// A session without the layer, whose files are where `disk` puts them below a directory.
    fn plain(
        pool: Arc<dyn MemoryPool>,
        config: SessionConfig,
        disk: impl FnOnce(&Path) -> DiskManagerBuilder,
    ) -> Self {
        let spills = TempDir::new().unwrap();
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool);
        let runtime = runtime.with_disk_manager_builder(disk(spills.path())).build_arc().unwrap();
        Self { ctx: SessionContext::new_with_config_rt(config, runtime), spills }
    }

    /// The same with the layer.
    fn layered(self) -> Self {
        Self { ctx: with_layer(self.ctx).0, spills: self.spills }
    }

    /// The rows in an order of their own, or the error; then nothing is left, in the pool or on disk.
    async fn rows(&self, query: &str) -> Result<Vec<String>> {
        let Ok(result) = tokio::time::timeout(TIME_LIMIT, sql(&self.ctx, query)).await else {
            panic!("{query} did not end in {TIME_LIMIT:?}");
        };
        let rows = result.map(|batches| sorted_rows(&batches));
        self.assert_all_given_back(query).await;
        rows
    }

    /// Tasks that were aborted give back what they hold when the runtime comes to drop them.
    async fn assert_all_given_back(&self, query: &str) {
        let runtime = self.ctx.runtime_env();
        for _ in 0..500 {
            if runtime.memory_pool.reserved() == 0 && files(self.spills.path()) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{query} left {} bytes reserved and {} files",
            runtime.memory_pool.reserved(),
            files(self.spills.path())
        );
    }
}

fn directory(directory: &Path) -> DiskManagerBuilder {
    DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![directory.to_owned()]))
}

fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// The rows that the plain engine gives without a limit.
async fn expected(config: SessionConfig, setup: &[&str], query: &str) -> Vec<String> {
    let ctx = SessionContext::new_with_config(config);
    for statement in setup {
        sql(&ctx, statement).await.unwrap();
    }
    sorted_rows(&sql(&ctx, query).await.unwrap())
}

/// The error, which must say that memory is exhausted, by one of its causes.
fn exhausted(error: &DataFusionError) -> String {
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    error.to_string()
}

/// Small batches, so that there are many of them.
fn small_batches(rows: usize) -> SessionConfig {
    config().with_batch_size(rows).with_sort_spill_reservation_bytes(64 << 10)
}

/// A greedy pool that keeps the most that consumers of one name had, each for itself.
#[derive(Debug)]
struct Peaks {
    pool: GreedyMemoryPool,
    peaks: Mutex<HashMap<String, usize>>,
}

impl Peaks {
    fn new(bytes: usize) -> Self {
        Self { pool: GreedyMemoryPool::new(bytes), peaks: Mutex::default() }
    }

    /// The most that one consumer had whose name is `name[…]`.
    fn peak(&self, name: &str) -> usize {
        let peaks = self.peaks.lock().unwrap();
        let of = |consumer: &str| consumer.split('[').next() == Some(name);
        peaks.iter().filter(|(consumer, _)| of(consumer)).map(|(_, peak)| *peak).max().unwrap_or(0)
    }

    fn note(&self, reservation: &MemoryReservation, additional: usize) {
        let mut peaks = self.peaks.lock().unwrap();
        let peak = peaks.entry(reservation.consumer().name().to_owned()).or_default();
        *peak = (*peak).max(reservation.size() + additional);
    }
}

impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.pool, f)
    }
}

impl MemoryPool for Peaks {
    fn name(&self) -> &str {
        "peaks"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
        self.note(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.pool.try_grow(reservation, additional)?;
        self.note(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}
