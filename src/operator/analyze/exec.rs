//! The plan node that reads all partitions of a table, and gives one row for each column.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, ResolvedTableReference, Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
    PlanProperties,
};
use futures::{StreamExt, stream};

use super::sketch::TableSketch;
use crate::clock::Clock;
use crate::store::{Identity, StatisticsStore, TableProfile, profile_columns, profile_fields};

/// What is analyzed, and where the result goes.
#[derive(Debug)]
pub(crate) struct AnalyzeTarget {
    /// The table's name in full.
    pub(crate) table: ResolvedTableReference,
    /// The data that the input reads.
    pub(crate) identity: Identity,
    /// The input's columns, by their places in the table's schema.
    pub(crate) columns: Vec<usize>,
    /// Where the result goes.
    pub(crate) store: Arc<StatisticsStore>,
    /// What the store may hold in all.
    pub(crate) max_entries: usize,
    /// What the store may hold in all.
    pub(crate) max_bytes: usize,
    /// When it was done.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The schema of what ANALYZE answers.
pub(crate) fn analyze_schema() -> SchemaRef {
    Arc::new(Schema::new(profile_fields()))
}

/// Reads its input to the end, one task for each partition, and records what it has found.
///
/// ```text
///   partition 0 ─► sketch ─┐
///   partition 1 ─► sketch ─┴─► merged ─► StatisticsStore, one row a column
/// ```
///
/// Memory: for each partition 16 MiB of sampled rows and some 20 KB for each column, reserved from the query's pool. A
/// pool without that much room fails the statement.
#[derive(Debug)]
pub(crate) struct AnalyzeTableExec {
    input: Arc<dyn ExecutionPlan>,
    target: Arc<AnalyzeTarget>,
    properties: Arc<PlanProperties>,
}

impl AnalyzeTableExec {
    /// Analyzes the rows of `input`.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, target: Arc<AnalyzeTarget>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(analyze_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, target, properties: Arc::new(properties) }
    }
}

impl DisplayAs for AnalyzeTableExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnalyzeTableExec: table={}, columns={}", self.target.table, self.target.columns.len())
    }
}

impl ExecutionPlan for AnalyzeTableExec {
    fn name(&self) -> &'static str {
        "AnalyzeTableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.target)))),
            _ => internal_err!("AnalyzeTableExec has one input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.target)))),
            _ => internal_err!("AnalyzeTableExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition > 0 {
            return internal_err!("AnalyzeTableExec has one partition");
        }
        let answer = analyze(Arc::clone(&self.input), Arc::clone(&self.target), context);
        Ok(Box::pin(RecordBatchStreamAdapter::new(analyze_schema(), stream::once(answer).boxed())))
    }
}

/// Sketches all partitions at once, puts them together, and keeps the result.
///
/// Nothing is kept unless every partition has come to its end.
async fn analyze(
    input: Arc<dyn ExecutionPlan>,
    target: Arc<AnalyzeTarget>,
    context: Arc<TaskContext>,
) -> Result<RecordBatch> {
    // Dropping the set ends its tasks: so does dropping the statement's stream.
    let mut parts = JoinSet::new();
    for partition in 0..input.output_partitioning().partition_count() {
        let rows = input.execute(partition, Arc::clone(&context))?;
        let memory =
            MemoryConsumer::new(format!("AnalyzeTable[{partition}]")).register(context.memory_pool());
        parts.spawn(sketched(rows, partition, memory));
    }
    let schema = input.schema();
    let mut whole = TableSketch::new(&schema, u64::MAX - 1)?;
    while let Some(part) = parts.join_next().await {
        let (part, _memory) = part.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
        whole.merge(part)?;
    }
    let (rows, columns) = whole.finish(&schema, &target.columns)?;
    let read: Vec<usize> = columns.iter().map(|column| column.index).collect();
    let profile = TableProfile {
        table: target.table.clone(),
        identity: target.identity.clone(),
        rows,
        columns,
        analyzed: target.clock.system_time(),
    };
    let profile = target.store.put(profile, target.max_entries, target.max_bytes);
    let rows: Vec<_> = read
        .into_iter()
        .filter_map(|index| Some((profile.as_ref(), profile.column(index)?.as_ref())))
        .collect();
    Ok(RecordBatch::try_new(analyze_schema(), profile_columns(&rows)?)?)
}

/// One partition's sketch, and the memory that it holds. The sketch grows by one batch before the pool is asked, which
/// the pool's owner bears: a batch is in memory anyway.
async fn sketched(
    mut rows: SendableRecordBatchStream,
    partition: usize,
    memory: MemoryReservation,
) -> Result<(TableSketch, MemoryReservation)> {
    let mut sketch = TableSketch::new(&rows.schema(), partition as u64)?;
    while let Some(batch) = rows.next().await {
        sketch.add(&batch?)?;
        memory.try_resize(sketch.bytes())?;
    }
    Ok((sketch, memory))
}
