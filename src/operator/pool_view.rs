//! A view of a memory pool in which one decision is another.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// What a view decides by itself.
pub(super) trait Grant: Send + Sync + 'static {
    /// Reserves `additional` bytes of `pool`, or fails.
    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()>;
}

/// Forwards everything to the pool below, but for [`Grant::try_grow`].
pub(super) struct PoolView<G> {
    inner: Arc<dyn MemoryPool>,
    grant: G,
}

impl<G: Grant> PoolView<G> {
    /// A view of `inner`.
    pub(super) fn of(inner: &Arc<dyn MemoryPool>, grant: G) -> Arc<dyn MemoryPool> {
        Arc::new(Self { inner: Arc::clone(inner), grant })
    }
}

impl<G> fmt::Debug for PoolView<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolView").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<G> fmt::Display for PoolView<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<G: Grant> MemoryPool for PoolView<G> {
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
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.grant.try_grow(&self.inner, reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
