//! What goes wrong while queries run short of memory: the right rows, or one clear error; and nothing is left behind.
//!
//! | file | what goes wrong |
//! |---|---|
//! | `disk` | spill files that cannot be created, written, completed or read; directories that are no directories, or go away |
//! | `inputs` | inputs that fail or panic half way |
//! | `limits` | a memory limit that is lowered while a query runs |
//! | `shapes` | batches of one row, and very many partitions |
//!
//! What is particular to the join that spills (each join type, damaged files, cancellation) is tested beside it.

mod disk;
mod inputs;
mod limits;
mod shapes;
mod tables;

use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use tempfile::TempDir;

use crate::support::{config, query, sorted_rows, sql};
use tables::{Script, TABLES};

/// A query that takes this long hangs; the slowest takes seconds.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Of the megabyte that the larger table has, most does not fit.
const LIMIT: usize = 450 << 10;

/// A query, and what it needs to be planned as it is called.
#[derive(Debug, Clone, Copy)]
struct Work {
    name: &'static str,
    settings: &'static [&'static str],
    query: &'static str,
    /// Whether it writes to disk within [`LIMIT`].
    spills: bool,
    /// Whether partitions that race for so little memory may run out of it.
    may_fail: bool,
}

const MERGE_JOINS: &[&str] = &["datafusion.optimizer.prefer_hash_join = false"];

const COLLECTED: &[&str] = &["datafusion.optimizer.repartition_joins = false"];

/// Every operator that spills or is held to the limit, but for nested-loop joins: those execute a side twice, which these
/// tables do not allow. The tables tell nothing of their sizes, so a join's first one is built from.
const WORK: [Work; 8] = [
    Work {
        name: "inner join",
        settings: &[],
        query: "SELECT l.v, r.v, l.s FROM l JOIN r ON l.k = r.k",
        spills: true,
        may_fail: false,
    },
    Work {
        name: "full join of a shared build side",
        settings: COLLECTED,
        query: "SELECT l.v, l.s, r.s FROM l FULL JOIN r ON l.k = r.k AND l.v % 3 < r.v % 3",
        spills: true,
        may_fail: false,
    },
    Work {
        name: "semi join",
        settings: &[],
        query: "SELECT l.v, l.s FROM l WHERE EXISTS (SELECT 1 FROM r WHERE l.k = r.k AND r.v > l.v)",
        spills: true,
        may_fail: false,
    },
    Work {
        name: "merge join",
        settings: MERGE_JOINS,
        query: "SELECT l.v, r.v, l.s FROM l LEFT JOIN r ON l.k = r.k AND l.v > r.v",
        spills: true,
        may_fail: true,
    },
    Work {
        name: "sort",
        settings: &[],
        query: "SELECT k, v, s FROM l ORDER BY s DESC, v",
        spills: true,
        may_fail: false,
    },
    Work {
        name: "aggregate",
        settings: &[],
        query: "SELECT k, s, count(*), max(v) FROM l GROUP BY k, s",
        spills: true,
        may_fail: true,
    },
    Work {
        name: "window",
        settings: &[],
        query: "SELECT k, v, sum(v) OVER (PARTITION BY k), count(*) OVER (PARTITION BY k), s FROM l",
        spills: true,
        may_fail: true,
    },
    Work {
        name: "aggregate without groups",
        settings: &[],
        query: "SELECT count(DISTINCT k), max(s), length(string_agg(s, ',' ORDER BY v)) FROM l WHERE v % 20 = 3",
        spills: false,
        may_fail: false,
    },
];

/// How a query ended.
#[derive(Debug)]
enum Outcome {
    /// In an order of their own.
    Rows(Vec<String>),
    Failed(DataFusionError),
    Panicked(String),
}

impl Outcome {
    /// The error, where it is not for want of memory that `work` may lack; rows must be those `expected`.
    fn error(self, what: &str, work: &Work, expected: &[String]) -> Option<DataFusionError> {
        match self {
            Self::Rows(rows) => {
                assert!(rows == expected, "{what}: {} rows, {} expected", rows.len(), expected.len());
                None
            }
            Self::Failed(error) => (!work.may_fail || !is_exhausted(&error)).then_some(error),
            Self::Panicked(panic) => panic!("{what}: {panic}"),
        }
    }
}

/// A session with the layer and a limit, and what it may leave behind.
struct Session {
    ctx: SessionContext,
    slipstream: Slipstream,
    spills: TempDir,
}

/// Small batches, so that there are many of them, and joins that exchange both sides.
fn small_batches(rows: usize) -> SessionConfig {
    let config = config().with_batch_size(rows).with_sort_spill_reservation_bytes(32 << 10);
    let zero = |config: SessionConfig, key| config.set_u64(key, 0);
    let config = zero(config, "datafusion.optimizer.hash_join_single_partition_threshold");
    zero(config, "datafusion.optimizer.hash_join_single_partition_threshold_rows")
}

impl Session {
    /// With `limit` bytes, and files below a directory of its own.
    fn new(limit: usize, config: SessionConfig) -> Self {
        Self::with_files(limit, config, |files| files)
    }

    /// With another disk manager, which `change` makes of the one that writes into the session's directory.
    fn with_files(
        limit: usize,
        config: SessionConfig,
        change: impl FnOnce(DiskManagerBuilder) -> DiskManagerBuilder,
    ) -> Self {
        let spills = TempDir::new().unwrap();
        let mode = DiskManagerMode::Directories(vec![spills.path().to_owned()]);
        let files = change(DiskManagerBuilder::default().with_mode(mode));
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(files).build_arc().unwrap();
        let ctx = SessionContext::new_with_config_rt(config, runtime);
        let slipstream = Slipstream::default().with_memory_limit(limit);
        ctx.install_slipstream(slipstream.clone()).unwrap();
        Self { ctx, slipstream, spills }
    }

    /// The same with the tables, each of which does what its script says.
    fn with_tables(self, scripts: [Script; 2]) -> Self {
        for (table, script) in TABLES.iter().zip(scripts) {
            self.ctx.register_table(table.name, table.scripted(script)).unwrap();
        }
        self
    }

    /// Runs the query as a server does, in a task of its own; then nothing is left, in the pool or on disk.
    async fn run(&self, work: &Work) -> Outcome {
        for setting in work.settings {
            sql(&self.ctx, &format!("SET {setting}")).await.unwrap();
        }
        let (ctx, text) = (self.ctx.clone(), work.query);
        let task = SpawnedTask::spawn(async move { query(&ctx, text).await });
        let ended = tokio::time::timeout(TIME_LIMIT, task.join()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} did not end in {TIME_LIMIT:?}", work.name));
        self.assert_all_given_back(work.name).await;
        match ended {
            Ok(Ok(batches)) => Outcome::Rows(sorted_rows(&batches)),
            Ok(Err(error)) => Outcome::Failed(error),
            Err(panic) => Outcome::Panicked(panic.to_string()),
        }
    }

    /// Tasks that were aborted give back what they hold when the runtime comes to drop them.
    async fn assert_all_given_back(&self, what: &str) {
        let reserved = || self.ctx.runtime_env().memory_pool.reserved();
        for _ in 0..500 {
            if reserved() == 0 && files(self.spills.path()) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} left {} bytes reserved and {} files", reserved(), files(self.spills.path()));
    }

    /// What the last query wrote to disk.
    fn spilled_bytes(&self) -> u64 {
        self.slipstream.query_log().queries().pop().unwrap().spilled_bytes
    }
}

/// The files below `directory`, which others may take away meanwhile.
fn files(directory: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let count = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { 1 };
    entries.filter_map(Result::ok).map(|entry| count(entry.path())).sum()
}

/// What the plain engine gives for `work` with all the memory it wants.
async fn expected(work: &Work) -> Vec<String> {
    let ctx = SessionContext::new_with_config(small_batches(256));
    for table in &TABLES {
        ctx.register_table(table.name, table.scripted(Script::NONE)).unwrap();
    }
    sorted_rows(&sql(&ctx, work.query).await.unwrap())
}

/// Whether memory is what `error` says is missing.
fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_wrong() {
    for work in WORK {
        let session = Session::new(LIMIT, small_batches(256)).with_tables([Script::NONE, Script::NONE]);
        let error = session.run(&work).await.error(work.name, &work, &expected(&work).await);
        assert!(error.is_none(), "{}: {error:?}", work.name);
        // Others may, when they run short beside the rest of their plan.
        assert!(!work.spills || session.spilled_bytes() > 0, "{}", work.name);
    }
}
