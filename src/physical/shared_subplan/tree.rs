//! A plan as a list, and the subplans in it that look alike at first sight.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::source::first_sight;

type Plan = Arc<dyn ExecutionPlan>;

/// A node of a plan, behind its parent and before its inputs (preorder).
#[derive(Debug)]
struct Node {
    plan: Plan,
    /// Nodes of its subplan, itself included.
    size: usize,
    /// Equal for subplans of the same kinds of nodes over the same tables. It says which subplans are worth comparing,
    /// and nothing else: two that differ may have the same.
    shape: u64,
}

/// A plan's nodes.
#[derive(Debug, Default)]
pub(super) struct Tree(Vec<Node>);

impl Tree {
    /// The nodes of `plan`, without those below a recursive query, which are executed many times.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut tree = Self::default();
        tree.add(plan);
        tree
    }

    /// Adds `plan` and what is below it, and returns its shape.
    fn add(&mut self, plan: &Plan) -> u64 {
        let at = self.0.len();
        self.0.push(Node { plan: Arc::clone(plan), size: 1, shape: 0 });
        let mut shape = DefaultHasher::new();
        plan.name().hash(&mut shape);
        plan.output_partitioning().partition_count().hash(&mut shape);
        plan.fetch().hash(&mut shape);
        if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
            first_sight(scan).hash(&mut shape);
        }
        if !plan.is::<RecursiveQueryExec>() {
            for input in plan.children() {
                self.add(input).hash(&mut shape);
            }
        }
        let shape = shape.finish();
        self.0[at].size = self.0.len() - at;
        self.0[at].shape = shape;
        shape
    }

    /// The subplan at `place`.
    pub(super) fn plan(&self, place: usize) -> &Plan {
        &self.0[place].plan
    }

    /// The places of subplans that look alike: the largest first, those of one size in the order of the plan.
    pub(super) fn alike(&self) -> Vec<Vec<usize>> {
        let mut by_shape: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, node) in self.0.iter().enumerate() {
            by_shape.entry(node.shape).or_default().push(place);
        }
        let mut alike: Vec<Vec<usize>> = by_shape.into_values().filter(|places| places.len() > 1).collect();
        alike.sort_by_key(|places| (std::cmp::Reverse(self.0[places[0]].size), places[0]));
        alike
    }

    /// The plan with other subplans at some places, none of which is inside another.
    pub(super) fn with(&self, replaced: &HashMap<usize, Plan>) -> Result<Plan> {
        self.rebuild(0, replaced)
    }

    /// The subplan at `place`, with what was replaced in it. Nodes that stay as they are stay the same objects: dynamic
    /// filters hold on to them.
    fn rebuild(&self, place: usize, replaced: &HashMap<usize, Plan>) -> Result<Plan> {
        if let Some(plan) = replaced.get(&place) {
            return Ok(Arc::clone(plan));
        }
        let node = &self.0[place];
        if node.size == 1 {
            return Ok(Arc::clone(&node.plan));
        }
        let mut inputs = Vec::new();
        let mut next = place + 1;
        for _ in node.plan.children() {
            inputs.push(self.rebuild(next, replaced)?);
            next += self.0[next].size;
        }
        replace_children_if_necessary(Arc::clone(&node.plan), inputs)
    }
}
