//! The statistics of analyzed tables, one entry for each version of the data.

use std::sync::Arc;

use parking_lot::Mutex;

use super::bounded::Bounded;
use super::identity::Identity;
use super::profile::TableProfile;

/// What ANALYZE found, by the identity of what it read.
///
/// An entry is found only by a scan of the very same data: a file that was rewritten, added or taken away makes
/// another identity. The old entry is then of no use to anybody, and stays until it is the least recently used.
#[derive(Default)]
pub(crate) struct StatisticsStore {
    // One lock for all: it is held while a map is looked up, and nothing is awaited meanwhile.
    tables: Mutex<Bounded<Identity, Arc<TableProfile>>>,
}

impl StatisticsStore {
    /// The profile of this very version of a table.
    pub(crate) fn get(&self, identity: &Identity) -> Option<Arc<TableProfile>> {
        self.tables.lock().get(identity).map(Arc::clone)
    }

    /// Keeps `profile`, within `max_entries` tables and `max_bytes`. Columns that were analyzed before, of the same
    /// data, stay; versions of data in memory that is gone make room.
    pub(crate) fn put(
        &self,
        mut profile: TableProfile,
        max_entries: usize,
        max_bytes: usize,
    ) -> Arc<TableProfile> {
        let mut tables = self.tables.lock();
        tables.retain(|identity, _| identity.may_return());
        if let Some(older) = tables.get(&profile.identity) {
            profile.adopt(older);
        }
        let bytes = profile.bytes();
        let profile = Arc::new(profile);
        tables.put(profile.identity.clone(), Arc::clone(&profile), bytes, max_entries, max_bytes);
        profile
    }

    /// All profiles, the one used last first.
    pub(crate) fn profiles(&self) -> Vec<Arc<TableProfile>> {
        self.tables.lock().values().map(Arc::clone).collect()
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.lock().size().0 == 0
    }
}

impl std::fmt::Debug for StatisticsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tables, bytes) = self.tables.lock().size();
        f.debug_struct("StatisticsStore").field("tables", &tables).field("bytes", &bytes).finish()
    }
}
