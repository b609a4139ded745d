//! Row counts that finished queries have observed, by the fingerprint of what gave them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::bounded::Bounded;

/// Observed rows of subtrees of plans.
///
/// What is kept is the last count and not an average: over one version of the data all counts of one subtree are equal, or
/// one of them was cut short, which those who put counts in see to. No count expires; data that changes has another key.
///
/// The key says in full what a subtree computes and from which version of which data, so an observation is never
/// wrong, only forgotten: least recently used first.
#[derive(Default)]
pub(crate) struct ObservationStore {
    // Nothing is awaited while it is held.
    rows: Mutex<Bounded<Arc<str>, u64>>,
}

impl ObservationStore {
    /// The rows that the subtree with this fingerprint gave.
    pub(crate) fn get(&self, fingerprint: &str) -> Option<u64> {
        self.rows.lock().get(&Arc::from(fingerprint)).copied()
    }

    /// Notes what a subtree gave, within `max_entries` and `max_bytes`.
    pub(crate) fn put(&self, fingerprint: String, rows: u64, max_entries: usize, max_bytes: usize) {
        let bytes = fingerprint.len() + ENTRY_BYTES;
        self.rows.lock().put(fingerprint.into(), rows, bytes, max_entries, max_bytes);
    }

    /// Whether nothing was observed.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.lock().size().0 == 0
    }
}

/// What an entry takes beside its key: a count and the links of the list.
const ENTRY_BYTES: usize = 96;

impl std::fmt::Debug for ObservationStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (observations, bytes) = self.rows.lock().size();
        f.debug_struct("ObservationStore")
            .field("observations", &observations)
            .field("bytes", &bytes)
            .finish()
    }
}
