//! An exchange that spills from several inputs at once and does not wait for itself.

mod packs;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigNonZeroUsize;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;

use self::packs::PackedFiles;
use super::own_context::execute_in;
use super::passthrough::{Passthrough, Wrap};
use super::pool_view::{PoolView, View};

/// The most that one file on disk holds. What was read is deleted file by file, and a file that is not read to its end
/// holds a file descriptor: small files free disk early, large ones save descriptors.
const MAX_PACK_BYTES: usize = 16 << 20;

/// Runs `exchange`, a `RepartitionExec` whose input was wrapped by [`outer_context`](super::outer_context), so that each
/// batch that it spills is a file by itself.
///
/// In DataFusion 55.2 the inputs of an exchange spill into one queue of files for each output. The queue promises that
/// for each batch which was announced a batch can be read. It breaks the promise when two inputs spill at one time:
/// then two files are open, the announced batch is in the second, and the reader waits at the end of the first, which
/// only another batch can wake. Once every output has something announced, no input may send another: the query never
/// ends (apache/datafusion issue 24883).
///
/// ```text
///   two open files               a file a batch
///   file 1: a ──────── ▲ waits   file 1: a │ closed
///   file 2: b                    file 2: b │ closed
///   announced: a b               announced: a b
/// ```
///
/// A file that holds one batch is closed when that batch is announced, so the reader, at its end, goes on to the next.
/// DataFusion closes a file when it is larger than `max_spill_file_size_bytes`; this wrapper sets that to one byte. So
/// that a thousand spilled batches are not a thousand files with a descriptor each, the files it hands out are parts
/// of larger ones (`packs`).
///
/// A part that could not be written gives its error when it is read: in place of its batch, where DataFusion would
/// leave a file that never ends.
pub(crate) fn exchange_spill(exchange: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(exchange, ExchangeSpill)
}

#[derive(Debug)]
struct ExchangeSpill;

impl Wrap for ExchangeSpill {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let runtime = context.runtime_env();
        // Without temporary files an exchange that lacks memory fails, and says so.
        if !runtime.disk_manager.tmp_files_enabled() {
            return inner.execute(partition, context);
        }
        let mut config = context.session_config().clone();
        let max_file_bytes = &mut config.options_mut().execution.max_spill_file_size_bytes;
        let pack_bytes = max_file_bytes.get().min(MAX_PACK_BYTES);
        *max_file_bytes = ConfigNonZeroUsize::try_new(1)?;
        let files = PackedFiles::new(Arc::clone(&runtime.disk_manager), pack_bytes);
        let disk_manager = DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(files))
            .with_max_spill_merge_fan_in(runtime.disk_manager.max_spill_merge_fan_in())
            .build()?;
        let memory_pool = PoolView::of(context.memory_pool(), NothingIsFree);
        let runtime =
            RuntimeEnv { disk_manager: Arc::new(disk_manager), memory_pool, ..runtime.as_ref().clone() };
        execute_in(inner, partition, &context, config, runtime)
    }
}

/// A batch without columns takes no memory, so it needs no room; spilled, it would not fill a file of one byte.
struct NothingIsFree;

impl View for NothingIsFree {
    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        if additional == 0 { Ok(()) } else { pool.try_grow(reservation, additional) }
    }
}
