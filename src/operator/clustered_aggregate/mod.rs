//! A hash aggregate in one step, where no group is in two row groups.
//!
//! | file | what it holds |
//! |---|---|
//! | `intervals` | the row groups' minima and maxima |
//! | `rows` | keys, arguments and conditions of a batch |
//! | `groups` | groups that are being aggregated |
//! | `shared` | what the partitions know of each other |
//! | `stream` | one partition |

mod groups;
mod intervals;
mod rows;
mod shared;
mod stream;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
    PlanProperties,
};

use self::groups::{Groups, Spec};
pub(crate) use self::intervals::KeyIntervals;
use self::rows::Expressions;
use self::shared::Shared;
use self::stream::ClusteredStream;

/// Aggregates rows whose row groups do not overlap in one of the group keys, without an exchange.
///
/// DataFusion aggregates in two steps with an exchange of all groups between them, since any partition may have rows
/// of any group. Where a file is written in the order of a key, or nearly so (events by day, order lines by order),
/// the minima and maxima of its row groups say that a group is in one row group, but for the keys that two neighbours
/// share. A partition reads a row group from its beginning to its end, so that
///
/// - the groups of a row group are whole when it ends: they are put out, and their memory is free again;
/// - the groups of shared keys, at most one for each row group, are merged when all partitions have ended;
/// - while the key rises, a row that has another key than the row before begins a new group: nothing is hashed.
///
/// Where the key does not rise within a row group, its groups are found by hashing, in a table of that row group's
/// size. Memory is that of the groups of one row group for each partition; it is reserved and does not spill.
///
/// The output is in as many partitions as the input, with no order and no hash partitioning. The partitions share state:
/// all must be executed by one instance. Sort-based early aggregation over clustered input is in Larson, "Data
/// reduction by partial preaggregation" (ICDE 2002); min/max per block as "small materialized aggregates" in Moerkotte
/// (VLDB 1998).
#[derive(Debug)]
pub(crate) struct ClusteredAggregateExec {
    /// What is aggregated, and its input; it is never executed.
    partial: Arc<dyn ExecutionPlan>,
    spec: Arc<Spec>,
    expressions: Arc<Expressions>,
    /// The group key that the intervals are of.
    key: usize,
    intervals: Arc<KeyIntervals>,
    shared: Arc<Shared>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl ClusteredAggregateExec {
    /// The aggregate whose first step is `partial`, an [`AggregateExec`], and whose second step has `schema`.
    ///
    /// `intervals` are those of group key `key` in the row groups below.
    ///
    /// # Errors
    /// If `partial` is another node.
    pub(crate) fn try_new(
        partial: Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
        key: usize,
        intervals: Arc<KeyIntervals>,
    ) -> Result<Self> {
        let aggregate = aggregate(&partial)?;
        let keys = aggregate.group_expr().num_group_exprs();
        let key_fields: Vec<_> = schema.fields().iter().take(keys).cloned().collect();
        let spec = Spec {
            keys: Arc::new(Schema::new(key_fields)),
            output: Arc::clone(&schema),
            aggregates: aggregate.aggr_expr().to_vec(),
        };
        let partitions = aggregate.input().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            spec: Arc::new(spec),
            expressions: Arc::new(Expressions::new(aggregate, key)),
            key,
            shared: Arc::new(Shared::new(intervals.len(), partitions)),
            intervals,
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
            partial,
        })
    }
}

fn aggregate(partial: &Arc<dyn ExecutionPlan>) -> Result<&AggregateExec> {
    let aggregate = partial.downcast_ref::<AggregateExec>();
    aggregate.ok_or_else(|| internal_datafusion_err!("{} is no aggregate", partial.name()))
}

impl DisplayAs for ClusteredAggregateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.spec.output.fields();
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let (keys, aggregates) = names.split_at(self.spec.keys.fields().len().min(names.len()));
        let clustered = keys.get(self.key).copied().unwrap_or_default();
        let (keys, aggregates) = (keys.join(", "), aggregates.join(", "));
        let (intervals, shared) = (self.intervals.len(), self.intervals.shared());
        match format {
            DisplayFormatType::TreeRender => {
                write!(f, "gby={keys}\naggr={aggregates}\nclustered_by={clustered}")
            }
            _ => write!(
                f,
                "ClusteredAggregateExec: gby=[{keys}], aggr=[{aggregates}], clustered_by={clustered}, \
                 row_groups={intervals}, shared_keys={shared}"
            ),
        }
    }
}

impl ExecutionPlan for ClusteredAggregateExec {
    fn name(&self) -> &'static str {
        "ClusteredAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.partial.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.partial.apply_expressions(f)
    }

    /// An exchange below would tear row groups apart.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partial = Arc::clone(&self.partial).replace_children(children, options)?;
        let (schema, intervals) = (Arc::clone(&self.spec.output), Arc::clone(&self.intervals));
        Ok(Arc::new(Self::try_new(partial, schema, self.key, intervals)?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let children = self.children().into_iter().cloned().collect();
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = aggregate(&self.partial)?.input().execute(partition, Arc::clone(&context))?;
        let reservation =
            MemoryConsumer::new(format!("ClusteredAggregate[{partition}]")).register(context.memory_pool());
        Ok(Box::pin(ClusteredStream {
            input,
            expressions: Arc::clone(&self.expressions),
            spec: Arc::clone(&self.spec),
            intervals: Arc::clone(&self.intervals),
            shared: Arc::clone(&self.shared),
            batch_size: context.session_config().batch_size().max(1),
            reservation,
            metrics: BaselineMetrics::new(&self.metrics, partition),
            interval: None,
            groups: Groups::new(Arc::clone(&self.spec))?,
            between: None,
            ready: VecDeque::new(),
            ended: false,
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
