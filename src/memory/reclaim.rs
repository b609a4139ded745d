//! Memory that its holder can give back when others need it.

use std::fmt;

/// A cache, as the governor sees it: it gives back before any query is refused.
///
/// It reserves through [`MemoryGovernor::cache_pool`](super::MemoryGovernor::cache_pool), so that what it holds is counted.
/// It is asked with no lock of the governor held, by the thread of the query that needs the memory: it should be quick, and
/// must not wait for a query.
pub(crate) trait Reclaim: fmt::Debug + Send + Sync {
    /// What `slipstream.memory` calls it.
    fn name(&self) -> &str;

    /// Bytes that it could give back now.
    fn held(&self) -> usize;

    /// Gives back `bytes`, or what it can, and says how many it gave.
    fn reclaim(&self, bytes: usize) -> usize;
}
