//! What a cache holds of the memory pools.

use std::ptr::addr_eq;
use std::sync::{Arc, Weak};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use super::sync::Mutex;
use crate::memory::{MemoryGovernor, QueryPool};

/// A session's pool, and the cache's view of it.
type View = (Weak<dyn MemoryPool>, Arc<QueryPool>);

/// One view for each pool that sessions have; one, mostly.
#[derive(Debug)]
pub(in crate::store) struct Budget {
    /// What `slipstream.memory` calls the cache.
    name: &'static str,
    /// Weak, since a governor asks the cache, and outlives it.
    governor: Weak<MemoryGovernor>,
    pools: Mutex<Vec<View>>,
}

impl Budget {
    pub(in crate::store) fn new(governor: &Arc<MemoryGovernor>, name: &'static str) -> Self {
        Self { name, governor: Arc::downgrade(governor), pools: Mutex::default() }
    }

    /// Reserves `bytes` of `pool`; `None` where it has not so many for a cache.
    pub(in crate::store) fn reserve(
        &self,
        pool: &Arc<dyn MemoryPool>,
        bytes: usize,
    ) -> Option<MemoryReservation> {
        let view: Arc<dyn MemoryPool> = self.view(pool)?;
        let reservation = MemoryConsumer::new("cached result").register(&view);
        reservation.try_grow(bytes).ok()?;
        Some(reservation)
    }

    fn view(&self, pool: &Arc<dyn MemoryPool>) -> Option<Arc<QueryPool>> {
        let governor = self.governor.upgrade()?;
        let mut pools = self.pools.lock();
        pools.retain(|(_, view)| view.reserved_bytes() > 0 || view.views(pool));
        if let Some((_, view)) = pools.iter().find(|(known, _)| addr_eq(known.as_ptr(), Arc::as_ptr(pool))) {
            return Some(Arc::clone(view));
        }
        let view = governor.cache_pool(self.name, pool);
        pools.push((Arc::downgrade(pool), Arc::clone(&view)));
        Some(view)
    }
}
