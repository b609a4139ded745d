//! The filter of a scan by the keys of build sides.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, assert_eq_or_internal_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricType, MetricsSet, RatioMetrics,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

use super::keys::{Bits, KeySet};

/// Batches over which a test is judged.
const SAMPLE: usize = 8;
/// Batches that pass untested after a test that kept too much.
const PAUSE: usize = 120;
/// A test that keeps more than this share of its rows costs more than it saves: rows that are kept are copied.
const USEFUL: f64 = 0.6;

/// One test of a [`KeyFilterExec`].
#[derive(Debug, Clone)]
pub(crate) struct KeyTest {
    /// The column of the input that is tested.
    pub(crate) column: usize,
    /// What it is tested against.
    pub(crate) keys: Arc<KeySet>,
}

/// Keeps the rows whose keys are among those of the joins that the rows are on their way to.
///
/// - Until the keys of a build side are complete its test passes all rows on.
/// - A test that keeps more than 60 % of the rows of eight batches is left out for the next 120, and then tried again.
/// - Batches of which nothing is dropped are handed on as they are; what is left of others is joined to full batches.
///
/// Partitioning and orderings are the input's, and rows keep their order. What is held in memory is one output batch for
/// each partition. The bits of the keys are accounted as `KeyFilter`.
///
/// | metric | |
/// |---|---|
/// | `selectivity` | rows kept of the rows that were tested |
/// | `untested_batches` | batches that passed before the keys were complete, or while all tests were left out |
#[derive(Debug)]
pub(crate) struct KeyFilterExec {
    input: Arc<dyn ExecutionPlan>,
    tests: Vec<KeyTest>,
    metrics: ExecutionPlanMetricsSet,
}

impl KeyFilterExec {
    /// `input`, filtered by `tests`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, tests: Vec<KeyTest>) -> Self {
        Self { input, tests, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for KeyFilterExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let names: Vec<_> = self.tests.iter().map(|test| schema.field(test.column).name().as_str()).collect();
        match format {
            DisplayFormatType::TreeRender => write!(f, "keys={}", names.join(", ")),
            _ => write!(f, "KeyFilterExec: keys=[{}]", names.join(", ")),
        }
    }
}

impl ExecutionPlan for KeyFilterExec {
    fn name(&self) -> &'static str {
        "KeyFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn datafusion::physical_plan::PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        assert_eq_or_internal_err!(children.len(), 1, "KeyFilterExec has one child");
        Ok(Arc::new(Self::new(children.swap_remove(0), self.tests.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let schema = self.schema();
        Ok(Box::pin(KeyFilterStream {
            input: Some(self.input.execute(partition, context)?),
            tests: self.tests.iter().cloned().map(Running::new).collect(),
            coalescer: BatchCoalescer::new(Arc::clone(&schema), batch_rows),
            passed: None,
            schema,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            selectivity: MetricBuilder::new(&self.metrics)
                .with_type(MetricType::Summary)
                .ratio_metrics("selectivity", partition),
            untested: MetricBuilder::new(&self.metrics).counter("untested_batches", partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// What the joins above keep is theirs to say.
    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(input_stats[0].as_ref().clone().to_inexact()))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}

/// A test in one partition, and how it does.
struct Running {
    test: KeyTest,
    bits: Option<Arc<Bits>>,
    batches: usize,
    pause: usize,
    seen: usize,
    kept: usize,
}

impl Running {
    fn new(test: KeyTest) -> Self {
        Self { test, bits: None, batches: 0, pause: 0, seen: 0, kept: 0 }
    }

    /// The rows that it keeps; `None` for all, untested.
    fn keeps(&mut self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        if self.bits.is_none() {
            self.bits = self.test.keys.complete();
        }
        let kept = self.bits.as_ref()?.may_contain(batch.column(self.test.column))?;
        self.batches += 1;
        self.seen += kept.len();
        self.kept += kept.count_set_bits();
        if self.batches == SAMPLE {
            if self.kept as f64 > USEFUL * self.seen as f64 {
                self.pause = PAUSE;
            }
            (self.batches, self.seen, self.kept) = (0, 0, 0);
        }
        Some(kept)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.bits = None;
        self.test.keys.read();
    }
}

/// One partition of a [`KeyFilterExec`].
struct KeyFilterStream {
    /// Gone at its end.
    input: Option<SendableRecordBatchStream>,
    tests: Vec<Running>,
    /// Joins what is left of batches to full ones.
    coalescer: BatchCoalescer,
    /// A whole batch behind what the coalescer holds.
    passed: Option<RecordBatch>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
    selectivity: RatioMetrics,
    untested: Count,
}

impl KeyFilterStream {
    /// Takes in one batch.
    fn filter(&mut self, batch: RecordBatch) -> Result<()> {
        let mut mask: Option<BooleanBuffer> = None;
        for test in &mut self.tests {
            if let Some(kept) = test.keeps(&batch) {
                mask = Some(match mask {
                    Some(mask) => &mask & &kept,
                    None => kept,
                });
            }
        }
        let Some(mask) = mask else {
            self.untested.add(1);
            return self.hand_on(batch);
        };
        let kept = mask.count_set_bits();
        self.selectivity.add_total(batch.num_rows());
        self.selectivity.add_part(kept);
        if kept == batch.num_rows() {
            return self.hand_on(batch);
        }
        if kept > 0 {
            self.coalescer.push_batch_with_filter(batch, &BooleanArray::from(mask))?;
        }
        Ok(())
    }

    /// Nothing is copied: what is left of batches before this one goes out first, however little it is.
    fn hand_on(&mut self, batch: RecordBatch) -> Result<()> {
        self.coalescer.finish_buffered_batch()?;
        self.passed = Some(batch);
        Ok(())
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            let ready = self.coalescer.next_completed_batch().or_else(|| self.passed.take());
            if let Some(batch) = ready {
                return Poll::Ready(Some(Ok(batch)));
            }
            let Some(input) = &mut self.input else { return Poll::Ready(None) };
            let input = ready!(input.poll_next_unpin(cx));
            let compute = self.metrics.elapsed_compute().clone();
            let _timer = compute.timer();
            let outcome = match input {
                Some(Ok(batch)) => self.filter(batch),
                Some(Err(error)) => Err(error),
                None => {
                    self.end();
                    Ok(self.coalescer.finish_buffered_batch()?)
                }
            };
            if let Err(error) = outcome {
                self.end();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// Lets go of the input and of the keys.
    fn end(&mut self) {
        self.input = None;
        self.tests.clear();
    }
}

impl Stream for KeyFilterStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let poll = self.poll_batch(cx);
        self.metrics.record_poll(poll)
    }
}

impl RecordBatchStream for KeyFilterStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
