//! The phases of one query as types, so that none can be skipped, logged twice or forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use datafusion::common::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use super::query_log::{Live, QueryLog};
use super::record::{QueryRecord, QueryStatus};
use crate::clock::Clock;
use crate::config::SlipstreamOptions;
use crate::memory::QueryPool;
use crate::scope::QueryScope;

/// A query that came in and has no physical plan yet.
///
/// It becomes a [`RunningQuery`] or fails. Dropped before either (its planning was cancelled), it is recorded
/// as cancelled.
#[derive(Debug)]
pub(crate) struct ReceivedQuery(Option<Facts>);

/// What is fixed about a query from its first moment on.
#[derive(Debug)]
struct Facts {
    log: Arc<QueryLog>,
    clock: Arc<dyn Clock>,
    scope: QueryScope,
    id: u64,
    text: String,
    start: SystemTime,
    begun: Instant,
    parse: Option<Duration>,
    max_entries: usize,
    max_text_bytes: usize,
}

impl Facts {
    /// A record with what is known before anything is executed.
    fn record(&self, status: QueryStatus, plan: Duration) -> QueryRecord {
        QueryRecord {
            id: self.id,
            text: self.text.clone(),
            status,
            start: self.start,
            parse: self.parse,
            plan,
            execute: None,
            rows: 0,
            peak_memory_bytes: 0,
            spilled_bytes: 0,
            refused_grows: 0,
            reclaimed_bytes: 0,
            queued: Duration::ZERO,
            error: None,
            cache: self.scope.cached().map(Into::into),
            cached_plan: self.scope.cached_plan().map(Into::into),
            rules: self.scope.reports(),
        }
    }

    fn since_begun(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.begun)
    }
}

impl ReceivedQuery {
    /// Opens the record of a query. `parse` is the time its text took to parse, where it came as text.
    pub(crate) fn new(
        log: &Arc<QueryLog>,
        clock: &Arc<dyn Clock>,
        options: &SlipstreamOptions,
        scope: QueryScope,
        text: &str,
        parse: Option<Duration>,
    ) -> Self {
        Self(Some(Facts {
            log: Arc::clone(log),
            clock: Arc::clone(clock),
            scope,
            id: log.next_id(),
            text: truncated(text, options.query_log_max_text_bytes),
            start: clock.system_time(),
            begun: clock.now(),
            parse,
            max_entries: options.query_log_max_entries,
            max_text_bytes: options.query_log_max_text_bytes,
        }))
    }

    /// The query has a physical plan of `partitions` output partitions.
    pub(crate) fn planned(mut self, partitions: usize) -> Option<Arc<RunningQuery>> {
        let facts = self.0.take()?;
        let query = Arc::new(RunningQuery {
            plan: facts.since_begun(),
            facts,
            partitions,
            rows: AtomicU64::new(0),
            run: Mutex::new(Run::default()),
        });
        let live: Arc<dyn Live> = Arc::clone(&query) as _;
        query.facts.log.started(query.facts.id, Arc::downgrade(&live));
        Some(query)
    }

    /// The query ended without a stream: DDL, SET, or an answer that needs no plan.
    pub(crate) fn finished(mut self) {
        if let Some(facts) = self.0.take() {
            let record = facts.record(QueryStatus::Finished, facts.since_begun());
            facts.log.ended(record, facts.max_entries);
        }
    }

    /// The query could not be planned.
    pub(crate) fn failed(mut self, error: &DataFusionError) {
        if let Some(facts) = self.0.take() {
            let mut record = facts.record(QueryStatus::Failed, facts.since_begun());
            record.error = Some(error_text(error, facts.max_text_bytes));
            facts.log.ended(record, facts.max_entries);
        }
    }
}

impl Drop for ReceivedQuery {
    fn drop(&mut self) {
        if let Some(facts) = self.0.take() {
            facts.log.ended(facts.record(QueryStatus::Cancelled, facts.since_begun()), facts.max_entries);
        }
    }
}

/// A query that has a physical plan.
///
/// It is recorded once, by whichever of these comes first:
///
/// | event | status |
/// |---|---|
/// | the last partition came to its end | finished |
/// | a partition failed | failed |
/// | the last open stream was dropped before its end | cancelled |
/// | the plan was dropped, executed in part | cancelled |
/// | the plan was dropped, never executed | planned |
///
/// The partitions of a query may be executed by different tasks, one after the other, or not at all, so its state
/// is behind one lock. It is taken once a partition and never for a batch: rows are counted by an atomic.
#[derive(Debug)]
pub(crate) struct RunningQuery {
    facts: Facts,
    plan: Duration,
    partitions: usize,
    rows: AtomicU64,
    run: Mutex<Run>,
}

/// What the partitions of one execution have done so far.
#[derive(Debug, Default)]
struct Run {
    executed_since: Option<Instant>,
    pool: Option<Arc<QueryPool>>,
    open: usize,
    ended: usize,
    spilled_bytes: u64,
    /// Since when it waits for its turn.
    waits_since: Option<Instant>,
    queued: Duration,
    recorded: bool,
}

impl RunningQuery {
    /// The query's number.
    pub(crate) fn id(&self) -> u64 {
        self.facts.id
    }

    /// A partition is about to be executed under `pool`.
    pub(crate) fn partition_started(&self, pool: &Arc<QueryPool>) {
        let mut run = self.run.lock();
        let now = self.facts.clock.now();
        run.executed_since.get_or_insert(now);
        run.pool.get_or_insert_with(|| Arc::clone(pool));
        run.open += 1;
    }

    /// It has to wait for its turn.
    pub(crate) fn waits(&self) {
        let mut run = self.run.lock();
        run.waits_since.get_or_insert_with(|| self.facts.clock.now());
    }

    /// It has its turn, or will have none.
    pub(crate) fn admitted(&self) {
        let mut run = self.run.lock();
        let waited = self.waited(&run);
        run.queued += waited;
        run.waits_since = None;
    }

    /// How long it waits by now.
    fn waited(&self, run: &Run) -> Duration {
        run.waits_since
            .map_or(Duration::ZERO, |since| self.facts.clock.now().saturating_duration_since(since))
    }

    /// Rows were handed to the caller.
    pub(crate) fn produced(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// A partition came to its end; the last one finishes the query.
    pub(crate) fn partition_ended(&self, plan: &dyn ExecutionPlan) {
        let mut run = self.run.lock();
        run.open = run.open.saturating_sub(1);
        run.ended += 1;
        if run.ended >= self.partitions {
            run.spilled_bytes = spilled_bytes(plan);
            self.record(&mut run, QueryStatus::Finished, None);
        }
    }

    /// A partition failed, and the query with it.
    pub(crate) fn partition_failed(&self, plan: &dyn ExecutionPlan, error: &DataFusionError) {
        let mut run = self.run.lock();
        run.open = run.open.saturating_sub(1);
        run.spilled_bytes = spilled_bytes(plan);
        self.record(&mut run, QueryStatus::Failed, Some(error));
    }

    /// A partition's stream was dropped before its end. With no other open, the query is cancelled.
    pub(crate) fn partition_dropped(&self, plan: &dyn ExecutionPlan) {
        let mut run = self.run.lock();
        run.open = run.open.saturating_sub(1);
        run.spilled_bytes = spilled_bytes(plan);
        if run.open == 0 {
            self.record(&mut run, QueryStatus::Cancelled, None);
        }
    }

    /// Whether its record is written: what is executed from now on belongs to another query.
    pub(crate) fn is_over(&self) -> bool {
        self.run.lock().recorded
    }

    /// The record of another execution of the same plan, whose state was reset.
    pub(crate) fn again(&self) -> Arc<Self> {
        let facts = &self.facts;
        let query = Arc::new(Self {
            facts: Facts {
                log: Arc::clone(&facts.log),
                clock: Arc::clone(&facts.clock),
                scope: facts.scope.clone(),
                id: facts.log.next_id(),
                text: facts.text.clone(),
                start: facts.clock.system_time(),
                begun: facts.clock.now(),
                ..*facts
            },
            plan: self.plan,
            partitions: self.partitions,
            rows: AtomicU64::new(0),
            run: Mutex::new(Run::default()),
        });
        let live: Arc<dyn Live> = Arc::clone(&query) as _;
        facts.log.started(query.facts.id, Arc::downgrade(&live));
        query
    }

    /// Writes the record, the first time it is called.
    fn record(&self, run: &mut Run, status: QueryStatus, error: Option<&DataFusionError>) {
        if !std::mem::replace(&mut run.recorded, true) {
            let mut record = self.current(run, status);
            record.error = error.map(|error| error_text(error, self.facts.max_text_bytes));
            self.facts.log.ended(record, self.facts.max_entries);
        }
    }

    fn current(&self, run: &Run, status: QueryStatus) -> QueryRecord {
        QueryRecord {
            execute: run.executed_since.map(|since| self.facts.clock.now().saturating_duration_since(since)),
            rows: self.rows.load(Ordering::Relaxed),
            peak_memory_bytes: run.pool.as_ref().map_or(0, |pool| pool.peak_bytes() as u64),
            spilled_bytes: run.spilled_bytes,
            refused_grows: run.pool.as_ref().map_or(0, |pool| pool.refused_grows()),
            reclaimed_bytes: run.pool.as_ref().map_or(0, |pool| pool.reclaimed_bytes()),
            queued: run.queued + self.waited(run),
            ..self.facts.record(status, self.plan)
        }
    }
}

impl Live for RunningQuery {
    fn snapshot(&self) -> Option<QueryRecord> {
        let run = self.run.lock();
        let status = match (run.executed_since, run.waits_since) {
            (None, _) => QueryStatus::Planned,
            (Some(_), Some(_)) => QueryStatus::Queued,
            (Some(_), None) => QueryStatus::Running,
        };
        (!run.recorded).then(|| self.current(&run, status))
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        let mut run = std::mem::take(self.run.get_mut());
        let executed = run.executed_since.is_some();
        self.record(&mut run, if executed { QueryStatus::Cancelled } else { QueryStatus::Planned }, None);
    }
}

/// What the operators of `plan` wrote to spill files, by their own metrics.
fn spilled_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0) as u64;
    own + plan.children().into_iter().map(|child| spilled_bytes(child.as_ref())).sum::<u64>()
}

fn error_text(error: &DataFusionError, max_bytes: usize) -> String {
    truncated(&error.strip_backtrace(), max_bytes)
}

/// At most `max_bytes` of `text`, cut at a character; a cut one ends in an ellipsis.
fn truncated(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    const ELLIPSIS: char = '…';
    let end = text.floor_char_boundary(max_bytes.saturating_sub(ELLIPSIS.len_utf8()));
    match max_bytes {
        0 => String::new(),
        _ => format!("{}{ELLIPSIS}", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(truncated("abcdef", 6), "abcdef");
        assert_eq!(truncated("abcdefg", 6), "abc…");
        assert_eq!(truncated("ääää", 6), "ä…");
        assert_eq!(truncated("abc", 0), "");
    }
}
