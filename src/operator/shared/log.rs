//! The batches of one partition that some consumer has still to take.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, exec_err};
use datafusion::execution::TaskContext;
use datafusion::execution::spill_file::SpillFile;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, Gauge, MetricBuilder, SpillMetrics};

use super::budget::{Budget, batch_bytes};

/// A file takes batches up to this size; then memory is tried again.
const FILE_BYTES: usize = 64 << 20;

/// A queue with one end for the producer and a place of its own for each consumer, in the manner of a log.
///
/// ```text
///   base                                                        end
///    │ spilled: 40 batches │ spilled: 12 │ memory │ memory │ memory │ ◄─ push
///         ▲ slow consumer                            ▲ fast consumer
/// ```
///
/// Batches are numbered from 0 on. Those that all consumers have passed are dropped, and a file with its last reader.
/// When memory is refused, all batches in memory go to one file, and those that follow go there too until it is large
/// or somebody needs it: a file for each batch would be slow.
pub(super) struct Log {
    /// In the order of their numbers, without gaps where somebody may still read.
    entries: VecDeque<Entry>,
    /// The number of the next batch.
    end: usize,
    /// Shared with the other partitions of this execution.
    budget: Arc<Budget>,
    spill: SpillManager,
    /// Whether the session has temporary files at all.
    can_spill: bool,
    /// Rows kept, in memory and in files.
    rows: usize,
    /// Bytes kept in memory.
    bytes: usize,
    peak_rows: Gauge,
    peak_bytes: Gauge,
}

/// Batches in one place, from number `start` on.
struct Entry {
    start: usize,
    len: usize,
    rows: usize,
    place: Place,
}

/// Where an entry's batches are.
enum Place {
    /// One batch, and the bytes that are reserved for it.
    Memory { batch: RecordBatch, bytes: usize },
    /// Always the last entry.
    Open { file: OpenFile, bytes: usize },
    /// Deleted when the entry and all who read it are gone.
    Closed(Arc<dyn SpillFile>),
}

/// Appends a batch, or, given none, closes the file. (DataFusion's type for such a file cannot be named.)
type OpenFile = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<Arc<dyn SpillFile>>> + Send>;

/// What stands at a place of the log.
pub(super) enum Item {
    /// One batch.
    Batch(RecordBatch),
    /// Batches in a file, behind the first `skip` of it.
    File { file: Arc<dyn SpillFile>, skip: usize },
}

impl Log {
    /// The log of partition `partition` of an execution in `context`.
    pub(super) fn new(
        budget: Arc<Budget>,
        schema: SchemaRef,
        context: &TaskContext,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
    ) -> Self {
        let runtime = context.runtime_env();
        let spill = SpillManager::new(Arc::clone(&runtime), SpillMetrics::new(metrics, partition), schema)
            .with_compression_type(context.session_config().spill_compression());
        Self {
            entries: VecDeque::new(),
            end: 0,
            budget,
            spill,
            can_spill: runtime.disk_manager.tmp_files_enabled(),
            rows: 0,
            bytes: 0,
            peak_rows: MetricBuilder::new(metrics).gauge("buffered_rows_peak", partition),
            peak_bytes: MetricBuilder::new(metrics).gauge("buffered_bytes_peak", partition),
        }
    }

    /// The number that the next batch will have.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// A batch that was handed to all consumers at once takes a number and no place.
    pub(super) fn pass(&mut self) {
        self.end += 1;
    }

    /// Keeps `batch`.
    ///
    /// # Errors
    /// It fits neither into memory nor into a file.
    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let (rows, bytes) = (batch.num_rows(), batch_bytes(&batch));
        let open = matches!(self.entries.back(), Some(Entry { place: Place::Open { .. }, .. }));
        if open {
            self.append(&batch, bytes)?;
        } else {
            match self.budget.grow(bytes) {
                Ok(()) => {
                    self.bytes += bytes;
                    let place = Place::Memory { batch, bytes };
                    self.entries.push_back(Entry { start: self.end, len: 1, rows, place });
                }
                Err(refused) if !self.can_spill => return Err(refused),
                Err(_) => {
                    self.spill_memory()?;
                    self.append(&batch, bytes)?;
                }
            }
        }
        self.end += 1;
        self.rows += rows;
        self.peak_rows.set_max(self.rows);
        self.peak_bytes.set_max(self.bytes);
        Ok(())
    }

    /// Writes `batch` into the open file at the end, which is opened where there is none.
    fn append(&mut self, batch: &RecordBatch, bytes: usize) -> Result<()> {
        if !matches!(self.entries.back(), Some(Entry { place: Place::Open { .. }, .. })) {
            let place = Place::Open { file: self.open()?, bytes: 0 };
            self.entries.push_back(Entry { start: self.end, len: 0, rows: 0, place });
        }
        let Some(entry) = self.entries.back_mut() else { return Ok(()) };
        if let Place::Open { file, bytes: written } = &mut entry.place {
            file(Some(batch))?;
            *written += bytes;
            entry.len += 1;
            entry.rows += batch.num_rows();
            if *written >= FILE_BYTES {
                entry.close()?;
            }
        }
        Ok(())
    }

    /// A new file, with the compression that the session has set for spilling.
    fn open(&self) -> Result<OpenFile> {
        let mut file = self.spill.create_in_progress_file("rows of a shared subplan")?;
        Ok(Box::new(move |batch| match batch {
            Some(batch) => file.append_batch(batch).map(|_| None),
            None => file.finish(),
        }))
    }

    /// Moves all batches in memory to one open file. They are the last entries: what was written before stands before
    /// them.
    fn spill_memory(&mut self) -> Result<()> {
        let in_memory = |entry: &Entry| matches!(entry.place, Place::Memory { .. });
        let first = self.entries.iter().position(in_memory).unwrap_or(self.entries.len());
        let Some(start) = self.entries.get(first).map(|entry| entry.start) else { return Ok(()) };
        let mut file = self.open()?;
        let (mut len, mut rows, mut written) = (0, 0, 0);
        for entry in self.entries.range(first..) {
            if let Place::Memory { batch, bytes } = &entry.place {
                file(Some(batch))?;
                (len, rows, written) = (len + 1, rows + entry.rows, written + bytes);
            }
        }
        self.entries.truncate(first);
        self.entries.push_back(Entry { start, len, rows, place: Place::Open { file, bytes: written } });
        self.bytes -= written;
        self.budget.shrink(written);
        Ok(())
    }

    /// What stands at number `position`, and the number behind it; `None` at the end.
    pub(super) fn read(&mut self, position: usize) -> Result<Option<(Item, usize)>> {
        let index = self.entries.partition_point(|entry| entry.start + entry.len <= position);
        let Some(entry) = self.entries.get_mut(index) else {
            return Ok(None);
        };
        let next = entry.start + entry.len;
        let Some(skip) = position.checked_sub(entry.start) else {
            return exec_err!(
                "a consumer of a shared subplan reads at {position}, the rows before {} are gone",
                entry.start
            );
        };
        entry.close()?;
        Ok(match &entry.place {
            Place::Memory { batch, .. } => Some((Item::Batch(batch.clone()), next)),
            Place::Closed(file) => Some((Item::File { file: Arc::clone(file), skip }, next)),
            // Just closed.
            Place::Open { .. } => None,
        })
    }

    /// Reads a file of this log.
    pub(super) fn spill_manager(&self) -> &SpillManager {
        &self.spill
    }

    /// Drops what stands before number `position`.
    pub(super) fn trim(&mut self, position: usize) {
        while self.entries.front().is_some_and(|entry| entry.start + entry.len <= position) {
            let Some(entry) = self.entries.pop_front() else { return };
            self.rows -= entry.rows;
            if let Place::Memory { bytes, .. } = entry.place {
                self.bytes -= bytes;
                self.budget.shrink(bytes);
            }
        }
    }
}

impl Entry {
    /// Closes an open file, so that it can be read.
    fn close(&mut self) -> Result<()> {
        if let Place::Open { file, .. } = &mut self.place {
            match file(None)? {
                Some(file) => self.place = Place::Closed(file),
                None => return exec_err!("the file of a shared subplan's rows is empty"),
            }
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.trim(self.end);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, end, rows, bytes, .. } = self;
        write!(f, "Log {{ entries: {}, end: {end}, rows: {rows}, bytes: {bytes} }}", entries.len())
    }
}
