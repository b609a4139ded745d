//! A view of the query's memory pool that counts what one operator holds.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use super::usage::Usage;

/// Forwards everything to the pool around the operator; limits, fairness and errors stay there.
pub(super) struct OperatorPool {
    inner: Arc<dyn MemoryPool>,
    usage: Arc<Usage>,
    /// The disk manager that the operator was given, and the one that its context has instead.
    disks: (Arc<DiskManager>, Arc<DiskManager>),
}

impl OperatorPool {
    /// A view of `inner` that counts for `usage`. `disks` are the disk manager around the operator and its own.
    pub(super) fn new(
        inner: Arc<dyn MemoryPool>,
        usage: Arc<Usage>,
        disks: (Arc<DiskManager>, Arc<DiskManager>),
    ) -> Self {
        Self { inner, usage, disks }
    }
}

/// The memory pool and the disk manager around the operator that `context` was derived for; those of `context` where it
/// was not derived for one.
///
/// An operator hands its own context down to its inputs. What they use is not the operator's, so an input that is
/// accounted for itself starts from here, and views never nest.
pub(super) fn around(context: &TaskContext) -> (Arc<dyn MemoryPool>, Arc<DiskManager>) {
    let pool = context.memory_pool();
    let disk = Arc::clone(&context.runtime_env().disk_manager);
    match (pool.as_ref() as &dyn Any).downcast_ref::<OperatorPool>() {
        // Something between the two operators may have set another disk manager; then that one counts.
        Some(view) if Arc::ptr_eq(&view.disks.1, &disk) => {
            (Arc::clone(&view.inner), Arc::clone(&view.disks.0))
        }
        Some(view) => (Arc::clone(&view.inner), disk),
        None => (Arc::clone(pool), disk),
    }
}

impl fmt::Debug for OperatorPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorPool")
            .field("reserved", &self.usage.reserved())
            .field("peak", &self.usage.peak())
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for OperatorPool {
    /// Prints the pool below, so that messages read as they do without the layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

// What is counted here is always a part of what the pool below has counted: that one grows first and shrinks last. So an
// operator's peak is never above its query's.
#[deny(clippy::missing_trait_methods)]
impl MemoryPool for OperatorPool {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.usage.grown(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.usage.shrunk(shrink);
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.inner.try_grow(reservation, additional)?;
        self.usage.grown(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
