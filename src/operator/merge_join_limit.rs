//! A sort-merge join whose memory counts as what it is: memory that the join can spill.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use super::own_context::execute_in;
use super::passthrough::{Passthrough, Wrap};
use super::pool_view::{PoolView, View};

/// How the join's memory consumers are named.
const CONSUMER: &str = "SMJStream";

/// Half a batch, at which the join's coalescers give way, is to be a row at least.
const MIN_BATCH_ROWS: usize = 2;

/// Runs `join`, a `SortMergeJoinExec` whose inputs were wrapped by [`outer_context`](super::outer_context).
///
/// The join spills batches of its buffered side that do not fit, but DataFusion 55.2 registers it as one that cannot
/// (`sort_merge_join/exec.rs`; mended later by apache/datafusion 25250): it then takes from the pool before those that
/// can, up to all of it, and the sorts below it, which need some to go on, find nothing. Here it is registered as one
/// that can spill. It also runs with two rows a batch at least.
pub(crate) fn merge_join_limit(join: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(join, MergeJoinLimit)
}

#[derive(Debug)]
struct MergeJoinLimit;

impl Wrap for MergeJoinLimit {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let config = context.session_config();
        let batch_rows = config.batch_size().max(MIN_BATCH_ROWS);
        let config = config.clone().with_batch_size(batch_rows);
        let memory_pool = PoolView::of(context.memory_pool(), Spillable::default());
        let runtime = RuntimeEnv { memory_pool, ..context.runtime_env().as_ref().clone() };
        execute_in(inner, partition, &context, config, runtime)
    }
}

/// Registers the join's consumers below as spillable, and mirrors what they reserve.
#[derive(Default)]
struct Spillable {
    /// By the id of the join's consumer.
    registered: Mutex<HashMap<usize, MemoryReservation>>,
}

impl View for Spillable {
    fn register(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        if consumer.name().starts_with(CONSUMER) {
            let spillable = MemoryConsumer::new(consumer.name()).with_can_spill(true).register(pool);
            self.registered.lock().insert(consumer.id(), spillable);
        } else {
            pool.register(consumer);
        }
    }

    fn unregister(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        if self.registered.lock().remove(&consumer.id()).is_none() {
            pool.unregister(consumer);
        }
    }

    fn grow(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, additional: usize) {
        match self.registered.lock().get(&reservation.consumer().id()) {
            Some(spillable) => spillable.grow(additional),
            None => pool.grow(reservation, additional),
        }
    }

    fn shrink(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, shrink: usize) {
        match self.registered.lock().get(&reservation.consumer().id()) {
            Some(spillable) => spillable.shrink(shrink),
            None => pool.shrink(reservation, shrink),
        }
    }

    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        match self.registered.lock().get(&reservation.consumer().id()) {
            Some(spillable) => spillable.try_grow(additional),
            None => pool.try_grow(reservation, additional),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::FairSpillPool;

    #[test]
    fn the_joins_consumer_has_a_fair_share_and_gives_it_back() {
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&below);
        let view = PoolView::of(&below, Spillable::default());
        let join = MemoryConsumer::new("SMJStream[0]").register(&view);
        let other = MemoryConsumer::new("other").register(&view);
        other.try_grow(100).unwrap();
        assert!(join.try_grow(460).is_err(), "the half of what is left is the sort's");
        join.try_grow(450).unwrap();
        sort.try_grow(450).unwrap();
        join.shrink(50);
        join.grow(10);
        assert_eq!(below.reserved(), 960);
        drop((join, other));
        assert_eq!(below.reserved(), 450);
        assert!(sort.try_grow(550).is_ok(), "the join is not counted any more");
    }
}
