//! What is known of one query.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::scope::RuleReport;

/// Where a query is, or how it ended.
///
/// ```text
///   received ─► planned ─► (queued ─►) running ─┬─► finished
///      │           │                      │     ├─► failed
///      └─ failed   └─ dropped             └─────┴─► cancelled      (dropped before its last row)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryStatus {
    /// It has a plan and no partition has been executed (yet, or ever).
    Planned,
    /// It waits for its turn (`slipstream.admission.max_queries`).
    Queued,
    /// At least one partition is being executed.
    Running,
    /// All partitions came to their end.
    Finished,
    /// It ended with an error.
    Failed,
    /// A stream was dropped before its end.
    Cancelled,
}

impl QueryStatus {
    /// The name in `slipstream.queries`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for QueryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row of `slipstream.queries`.
#[derive(Debug, Clone)]
pub struct QueryRecord {
    /// Counts up from 1 in each log.
    pub id: u64,
    /// The SQL text, or the beginning of the logical plan where the query came without text.
    pub text: String,
    /// Where it is, or how it ended.
    pub status: QueryStatus,
    /// When it came in.
    pub start: SystemTime,
    /// From text to statement; `None` where the query came as a plan.
    pub parse: Option<Duration>,
    /// From statement to physical plan; for a query that came as a plan, physical planning alone.
    pub plan: Duration,
    /// From the first execution of a partition to the end; `None` where nothing was executed.
    pub execute: Option<Duration>,
    /// Rows handed to the caller.
    pub rows: u64,
    /// The most bytes the query had reserved of the memory pool at one time.
    pub peak_memory_bytes: u64,
    /// Bytes that its operators wrote to spill files.
    pub spilled_bytes: u64,
    /// Requests for memory that were refused: after each an operator spilled, emitted early, or failed.
    pub refused_grows: u64,
    /// Bytes that caches gave back for it.
    pub reclaimed_bytes: u64,
    /// How long it waited for its turn, as a part of `execute`.
    pub queued: Duration,
    /// The error it ended with.
    pub error: Option<String>,
    /// What the result cache did: `hit`, `broader`, `stored`, `waited`, and else why not; `None` where it is off.
    pub cache: Option<String>,
    /// What the cache of plans did: `hit`, `stored`, and else why not; `None` where it is off.
    pub cached_plan: Option<String>,
    /// What each of the layer's rules did.
    pub rules: Vec<RuleReport>,
}
