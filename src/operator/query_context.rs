//! The `TaskContext` that one query's nodes run in: its own memory pool, and settings that go with its limits.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;

use super::context::derived;
use crate::config::SlipstreamOptions;
use crate::memory::{MemoryGovernor, QueryPool};

/// Marks the context of a query, so that a query that runs inside it is known to be a part of it.
#[derive(Debug)]
struct InsideQuery;

/// Whether `context` is one that a query runs in.
pub(super) fn is_inside_query(context: &TaskContext) -> bool {
    context.session_config().get_extension::<InsideQuery>().is_some()
}

/// The layer's settings, as the query's session has them.
fn options(context: &TaskContext) -> Option<&SlipstreamOptions> {
    context.session_config().options().extensions.get::<SlipstreamOptions>()
}

/// The view of the memory pool of `context` for a query.
pub(super) fn pool_for(
    context: &TaskContext,
    governor: &Arc<MemoryGovernor>,
    query_id: Option<u64>,
) -> Arc<QueryPool> {
    let pool = context.memory_pool();
    if is_inside_query(context) {
        return Arc::new(QueryPool::inside(governor, pool));
    }
    let limit = options(context).map_or(0, |options| options.memory_query_limit);
    governor.query_pool(query_id, pool, limit)
}

/// `given`, with `pool` in the place of its memory pool, and a disk manager that keeps to the query's limits.
///
/// # Errors
/// The disk manager cannot be made.
pub(super) fn query_context(
    given: &Arc<TaskContext>,
    governor: &MemoryGovernor,
    pool: &Arc<QueryPool>,
) -> Result<Arc<TaskContext>> {
    let memory_pool: Arc<dyn MemoryPool> = Arc::clone(pool) as _;
    let mut runtime = RuntimeEnv { memory_pool, ..given.runtime_env().as_ref().clone() };
    if let Some(options) = options(given).filter(|_| !is_inside_query(given)) {
        runtime.disk_manager = governor.disk_manager(&runtime.disk_manager, options)?;
    }
    let mut config = given.session_config().clone().with_extension(Arc::new(InsideQuery));
    if let Some(limit) = pool.smallest_limit() {
        fit_sorts(&mut config, limit);
    }
    Ok(derived(given, config, Arc::new(runtime)))
}

/// A sort that may spill sets memory aside for its merge before its first row, and fails where there is none: ten
/// megabytes for each partition, whatever the limit is. All sorts of one operator together get an eighth of the limit.
const MERGE_PART: usize = 8;

/// Less than this, and a merge seldom finds room for the two runs that it needs at least. (It asks for more when it has
/// to, as a consumer that cannot spill.)
const MIN_MERGE_BYTES: usize = 256 << 10;

/// Scales what sorts set aside to `limit`, unless somebody chose a value.
fn fit_sorts(config: &mut SessionConfig, limit: usize) {
    let execution = &config.options().execution;
    let default = ConfigOptions::default().execution.sort_spill_reservation_bytes;
    let part = limit / (MERGE_PART * config.target_partitions().max(1));
    let fitting = part.clamp(MIN_MERGE_BYTES.min(default), default);
    if execution.sort_spill_reservation_bytes == default && fitting < default {
        // Copies the options, which costs some microseconds: a query under a limit has those.
        config.options_mut().execution.sort_spill_reservation_bytes = fitting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(config: SessionConfig, limit: usize) -> usize {
        let mut config = config.with_target_partitions(2);
        fit_sorts(&mut config, limit);
        config.options().execution.sort_spill_reservation_bytes
    }

    #[test]
    fn what_a_sort_sets_aside_goes_with_the_limit() {
        assert_eq!(fitted(SessionConfig::new(), 1 << 30), 10 << 20);
        assert_eq!(fitted(SessionConfig::new(), 64 << 20), 4 << 20);
        assert_eq!(fitted(SessionConfig::new(), 1 << 20), 256 << 10);
        let chosen = SessionConfig::new().with_sort_spill_reservation_bytes(5 << 20);
        assert_eq!(fitted(chosen, 1 << 20), 5 << 20, "a value that somebody chose stays");
    }
}
