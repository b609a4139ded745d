//! What happened to the queries that could have been answered from the cache, by reason.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sync::{AtomicU64, Mutex, Ordering};

/// Why an answer left the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evicted {
    /// Another one needed its place.
    Size,
    /// A query needed its memory.
    Memory,
    /// Its time was over.
    Expired,
    /// Its data is another now.
    Stale,
    /// A newer one of the same question.
    Replaced,
    /// Somebody dropped it.
    Dropped,
    /// Its file is not what was written.
    Corrupt,
    /// Its file is another version's.
    Build,
    /// A file that a process which died was about to write.
    Leftover,
}

impl Evicted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Memory => "memory",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
            Self::Corrupt => "corrupt",
            Self::Build => "version",
            Self::Leftover => "leftover",
        }
    }
}

/// Counters since the store was made. Relaxed atomics: nothing is decided by them.
#[derive(Debug, Default)]
pub(crate) struct CacheStats {
    hits: AtomicU64,
    part_hits: AtomicU64,
    broader_hits: AtomicU64,
    misses: AtomicU64,
    waits: AtomicU64,
    stored: AtomicU64,
    saved_nanos: AtomicU64,
    /// Kinds are few: `fingerprint::Refusal` and the recorder know them.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    evicted: Mutex<BTreeMap<Evicted, u64>>,
}

impl CacheStats {
    /// An answer was given that took `cost` to compute.
    pub(crate) fn hit(&self, cost: Duration) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        self.saved_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A part of a query was given, which saved so much.
    pub(crate) fn part_hit(&self, saved: Duration) {
        self.part_hits.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(saved.as_nanos()).unwrap_or(u64::MAX);
        self.saved_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A query was computed from an answer to a broader one.
    pub(crate) fn broader_hit(&self) {
        self.broader_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// There was no answer.
    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// A query waited for the same one, and got its answer.
    pub(crate) fn waited(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer was put in.
    pub(crate) fn stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// A query, or its answer, was not for the cache.
    pub(crate) fn refused(&self, kind: &'static str) {
        *self.refused.lock().entry(kind).or_default() += 1;
    }

    /// Answers left the store.
    pub(crate) fn evicted(&self, why: Evicted, count: u64) {
        if count > 0 {
            *self.evicted.lock().entry(why).or_default() += count;
        }
    }

    /// All counters: name, reason, value.
    pub(crate) fn rows(&self) -> Vec<(&'static str, Option<&'static str>, f64)> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let mut rows = vec![
            ("hits", None, count(&self.hits)),
            ("part_hits", None, count(&self.part_hits)),
            ("broader_hits", None, count(&self.broader_hits)),
            ("misses", None, count(&self.misses)),
            ("waits", None, count(&self.waits)),
            ("stored", None, count(&self.stored)),
            ("seconds_saved", None, count(&self.saved_nanos) / 1e9),
        ];
        rows.extend(self.refused.lock().iter().map(|(kind, count)| ("refused", Some(*kind), *count as f64)));
        rows.extend(
            self.evicted.lock().iter().map(|(why, count)| ("evicted", Some(why.as_str()), *count as f64)),
        );
        rows
    }
}
