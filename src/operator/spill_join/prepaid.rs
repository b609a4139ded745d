//! A memory pool that pays out of a reservation made beforehand, so that what was found to fit does not fail later.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use parking_lot::Mutex;

use crate::operator::context::derived;
use crate::operator::purse::Purse;

/// What the operators of one inner join reserve is taken from `purse`; only what is not in it is reserved at the pool that
/// the purse belongs to.
///
/// ```text
///   HashJoinInput ─► PrepaidPool ─► reservation of SpillJoinExec ─► the query's pool
///       (grows)       used ≤ size      (already granted)             (sees one consumer, which can spill)
/// ```
///
/// Consumers are not registered below: a pool that divides its memory by the number of consumers sees the join once.
pub(super) struct PrepaidPool {
    real: Arc<dyn MemoryPool>,
    purse: Mutex<Purse>,
}

impl PrepaidPool {
    /// A pool that pays out of `reservation`, which was made at `real`.
    pub(super) fn new(real: &Arc<dyn MemoryPool>, reservation: MemoryReservation) -> Arc<Self> {
        Arc::new(Self { real: Arc::clone(real), purse: Mutex::new(Purse::new(reservation)) })
    }

    /// Gives back what was reserved for the time while the table was built: the copy of the rows that are collected.
    pub(super) fn built(&self) {
        self.purse.lock().keep_nothing();
    }

    /// The context of `outer` with this pool in it.
    pub(super) fn context(self: &Arc<Self>, outer: &TaskContext) -> Arc<TaskContext> {
        let memory_pool: Arc<dyn MemoryPool> = Arc::clone(self) as _;
        let runtime = RuntimeEnv { memory_pool, ..outer.runtime_env().as_ref().clone() };
        derived(outer, outer.session_config().clone(), Arc::new(runtime))
    }
}

impl fmt::Debug for PrepaidPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purse = self.purse.lock();
        f.debug_struct("PrepaidPool")
            .field("reserved", &purse.reserved())
            .field("used", &purse.used())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PrepaidPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.real, f)
    }
}

impl MemoryPool for PrepaidPool {
    fn name(&self) -> &str {
        self.real.name()
    }

    fn register(&self, _consumer: &MemoryConsumer) {}

    fn unregister(&self, _consumer: &MemoryConsumer) {}

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.purse.lock().grow(additional);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.purse.lock().shrink(shrink);
    }

    /// Never refuses. That the rows fit was decided from their sizes, and what such an estimate misses, such as how buffers
    /// are rounded up when they are read back, is little; the query would fail for it when most of its work is done.
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.real.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.real.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    #[test]
    fn grows_are_paid_out_of_the_reservation_and_then_by_the_pool() {
        let real: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let other = MemoryConsumer::new("other").register(&real);
        let paid = MemoryConsumer::new("join").with_can_spill(true).register(&real);
        paid.grow(600);
        other.grow(350);
        let prepaid = PrepaidPool::new(&real, paid);
        let pool: Arc<dyn MemoryPool> = Arc::clone(&prepaid) as _;
        let inner = MemoryConsumer::new("HashJoinInput").register(&pool);

        inner.try_grow(600).unwrap();
        assert_eq!(real.reserved(), 950, "nothing was asked of the pool");
        inner.try_grow(100).unwrap();
        assert_eq!(real.reserved(), 1050, "what was missed is reserved, though the pool had 50 left");
        inner.shrink(500);
        assert_eq!(real.reserved(), 950, "kept until the table is built");
        prepaid.built();
        assert_eq!(real.reserved(), 550);
        drop((inner, pool, prepaid, other));
        assert_eq!(real.reserved(), 0);
    }
}
