//! The plan node: what it tells DataFusion's rules, and where each execution begins.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_datafusion_err, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::build::BuildRequest;
use super::metrics::JoinMetrics;
use super::partition::MAX_PARTS;
use super::run::{Execution, collected, own};
use super::spec::JoinSpec;

type Plan = Arc<dyn ExecutionPlan>;

/// Spill files of one side that all partitions together keep open while they write: file descriptors are few.
const OPEN_FILES: usize = 256;

/// A hash join whose build side may be larger than the memory.
///
/// It stands for a [`HashJoinExec`] and asks it about everything but its order, which spilled rows do not keep.
///
/// *State.* With `CollectLeft` the partitions share the build side, which the first one that is polled collects; the last
/// one that has probed joins what is on disk, where the type gives build rows, and each joins its own else. With
/// `Partitioned` each partition is a join of its own, and only the dynamic filter is shared.
///
/// *Memory.* One consumer for each build side, which can spill: its rows twice (a hash join copies them when it has built
/// its table) and the table. Rows on their way to disk are reserved twice too. Batches that are read back are not.
///
/// *Spilling.* See the [module](super).
pub(crate) struct SpillJoinExec {
    /// The join as it was planned. It is never executed itself; what is run is made of its parts.
    join: Arc<dyn ExecutionPlan>,
    /// Its parts, for the joins that a spilling execution makes.
    spec: Arc<JoinSpec>,
    /// Whether the partitions share a build side. Never `Auto`, which cannot be executed.
    mode: PartitionMode,
    /// Those of the join, without an order.
    properties: Arc<PlanProperties>,
    /// Counted over all partitions, by the partition of the output.
    metrics: Arc<JoinMetrics>,
    /// What partitions share once they are executed; new after `reset_state`.
    execution: Mutex<Execution>,
}

impl SpillJoinExec {
    /// The same join, which can spill.
    ///
    /// # Errors
    /// Where `join` is no hash join with a partition mode.
    pub(crate) fn try_new(join: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let Some(hash_join) = join.downcast_ref::<HashJoinExec>() else {
            return internal_err!("{} is no hash join", join.name());
        };
        let mode = *hash_join.partition_mode();
        if mode == PartitionMode::Auto {
            return internal_err!("a hash join without a partition mode cannot be executed");
        }
        let spec = Arc::new(JoinSpec::of(hash_join));
        let mut equivalences = join.properties().eq_properties.clone();
        equivalences.clear_orderings();
        let properties = join.properties().as_ref().clone();
        let properties = properties.with_eq_properties(equivalences);
        Ok(Self {
            join,
            spec,
            mode,
            properties: Arc::new(properties),
            metrics: Arc::default(),
            execution: Mutex::default(),
        })
    }

    /// The join as it was planned.
    fn hash_join(&self) -> Result<&HashJoinExec> {
        self.join
            .downcast_ref()
            .ok_or_else(|| internal_datafusion_err!("{} is no hash join", self.join.name()))
    }

    /// The build side and the probe side.
    fn inputs(&self) -> Result<(&Plan, &Plan)> {
        match self.join.children()[..] {
            [left, right] => Ok((left, right)),
            _ => Err(internal_datafusion_err!("a hash join has two inputs")),
        }
    }

    /// With more build sides at a time each is divided into fewer parts, since all of their files are open while they are
    /// written. Eight are the least: with fewer, each is too much of the whole to choose well what stays in memory.
    ///
    /// What a build side is built by.
    fn request(&self, partition: usize, builds: usize, context: &Arc<TaskContext>) -> BuildRequest {
        let parts = (OPEN_FILES / builds.max(1)).clamp(8, 32).next_power_of_two().min(MAX_PARTS);
        BuildRequest {
            spec: Arc::clone(&self.spec),
            context: Arc::clone(context),
            metrics: Arc::clone(&self.metrics),
            partition,
            parts,
        }
    }
}

impl fmt::Debug for SpillJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillJoinExec").field("join", &self.join).finish_non_exhaustive()
    }
}

impl DisplayAs for SpillJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(format, DisplayFormatType::TreeRender) {
            return self.join.fmt_as(format, f);
        }
        let mut text = String::new();
        fmt::Write::write_fmt(&mut text, format_args!("{}", Shown(&self.join, format)))?;
        write!(f, "SpillJoinExec: {}", text.strip_prefix("HashJoinExec: ").unwrap_or(&text))
    }
}

/// A node as it shows itself.
struct Shown<'a>(&'a Arc<dyn ExecutionPlan>, DisplayFormatType);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(self.1, f)
    }
}

impl ExecutionPlan for SpillJoinExec {
    fn name(&self) -> &'static str {
        "SpillJoinExec"
    }

    /// Who asks whether this is a hash join, to learn from its rows or to follow its columns, means this one too.
    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.join.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.join.input_distribution_requirements()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.join.dynamic_expressions_produced()
    }

    /// The rows of parts that were on disk come behind all others.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false; self.join.children().len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.join.benefits_from_input_partitioning()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let join = Arc::clone(&self.join).replace_children(children, options)?;
        Ok(Arc::new(Self::try_new(join)?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// For another execution: nothing of this one is kept, its dynamic filter included, as DataFusion does it.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::try_new(Arc::clone(&self.join).reset_state()?)?))
    }

    /// Executes both inputs at once, as the plain join does, and each of their partitions once; nothing is polled yet.
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (left, right) = self.inputs()?;
        let partitions = right.output_partitioning().partition_count();
        let mut execution = self.execution.lock();
        let plain = execution.next(self.hash_join()?, partitions, &self.metrics)?;
        let opened: BoxFuture<'static, Result<SendableRecordBatchStream>> = match self.mode {
            PartitionMode::CollectLeft => {
                let request = || -> Result<_> {
                    Ok((self.request(0, 1, &context), left.execute(0, Arc::clone(&context))?))
                };
                let built = execution.collected(partitions, request, &plain)?;
                let probe = right.execute(partition, Arc::clone(&context))?;
                collected(built, plain, partition, probe, Arc::clone(&self.metrics)).boxed()
            }
            _ => {
                let builds = left.output_partitioning().partition_count();
                let request = self.request(partition, builds, &context);
                let build = left.execute(partition, Arc::clone(&context))?;
                let probe = right.execute(partition, context)?;
                own(request, plain, build, probe).boxed()
            }
        };
        drop(execution);
        let rows = stream::once(opened).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    /// A partition that fits shows the plain join's own counts, one that spills those of all joins that it ran.
    fn metrics(&self) -> Option<MetricsSet> {
        let running = self.execution.lock().running();
        Some(self.metrics.with(running.and_then(|plain| plain.counted()).as_ref()))
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.join.statistics_from_inputs(input_stats, args)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.join.child_stats_requests(partition)
    }

    fn fetch(&self) -> Option<usize> {
        self.join.fetch()
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.join.supports_limit_pushdown()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.join.cardinality_effect()
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.join.gather_filters_for_pushdown(phase, parent_filters, config)
    }
}
