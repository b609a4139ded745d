//! A filter whose conditions are compiled, and ordered while it runs.
//!
//! ```text
//!   day >= … AND day < … AND mode IN ('MAIL', 'SHIP') AND received > committed AND note LIKE '%x%'
//!   └──────────────────────────── Predicate: one Test for each condition ───────────────────────┘
//!
//!   batch ─► Order ─► Test, about all rows ─► Test, about all rows ─► Test, about the rows left ─► coalescer
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `predicate` | the conjunction, the order of its conditions, and the rows that are left |
//! | `test` | one condition: what it needs, what it costs, whether it may fail |
//! | `strings` | equality of string views with literals |
//! | `parts` | LIKE with several parts |

mod parts;
mod predicate;
mod strings;
mod test;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_datafusion_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce::{LimitedBatchCoalescer, PushBatchStatus};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricType, MetricsSet, RatioMetrics,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{Stream, StreamExt};

use self::predicate::{Order, Predicate};

/// A `FilterExec` that evaluates its conjunction in another way.
///
/// - Conditions are asked in the order that is the cheapest for the rows seen so far, each about all rows or about the
///   rows that are left. DataFusion 55.2 keeps the written order, and copies all columns of the rows that are left.
/// - Equality of string views with literals looks at the views, not at strings one by one; LIKE with several parts looks for
///   one behind the other.
/// - A condition that may fail, such as a division or a cast, keeps its place, and is asked about no row that a
///   condition in front of it has dropped.
///
/// Partitioning, orderings and statistics are those of the `FilterExec`. Rows keep their order. What is held in memory is
/// one output batch for each partition, as in DataFusion's filter.
///
/// `EXPLAIN ANALYZE` shows `output_rows`, `elapsed_compute` and `selectivity` (rows kept of rows seen).
#[derive(Debug)]
pub(crate) struct FusedFilterExec {
    /// A [`FilterExec`], for all but the execution.
    filter: Arc<dyn ExecutionPlan>,
    predicate: Arc<Predicate>,
    metrics: ExecutionPlanMetricsSet,
}

impl FusedFilterExec {
    /// The filter in place of `filter`, where it is one that can gain.
    ///
    /// # Errors
    /// If the predicate names columns that the input does not have.
    pub(crate) fn of(filter: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        let Some(node) = filter.downcast_ref::<FilterExec>() else { return Ok(None) };
        let predicate = Predicate::new(node.predicate(), &node.input().schema())?;
        Ok(predicate.is_better().then(|| Self {
            filter: Arc::clone(filter),
            predicate: Arc::new(predicate),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    /// The filter whose predicate, projection and limit are executed here.
    fn filter(&self) -> Result<&FilterExec> {
        let filter = self.filter.downcast_ref::<FilterExec>();
        filter.ok_or_else(|| internal_datafusion_err!("{} is no filter", self.filter.name()))
    }
}

/// The filter that `plan` is, whichever of the two nodes evaluates it.
pub(crate) fn filter_of(plan: &dyn ExecutionPlan) -> Option<&FilterExec> {
    let fused = plan.downcast_ref::<FusedFilterExec>();
    fused.map_or(plan, |fused| fused.filter.as_ref()).downcast_ref()
}

impl DisplayAs for FusedFilterExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(format, DisplayFormatType::TreeRender) {
            // The filter goes on with its own name.
            write!(f, "Fused")?;
        }
        self.filter.fmt_as(format, f)
    }
}

impl ExecutionPlan for FusedFilterExec {
    fn name(&self) -> &'static str {
        "FusedFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.filter.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.filter.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.filter.apply_expressions(f)
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.filter.maintains_input_order()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let filter = Arc::clone(&self.filter).replace_children(children, options)?;
        let predicate = Arc::clone(&self.predicate);
        Ok(Arc::new(Self { filter, predicate, metrics: ExecutionPlanMetricsSet::new() }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filter = self.filter()?;
        let schema = self.schema();
        Ok(Box::pin(FilterStream {
            input: Some(filter.input().execute(partition, context)?),
            order: Order::new(Arc::clone(&self.predicate)),
            projection: filter.projection().as_ref().map(|kept| kept.to_vec()),
            coalescer: LimitedBatchCoalescer::new(Arc::clone(&schema), filter.batch_size(), filter.fetch()),
            schema,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            selectivity: MetricBuilder::new(&self.metrics)
                .with_type(MetricType::Summary)
                .ratio_metrics("selectivity", partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.filter.statistics_from_inputs(input_stats, args)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.filter.child_stats_requests(partition)
    }

    fn fetch(&self) -> Option<usize> {
        self.filter.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.filter.cardinality_effect()
    }
}

/// One partition of a filter.
struct FilterStream {
    /// Gone at its end, or when enough rows were found.
    input: Option<SendableRecordBatchStream>,
    order: Order,
    projection: Option<Vec<usize>>,
    /// Joins what is left of batches to full ones.
    coalescer: LimitedBatchCoalescer,
    schema: SchemaRef,
    metrics: BaselineMetrics,
    selectivity: RatioMetrics,
}

impl FilterStream {
    /// Takes in one batch; false when no more rows are wanted.
    fn filter(&mut self, batch: &RecordBatch) -> Result<bool> {
        let mask = self.order.evaluate(batch)?;
        let kept = mask.count_set_bits();
        self.selectivity.add_total(batch.num_rows());
        self.selectivity.add_part(kept);
        if kept == 0 {
            return Ok(true);
        }
        let projected = match &self.projection {
            Some(projection) => batch.project(projection)?,
            None => batch.clone(),
        };
        let filtered = if kept == batch.num_rows() {
            projected
        } else {
            filter_record_batch(&projected, &BooleanArray::from(mask))?
        };
        Ok(matches!(self.coalescer.push_batch(filtered)?, PushBatchStatus::Continue))
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.coalescer.next_completed_batch() {
                return Poll::Ready(Some(Ok(batch)));
            }
            let Some(input) = &mut self.input else { return Poll::Ready(None) };
            let input = ready!(input.poll_next_unpin(cx));
            let compute = self.metrics.elapsed_compute().clone();
            let _timer = compute.timer();
            let wants_more = match input {
                Some(Ok(batch)) => self.filter(&batch),
                Some(Err(error)) => Err(error),
                None => Ok(false),
            };
            let outcome = match wants_more {
                Ok(true) => continue,
                Ok(false) => self.coalescer.finish(),
                Err(error) => Err(error),
            };
            self.input = None;
            if let Err(error) = outcome {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Stream for FilterStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let poll = self.poll_batch(cx);
        self.metrics.record_poll(poll)
    }
}

impl RecordBatchStream for FilterStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
