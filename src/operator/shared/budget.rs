//! The memory that one execution of a shared subplan may keep batches in.

use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, resources_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use crate::config::SlipstreamOptions;

/// What all partitions of one execution have reserved.
///
/// The pool's consumer is registered with the first batch that has to be kept: a fair pool divides by the number of
/// consumers that may spill, and most executions keep little or nothing.
#[derive(Debug)]
pub(super) struct Budget {
    /// What errors and `EXPLAIN`s of the pool call it.
    name: String,
    pool: Arc<dyn MemoryPool>,
    /// Registered on first use.
    reservation: OnceLock<MemoryReservation>,
    /// Bytes, whatever the pool would give: batches that wait for a slow consumer are the first that should leave
    /// memory to operators that cannot spill.
    limit: usize,
}

impl Budget {
    /// That of an execution of the shared subplan `id` in `context`.
    pub(super) fn new(id: usize, context: &TaskContext) -> Self {
        let options = SlipstreamOptions::active(context.session_config().options());
        Self {
            name: format!("SharedSubplan[{id}]"),
            pool: Arc::clone(context.memory_pool()),
            reservation: OnceLock::new(),
            limit: options.map_or(usize::MAX, |options| options.shared_subplan_max_memory_bytes),
        }
    }

    fn reservation(&self) -> &MemoryReservation {
        let register = || MemoryConsumer::new(self.name.clone()).with_can_spill(true).register(&self.pool);
        self.reservation.get_or_init(register)
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        let reservation = self.reservation();
        if reservation.size().saturating_add(bytes) > self.limit {
            return Err(resources_datafusion_err!(
                "{} may keep {} bytes in memory (slipstream.shared_subplan.max_memory_bytes)",
                self.name,
                self.limit
            ));
        }
        reservation.try_grow(bytes)
    }

    /// Gives `bytes` back.
    pub(super) fn shrink(&self, bytes: usize) {
        if bytes > 0 {
            self.reservation().shrink(bytes);
        }
    }
}

/// `batch` without what its text columns hold on to and do not use: a filter keeps the whole buffer of a column of
/// which it keeps a few values.
pub(super) fn compacted(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.columns().iter().any(wasteful) {
        return Ok(batch);
    }
    let columns = batch.columns().iter().map(compacted_column).collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// A text column is copied where that frees at least half of its buffers.
fn wasteful(column: &ArrayRef) -> bool {
    let (held, used) = match column.data_type() {
        DataType::Utf8View => {
            let view = column.as_string_view();
            (held(view.data_buffers()), view.total_buffer_bytes_used())
        }
        DataType::BinaryView => {
            let view = column.as_binary_view();
            (held(view.data_buffers()), view.total_buffer_bytes_used())
        }
        _ => return false,
    };
    held > 2 * used + MIN_WASTE
}

/// Bytes below which nothing is copied.
const MIN_WASTE: usize = 4096;

/// Bytes that view buffers hold, whatever part of them is used.
fn held(buffers: &[datafusion::arrow::buffer::Buffer]) -> usize {
    buffers.iter().map(datafusion::arrow::buffer::Buffer::capacity).sum()
}

/// The column with its own texts only.
fn compacted_column(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        _ if !wasteful(column) => Arc::clone(column),
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

/// Bytes of the rows of `batch`.
///
/// Operators cut one large result into batches that share its buffers. Counted as buffers, each would weigh as much as
/// all together; so a slice is counted as a slice.
pub(in crate::operator) fn batch_bytes(batch: &RecordBatch) -> usize {
    let column = |column: &ArrayRef| {
        let fixed =
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
        let text = match column.data_type() {
            DataType::Utf8View => column.as_string_view().total_buffer_bytes_used(),
            DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used(),
            _ => 0,
        };
        fixed + text
    };
    batch.columns().iter().map(column).sum()
}
