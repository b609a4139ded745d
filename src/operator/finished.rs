//! A plan that has run to its end, without what it holds: names, pictures and metrics.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use super::monitored::Monitored;
use super::passthrough::Passthrough;

/// The plan's nodes as they looked and what they measured, where the plan holds memory after its last row; else the plan.
///
/// A hash join keeps its table, and the memory reserved for it, as long as the node lives. Whoever shows the metrics of a
/// query that has ended needs the node's numbers, and not its table.
pub(crate) fn finished(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let node: &dyn Any = plan.as_ref();
    let monitored = node.downcast_ref::<Passthrough<Monitored>>();
    match monitored {
        Some(monitored) if monitored.wrap().reserved_bytes() > 0 => FinishedExec::of(plan.as_ref()),
        _ => Arc::clone(plan),
    }
}

/// One node of a plan that has run.
#[derive(Debug)]
struct FinishedExec {
    name: String,
    line: String,
    metrics: Option<MetricsSet>,
    properties: Arc<PlanProperties>,
    children: Vec<Arc<dyn ExecutionPlan>>,
}

impl FinishedExec {
    /// The picture of `plan` and of what is below it.
    fn of(plan: &dyn ExecutionPlan) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self {
            name: plan.name().to_owned(),
            line: Line(plan).to_string(),
            metrics: plan.metrics(),
            properties: Arc::clone(plan.properties()),
            children: plan.children().into_iter().map(|child| Self::of(child.as_ref())).collect(),
        })
    }
}

/// What a node prints of itself.
struct Line<'a>(&'a dyn ExecutionPlan);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

impl DisplayAs for FinishedExec {
    /// The same in every format: to print a node takes longer than to run it where there are few rows.
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl ExecutionPlan for FinishedExec {
    fn name(&self) -> &str {
        &self.name
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("{} has run: what is left of it is a picture", self.name)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("{} has run: what is left of it is a picture", self.name)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("{} has run and cannot run again: plan the query anew", self.name)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.metrics.clone()
    }
}
