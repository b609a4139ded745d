//! A part of a plan that is planned by itself, while the rest is planned.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use super::leaf::childless;

/// Hides a plan from the rules that plan what is above it: they push nothing into a node without inputs.
///
/// It has the properties of the plan in it, and is executed as that. Behind the rules, [`unfolded`] puts the plan in its place.
#[derive(Debug)]
pub(crate) struct PlannedPartExec(Arc<dyn ExecutionPlan>);

impl PlannedPartExec {
    /// `plan`, as a node without inputs.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self(plan)
    }
}

/// `plan` with all parts in it to be seen again.
///
/// # Errors
/// Where a node could not be built anew.
pub(crate) fn unfolded(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| {
        Ok(match node.downcast_ref::<PlannedPartExec>() {
            Some(part) => Transformed::new(Arc::clone(&part.0), true, TreeNodeRecursion::Jump),
            None => Transformed::no(node),
        })
    })
    .data()
}

impl DisplayAs for PlannedPartExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::TreeRender => write!(f, "part={}", self.0.name()),
            _ => write!(f, "PlannedPartExec: {}", self.0.name()),
        }
    }
}

impl ExecutionPlan for PlannedPartExec {
    fn name(&self) -> &'static str {
        "PlannedPartExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, context)
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        StatisticsContext::new().compute(self.0.as_ref(), args)
    }
}
