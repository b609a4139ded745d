//! The plan of a query whose answer is there.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::{StreamExt, stream};

use crate::operator::leaf::{childless, leaf_properties};
use crate::store::CachedResult;

/// Gives the rows of a kept answer, in their order, in one partition.
///
/// It has no input and no state: it may be executed any number of times, and holds the answer for as long as the node lives,
/// whatever the cache does. What it gives was current when the query was planned, as the plan of a table in memory reads the
/// table as it was then.
#[derive(Debug)]
pub(crate) struct CachedResultExec {
    result: Arc<CachedResult>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl CachedResultExec {
    /// The plan that gives `result`.
    pub(crate) fn new(result: Arc<CachedResult>) -> Self {
        let schema = Arc::clone(result.schema());
        Self::named(result, schema)
    }

    /// The plan that gives `result` with other names for its columns.
    pub(crate) fn named(result: Arc<CachedResult>, schema: SchemaRef) -> Self {
        let properties = leaf_properties(Arc::clone(&schema), 1);
        Self { result, schema, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for CachedResultExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, tables) = (self.result.rows, self.result.tables().join(", "));
        match format {
            DisplayFormatType::TreeRender => write!(f, "rows={rows}"),
            _ => write!(f, "CachedResultExec: entry={}, rows={rows}, tables=[{tables}]", self.result.name()),
        }
    }
}

impl ExecutionPlan for CachedResultExec {
    fn name(&self) -> &'static str {
        "CachedResultExec"
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

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition > 0 {
            return internal_err!("CachedResultExec has one partition");
        }
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let batches = given(&self.result, move |rows| baseline.record_output(rows));
        if self.schema == *self.result.schema() {
            return Ok(make_cooperative(batches));
        }
        let schema = Arc::clone(&self.schema);
        let named = batches.map(move |batch| renamed(&batch?, &schema));
        let named = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), named);
        Ok(make_cooperative(Box::pin(named)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let unknown = Statistics::new_unknown(&self.schema);
        Ok(Arc::new(unknown.with_num_rows(Precision::Exact(self.result.rows))))
    }
}

/// `batch` with the names of `schema`, whose types are the same.
pub(in crate::operator) fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The batches of `result`, each announced to `told` when it is given.
pub(super) fn given(
    result: &Arc<CachedResult>,
    told: impl Fn(usize) + Send + 'static,
) -> SendableRecordBatchStream {
    let batches = stream::unfold((Arc::clone(result), 0), move |(result, place)| {
        let batch = result.batches().get(place).cloned();
        batch.iter().for_each(|batch| told(batch.num_rows()));
        std::future::ready(batch.map(|batch| (Ok(batch), (result, place + 1))))
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(result.schema()), batches))
}
