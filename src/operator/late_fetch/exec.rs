//! The plan node above a top-k sort of keys and row numbers.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, assert_eq_or_internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::Distribution;
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use super::fetch::{Counts, Fetch};

/// The rows that `picked`, a sort with a limit, names by file and row number, made whole by `fetch`.
///
/// `properties` are those of the sort whose place it takes: order, equivalences and the one partition are the same.
pub(crate) fn late_fetch(
    picked: Arc<dyn ExecutionPlan>,
    fetch: Fetch,
    properties: Arc<PlanProperties>,
) -> Arc<dyn ExecutionPlan> {
    Arc::new(LateFetchExec {
        picked,
        fetch: Arc::new(fetch),
        properties,
        metrics: ExecutionPlanMetricsSet::new(),
    })
}

/// See [`late_fetch`].
///
/// Filters and limits do not pass it, as they do not pass the sort below: trait methods that push something down keep their
/// defaults, which bar it. Dynamic filters of the sort start below this node and are not affected.
///
/// | metric | |
/// |---|---|
/// | `output_rows` | rows that were fetched, at most k |
/// | `files_fetched` | files that any of them was in; the others are not opened a second time |
///
/// Bytes and time of the second read are with the metrics of the scan, whose source it shares.
#[derive(Debug)]
struct LateFetchExec {
    picked: Arc<dyn ExecutionPlan>,
    fetch: Arc<Fetch>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LateFetchExec {
    /// The same node over other children. They must put out what the first one did: keys, files and row numbers are found
    /// by their places.
    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        assert_eq_or_internal_err!(children.len(), 1, "LateFetchExec has one child");
        let picked = children.swap_remove(0);
        assert_eq_or_internal_err!(
            picked.schema(),
            self.picked.schema(),
            "LateFetchExec finds rows by their places"
        );
        let (fetch, properties) = (Arc::clone(&self.fetch), Arc::clone(&self.properties));
        Ok(Arc::new(Self { picked, fetch, properties, metrics: ExecutionPlanMetricsSet::new() }))
    }
}

impl DisplayAs for LateFetchExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fetch.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "LateFetchExec: columns=[{}], files={}", names.join(", "), self.fetch.files.len())
    }
}

impl ExecutionPlan for LateFetchExec {
    fn name(&self) -> &str {
        "LateFetchExec"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.fetch.schema)
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.picked]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for key in self.fetch.keys.iter().flatten() {
            if f(key)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        assert_eq_or_internal_err!(partition, 0, "LateFetchExec has one partition");
        let picked = self.picked.execute(0, Arc::clone(&context))?;
        let fetch = Arc::clone(&self.fetch);
        let count = |name: &'static str| MetricBuilder::new(&self.metrics).counter(name, partition);
        let counts = Counts { files: count("files_fetched") };
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let batch_rows = context.session_config().batch_size();
        let rows = async move {
            let rows = fetch.rows(picked, &context, &counts).await?;
            baseline.record_output(rows.num_rows());
            let begins = (0..rows.num_rows()).step_by(batch_rows.max(1));
            let slices: Vec<_> =
                begins.map(|begin| Ok(rows.slice(begin, batch_rows.min(rows.num_rows() - begin)))).collect();
            Ok::<_, DataFusionError>(stream::iter(slices))
        };
        let stream = stream::once(rows).try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None)]
    }

    /// As many rows as were picked; of columns that were not read yet nothing is known.
    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.fetch.schema);
        statistics.num_rows = input_stats[0].num_rows;
        Ok(Arc::new(statistics))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
