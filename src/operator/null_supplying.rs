//! The null-supplying input of an outer join, with nothing promised that ends at the join.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, assert_eq_or_internal_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::equivalence::{EquivalenceClass, EquivalenceGroup};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

/// Hands its input's rows on, and says of them only what is still true beside rows of NULLs: not that a column has one
/// value, nor that it equals an expression, which may make a value of a NULL.
///
/// It has no state and holds no memory.
#[derive(Debug)]
pub(crate) struct NullSupplyingExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl NullSupplyingExec {
    /// `input`, and above it a node where it promises what an outer join would break.
    ///
    /// # Errors
    /// Those of DataFusion's arithmetic of orders.
    pub(crate) fn above(input: Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let promised = input.properties().equivalence_properties();
        let constant = promised.constants().iter().any(|constant| constant.expr.is::<Column>());
        let mut members = promised.eq_group().iter().flat_map(|class| class.iter());
        if !constant && members.all(|member| member.is::<Column>() || member.is::<Literal>()) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::new(input)?)))
    }

    fn new(input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let promised = input.properties().equivalence_properties();
        let mut kept = EquivalenceProperties::new(Arc::clone(promised.schema()))
            .with_constraints(promised.constraints().clone());
        let columns = promised.eq_group().iter().map(|class| {
            EquivalenceClass::new(class.iter().filter(|member| member.is::<Column>()).map(Arc::clone))
        });
        kept.add_equivalence_group(EquivalenceGroup::new(columns))?;
        kept.add_orderings(promised.oeq_class().iter().cloned());
        let properties = PlanProperties::clone(input.properties()).with_eq_properties(kept);
        Ok(Self { input, properties: Arc::new(properties) })
    }
}

impl DisplayAs for NullSupplyingExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::TreeRender => Ok(()),
            _ => f.write_str(self.name()),
        }
    }
}

impl ExecutionPlan for NullSupplyingExec {
    fn name(&self) -> &'static str {
        "NullSupplyingExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// It does, but sorts that a join asks for would then be put below this node, and left out there by what is constant there.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
        assert_eq_or_internal_err!(children.len(), 1, "NullSupplyingExec has one child");
        Ok(Arc::new(Self::new(children.swap_remove(0))?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&input_stats[0]))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(child_pushdown_result))
    }
}
