//! The build side: collected while it fits, divided and written to disk, part by part, when it does not.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::utils::memory::{RecordBatchMemoryCounter, get_record_batch_memory_size};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;

use super::file::{SpillFiles, SpilledFile};
use super::metrics::{Counters, JoinMetrics};
use super::need::{KeySpan, Need};
use super::partition::{Divider, Waiting};
use super::spec::JoinSpec;

/// How the memory consumer is named.
const CONSUMER: &str = "SpillJoin";

/// Rows that wait to be gathered by their parts take no more than this, even where there is room.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// Rows that wait are written in pieces of at least so much, also where others hold all memory: 32 files of rows that came
/// one batch at a time would be many small pieces, which take long to write and to read.
pub(super) const MIN_WAITING_BYTES: usize = 256 << 10;

/// Batches after which a long loop lets others run.
pub(super) const YIELD_AFTER: usize = 16;

/// What a build needs to know.
pub(super) struct BuildRequest {
    /// What is joined.
    pub(super) spec: Arc<JoinSpec>,
    /// The context that the node was given: its pool, its disk manager, its settings.
    pub(super) context: Arc<TaskContext>,
    /// Where the node counts.
    pub(super) metrics: Arc<JoinMetrics>,
    /// The partition that the counts and the memory consumer are named by.
    pub(super) partition: usize,
    /// How many parts the rows are divided into.
    pub(super) parts: usize,
}

/// What came of a build side.
pub(super) enum Built {
    /// It fits, and what a hash join of it needs is reserved.
    Fits { batches: Vec<RecordBatch>, reservation: MemoryReservation },
    /// Some of it is on disk.
    Spilled(SpilledBuild),
}

/// A build side of which some is on disk.
pub(super) struct SpilledBuild {
    /// What is in memory, and the reservation for a join of it.
    pub(super) resident: Vec<RecordBatch>,
    pub(super) reservation: MemoryReservation,
    /// For each part, what becomes of probe rows in it.
    pub(super) routes: Vec<Route>,
    /// For each part, its rows on disk.
    pub(super) files: Vec<Option<Arc<SpilledFile>>>,
    pub(super) counters: Counters,
}

/// What becomes of the probe rows of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Joined at once: the build rows are in memory.
    Join,
    /// Written to disk: so are the build rows.
    Spill,
    /// Left out: no row comes of them.
    Drop,
}

/// Collects `input`, and begins to spill when its rows and their table no longer fit.
pub(super) async fn build(request: &BuildRequest, mut input: SendableRecordBatchStream) -> Result<Built> {
    // Registered when the first row is asked for, and not before: some pools divide their memory by the number of consumers.
    let consumer = MemoryConsumer::new(format!("{CONSUMER}[{}]", request.partition)).with_can_spill(true);
    let reservation = consumer.register(request.context.memory_pool());
    let need = request.spec.need(&request.context)?;
    let mut memory = RecordBatchMemoryCounter::new();
    let mut batches: VecDeque<(RecordBatch, usize)> = VecDeque::new();
    let mut rows = 0;
    let mut keys = KeySpan::default();
    while let Some(batch) = input.next().await {
        let batch = batch?;
        if batch.num_rows() == 0 {
            continue;
        }
        let bytes = memory.count_batch(&batch);
        rows += batch.num_rows();
        need.see(&batch, &mut keys)?;
        batches.push_back((batch, bytes));
        let grown = reservation.try_resize(need.of_all(memory.memory_usage(), rows, &keys));
        if let Err(error) = grown {
            if !request.context.runtime_env().disk_manager.tmp_files_enabled() {
                return Err(
                    error.context("a hash join's build side does not fit, and temporary files are disabled")
                );
            }
            let mut spilling = Spilling::new(request, need, reservation, batches)?;
            spilling.take_collected().await?;
            spilling.take(input).await?;
            return Ok(Built::Spilled(spilling.finish().await?));
        }
    }
    if rows == 0 {
        // A few bytes for an empty table, for which nobody need wait.
        reservation.resize(need.of_all(0, 0, &keys));
    }
    Ok(Built::Fits { batches: batches.into_iter().map(|(batch, _)| batch).collect(), reservation })
}

/// One part of a build side that does not fit as a whole.
///
/// A part is spilled once and for all: rows that come later follow the others to disk.
enum Part {
    Resident { batches: Vec<RecordBatch>, bytes: usize, rows: usize },
    Spilled,
}

/// A build side on its way to memory and to disk.
///
/// ```text
///   collected ─► waiting ─┬─► resident parts      the largest is written to disk whenever memory lacks
///     input ────►         └─► files of spilled parts
/// ```
struct Spilling {
    /// What is joined.
    spec: Arc<JoinSpec>,
    /// How much the resident parts need for their join.
    need: Need,
    reservation: MemoryReservation,
    counters: Counters,
    /// Which row is in which part.
    divider: Divider,
    /// By their numbers.
    parts: Vec<Part>,
    /// What was collected while it fit and is not divided yet, each batch with its bytes: buffers that batches share are
    /// counted with the first.
    collected: VecDeque<(RecordBatch, usize)>,
    collected_bytes: usize,
    /// Divided, but not gathered: parts get their rows many batches at a time.
    waiting: Waiting,
    /// `None` while they are written to.
    files: Option<SpillFiles>,
    batch_size: usize,
}

impl Spilling {
    fn new(
        request: &BuildRequest,
        need: Need,
        reservation: MemoryReservation,
        collected: VecDeque<(RecordBatch, usize)>,
    ) -> Result<Self> {
        let BuildRequest { spec, context, metrics, partition, parts } = request;
        let counters = metrics.spilling(*partition);
        let divider = Divider::new(spec.left_keys(), *parts, 0, spec.null_aware);
        let spill = counters.spill.clone();
        let files =
            SpillFiles::new(context, &spec.left, divider.parts(), spill, "build side of a hash join")?;
        let resident = |_| Part::Resident { batches: Vec::new(), bytes: 0, rows: 0 };
        let mut parts: Vec<Part> = (0..divider.parts()).map(resident).collect();
        if spec.null_aware
            && let Some(nulls) = parts.last_mut()
        {
            // Whether they are given is known when all probe rows were seen, so they are kept out of the first join.
            *nulls = Part::Spilled;
        }
        counters.reserved(&reservation);
        Ok(Self {
            spec: Arc::clone(spec),
            need,
            reservation,
            counters,
            divider,
            parts,
            collected_bytes: collected.iter().map(|(_, bytes)| bytes).sum(),
            collected,
            waiting: Waiting::new(Arc::clone(&spec.left)),
            files: Some(files),
            batch_size: context.session_config().batch_size(),
        })
    }

    /// Divides what was collected while it still fit.
    async fn take_collected(&mut self) -> Result<()> {
        let mut taken = 0;
        while let Some((batch, bytes)) = self.collected.pop_front() {
            self.collected_bytes -= bytes;
            self.push(&batch).await?;
            taken += 1;
            if taken % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Divides the rest of the input.
    async fn take(&mut self, mut input: SendableRecordBatchStream) -> Result<()> {
        let mut taken = 0;
        while let Some(batch) = input.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                self.push(&batch).await?;
            }
            taken += 1;
            if taken % YIELD_AFTER == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Divides one batch, and finds room for it.
    async fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let (parts, _) = self.divider.divide(batch)?;
        self.waiting.push(batch, parts)?;
        let full = self.waiting.bytes() >= MAX_WAITING_BYTES
            || self.waiting.rows() >= self.batch_size.saturating_mul(self.parts.len());
        if full {
            self.gather().await?;
        }
        self.make_room().await
    }

    /// What is to be reserved: the rows, and their copies that are made of them next.
    fn target(&self) -> usize {
        let (bytes, rows) = self.resident();
        let moving = self.waiting.bytes().saturating_add(self.collected_bytes);
        let moving = moving.saturating_mul(2).saturating_add(self.waiting.notes_bytes());
        self.need.of(bytes, rows).saturating_add(moving)
    }

    /// Bytes and rows of the resident parts.
    fn resident(&self) -> (usize, usize) {
        self.parts.iter().fold((0, 0), |(all_bytes, all_rows), part| match part {
            Part::Resident { bytes, rows, .. } => (all_bytes + bytes, all_rows + rows),
            Part::Spilled => (all_bytes, all_rows),
        })
    }

    /// Writes parts to disk until what remains is reserved.
    async fn make_room(&mut self) -> Result<()> {
        while self.reservation.try_resize(self.target()).is_err() {
            if self.evict_largest().await? {
                continue;
            }
            if self.waiting.bytes() > MIN_WAITING_BYTES {
                self.gather().await?;
                continue;
            }
            // What is left is little, or was made by somebody else and is on its way to disk.
            self.reservation.resize(self.target());
            break;
        }
        self.counters.reserved(&self.reservation);
        Ok(())
    }

    /// Writes the largest part that is in memory to disk; false if there is none.
    async fn evict_largest(&mut self) -> Result<bool> {
        let size = |part: &Part| match part {
            Part::Resident { bytes, .. } => *bytes,
            Part::Spilled => 0,
        };
        let largest = self.parts.iter().enumerate().max_by_key(|(_, part)| size(part));
        let Some((part, _)) = largest.filter(|(_, part)| size(part) > 0) else { return Ok(false) };
        let Part::Resident { batches, .. } = std::mem::replace(&mut self.parts[part], Part::Spilled) else {
            return Ok(false);
        };
        self.counters.spilled_partitions.add(1);
        self.write(batches.into_iter().map(|batch| (part, batch)).collect()).await?;
        Ok(true)
    }

    /// Sends the waiting rows to their parts.
    /// Parts in memory keep theirs, and those of spilled parts go to their files.
    async fn gather(&mut self) -> Result<()> {
        let mut spilled = Vec::new();
        for (part, batch) in self.waiting.gather(self.parts.len(), self.batch_size)? {
            match &mut self.parts[part] {
                Part::Resident { batches, bytes, rows } => {
                    *bytes += get_record_batch_memory_size(&batch);
                    *rows += batch.num_rows();
                    batches.push(batch);
                }
                Part::Spilled => spilled.push((part, batch)),
            }
        }
        self.write(spilled).await
    }

    /// The files go along with the task that writes them and come back with it. An error leaves none behind.
    async fn write(&mut self, batches: Vec<(usize, RecordBatch)>) -> Result<()> {
        if let Some(files) = self.files.take() {
            self.files = Some(files.append(batches).await?);
        }
        Ok(())
    }

    /// The build side as it is when its last row was divided.
    ///
    /// Parts without rows are no different from parts in memory: whether a probe row in them gives a row is the join's type.
    async fn finish(mut self) -> Result<SpilledBuild> {
        self.gather().await?;
        self.make_room().await?;
        let files = match self.files.take() {
            Some(files) => files.finish().await?,
            None => Vec::new(),
        };
        let mut resident = Vec::new();
        let mut routes = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            routes.push(match part {
                Part::Spilled => Route::Spill,
                Part::Resident { rows: 0, .. } if self.spec.needs_build() => Route::Drop,
                Part::Resident { batches, .. } => {
                    resident.extend(batches);
                    Route::Join
                }
            });
        }
        Ok(SpilledBuild { resident, reservation: self.reservation, routes, files, counters: self.counters })
    }
}
