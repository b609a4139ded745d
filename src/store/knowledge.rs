//! What one query may look up while it is planned, and what it has looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use super::identity::Identity;
use super::observation::ObservationStore;
use super::profile::TableProfile;
use super::statistics::StatisticsStore;
use crate::scope::carried_by_query;

/// The stores of the layer, carried by a query's own configuration as its scope is: rules see nothing else.
///
/// A clone for each query remembers what that query used. Clones made from it share the memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    statistics: Arc<StatisticsStore>,
    observations: Arc<ObservationStore>,
    used: Arc<Mutex<Used>>,
}

/// What estimates of one query were made from. Sets, since the same input is estimated by several rules.
#[derive(Debug, Default)]
struct Used {
    tables: BTreeSet<String>,
    observed: BTreeMap<String, u64>,
}

impl Knowledge {
    /// The same stores for another query.
    pub(crate) fn for_query(&self) -> Self {
        Self { used: Arc::default(), ..self.clone() }
    }

    /// What `options` carries, if a query put it there.
    pub(crate) fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// Statistics of tables.
    pub(crate) fn statistics(&self) -> &Arc<StatisticsStore> {
        &self.statistics
    }

    /// Observed row counts.
    pub(crate) fn observations(&self) -> &Arc<ObservationStore> {
        &self.observations
    }

    /// What is known of the data that the leaf `node` reads.
    pub(crate) fn profile(&self, node: &dyn ExecutionPlan) -> Option<Arc<TableProfile>> {
        // Most sessions have analyzed nothing, and an identity takes a while to write down.
        if self.statistics.is_empty() {
            return None;
        }
        self.profile_of(&Identity::of(node).ok()?)
    }

    /// What is known of this version of a table.
    pub(crate) fn profile_of(&self, identity: &Identity) -> Option<Arc<TableProfile>> {
        let profile = self.statistics.get(identity)?;
        self.used.lock().tables.insert(profile.table.to_string());
        Some(profile)
    }

    /// The rows that were observed of the subtree with this fingerprint.
    pub(crate) fn observed(&self, fingerprint: &str) -> Option<u64> {
        let rows = self.observations.get(fingerprint)?;
        self.used.lock().observed.insert(fingerprint.to_owned(), rows);
        Some(rows)
    }

    /// The tables whose statistics were used, by name, and the observed row counts that were, in ascending order.
    pub(crate) fn used(&self) -> (Vec<String>, Vec<u64>) {
        let used = self.used.lock();
        let mut observed: Vec<u64> = used.observed.values().copied().collect();
        observed.sort_unstable();
        (used.tables.iter().cloned().collect(), observed)
    }
}

carried_by_query!(Knowledge, "slipstream_knowledge");
