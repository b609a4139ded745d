//! A nested-loop join that may spill: its build side can be executed again, and its last chunk is never empty.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;

use super::context::derived;
use super::no_spill::OuterContext;
use super::passthrough::{Passthrough, Wrap};
use super::rerun::Batches;

/// The memory consumer by which a spilling join loads a chunk, one request a batch.
const CHUNK_LOADER: &str = "NestedLoopJoinLoad[fallback]";

/// Runs `join` so that the last batch of its build side never ends a chunk.
///
/// A spilling join reads its build side in chunks. A batch that does not fit ends one, and is its last. When that
/// batch was the last of all, the next chunk is empty, and DataFusion 55.2 takes an empty chunk for an empty build
/// side: it stops, and forgets the probe rows that no chunk matched (apache/datafusion issue 24745). Granting the
/// last batch's memory in any case (it is accounted, and the batch is in memory already) leaves it in a chunk that
/// the end of the build side ends, and then the join goes on as it should.
///
/// `batches` counts the batches of the build side, as they are written to disk before the first chunk is read. Both
/// inputs of the join are wrapped by [`outer_context`](super::outer_context), so that the rule is the join's alone.
pub(crate) fn nested_loop_spill(join: Arc<dyn ExecutionPlan>, batches: Batches) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(join, NestedLoopSpill { batches })
}

#[derive(Debug)]
struct NestedLoopSpill {
    batches: Batches,
}

impl Wrap for NestedLoopSpill {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        // A pool for each partition, since each loads all chunks by itself.
        let memory_pool = Arc::new(LastBatchPool {
            inner: Arc::clone(context.memory_pool()),
            batches: self.batches.clone(),
            requests: AtomicUsize::new(0),
        });
        let runtime = RuntimeEnv { memory_pool, ..context.runtime_env().as_ref().clone() };
        let outer = Arc::new(OuterContext(Arc::clone(&context)));
        let config = context.session_config().clone().with_extension(outer);
        inner.execute(partition, derived(&context, config, Arc::new(runtime)))
    }
}

/// Forwards everything, and turns the chunk loader's request for the last batch into one that cannot fail.
struct LastBatchPool {
    inner: Arc<dyn MemoryPool>,
    batches: Batches,
    requests: AtomicUsize,
}

impl fmt::Debug for LastBatchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastBatchPool").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for LastBatchPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl MemoryPool for LastBatchPool {
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
        if reservation.consumer().name() == CHUNK_LOADER
            && self.requests.fetch_add(1, Ordering::Relaxed) + 1 == self.batches.count()
        {
            self.inner.grow(reservation, additional);
            return Ok(());
        }
        self.inner.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
