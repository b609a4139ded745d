//! The node that gives the partial states of files, kept or computed.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use super::one_file::OneFilePlan;
use super::recorder::{Collector, FileRecorder};
use super::stream::states;
use crate::operator::leaf::{childless, leaf_properties};
use crate::store::{CachedResult, FileIdentity, FilePart};

/// A file whose contribution is kept.
#[derive(Debug, Clone)]
pub(crate) struct GivenFile {
    entry: Arc<CachedResult>,
    index: usize,
}

impl GivenFile {
    /// All files of an entry.
    pub(crate) fn all_of(entry: &Arc<CachedResult>) -> impl Iterator<Item = Self> + use<> {
        let entry = Arc::clone(entry);
        (0..entry.files().len()).map(move |index| Self { entry: Arc::clone(&entry), index })
    }

    /// What is known of it.
    pub(crate) fn part(&self) -> &FilePart {
        &self.entry.files()[self.index]
    }

    /// Its states.
    pub(super) fn batches(&self) -> &[RecordBatch] {
        self.entry.batches().get(self.part().batches.clone()).unwrap_or_default()
    }

    /// How many states.
    pub(super) fn rows(&self) -> usize {
        self.batches().iter().map(RecordBatch::num_rows).sum()
    }
}

/// What a partition does for one file.
#[derive(Debug, Clone)]
pub(crate) enum FileTask {
    /// It gives what is kept.
    Give(GivenFile),
    /// It reads the file, and keeps what it contributes under this identity; without one it is not kept.
    Read(Box<PartitionedFile>, Option<FileIdentity>),
}

/// The states of a partial aggregate, file by file.
///
/// Which partition reads which file is decided when it is planned. Each file is aggregated for itself, by a copy of a plan that
/// was never executed; what its operators reserve is the query's. The partitions share the list of files that are read anew:
/// they are put into the cache behind the last one, so an execution that is dropped, fails, or leaves a partition out keeps
/// nothing. It does not spill: a partial aggregate that gets no memory gives what it has.
#[derive(Debug)]
pub(crate) struct FileAggregateExec {
    partial: OneFilePlan,
    tasks: Arc<[Vec<FileTask>]>,
    recorder: Option<Arc<FileRecorder>>,
    collector: Arc<Collector>,
    table: String,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FileAggregateExec {
    /// The states of `partial`, over the files of `table`; each partition does its `tasks`.
    pub(crate) fn new(
        partial: OneFilePlan,
        schema: SchemaRef,
        tasks: Vec<Vec<FileTask>>,
        recorder: Option<FileRecorder>,
        table: String,
    ) -> Self {
        let properties = leaf_properties(schema, tasks.len());
        let recorder = recorder.map(Arc::new);
        let tasks: Arc<[Vec<FileTask>]> = tasks.into();
        Self {
            collector: Arc::new(collector(&tasks, recorder.as_ref())),
            partial,
            tasks,
            recorder,
            table,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Files that are given, and files in all.
    fn counts(&self) -> (usize, usize) {
        let all = self.tasks.iter().flatten();
        let given = all.clone().filter(|task| matches!(task, FileTask::Give(_))).count();
        (given, all.count())
    }
}

/// What waits for all files of `tasks` that are read anew and kept.
fn collector(tasks: &[Vec<FileTask>], recorder: Option<&Arc<FileRecorder>>) -> Collector {
    let keeps = |task: &&FileTask| matches!(task, FileTask::Read(_, Some(_)));
    let files = tasks.iter().flatten().filter(keeps).count();
    recorder.map_or_else(Collector::default, |recorder| recorder.collector(files))
}

impl DisplayAs for FileAggregateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given, files) = self.counts();
        if format == DisplayFormatType::TreeRender {
            return write!(f, "files={files}\nkept={given}");
        }
        write!(f, "FileAggregateExec: table={}, files={files}, kept={given}", self.table)?;
        let Some(partial) = self.partial.plan().downcast_ref::<AggregateExec>() else { return Ok(()) };
        let groups: Vec<&str> = partial.group_expr().expr().iter().map(|(_, name)| name.as_str()).collect();
        let aggregates: Vec<&str> = partial.aggr_expr().iter().map(|aggregate| aggregate.name()).collect();
        write!(f, ", gby=[{}], aggr=[{}]", groups.join(", "), aggregates.join(", "))
    }
}

impl ExecutionPlan for FileAggregateExec {
    fn name(&self) -> &'static str {
        "FileAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    /// What is inside is the node's own: nothing above may change what a file contributes.
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

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            partial: self.partial.clone(),
            tasks: Arc::clone(&self.tasks),
            recorder: self.recorder.clone(),
            collector: Arc::new(collector(&self.tasks, self.recorder.as_ref())),
            table: self.table.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let tasks = self.tasks.get(partition).cloned();
        let tasks = tasks
            .ok_or_else(|| internal_datafusion_err!("FileAggregateExec has no partition {partition}"))?;
        let given = MetricBuilder::new(&self.metrics).counter("files_kept", partition);
        let read = MetricBuilder::new(&self.metrics).counter("files_read", partition);
        for task in &tasks {
            match task {
                FileTask::Give(_) => given.add(1),
                FileTask::Read(..) => read.add(1),
            }
        }
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let recorder =
            self.recorder.as_ref().map(|recorder| (Arc::clone(recorder), Arc::clone(&self.collector)));
        Ok(make_cooperative(states(self.schema(), &self.partial, tasks, recorder, baseline, context)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema())))
    }
}
