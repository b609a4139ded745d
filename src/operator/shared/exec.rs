//! The plan node: a consumer of a shared subplan.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use super::slot::Slot;
use super::stream::SharedStream;

/// Gives the rows of a subplan that runs once for several of these nodes.
///
/// ```text
///   SharedSubplanExec: id=1, consumer=1 of 2          SharedSubplanExec: id=1, consumer=2 of 2
///     AggregateExec: …
/// ```
///
/// The first consumer has the subplan as its input, the others have none: EXPLAIN shows it once, and a rule that walks
/// the plan meets it once. Any of them may be the one that runs it. Partitions, their order and every other property are
/// the subplan's.
///
/// What it leaves at DataFusion's default, and why:
///
/// | method | default | because |
/// |---|---|---|
/// | `gather_filters_for_pushdown` | no filter passes | a filter above one consumer would drop rows that another one needs |
/// | `with_fetch`, `supports_limit_pushdown` | no limit passes | likewise |
/// | `try_swapping_with_projection` | projections stay above | likewise, for columns |
/// | `repartitioned` | the partitions stay | the other consumers' parents were planned on them |
///
/// A plan with these nodes cannot be sent to other processes in parts: consumers meet in memory.
#[derive(Debug)]
pub(crate) struct SharedSubplanExec {
    /// Where the consumers meet.
    slot: Arc<Slot>,
    /// From 0 on; the first has the input.
    consumer: usize,
    /// The subplan, at the first consumer.
    input: Option<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
    /// How often the node was reset.
    epoch: usize,
    /// Of this consumer alone.
    metrics: ExecutionPlanMetricsSet,
}

/// As many consumers of `plan` as asked for; the first has it as its input. `id` tells the shared subplans of one plan
/// apart.
pub(crate) fn share(
    plan: &Arc<dyn ExecutionPlan>,
    id: usize,
    consumers: usize,
) -> Vec<Arc<dyn ExecutionPlan>> {
    let slot = Slot::new(id, consumers, Arc::clone(plan));
    let properties = properties(plan);
    let node = |consumer| SharedSubplanExec {
        slot: Arc::clone(&slot),
        consumer,
        input: (consumer == 0).then(|| Arc::clone(plan)),
        properties: Arc::clone(&properties),
        epoch: 0,
        metrics: ExecutionPlanMetricsSet::new(),
    };
    (0..consumers).map(|consumer| Arc::new(node(consumer)) as _).collect()
}

/// Those of the subplan; its consumers yield to other tasks by themselves.
fn properties(plan: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    let properties = plan.properties().as_ref().clone();
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

impl SharedSubplanExec {
    /// The subplan.
    pub(crate) fn subplan(&self) -> Arc<dyn ExecutionPlan> {
        self.slot.plan()
    }
}

impl DisplayAs for SharedSubplanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, consumer, consumers) = (self.slot.id, self.consumer + 1, self.slot.consumers);
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "SharedSubplanExec: id={id}, consumer={consumer} of {consumers}")
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "id={id}")?;
                writeln!(f, "consumer={consumer} of {consumers}")
            }
        }
    }
}

impl ExecutionPlan for SharedSubplanExec {
    fn name(&self) -> &str {
        "SharedSubplanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true; self.children().len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.children().len()]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.input.iter().collect()
    }

    /// The rewritten subplan is what all consumers get from now on: a rule that runs later decides about it where it is
    /// shown. The slot is changed and not replaced, since the other consumers are not at hand here; a rule that drops its
    /// rewrite again leaves a subplan behind that gives the same rows.
    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.len() != self.children().len() {
            return internal_err!(
                "SharedSubplanExec has {} inputs, not {}",
                self.children().len(),
                children.len()
            );
        }
        let Some(input) = children.pop() else {
            return Ok(self);
        };
        self.slot.set_plan(Arc::clone(&input));
        Ok(Arc::new(Self {
            slot: Arc::clone(&self.slot),
            consumer: self.consumer,
            properties: properties(&input),
            input: Some(input),
            epoch: self.epoch,
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    /// A node of the next epoch: it and the other consumers that were reset meet in an execution of their own.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            slot: Arc::clone(&self.slot),
            consumer: self.consumer,
            input: self.input.clone(),
            properties: Arc::clone(&self.properties),
            epoch: self.epoch + 1,
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.slot.execute(self.epoch, self.consumer, partition, &context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        Ok(Box::pin(cooperative(SharedStream::new(rows, self.consumer, self.schema(), metrics))))
    }

    /// Its own, and at the first consumer what was kept and spilled for all.
    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        if let Some(kept) = self.slot.metrics(self.epoch).filter(|_| self.consumer == 0) {
            kept.clone_inner().iter().for_each(|metric| metrics.push(Arc::clone(metric)));
        }
        Some(metrics)
    }

    /// Consumers without an input ask the subplan themselves.
    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition); self.children().len()]
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        match input_stats.first() {
            Some(statistics) => Ok(Arc::clone(statistics)),
            None => StatisticsContext::new().compute(self.slot.plan().as_ref(), args),
        }
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
