//! How large a batch may be, given a memory pool: pure arithmetic.

use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};

/// A batch is at most this part of the memory limit: some operators of a plan hold a few batches for each partition at the
/// same time, most of them unregistered.
const PART_OF_LIMIT: usize = 64;
/// Below this many bytes a batch costs more in overhead than it saves in memory.
const SMALLEST: usize = 64 << 10;

/// The settings `slipstream.batch_size.*` of one query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchPolicy {
    /// Bytes that a batch should not exceed.
    pub(crate) target_bytes: usize,
    /// Rows that a batch has at least, however wide they are.
    pub(crate) min_rows: usize,
}

impl BatchPolicy {
    /// Bytes that a batch should not exceed now.
    ///
    /// | of the limit is reserved | bytes |
    /// |---|---|
    /// | less than a half, or there is no limit | the target, or a 64th of the limit where that is less |
    /// | a half to three quarters | a half of that |
    /// | more | a quarter of that |
    pub(super) fn bytes(self, pool: &dyn MemoryPool) -> usize {
        let MemoryLimit::Finite(limit) = pool.memory_limit() else {
            return self.target_bytes.max(1);
        };
        let relaxed = self.target_bytes.min(limit / PART_OF_LIMIT);
        let reserved = pool.reserved();
        let bytes = if reserved < limit / 2 {
            relaxed
        } else if reserved < limit / 4 * 3 {
            relaxed / 2
        } else {
            relaxed / 4
        };
        // Never above the target, which somebody may have set lower than what is sensible.
        bytes.max(SMALLEST.min(self.target_bytes)).max(1)
    }

    /// Rows of a batch whose rows take `width` bytes: a power of two, or `configured`, which is never exceeded.
    pub(super) fn rows(self, width: usize, configured: usize, pool: &dyn MemoryPool) -> usize {
        let fit = self.bytes(pool) / width.max(1);
        if fit >= configured {
            return configured;
        }
        let rounded = fit.checked_ilog2().map_or(1, |exponent| 1 << exponent);
        rounded.max(self.min_rows).min(configured).max(1)
    }

    /// Whether rows of `width` bytes may come in smaller batches than `configured` under some pool.
    pub(crate) fn may_shrink(self, width: f64, configured: usize) -> bool {
        width * configured as f64 > self.target_bytes.min(MATTERS) as f64
    }
}

/// Bytes below which a batch matters under no memory limit that is in use: a 64th of 64 MB.
const MATTERS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, UnboundedMemoryPool};
    use std::sync::Arc;

    const POLICY: BatchPolicy = BatchPolicy { target_bytes: 16 << 20, min_rows: 1 };

    #[test]
    fn ordinary_rows_keep_their_batch_size_and_wide_ones_do_not() {
        let pool = UnboundedMemoryPool::default();
        assert_eq!(POLICY.rows(100, 8192, &pool), 8192);
        assert_eq!(POLICY.rows(2048, 8192, &pool), 8192);
        assert_eq!(POLICY.rows(1 << 20, 8192, &pool), 16);
        assert_eq!(POLICY.rows(3000, 8192, &pool), 4096, "a power of two");
        assert_eq!(POLICY.rows(1 << 40, 8192, &pool), 1);
        assert_eq!(POLICY.rows(0, 8192, &pool), 8192);
        assert_eq!(BatchPolicy { min_rows: 64, ..POLICY }.rows(1 << 20, 8192, &pool), 64);
        assert_eq!(
            BatchPolicy { min_rows: 64, ..POLICY }.rows(1 << 20, 10, &pool),
            10,
            "never more than configured"
        );
    }

    #[test]
    fn a_batch_shrinks_under_pressure_and_grows_back() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
        assert_eq!(POLICY.rows(1 << 20, 8192, pool.as_ref()), 1, "1 MB of 64");
        assert_eq!(POLICY.rows(200, 8192, pool.as_ref()), 4096);
        let held = MemoryConsumer::new("held").register(&pool);
        held.try_grow(40 << 20).unwrap();
        assert_eq!((POLICY.bytes(pool.as_ref()), POLICY.rows(1 << 20, 8192, pool.as_ref())), (512 << 10, 1));
        held.try_grow(20 << 20).unwrap();
        assert_eq!((POLICY.bytes(pool.as_ref()), POLICY.rows(200, 8192, pool.as_ref())), (256 << 10, 1024));
        held.free();
        assert_eq!(POLICY.bytes(pool.as_ref()), 1 << 20);
        let tiny: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        assert_eq!(POLICY.bytes(tiny.as_ref()), SMALLEST);
    }
}
