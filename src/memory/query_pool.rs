//! A view of the session's pool that counts what one query holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// Forwards everything to the session's pool and keeps the high-water mark of one query.
///
/// ```text
///   operators of query 7 ─► QueryPool (reserved, peak) ─┐
///                                                       ├─► the session's MemoryPool (limit, policy)
///   operators of query 8 ─► QueryPool (reserved, peak) ─┘
/// ```
///
/// It decides nothing: limits, fairness and errors stay with the pool below. The counters are relaxed atomics,
/// since each only has to be exact at the moment it is changed, and no other memory is published through them.
pub struct QueryPool {
    inner: Arc<dyn MemoryPool>,
    reserved: AtomicUsize,
    peak: AtomicUsize,
}

impl QueryPool {
    /// A view of `inner` that has nothing reserved yet.
    pub fn new(inner: Arc<dyn MemoryPool>) -> Self {
        Self { inner, reserved: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Whether this is a view of `pool`.
    pub fn views(&self, pool: &Arc<dyn MemoryPool>) -> bool {
        Arc::ptr_eq(&self.inner, pool)
    }

    /// The most bytes the query had reserved at one time.
    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// The bytes the query has reserved now.
    pub fn reserved_bytes(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    fn grown(&self, additional: usize) {
        let reserved = self.reserved.fetch_add(additional, Ordering::Relaxed) + additional;
        self.peak.fetch_max(reserved, Ordering::Relaxed);
    }
}

impl fmt::Debug for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryPool")
            .field("reserved", &self.reserved_bytes())
            .field("peak", &self.peak_bytes())
            .field("inner", &self.inner)
            .finish()
    }
}

impl fmt::Display for QueryPool {
    /// Prints the pool below, so that messages read as they do without the layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl MemoryPool for QueryPool {
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
        self.grown(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.inner.try_grow(reservation, additional)?;
        self.grown(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    #[test]
    fn counts_this_query_and_leaves_the_limit_to_the_pool_below() {
        let below: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let first = Arc::new(QueryPool::new(Arc::clone(&below)));
        let second = Arc::new(QueryPool::new(Arc::clone(&below)));
        let mine: Arc<dyn MemoryPool> = Arc::clone(&first) as _;
        let other: Arc<dyn MemoryPool> = Arc::clone(&second) as _;

        let reservation = MemoryConsumer::new("mine").register(&mine);
        let theirs = MemoryConsumer::new("theirs").register(&other);
        reservation.try_grow(600).unwrap();
        theirs.try_grow(300).unwrap();
        assert!(reservation.try_grow(200).is_err(), "the pool below has 100 left");
        reservation.shrink(500);
        reservation.try_grow(50).unwrap();

        assert_eq!((first.reserved_bytes(), first.peak_bytes()), (150, 600));
        assert_eq!((second.reserved_bytes(), second.peak_bytes()), (300, 300));
        assert_eq!(mine.reserved(), 450);
        drop((reservation, theirs));
        assert_eq!((below.reserved(), first.reserved_bytes(), second.reserved_bytes()), (0, 0, 0));
    }
}
