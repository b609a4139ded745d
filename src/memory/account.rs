//! The counters of one level: a query's own, and those of all queries over one memory pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::ledger::raise;

/// Bytes and holders of one level.
///
/// Relaxed atomics: each has to be exact when it is changed, no other memory is published through them, and whoever decides
/// by several of them holds the governor's lock.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes that are held.
    reserved: AtomicUsize,
    /// The most of them at one time.
    peak: AtomicUsize,
    /// Bytes of them that are held by those who can do with less.
    spillable: AtomicUsize,
    /// Queries that hold something. Two threads may count a query's end before its beginning: in between the number is
    /// one too low, and wraps around at zero.
    queries: AtomicUsize,
}

impl Account {
    /// Adds bytes; whether there were none before.
    pub(super) fn grow(&self, bytes: usize, spillable: bool) -> bool {
        if spillable {
            self.spillable.fetch_add(bytes, Ordering::Relaxed);
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed) == 0
    }

    /// Takes bytes off; whether there are none now.
    pub(super) fn shrink(&self, bytes: usize, spillable: bool) -> bool {
        if spillable {
            self.spillable.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.reserved.fetch_sub(bytes, Ordering::Relaxed) == bytes
    }

    /// What is held now is there to stay.
    pub(super) fn keep(&self) {
        raise(&self.peak, self.reserved());
    }

    /// Bytes that are held.
    pub(super) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at one time.
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Bytes that are held by those who can do with less.
    pub(super) fn spillable(&self) -> usize {
        self.spillable.load(Ordering::Relaxed)
    }

    /// A query began to hold something.
    pub(super) fn query_begins(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// A query holds nothing any more.
    pub(super) fn query_ends(&self) {
        self.queries.fetch_sub(1, Ordering::Relaxed);
    }

    /// Queries that hold something.
    pub(super) fn queries(&self) -> usize {
        let queries = self.queries.load(Ordering::Relaxed);
        if queries > usize::MAX / 2 { 0 } else { queries }
    }
}
