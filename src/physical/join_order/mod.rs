//! Joins in the order, and with the build sides, that cost least.

mod build;
mod cost;
mod enumerate;
mod flatten;
mod graph;

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;

use self::enumerate::Trees;
use self::flatten::{Refusal, WrittenJoin, flatten, is_region};
use self::graph::{Graph, Plan};
use super::estimate::Known;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;

/// Reorders hash joins by cost.
///
/// DataFusion 55.2 joins in the order in which a query is written, and swaps the inputs of each join by their
/// sizes. This rule takes each *region* (hash joins of the types inner, left, right, semi and anti, and the
/// filters and projections of plain columns between them) as a graph, and builds the cheapest tree for it:
///
/// ```text
///   ⋉ o_orderkey = l_orderkey            ⋈ o_orderkey = l_orderkey
///     ⋈ o_orderkey = l_orderkey            ⋈ c_custkey = o_custkey
///       ⋈ c_custkey = o_custkey     ─►       ⋉ o_orderkey = l_orderkey
///         customer                             few orderkeys
///         orders                               orders
///       lineitem                             customer
///     few orderkeys                        lineitem
/// ```
///
/// | | |
/// |---|---|
/// | search | [`enumerate`]: all bushy trees up to 12 relations, greedy beyond |
/// | cost | [`cost`]: rows and bytes of build side, probe side and result; one shared table against one for each partition |
/// | equalities | transitive: with `a = b AND b = c`, `a` and `c` are joined where that is cheaper |
/// | semi, anti, outer joins | move past inner joins of the rows they keep; their other side stays whole |
///
/// Refuses a region where an input does not know its number of rows, and where no order is clearly cheaper than
/// the written one. Full and mark joins, null-aware anti joins and joins by `IS NOT DISTINCT FROM` are inputs of
/// a region, and have regions of their own below.
#[derive(Debug, Default)]
pub(crate) struct JoinOrder;

impl PhysicalRule for JoinOrder {
    fn name(&self) -> &'static str {
        "join_order"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.join_order_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        if !config.optimizer.join_reordering {
            return Ok(Rewrite::refused(plan, "datafusion.optimizer.join_reordering is off"));
        }
        let min_gain =
            SlipstreamOptions::active(config).map_or(0, |options| options.join_order_min_gain_percent);
        let mut outcome = Outcome {
            partitions: config.execution.target_partitions,
            worth_it: 1.0 - min_gain as f64 / 100.0,
            known: Known::of(config),
            ..Outcome::default()
        };
        let rewritten = outcome.rewrite(&plan)?;
        if outcome.reordered.is_empty() {
            let reason =
                outcome.refused.first().copied().unwrap_or("the plan has no joins that may be reordered");
            return Ok(Rewrite::refused(plan, reason));
        }
        Ok(Rewrite::applied(rewritten, outcome.reordered.join("; ")))
    }
}

#[derive(Debug, Default)]
struct Outcome<'a> {
    partitions: usize,
    /// What statistics and earlier queries tell.
    known: Known<'a>,
    /// The share of the written order's cost that another order may have.
    worth_it: f64,
    /// Whether a filter stands above, which DataFusion may push down.
    below_filter: bool,
    /// What was done to each region that was changed.
    reordered: Vec<String>,
    /// Why the others were not.
    refused: Vec<&'static str>,
}

impl Outcome<'_> {
    fn rewrite(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if is_region(plan) {
            return self.region(plan);
        }
        let above = self.below_filter;
        self.below_filter |= plan.is::<FilterExec>();
        let rewritten = self.inputs(plan);
        self.below_filter = above;
        rewritten
    }

    /// `plan` with its inputs rewritten.
    fn inputs(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let children = plan.children();
        let rewritten = children.iter().map(|child| self.rewrite(child)).collect::<Result<Vec<_>>>()?;
        let same = children.iter().zip(&rewritten).all(|(old, new)| Arc::ptr_eq(old, new));
        if same {
            return Ok(Arc::clone(plan));
        }
        replace_children_if_necessary(Arc::clone(plan), rewritten)
    }

    fn region(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let above = self.below_filter;
        // What the region's own filters become may be pushed into its inputs like any other.
        self.below_filter |= has_filters(plan);
        let mut inputs = Vec::new();
        let known = self.known;
        let flattened = flatten(plan, known, &mut |input| {
            let rewritten = self.rewrite(input)?;
            inputs.push((Arc::clone(input), Arc::clone(&rewritten)));
            Ok(rewritten)
        });
        self.below_filter = above;
        let ordered = match flattened? {
            Ok((graph, written)) => self.order(plan, &graph, &written)?,
            Err(reason) => Err(reason),
        };
        match ordered {
            Ok(ordered) => Ok(ordered),
            Err(reason) => {
                self.refused.push(reason);
                self.below_region(plan, &inputs)
            }
        }
    }

    /// The cheapest order of a region, or why there is none.
    fn order(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        graph: &Graph,
        written: &[WrittenJoin],
    ) -> Result<Result<Arc<dyn ExecutionPlan>, Refusal>> {
        if let Some(reason) = ambiguous(graph, plan, self.below_filter) {
            return Ok(Err(reason));
        }
        let mut trees = Trees::new(graph, self.partitions);
        let Some(before) = trees.written(written).map(|tree| tree.cost) else {
            return Ok(Err("the written order cannot be costed"));
        };
        let mut trees = Trees::new(graph, self.partitions);
        let Some(after) = trees.search().map(|tree| tree.cost) else {
            return Ok(Err("the joins are not connected"));
        };
        if after > before * self.worth_it {
            return Ok(Err("no other order is clearly cheaper than the written one"));
        }
        let ordered = build::build(graph, &trees, plan)?;
        let relations = graph.relations.len();
        let share = 100.0 * after / before;
        self.reordered.push(format!("{relations} relations, {share:.0} % of the written order's cost"));
        Ok(Ok(ordered))
    }

    /// A region as it is, over its inputs: those that are `rewritten` (old and new), and the rest now.
    ///
    /// Rewriting one a second time would double the work with each level of refused regions.
    fn below_region(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        rewritten: &[(Plan, Plan)],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let above = self.below_filter;
        self.below_filter |= plan.is::<FilterExec>();
        let children = plan.children();
        let inputs =
            children.iter().map(|child| match rewritten.iter().find(|(old, _)| Arc::ptr_eq(old, child)) {
                Some((_, new)) => Ok(Arc::clone(new)),
                None if is_region(child) => self.below_region(child, rewritten),
                None => self.rewrite(child),
            });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        self.below_filter = above;
        replace_children_if_necessary(Arc::clone(plan), inputs)
    }
}

/// Whether a filter stands among the joins of the region at `plan`.
fn has_filters(plan: &Arc<dyn ExecutionPlan>) -> bool {
    is_region(plan) && (plan.is::<FilterExec>() || plan.children().into_iter().any(has_filters))
}

/// Why DataFusion might push a filter to the wrong column once the region at `plan` has another shape.
///
/// DataFusion 55.2 follows a filter's columns down the plan by their names (apache/datafusion issue 25244). The joins of
/// a region are built with names of their own, so what can go wrong is above and below them: a projection that
/// restores two columns of one name, below a filter; and a filter that this rule puts on an input in which two
/// columns have, or had, one name.
fn ambiguous(graph: &Graph, plan: &Arc<dyn ExecutionPlan>, below_filter: bool) -> Option<Refusal> {
    if below_filter && has_duplicate_names(plan) {
        return Some("two columns of the result have one name, and a filter above might be pushed to either");
    }
    let conditions = graph.conditions.iter();
    let filtered = conditions.filter(|condition| condition.relations.is_power_of_two());
    let inputs =
        filtered.map(|condition| &graph.relations[condition.relations.trailing_zeros() as usize].plan);
    let mut inputs = inputs.filter(|input| has_duplicate_names(input) || has_joins(input));
    inputs.next().map(|_| "a filter on one input might be pushed to the wrong column of a join below")
}

/// Whether two columns have the same name, which DataFusion 55.2 mixes up when it pushes filters.
fn has_duplicate_names(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let names: HashSet<&String> = schema.fields().iter().map(|field| field.name()).collect();
    names.len() < schema.fields().len()
}

/// Whether a join is somewhere below.
fn has_joins(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.children().len() > 1 || plan.children().into_iter().any(has_joins)
}
