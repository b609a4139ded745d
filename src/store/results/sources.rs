//! Which answers are there of each source: where a query without an answer looks for one that it can be computed from.

use std::collections::HashMap;
use std::sync::Arc;

use super::entry::CachedResult;
use super::sync::Mutex;
use crate::fingerprint::Key;

/// The most answers of one source that are looked at: each costs some microseconds. The newest stay.
const CANDIDATES: usize = 64;

/// What the index takes for one answer, about.
pub(super) const SLOT: usize = 2 * size_of::<Slot>() + 32;

/// An answer, by its own key: that it is here does not keep it.
#[derive(Debug, Clone)]
struct Slot {
    id: u64,
    rows: usize,
    key: Arc<Key>,
}

/// An index from sources to answers.
///
/// It may name an answer that is gone, for a moment: an answer is named before it can be found in its shard, and struck off
/// behind it. Whoever looks finds the answer by its key, or does not.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<HashMap<Arc<Key>, Vec<Slot>>>);

impl Sources {
    /// Names an answer that has a shape.
    pub(super) fn add(&self, result: &CachedResult) {
        let Some(shaped) = &result.answer.shape else { return };
        let slot = Slot { id: result.id, rows: result.rows, key: Arc::clone(result.key()) };
        let mut sources = self.0.lock();
        let slots = sources.entry(Arc::clone(&shaped.source)).or_default();
        slots.push(slot);
        if slots.len() > CANDIDATES {
            slots.remove(0);
        }
    }

    /// Strikes an answer off.
    pub(super) fn remove(&self, result: &CachedResult) {
        let Some(shaped) = &result.answer.shape else { return };
        let mut sources = self.0.lock();
        let Some(slots) = sources.get_mut(&shaped.source) else { return };
        slots.retain(|slot| slot.id != result.id);
        if slots.is_empty() {
            sources.remove(&shaped.source);
        }
    }

    /// The keys of the answers of `source`, those with the fewest rows first.
    pub(super) fn of(&self, source: &Arc<Key>) -> Vec<Arc<Key>> {
        let mut slots = self.0.lock().get(source).cloned().unwrap_or_default();
        slots.sort_by_key(|slot| slot.rows);
        slots.into_iter().map(|slot| slot.key).collect()
    }

    /// How many answers are named.
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}
