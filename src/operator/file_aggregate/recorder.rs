//! What files contribute to an aggregate, on its way into the cache.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use parking_lot::Mutex;

use super::exec::GivenFile;
use crate::clock::Clock;
use crate::fingerprint::{Key, Pin, Refusal};
use crate::operator::result_cache::Kept;
use crate::store::{Answer, FileIdentity, FilePart, Limits, ResultStore, Tier, VersionedTable};

/// Where what files contribute goes, and what is known of it.
pub(crate) struct FileRecorder {
    /// Where it goes.
    pub(crate) store: Arc<ResultStore>,
    /// When, and how long it took.
    pub(crate) clock: Arc<dyn Clock>,
    /// What memory it takes.
    pub(crate) pool: Arc<dyn MemoryPool>,
    /// What is aggregated, and how.
    pub(crate) key: Arc<Key>,
    /// What keeps the addresses in the key.
    pub(crate) pins: Vec<Pin>,
    /// The table of the files.
    pub(crate) table: VersionedTable,
    /// What all files of an aggregate may take together.
    pub(crate) limits: Limits,
    /// `slipstream.cache.tag`
    pub(crate) tag: String,
    /// The columns.
    pub(crate) schema: SchemaRef,
    /// What was there when the query was planned.
    pub(crate) given: Vec<GivenFile>,
}

impl fmt::Debug for FileRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRecorder").field("key", &self.key.hash()).finish_non_exhaustive()
    }
}

/// What one file has contributed.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) file: FileIdentity,
    pub(super) kept: Kept,
    pub(super) cost: Duration,
}

/// The files of one execution, while they come in.
#[derive(Debug)]
pub(super) struct Collected {
    /// Files that are still to come.
    left: usize,
    bytes: usize,
    rows: usize,
    files: Vec<ReadFile>,
    reservation: Option<MemoryReservation>,
}

/// The files are kept together, behind the last one: one entry for each aggregate has one place in the order of eviction, and one
/// look at the table for all. What was read is complete, file by file, whether the query goes on or not.
///
/// Shared by the partitions of one execution; empty when it was put into the cache.
pub(super) type Collector = Mutex<Option<Collected>>;

impl FileRecorder {
    /// For an execution that reads `files` of them anew.
    pub(super) fn collector(&self, files: usize) -> Collector {
        let given = |of: fn(&GivenFile) -> usize| self.given.iter().map(of).sum();
        Mutex::new((files > 0).then(|| Collected {
            left: files,
            bytes: given(|file| file.part().bytes),
            rows: given(GivenFile::rows),
            files: Vec::new(),
            reservation: self.store.reservation(&self.pool),
        }))
    }

    /// Whether so much of one file, with what is there, may be kept.
    pub(super) fn may_keep(&self, kept: &Kept) -> bool {
        kept.bytes <= self.limits.bytes && kept.rows <= self.limits.rows
    }

    /// A file is read: `None` where what it contributes was too much. Returns all files behind the last one.
    pub(super) fn read(&self, collector: &Collector, file: Option<ReadFile>) -> Option<Vec<ReadFile>> {
        let mut collector = collector.lock();
        let all = collector.as_mut()?;
        all.left = all.left.saturating_sub(1);
        if let Some(file) = file {
            let (bytes, rows) = (all.bytes + file.kept.bytes, all.rows + file.kept.rows);
            let fits = bytes <= self.limits.bytes && rows <= self.limits.rows;
            let new: usize = all.files.iter().map(|file| file.kept.bytes).sum::<usize>() + file.kept.bytes;
            let reserved = |reservation: &MemoryReservation| reservation.try_resize(new).is_ok();
            match fits && all.reservation.as_ref().is_some_and(reserved) {
                true => {
                    (all.bytes, all.rows) = (bytes, rows);
                    all.files.push(file);
                }
                false => self.store.stats().refused("size"),
            }
        }
        if all.left > 0 {
            return None;
        }
        // What is reserved is the entry's own from here on.
        collector.take().map(|all| all.files)
    }

    /// Looks at the files once more, and keeps what those contribute that are as they were when they were listed, with what
    /// was there before.
    pub(super) async fn publish(&self, read: Vec<ReadFile>) {
        if read.is_empty() {
            return;
        }
        if let Err(refusal) = self.try_publish(read).await {
            self.store.stats().refused(refusal.kind);
            log::debug!("slipstream: what files contribute is not kept: {}", refusal.reason);
        }
    }

    async fn try_publish(&self, read: Vec<ReadFile>) -> Result<(), Refusal> {
        let version = self.table.version().await.map_err(|error| {
            Refusal::new("table", format!("a table does not say its version: {}", error.strip_backtrace()))
        })?;
        let now = self.clock.now();
        let mut union = Union::default();
        for ReadFile { file, kept, cost } in read {
            match version.has_file(&file) {
                true => union.add(file, kept.batches, (kept.bytes, cost, now)),
                false => self.store.stats().refused("changed"),
            }
        }
        if union.files.is_empty() {
            return Err(Refusal::new("changed", "a table was changed while the query ran"));
        }
        // Another query may have put files in meanwhile.
        let others = self.store.get(&self.key).filter(|entry| same_types(entry.schema(), &self.schema));
        let others = others.iter().flat_map(GivenFile::all_of);
        for given in self.given.iter().cloned().chain(others) {
            let part = given.part();
            if version.has_file(&part.file) && union.bytes + part.bytes <= self.limits.bytes {
                union.add(part.file.clone(), given.batches().to_vec(), (part.bytes, part.cost, part.created));
            }
        }
        let answer = Answer {
            tier: Tier::FileAggregate,
            key: Arc::clone(&self.key),
            schema: Arc::clone(&self.schema),
            batches: union.batches,
            bytes: union.bytes,
            cost: union.files.iter().map(|part| part.cost).sum(),
            tables: vec![self.table.table().name.to_string()],
            versions: Vec::new(),
            aging: false,
            pins: self.pins.clone(),
            shape: None,
            tag: self.tag.clone(),
            ttl: None,
            files: union.files,
            on_disk: None,
            aged: Duration::ZERO,
        };
        self.store.put(answer, self.limits, &self.pool, self.clock.as_ref()).map(drop)
    }
}

/// Files of one entry, each once.
#[derive(Default)]
struct Union {
    files: Vec<FilePart>,
    paths: HashSet<String>,
    batches: Vec<datafusion::arrow::array::RecordBatch>,
    bytes: usize,
}

impl Union {
    fn add(
        &mut self,
        file: FileIdentity,
        batches: Vec<datafusion::arrow::array::RecordBatch>,
        (bytes, cost, created): (usize, Duration, Instant),
    ) {
        if !self.paths.insert(file.path().to_string()) {
            return;
        }
        let from = self.batches.len();
        self.batches.extend(batches);
        self.bytes += bytes;
        self.files.push(FilePart { file, batches: from..self.batches.len(), bytes, cost, created });
    }
}

/// Whether columns have the same types, whatever their names.
pub(crate) fn same_types(one: &SchemaRef, other: &SchemaRef) -> bool {
    let types = |schema: &SchemaRef| {
        schema
            .fields()
            .iter()
            .map(|field| (field.data_type().clone(), field.is_nullable()))
            .collect::<Vec<_>>()
    };
    types(one) == types(other)
}
