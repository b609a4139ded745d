//! The one transparent wrapper around a plan node: everything is forwarded, `execute` and `metrics` may be its own.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, OrderingRequirements, PhysicalSortExpr};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, InvariantLevel, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

use super::own_context::inside_outer_context;

/// What a wrapper does when the node it wraps is executed, or asked what happened.
pub(crate) trait Wrap: fmt::Debug + Send + Sync + Sized + 'static {
    /// Executes `partition` of `inner`.
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream>;

    /// The metrics that EXPLAIN ANALYZE shows for `inner`.
    fn metrics(&self, inner: &Arc<dyn ExecutionPlan>) -> Option<MetricsSet> {
        inner.metrics()
    }

    /// The wrapper of a node whose state was reset, for another execution. Wrappers without state are shared.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self)
    }
}

/// A node that looks, to rules, to EXPLAIN and to `downcast_ref`, exactly like the node inside it.
///
/// ```text
///   parent ─► Passthrough { wrap, inner: NestedLoopJoinExec } ─► inner's children
/// ```
///
/// Plans keep DataFusion's own picture, and every property and statistic is the inner node's. A wrapper may add metrics. A rule
/// that replaces children or pushes something down gets the rewritten inner node back in the same wrapper. A
/// rule that takes the inner node apart by `downcast_ref` and builds another from the parts loses the wrapper;
/// that is why the layer puts wrappers in after all of DataFusion's rewriting rules.
///
/// Forwarding is complete by lint: a trait method that DataFusion adds fails the build here instead of
/// answering with its default, which for filter pushdown and statistics would silently slow a query down.
pub(crate) struct Passthrough<W> {
    wrap: Arc<W>,
    inner: Arc<dyn ExecutionPlan>,
}

/// Errors of DataFusion print nodes: they read as they do without the layer.
impl<W> fmt::Debug for Passthrough<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl<W: Wrap> Passthrough<W> {
    /// Wraps `inner`, inside the wrappers that give it the context around the node above: outside of them, a context of the
    /// new wrapper's own would be lost on the way.
    pub(crate) fn around(inner: Arc<dyn ExecutionPlan>, wrap: W) -> Arc<dyn ExecutionPlan> {
        let wrap = Arc::new(wrap);
        inside_outer_context(inner, &|inner| Self::again(inner, Arc::clone(&wrap)))
    }

    /// Wraps `inner` and whatever it is wrapped in.
    pub(super) fn outermost(inner: Arc<dyn ExecutionPlan>, wrap: W) -> Arc<dyn ExecutionPlan> {
        Self::again(inner, Arc::new(wrap))
    }

    /// What is wrapped.
    pub(super) fn inner(&self) -> &Arc<dyn ExecutionPlan> {
        &self.inner
    }

    /// The wrapper.
    pub(super) fn wrap(&self) -> &W {
        &self.wrap
    }

    /// Another node with the same wrapper, whose state stays shared.
    fn again(inner: Arc<dyn ExecutionPlan>, wrap: Arc<W>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { wrap, inner })
    }

    /// `inner`, a rewritten inner node, in the same wrapper.
    pub(super) fn rewrap(&self, inner: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Self::again(inner, Arc::clone(&self.wrap))
    }
}

/// `new` in the place of `node`, in the wrappers that `node` is in: what they do, they do for the rows, whoever makes them.
pub(crate) fn in_its_place(
    node: &Arc<dyn ExecutionPlan>,
    new: Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    if node.downcast_delegate().is_none() {
        return new;
    }
    node.with_new_state(Arc::new(InItsPlace(Arc::clone(&new)))).unwrap_or(new)
}

/// The one way to reach a wrapper of unknown type through a plan node: as if it were a state to be replaced.
struct InItsPlace(Arc<dyn ExecutionPlan>);

impl<W: Wrap> DisplayAs for Passthrough<W> {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_as(format, f)
    }
}

#[deny(clippy::missing_trait_methods)]
#[expect(deprecated, reason = "callers that still use the deprecated methods must reach the inner node's")]
impl<W: Wrap> ExecutionPlan for Passthrough<W> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn static_name() -> &'static str {
        "Passthrough"
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn schema(&self) -> datafusion::arrow::datatypes::SchemaRef {
        self.inner.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn check_invariants(&self, check: InvariantLevel) -> Result<()> {
        self.inner.check_invariants(check)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.dynamic_expressions_produced()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.inner.required_input_distribution()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.inner.input_distribution_requirements()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.inner.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.inner.maintains_input_order()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.inner.benefits_from_input_partitioning()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inner.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.rewrap(Arc::clone(&self.inner).replace_children(children, options)?))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.rewrap(Arc::clone(&self.inner).with_new_children(children)?))
    }

    fn with_new_children_and_same_properties(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.rewrap(Arc::clone(&self.inner).with_new_children_and_same_properties(children)?))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::again(Arc::clone(&self.inner).reset_state()?, self.wrap.reset()))
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(self.inner.repartitioned(target_partitions, config)?.map(|inner| self.rewrap(inner)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.wrap.execute(&self.inner, partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.wrap.metrics(&self.inner)
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.inner.partition_statistics(partition)
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.inner.statistics_from_inputs(input_stats, args)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.inner.child_stats_requests(partition)
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.inner.supports_limit_pushdown()
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        self.inner.with_fetch(limit).map(|inner| self.rewrap(inner))
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.inner.cardinality_effect()
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(self.inner.try_swapping_with_projection(projection)?.map(|inner| self.rewrap(inner)))
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.inner.gather_filters_for_pushdown(phase, parent_filters, config)
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut result = self.inner.handle_child_pushdown_result(phase, child_pushdown_result, config)?;
        result.updated_node = result.updated_node.map(|inner| self.rewrap(inner));
        Ok(result)
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn ExecutionPlan>> {
        match state.downcast::<InItsPlace>() {
            Ok(new) => Some(self.rewrap(in_its_place(&self.inner, Arc::clone(&new.0)))),
            Err(state) => self.inner.with_new_state(state).map(|inner| self.rewrap(inner)),
        }
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        Ok(self.inner.try_pushdown_sort(order)?.map(|inner| self.rewrap(inner)))
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Arc<dyn ExecutionPlan>> {
        self.inner.with_preserve_order(preserve_order).map(|inner| self.rewrap(inner))
    }
}
