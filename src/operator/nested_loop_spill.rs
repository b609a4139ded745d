//! A nested-loop join that may spill: its build side can be executed again, and its last chunk is never empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;

use super::own_context::execute_in;
use super::passthrough::{Passthrough, Wrap};
use super::pool_view::{PoolView, View};
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
        let last_batch = LastBatch { batches: self.batches.clone(), requests: AtomicUsize::new(0) };
        let memory_pool = PoolView::of(context.memory_pool(), last_batch);
        let runtime = RuntimeEnv { memory_pool, ..context.runtime_env().as_ref().clone() };
        execute_in(inner, partition, &context, context.session_config().clone(), runtime)
    }
}

/// Turns the chunk loader's request for the last batch into one that cannot fail.
struct LastBatch {
    batches: Batches,
    requests: AtomicUsize,
}

impl View for LastBatch {
    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        if reservation.consumer().name() == CHUNK_LOADER
            && self.requests.fetch_add(1, Ordering::Relaxed) + 1 == self.batches.count()
        {
            pool.grow(reservation, additional);
            return Ok(());
        }
        pool.try_grow(reservation, additional)
    }
}
