//! What it takes to keep a query's answer, and the root node that does it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::compaction::Kept;
use super::stream::AnswerStream;
use crate::clock::Clock;
use crate::fingerprint::{Key, Pin, Refusal, Shaped};
use crate::operator::passthrough::{Passthrough, Wrap};
use crate::scope::QueryScope;
use crate::store::{
    Answer, CachedResult, DiskKey, DiskTier, Limits, ResultStore, Tier, Version, VersionedTable, are_current,
    reads_these,
};

/// A query, or a part of one, without an answer, and the versions of its tables from before it was planned.
pub(crate) struct Recorder {
    /// What it is that is kept.
    pub(crate) tier: Tier,
    /// Where the answer goes.
    pub(crate) store: Arc<ResultStore>,
    /// When it was made, and how long it took.
    pub(crate) clock: Arc<dyn Clock>,
    /// What memory it takes.
    pub(crate) pool: Arc<dyn MemoryPool>,
    /// What is asked.
    pub(crate) key: Arc<Key>,
    /// What keeps the addresses in the key.
    pub(crate) pins: Vec<Pin>,
    /// The tables that are read.
    pub(crate) tables: Vec<VersionedTable>,
    /// Their versions.
    pub(crate) versions: Vec<Version>,
    /// What an answer may be.
    pub(crate) limits: Limits,
    /// Fewer rows than this, or any other rows would have done as well.
    pub(crate) determined_below: Option<usize>,
    /// `slipstream.cache.tag`
    pub(crate) tag: String,
    /// How long it is given.
    pub(crate) ttl: Option<Duration>,
    /// Whether identical queries share the computation.
    pub(crate) shares: bool,
    /// Whether the answer is put in.
    pub(crate) keeps: bool,
    /// Where it is kept on disk, too.
    pub(crate) on_disk: Option<DiskCopy>,
    /// What is asked, taken apart, where broader answers are looked for.
    pub(crate) shape: Option<Arc<Shaped>>,
    /// Whether the answer is computed from a broader one: what was said of that stays.
    pub(crate) derived: bool,
    /// Where the outcome is said.
    pub(crate) scope: QueryScope,
}

/// What an answer is kept under on disk.
#[derive(Debug)]
pub(crate) struct DiskCopy {
    /// The directory.
    pub(crate) tier: Arc<DiskTier>,
    /// What is asked.
    pub(crate) key: Arc<DiskKey>,
    /// The versions of the tables.
    pub(crate) versions: Vec<u8>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("key", &self.key.hash()).finish_non_exhaustive()
    }
}

/// `plan`, the whole of a query or a part that stands for itself, which leaves its answer in the cache when it has come to its end.
///
/// An answer has one partition, so that it has an order.
pub(crate) fn recorded(plan: Arc<dyn ExecutionPlan>, recorder: Recorder) -> Arc<dyn ExecutionPlan> {
    if !reads_these(plan.as_ref(), &recorder.tables, &recorder.versions) {
        recorder
            .say(&Err(Refusal::new("changed", "files of a table were changed while the query was planned")));
        return plan;
    }
    let plan = match plan.output_partitioning().partition_count() {
        1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    };
    Passthrough::around(plan, recorder)
}

impl Wrap for Recorder {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        match partition {
            0 => Ok(Box::pin(AnswerStream::new(Arc::clone(self), Arc::clone(inner), context))),
            _ => internal_err!("a query whose answer is kept has one partition"),
        }
    }
}

impl Recorder {
    /// An answer that was put in since the query was planned, of the same versions.
    pub(super) fn answered(&self) -> Option<Arc<CachedResult>> {
        self.store.get(&self.key).filter(|result| self.fits(result))
    }

    /// Whether `result` is an answer to this query: made from the versions that this query would read.
    pub(super) fn fits(&self, result: &CachedResult) -> bool {
        result.is_for(&self.versions, self.ttl, self.clock.now())
    }

    /// The rows are computed from `broader`, an answer of the same versions. They are as old as that one: where age counts,
    /// they are not kept, or they would seem to be new.
    pub(crate) fn derive_from(&mut self, broader: &CachedResult) {
        self.derived = true;
        if broader.has_an_end() || self.ttl.is_some() {
            self.keeps = false;
            self.shares = false;
        }
    }

    /// Whether so many rows and bytes may still be kept, and reserves them.
    pub(super) fn may_keep(&self, kept: &Kept, reservation: &MemoryReservation) -> Result<(), Refusal> {
        if kept.bytes > self.limits.bytes || kept.rows > self.limits.rows {
            return Err(Refusal::new("size", "the answer is larger than one may be"));
        }
        reservation.try_resize(kept.bytes).map_err(|_| Refusal::new("memory", "there is no memory for it"))
    }

    /// Looks at the tables once more, and keeps the answer if they are as they were before.
    ///
    /// # Errors
    /// Why it is not kept.
    pub(super) async fn publish(
        self: Arc<Self>,
        kept: Kept,
        reservation: MemoryReservation,
        cost: Duration,
        schema: SchemaRef,
    ) -> Result<Arc<CachedResult>, Refusal> {
        if self.determined_below.is_some_and(|below| kept.rows >= below) {
            return Err(Refusal::new(
                "limit",
                "LIMIT without ORDER BY: which rows it returns is not determined",
            ));
        }
        if !are_current(&self.tables, &self.versions).await {
            return Err(Refusal::new("changed", "a table was changed while the query ran"));
        }
        let answer = Answer {
            tier: self.tier,
            key: Arc::clone(&self.key),
            schema,
            batches: kept.batches,
            bytes: kept.bytes,
            cost,
            tables: self.tables.iter().map(|table| table.table().name.to_string()).collect(),
            versions: self.versions.clone(),
            aging: self.tables.iter().any(VersionedTable::is_aging),
            pins: self.pins.clone(),
            tag: self.tag.clone(),
            ttl: self.ttl,
            files: Vec::new(),
            on_disk: self.on_disk.as_ref().map(|copy| Arc::clone(copy.key.name())),
            aged: Duration::ZERO,
            shape: self.shape.clone(),
        };
        // From here on the answer's own.
        drop(reservation);
        let result = self.store.put(answer, self.limits, &self.pool, self.clock.as_ref())?;
        if let Some(copy) = &self.on_disk {
            copy.tier.write(&copy.key, &copy.versions, &result);
        }
        Ok(result)
    }

    /// An answer of another query is given.
    pub(super) fn gives(&self, result: &CachedResult) {
        self.store.stats().waited();
        match self.tier {
            Tier::Result => {
                self.store.used(result);
                self.scope.cache_outcome("waited");
            }
            Tier::Subplan | Tier::FileAggregate => self.store.used_for_part(result, result.cost()),
        }
    }

    /// Says what became of the answer. That of a part is not the query's outcome.
    pub(super) fn say(&self, outcome: &Result<Arc<CachedResult>, Refusal>) {
        if let Err(refusal) = outcome {
            self.store.stats().refused(refusal.kind);
        }
        match (self.tier, outcome) {
            // "broader" says more than that it was kept, too.
            (Tier::Result, _) if self.derived => {}
            (Tier::Result, Ok(_)) => self.scope.cache_outcome("stored"),
            (Tier::Result, Err(refusal)) => {
                self.scope.cache_outcome(format!("not stored: {}", refusal.reason));
            }
            (_, Ok(_)) => self.store.attempted(&self.key, true),
            (_, Err(refusal)) if ["size", "cost"].contains(&refusal.kind) => {
                self.store.attempted(&self.key, false);
            }
            (_, Err(_)) => {}
        }
    }
}
