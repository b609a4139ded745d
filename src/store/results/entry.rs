//! One answer, of a query or of a part of one: its rows, what they were made from, and what they are worth.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::sync::{AtomicU64, Ordering};
use crate::fingerprint::{Key, Pin, Shaped};
use crate::store::version::{FileIdentity, Version};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// The answer of a whole query.
    Result,
    /// The rows of a part of a query.
    Subplan,
    /// What single files contribute to an aggregate.
    FileAggregate,
}

impl Tier {
    /// The name in `slipstream.cache`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Subplan => "subplan",
            Self::FileAggregate => "file_aggregate",
        }
    }
}

/// What one file contributes to an aggregate: some of the batches of an answer.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    /// The file, in the very version that was read.
    pub(crate) file: FileIdentity,
    /// Where its batches are.
    pub(crate) batches: Range<usize>,
    /// What they hold.
    pub(crate) bytes: usize,
    /// How long it took.
    pub(crate) cost: Duration,
    /// When it was computed.
    pub(crate) created: Instant,
}

/// An answer that was just computed.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What it is.
    pub(crate) tier: Tier,
    /// What was asked.
    pub(crate) key: Arc<Key>,
    /// Its columns.
    pub(crate) schema: SchemaRef,
    /// Its rows, in order, holding no more memory than they need.
    pub(crate) batches: Vec<RecordBatch>,
    /// The bytes of the batches.
    pub(crate) bytes: usize,
    /// How long it took.
    pub(crate) cost: Duration,
    /// The tables that it was made from, by name.
    pub(crate) tables: Vec<String>,
    /// Their versions.
    pub(crate) versions: Vec<Version>,
    /// Whether one of them has no version, so that only the answer's age counts.
    pub(crate) aging: bool,
    /// What keeps the addresses in the key.
    pub(crate) pins: Vec<Pin>,
    /// `slipstream.cache.tag` of the query.
    pub(crate) tag: String,
    /// How long it may be given.
    pub(crate) ttl: Option<Duration>,
    /// Of a file aggregate: its files, in the order of their batches.
    pub(crate) files: Vec<FilePart>,
    /// The name of its copy on disk, where it may have one.
    pub(crate) on_disk: Option<Arc<str>>,
    /// How old it was when it came here: of one that was read from disk.
    pub(crate) aged: Duration,
    /// What was asked, taken apart: for queries that can be answered from it.
    pub(crate) shape: Option<Arc<Shaped>>,
}

/// An answer in the store.
#[derive(Debug)]
pub(crate) struct CachedResult {
    pub(super) answer: Answer,
    /// Rows.
    pub(crate) rows: usize,
    /// What is reserved for it: its batches and its key.
    pub(crate) bytes: usize,
    /// When it was put in.
    pub(crate) created: Instant,
    /// The same for people.
    pub(crate) created_at: SystemTime,
    /// Counts up in each store.
    pub(crate) id: u64,
    /// Given back when the last one who reads the answer lets go of it.
    pub(super) _reservation: MemoryReservation,
    pub(super) hits: AtomicU64,
    /// When its versions were looked up last, in nanoseconds after `created`.
    pub(super) checked: AtomicU64,
    /// The bits of its weight.
    pub(super) weight: AtomicU64,
}

impl CachedResult {
    /// What it is.
    pub(crate) fn tier(&self) -> Tier {
        self.answer.tier
    }

    /// Of a file aggregate: its files.
    pub(crate) fn files(&self) -> &[FilePart] {
        &self.answer.files
    }

    /// Its columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.answer.schema
    }

    /// Its rows.
    pub(crate) fn batches(&self) -> &[RecordBatch] {
        &self.answer.batches
    }

    /// The versions that its tables had.
    pub(crate) fn versions(&self) -> &[Version] {
        &self.answer.versions
    }

    /// The tables that it was made from.
    pub(crate) fn tables(&self) -> &[String] {
        &self.answer.tables
    }

    /// Its tag.
    pub(crate) fn tag(&self) -> &str {
        &self.answer.tag
    }

    /// How long it took to compute.
    pub(crate) fn cost(&self) -> Duration {
        self.answer.cost
    }

    /// How often it was given.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What was asked, taken apart, where it can be.
    pub(crate) fn shape(&self) -> Option<&Arc<Shaped>> {
        self.answer.shape.as_ref()
    }

    /// Whether it has an end by its age, which what is computed from it would not know.
    pub(crate) fn has_an_end(&self) -> bool {
        self.answer.aging || self.answer.ttl.is_some()
    }

    /// Whether only its age counts.
    pub(crate) fn is_aging(&self) -> bool {
        self.answer.aging
    }

    /// What it is known by: a number that names it to people.
    pub(crate) fn name(&self) -> String {
        format!("{:016x}-{}", self.answer.key.hash(), self.id)
    }

    /// What was asked.
    pub(crate) fn key(&self) -> &Arc<Key> {
        &self.answer.key
    }

    /// The name of its copy on disk, where it may have one.
    pub(crate) fn on_disk(&self) -> Option<&Arc<str>> {
        self.answer.on_disk.as_ref()
    }

    /// How long it may be given.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.answer.ttl
    }

    /// How long it is here.
    fn here(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    /// How old it is.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.here(now).saturating_add(self.answer.aged)
    }

    /// Whether its time is over.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.answer.ttl.is_some_and(|ttl| self.age(now) > ttl)
    }

    /// Whether it may be given to a query of tables of these versions, which allows it to be so old: whoever left it may have
    /// allowed a longer time.
    pub(crate) fn is_for(&self, versions: &[Version], most: Option<Duration>, now: Instant) -> bool {
        self.versions() == versions && !self.is_expired(now) && most.is_none_or(|most| self.age(now) <= most)
    }

    /// How long ago its versions were looked up.
    pub(crate) fn since_checked(&self, now: Instant) -> Duration {
        self.here(now).saturating_sub(Duration::from_nanos(self.checked.load(Ordering::Relaxed)))
    }

    /// Its versions were found to be current at `at`.
    pub(crate) fn checked(&self, at: Instant) {
        let after = u64::try_from(self.here(at).as_nanos()).unwrap_or(u64::MAX);
        self.checked.fetch_max(after, Ordering::Relaxed);
    }

    /// Whether it may be asked for again: the tables and functions in its key are still there.
    pub(crate) fn is_reachable(&self) -> bool {
        self.answer.pins.iter().all(Pin::is_alive)
    }

    /// What it is worth keeping: the least of all goes first.
    pub(super) fn weight(&self) -> f64 {
        match self.is_reachable() {
            true => f64::from_bits(self.weight.load(Ordering::Relaxed)),
            false => 0.0,
        }
    }

    /// It was used: it weighs its seconds for each byte, as often as it was used, on top of `floor`.
    pub(super) fn weigh(&self, floor: f64) {
        let uses = (self.hits() + 1) as f64;
        let weight = floor + self.cost().as_secs_f64() * uses / self.bytes.max(1) as f64;
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
    }
}
