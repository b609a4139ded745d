//! Answers that are read from disk: into memory where there is room for them, else to the query alone, batch by batch.
//!
//! ```text
//!   DiskAnswer ─┬─ within the limits, memory reserved ─► decoded, compacted ─► the store ─► CachedResultExec
//!               └─ not ──────────────────────────────► DiskResultExec: one batch decoded at a time, counted to its query
//! ```
//!
//! Both begin when every byte of the file was found right. What a decoder makes of right bytes can fail only by a defect: in
//! the first case the query computes its answer, in the second it has begun to give rows, and fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::stream;

use super::compaction::Kept;
use crate::clock::Clock;
use crate::fingerprint::{Key, Pin, Refusal, Shaped};
use crate::operator::leaf::{childless, leaf_properties};
use crate::store::{Answer, CachedResult, DiskAnswer, Limits, ResultStore, Tier, Version, VersionedTable};

/// What it takes to put an answer from disk into memory.
#[derive(Debug)]
pub(crate) struct Promotion {
    /// Where it goes.
    pub(crate) store: Arc<ResultStore>,
    /// When that is.
    pub(crate) clock: Arc<dyn Clock>,
    /// What memory it takes.
    pub(crate) pool: Arc<dyn MemoryPool>,
    /// What is asked, in this process.
    pub(crate) key: Arc<Key>,
    /// What keeps the addresses in the key.
    pub(crate) pins: Vec<Pin>,
    /// The tables of the query.
    pub(crate) tables: Vec<VersionedTable>,
    /// Their versions, which are those of the answer.
    pub(crate) versions: Vec<Version>,
    /// What an answer may be.
    pub(crate) limits: Limits,
    /// `slipstream.cache.tag`
    pub(crate) tag: String,
    /// What is asked, taken apart, where broader answers are looked for.
    pub(crate) shape: Option<Arc<Shaped>>,
    /// How old an answer may be.
    pub(crate) max_age: Option<Duration>,
}

/// Why an answer from disk is not in memory.
pub(crate) enum NotPromoted {
    /// It may not be, and is given from its file.
    Refused(Refusal),
    /// It cannot be decoded.
    Corrupt,
}

impl Promotion {
    /// An answer of the same versions that somebody has put into memory meanwhile.
    pub(crate) fn in_memory(&self) -> Option<Arc<CachedResult>> {
        let now = self.clock.now();
        self.store.get(&self.key).filter(|result| result.is_for(&self.versions, self.max_age, now))
    }

    /// Puts `answer` into memory, as one that was just computed: within the same limits, and reserved before it is read.
    ///
    /// # Errors
    /// It has to stay on disk.
    pub(crate) async fn promote(self, answer: &Arc<DiskAnswer>) -> Result<Arc<CachedResult>, NotPromoted> {
        let refused = |kind, why: &'static str| NotPromoted::Refused(Refusal::new(kind, why));
        let header = &answer.header;
        let is_over = |value: u64, limit: usize| usize::try_from(value).map_or(true, |value| value > limit);
        if is_over(header.bytes, self.limits.bytes) || is_over(header.rows, self.limits.rows) {
            return Err(refused("size", "the answer is larger than one may be"));
        }
        if answer.cost() < self.limits.min_cost {
            return Err(refused("cost", "computing it again is cheap"));
        }
        let reservation = self.store.reservation(&self.pool);
        let needed = usize::try_from(header.bytes.saturating_add(header.largest)).unwrap_or(usize::MAX);
        let reservation = reservation
            .filter(|reservation| reservation.try_resize(needed).is_ok())
            .ok_or_else(|| refused("memory", "there is no memory for it"))?;
        let read = Arc::clone(answer);
        let kept = SpawnedTask::spawn_blocking(move || -> Result<Kept> {
            let mut kept = Kept::default();
            read.batches()?.try_for_each(|batch| kept.add(&batch?))?;
            Ok(kept)
        });
        // A panic would be a decoder's that was given what an encoder never wrote.
        let kept = kept.join().await.ok().and_then(Result::ok).ok_or(NotPromoted::Corrupt)?;
        // From here on the answer's own.
        drop(reservation);
        let in_memory = Answer {
            tier: Tier::Result,
            key: self.key,
            schema: Arc::clone(&answer.schema),
            batches: kept.batches,
            bytes: kept.bytes,
            cost: answer.cost(),
            tables: self.tables.iter().map(|table| table.table().name.to_string()).collect(),
            versions: self.versions,
            aging: false,
            pins: self.pins,
            tag: self.tag,
            ttl: answer.ttl(),
            files: Vec::new(),
            shape: self.shape,
            on_disk: Some(Arc::clone(&answer.name)),
            aged: answer.age,
        };
        let put = self.store.put(in_memory, self.limits, &self.pool, self.clock.as_ref());
        put.map_err(NotPromoted::Refused)
    }
}

/// Gives the rows of an answer from its file, in their order, in one partition.
///
/// It may be executed any number of times, and holds the file for as long as the node lives, whatever becomes of its name.
#[derive(Debug)]
pub(crate) struct DiskResultExec {
    answer: Arc<DiskAnswer>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DiskResultExec {
    /// The plan that gives `answer`.
    pub(crate) fn new(answer: Arc<DiskAnswer>) -> Self {
        let properties = leaf_properties(Arc::clone(&answer.schema), 1);
        Self { answer, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for DiskResultExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.answer.header;
        let (name, rows, tables) = (&self.answer.name, header.rows, header.tables.join(", "));
        match format {
            DisplayFormatType::TreeRender => write!(f, "rows={rows}"),
            _ => write!(f, "DiskResultExec: entry={name}, rows={rows}, tables=[{tables}]"),
        }
    }
}

impl ExecutionPlan for DiskResultExec {
    fn name(&self) -> &'static str {
        "DiskResultExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        childless(self, &children)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        childless(self, &children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition > 0 {
            return internal_err!("DiskResultExec has one partition");
        }
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let batches = self.answer.batches()?;
        // What is read ahead of the query: one batch as it is in the file, and the same decoded. It is counted and not asked
        // for: to fail a query whose answer is there would be the worse end.
        let largest = usize::try_from(self.answer.header.largest).unwrap_or(usize::MAX / 2);
        let reservation = MemoryConsumer::new("answer from disk").register(context.memory_pool());
        reservation.grow(largest.saturating_mul(2));
        let rows =
            stream::try_unfold((batches, reservation, baseline), async |(mut batches, held, baseline)| {
                let read = SpawnedTask::spawn_blocking(move || (batches.next(), batches)).join().await;
                let (batch, batches) = read.map_err(|error| DataFusionError::External(Box::new(error)))?;
                let batch = batch.transpose()?;
                batch.iter().for_each(|batch| baseline.record_output(batch.num_rows()));
                Ok(batch.map(|batch| (batch, (batches, held, baseline))))
            });
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&self.answer.schema), rows);
        Ok(make_cooperative(Box::pin(rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let unknown = Statistics::new_unknown(&self.answer.schema);
        let rows = usize::try_from(self.answer.header.rows);
        Ok(Arc::new(unknown.with_num_rows(rows.map_or(Precision::Absent, Precision::Exact))))
    }
}
