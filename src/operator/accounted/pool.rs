//! A view of the query's memory pool that counts what one operator holds.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use super::sort::OneColumnSorts;
use super::usage::Usage;
use crate::operator::pool_view::{PoolView, View};

/// Counts; limits, fairness and errors stay with the pool around the operator.
///
/// What is counted here is always a part of what the pool below has counted: that one grows first and shrinks last. So an
/// operator's peak is never above its query's.
pub(super) struct Counted {
    usage: Arc<Usage>,
    /// The disk manager that the operator was given, and the one that its context has instead.
    disks: (Arc<DiskManager>, Arc<DiskManager>),
    /// The operator's sorts, if they ask for more than they hold.
    sorts: Option<OneColumnSorts>,
}

/// A view of `inner` that counts for `usage`. `disks` are the disk manager around the operator and its own.
pub(super) fn counting(
    inner: &Arc<dyn MemoryPool>,
    usage: &Arc<Usage>,
    disks: (Arc<DiskManager>, Arc<DiskManager>),
    sorts: Option<OneColumnSorts>,
) -> Arc<dyn MemoryPool> {
    PoolView::of(inner, Counted { usage: Arc::clone(usage), disks, sorts })
}

/// The memory pool and the disk manager around the operator that `context` was derived for; those of `context` where it
/// was not derived for one.
///
/// An operator hands its own context down to its inputs. What they use is not the operator's, so an input that is
/// accounted for itself starts from here, and views never nest.
pub(super) fn around(context: &TaskContext) -> (Arc<dyn MemoryPool>, Arc<DiskManager>) {
    let pool = context.memory_pool();
    let disk = Arc::clone(&context.runtime_env().disk_manager);
    match (pool.as_ref() as &dyn Any).downcast_ref::<PoolView<Counted>>() {
        // Something between the two operators may have set another disk manager; then that one counts.
        Some(own) if Arc::ptr_eq(&own.view().disks.1, &disk) => {
            (Arc::clone(own.inner()), Arc::clone(&own.view().disks.0))
        }
        Some(own) => (Arc::clone(own.inner()), disk),
        None => (Arc::clone(pool), disk),
    }
}

impl View for Counted {
    fn register(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        if !self.sorts.as_ref().is_some_and(|sorts| sorts.register(pool, consumer)) {
            pool.register(consumer);
        }
    }

    fn unregister(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        let sorts = self.sorts.as_ref();
        if sorts.and_then(|sorts| sorts.unregister(consumer, &self.usage)).is_none() {
            pool.unregister(consumer);
        }
    }

    fn grow(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, additional: usize) {
        let sorts = self.sorts.as_ref();
        if sorts.and_then(|sorts| sorts.grow(reservation, additional, &self.usage)).is_none() {
            pool.grow(reservation, additional);
            self.usage.grown(additional);
        }
    }

    fn shrink(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, shrink: usize) {
        let sorts = self.sorts.as_ref();
        if sorts.and_then(|sorts| sorts.shrink(reservation, shrink, &self.usage)).is_none() {
            self.usage.shrunk(shrink);
            pool.shrink(reservation, shrink);
        }
    }

    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        let sorts = self.sorts.as_ref();
        if let Some(granted) = sorts.and_then(|sorts| sorts.try_grow(reservation, additional, &self.usage)) {
            return granted;
        }
        pool.try_grow(reservation, additional)?;
        self.usage.grown(additional);
        Ok(())
    }
}
