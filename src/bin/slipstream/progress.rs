//! The progress line: what a long query has done so far, on a terminal.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use datafusion::common::human_readable_count as count;
use datafusion::common::human_readable_size as size;
use datafusion::common::instant::Instant;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use datafusion::physical_plan::ExecutionPlan;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A query that is done before this shows no line: it would only flicker.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time from one look at the metrics to the next.
const TICK: Duration = Duration::from_millis(200);

/// The time, for the line and for the seconds below the rows.
#[expect(
    clippy::disallowed_methods,
    reason = "the library's clock is the library's; nobody sets the shell's"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A line on stderr that is there while this lives, from two seconds on.
///
/// It is drawn by a thread of its own because the runtime's threads belong to the query: a partition that
/// computes for a second without yielding must not stop the clock.
#[derive(Debug)]
pub(crate) struct Progress {
    plan: Arc<OnceLock<Arc<dyn ExecutionPlan>>>,
    /// Dropped to end the thread.
    alive: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to count the time; `None` where nobody would see the line.
    pub(crate) fn start(quiet: bool, pool: Arc<dyn MemoryPool>) -> Option<Self> {
        if quiet || !stderr().is_terminal() {
            return None;
        }
        let plan = Arc::new(OnceLock::new());
        let (alive, ended) = sync_channel::<()>(0);
        let watched = Arc::clone(&plan);
        let started = now();
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(move || {
            if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let line = new_line();
            loop {
                line.set_message(describe(watched.get(), pool.as_ref(), started));
                line.tick();
                // The cursor was left behind the last column: a ^C that the terminal echoes there begins a line
                // of its own, and that one would be erased instead of ours.
                write!(stderr(), "\r").ok();
                if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                    break line.finish_and_clear();
                }
            }
        });
        Some(Self { plan, alive: Some(alive), thread: thread.ok() })
    }

    /// Names the plan whose metrics are shown, once there is one.
    pub(crate) fn follow(&self, plan: &Arc<dyn ExecutionPlan>) {
        // It is set once: a second plan of the same statement does not occur.
        self.plan.set(Arc::clone(plan)).ok();
    }

    /// Erases the line before rows are printed, if they are printed to the terminal too.
    pub(crate) fn make_way(progress: &mut Option<Self>) {
        if progress.is_some() && stdout().is_terminal() {
            *progress = None;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.alive = None;
        // The line has to be gone before anything else is printed. The thread's end carries no news.
        self.thread.take().map(JoinHandle::join);
    }
}

fn new_line() -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg}");
    line.set_style(style.unwrap_or_else(|_invalid| ProgressStyle::default_spinner()));
    line
}

/// The line: short enough for a terminal of 80 columns.
fn describe(plan: Option<&Arc<dyn ExecutionPlan>>, pool: &dyn MemoryPool, started: Instant) -> String {
    let mut parts = vec![format!("{:.1} s", started.elapsed().as_secs_f64())];
    if let Some(plan) = plan {
        let work = Work::of(plan.as_ref());
        parts.push(format!("{} rows scanned", count(work.scanned_rows)));
        parts.push(format!("{} produced", count(work.produced_rows)));
        if work.spilled_bytes > 0 {
            parts.push(format!("{} spilled", size(work.spilled_bytes)));
        }
    }
    let reserved = size(pool.reserved());
    parts.push(match pool.memory_limit() {
        MemoryLimit::Finite(limit) => format!("{reserved} of {}", size(limit)),
        _ => format!("{reserved} of memory"),
    });
    parts.join(" · ")
}

/// What a plan has done so far, summed over its partitions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    /// Rows that left the scans.
    scanned_rows: usize,
    /// Rows that left the plan.
    produced_rows: usize,
    /// Bytes written to temporary files.
    spilled_bytes: usize,
}

impl Work {
    fn of(plan: &dyn ExecutionPlan) -> Self {
        let mut work = Self::default();
        work.add(plan);
        work.produced_rows = output_rows(plan);
        work
    }

    fn add(&mut self, plan: &dyn ExecutionPlan) {
        let spilled = plan.metrics().and_then(|metrics| metrics.spilled_bytes());
        self.spilled_bytes += spilled.unwrap_or_default();
        let children = plan.children();
        if children.is_empty() {
            self.scanned_rows += output_rows(plan);
        }
        for child in children {
            self.add(child.as_ref());
        }
    }
}

/// Rows that left a node. Of a node that does not count, those of its only input: such nodes hand on what
/// they get.
fn output_rows(plan: &dyn ExecutionPlan) -> usize {
    match (plan.metrics().and_then(|metrics| metrics.output_rows()), plan.children().as_slice()) {
        (Some(rows), _) => rows,
        (None, [input]) => output_rows(input.as_ref()),
        (None, _) => 0,
    }
}
