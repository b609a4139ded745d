//! A bounded, shared log of queries: the running ones, and the last that ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::record::QueryRecord;

/// A query that has not ended, as the log sees it.
pub(super) trait Live: Send + Sync {
    /// What is known now; `None` once the query is recorded as ended.
    fn snapshot(&self) -> Option<QueryRecord>;
}

/// The log behind `slipstream.queries`.
///
/// One log may serve many sessions. It holds at most `slipstream.query_log.max_entries` ended queries (of the
/// session whose query ended last) and a weak reference to each running one, so a query that is dropped
/// without a word can never be kept alive, or forgotten, by its own log.
#[derive(Default)]
pub struct QueryLog {
    last_id: AtomicU64,
    // A std-like mutex, not an async one: nothing is awaited while it is held.
    state: Mutex<State>,
}

/// Ended queries are shared with readers by `Arc`: reading the log copies pointers, not texts.
#[derive(Default)]
struct State {
    running: BTreeMap<u64, Weak<dyn Live>>,
    ended: VecDeque<Arc<QueryRecord>>,
}

impl QueryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// All queries, oldest first: those that ended and are still kept, then those that have not.
    pub fn queries(&self) -> Vec<Arc<QueryRecord>> {
        let (mut records, running) = {
            let state = self.state.lock();
            (Vec::from_iter(state.ended.iter().cloned()), Vec::from_iter(state.running.values().cloned()))
        };
        // Snapshots take each query's own lock; taking it under the log's would invert the order of `ended`.
        records.extend(
            running.iter().filter_map(Weak::upgrade).filter_map(|live| live.snapshot()).map(Arc::new),
        );
        records.sort_by_key(|record| record.id);
        records
    }

    /// The number of the next query.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A query is planned and will be shown until it ends.
    pub(super) fn started(&self, id: u64, query: Weak<dyn Live>) {
        self.state.lock().running.insert(id, query);
    }

    /// A query ended; the oldest entries beyond `max_entries` are dropped.
    pub(super) fn ended(&self, record: QueryRecord, max_entries: usize) {
        let mut state = self.state.lock();
        state.running.remove(&record.id);
        state.ended.push_back(Arc::new(record));
        while state.ended.len() > max_entries {
            state.ended.pop_front();
        }
    }
}

impl std::fmt::Debug for QueryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("QueryLog")
            .field("running", &state.running.len())
            .field("ended", &state.ended.len())
            .finish()
    }
}
