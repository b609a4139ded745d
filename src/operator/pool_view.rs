//! A view of a memory pool in which some decisions are others.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// What a view does itself. Every method forwards to `pool`, the pool below, unless it is written anew.
pub(super) trait View: Send + Sync + Sized + 'static {
    fn register(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        pool.register(consumer);
    }

    fn unregister(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        pool.unregister(consumer);
    }

    fn grow(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, additional: usize) {
        pool.grow(reservation, additional);
    }

    fn shrink(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, shrink: usize) {
        pool.shrink(reservation, shrink);
    }

    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        pool.try_grow(reservation, additional)
    }
}

/// `V` in front of a pool.
pub(super) struct PoolView<V> {
    inner: Arc<dyn MemoryPool>,
    view: V,
}

impl<V: View> PoolView<V> {
    /// A view of `inner`.
    pub(super) fn of(inner: &Arc<dyn MemoryPool>, view: V) -> Arc<dyn MemoryPool> {
        Arc::new(Self { inner: Arc::clone(inner), view })
    }

    /// The pool below.
    pub(super) fn inner(&self) -> &Arc<dyn MemoryPool> {
        &self.inner
    }

    /// What the view does itself.
    pub(super) fn view(&self) -> &V {
        &self.view
    }
}

impl<V> fmt::Debug for PoolView<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolView").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<V> fmt::Display for PoolView<V> {
    /// Prints the pool below, so that messages read as they do without the layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<V: View> MemoryPool for PoolView<V> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.view.register(&self.inner, consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.view.unregister(&self.inner, consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.view.grow(&self.inner, reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.view.shrink(&self.inner, reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.view.try_grow(&self.inner, reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
