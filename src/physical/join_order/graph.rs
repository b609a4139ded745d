//! A tree of joins as a graph: relations, what they are joined on, and which joins must wait for others.
//!
//! ```text
//!   FROM orders JOIN item ON o = i AND i.price > o.limit          relations   0 orders  1 item  2 part  3 wanted
//!        JOIN part ON part = p                                    classes     {o, i}  {part, p}
//!   WHERE o IN (SELECT w FROM wanted)                             conditions  price > limit         {0, 1}
//!                                                                 operators   semi: 3 with o = w    needs class {o, i}
//! ```
//!
//! The semi join may be done with `o` or with `i`, whichever is there first, since they are equal in every row of the
//! result. A set of relations is a bit set: joining two trees is a bitwise or, and whether a condition can be decided
//! is a comparison.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::physical::estimate::{Estimate, KeyValues};

pub(super) type Plan = Arc<dyn ExecutionPlan>;
pub(super) type Expr = Arc<dyn PhysicalExpr>;

/// A set of relations: bit `i` stands for relation `i`.
pub(super) type RelSet = u64;

/// Relations that fit into a [`RelSet`].
pub(super) const MAX_RELATIONS: usize = RelSet::BITS as usize;

/// Joins of a region of the plan.
///
/// All expressions speak of *region columns*: the columns of relation 0, then those of relation 1, and so on. They
/// are renumbered when a plan is built from the graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) relations: Vec<Relation>,
    /// Expressions that inner joins make equal to one another.
    pub(super) classes: Vec<Vec<Member>>,
    /// What else inner joins and filters require.
    pub(super) conditions: Vec<Condition>,
    /// Semi, anti and outer joins.
    pub(super) operators: Vec<Operator>,
    /// The region columns of the region's result, in its order.
    pub(super) outputs: Vec<usize>,
}

/// An input of the region.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) plan: Plan,
    pub(super) estimate: Estimate,
    /// Region column of its first column.
    pub(super) offset: usize,
    /// The operator by which it enters any join, where it is not free to enter by an inner one.
    pub(super) operator: Option<usize>,
}

/// One of several equal expressions. Its columns are all of one free relation.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) relation: usize,
    pub(super) expr: Expr,
    pub(super) values: KeyValues,
}

/// A predicate of an inner join or a filter.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) expr: Expr,
    pub(super) relations: RelSet,
    /// The sides of an equality; it is a join key where they come from different inputs.
    pub(super) equality: Option<(Expr, Expr)>,
    pub(super) selectivity: f64,
}

/// How an operator's relation is joined to the rows that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Semi,
    Anti,
    Outer,
}

/// A join that keeps (semi, anti) or extends (outer) the rows of its left side, row by row.
///
/// It may be done before or after any inner join of the left side, as long as the columns that it looks at are
/// there: which rows it keeps depends on those columns and on all of its own relation. That is why the relation
/// is a whole, and takes part in no other join before this one.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) kind: Kind,
    pub(super) relation: usize,
    /// Left and right.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// The class that the left key at this place belongs to: then any of its members serves as well.
    pub(super) key_classes: Vec<Option<usize>>,
    pub(super) filter: Option<Expr>,
    pub(super) null_equality: NullEquality,
    /// Relations of the left side that must be there, apart from those which a class stands for.
    pub(super) needs: RelSet,
}

impl Operator {
    /// Whether `left` has all that the operator looks at.
    pub(super) fn fits(&self, graph: &Graph, left: RelSet) -> bool {
        self.needs & !left == 0
            && self.key_classes.iter().flatten().all(|class| graph.member(*class, left).is_some())
    }
}

impl Graph {
    /// All relations.
    pub(super) fn all(&self) -> RelSet {
        RelSet::MAX >> (MAX_RELATIONS - self.relations.len())
    }

    /// The member of `class` that stands for it within `set`: the first, so that it stays the same while sets grow.
    pub(super) fn member(&self, class: usize, set: RelSet) -> Option<&Member> {
        self.classes[class].iter().find(|member| contains(set, member.relation))
    }

    /// The operator by which the one relation of `set` must be joined.
    pub(super) fn operator_of(&self, set: RelSet) -> Option<&Operator> {
        if !set.is_power_of_two() {
            return None;
        }
        let relation = &self.relations[set.trailing_zeros() as usize];
        relation.operator.map(|index| &self.operators[index])
    }

    /// The relation that a region column belongs to.
    pub(super) fn relation_of(&self, column: usize) -> usize {
        self.relations.partition_point(|relation| relation.offset <= column).saturating_sub(1)
    }

    /// The relations of `expr`'s columns.
    pub(super) fn relations_of(&self, expr: &Expr) -> RelSet {
        columns_of(expr).into_iter().fold(0, |set, column| set | 1 << self.relation_of(column))
    }

    /// Whether `condition` can be decided when `left` and `right` are joined, and could not before.
    pub(super) fn decides(&self, condition: &Condition, left: RelSet, right: RelSet) -> bool {
        let relations = condition.relations;
        if relations & !(left | right) != 0 {
            return false;
        }
        let spans = relations & !left != 0 && relations & !right != 0;
        // What is required of an outer join's rows is required of them once they are joined.
        let entering = (relations == left || relations == right) && self.operator_of(relations).is_some();
        spans || entering
    }

    /// The conditions that look at relation `relation` alone and may be applied to it.
    pub(super) fn conditions_on(&self, relation: usize) -> impl Iterator<Item = &Condition> {
        let set = 1 << relation;
        let free = self.relations[relation].operator.is_none();
        self.conditions.iter().filter(move |condition| free && condition.relations == set)
    }

    /// The sides of `condition` as a join key, where one comes from `left` and the other from `right`.
    pub(super) fn key_of(&self, condition: &Condition, left: RelSet, right: RelSet) -> Option<(Expr, Expr)> {
        let (a, b) = condition.equality.as_ref()?;
        let (in_a, in_b) = (self.relations_of(a), self.relations_of(b));
        if in_a == 0 || in_b == 0 {
            return None;
        }
        if in_a & !left == 0 && in_b & !right == 0 {
            return Some((Arc::clone(a), Arc::clone(b)));
        }
        (in_a & !right == 0 && in_b & !left == 0).then(|| (Arc::clone(b), Arc::clone(a)))
    }

    /// The region columns of `set` that something above it needs, in ascending order.
    ///
    /// | needed by | which columns |
    /// |---|---|
    /// | the result | its own |
    /// | a condition that is not decided yet | those it looks at |
    /// | a class with members outside | those of the member that stands for it |
    /// | an operator that is still to come | its filter's, and its keys' where they are in no class |
    ///
    /// What is in none of these rows is not gathered any more, which is what makes early joins of wide tables cheap.
    pub(super) fn needed(&self, set: RelSet) -> Vec<usize> {
        let mut columns: Vec<usize> = Vec::new();
        columns.extend(&self.outputs);
        for condition in &self.conditions {
            if !self.is_decided(condition, set) {
                columns.extend(columns_of(&condition.expr));
            }
        }
        for (index, class) in self.classes.iter().enumerate() {
            let outside = class.iter().any(|member| !contains(set, member.relation))
                || self.operators.iter().any(|operator| {
                    !contains(set, operator.relation) && operator.key_classes.contains(&Some(index))
                });
            if outside && let Some(member) = self.member(index, set) {
                columns.extend(columns_of(&member.expr));
            }
        }
        for operator in &self.operators {
            let own = 1 << operator.relation;
            if contains(set, operator.relation) && set != own {
                continue;
            }
            columns.extend(operator.filter.iter().flat_map(columns_of));
            for ((left, right), class) in operator.keys.iter().zip(&operator.key_classes) {
                columns.extend(columns_of(right));
                if class.is_none() {
                    columns.extend(columns_of(left));
                }
            }
        }
        columns.retain(|column| contains(set, self.relation_of(*column)));
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Whether `condition` was applied somewhere within `set`.
    fn is_decided(&self, condition: &Condition, set: RelSet) -> bool {
        // A relation that has not been joined by its operator cannot have met a condition of its own.
        condition.relations & !set == 0 && self.operator_of(set).is_none()
    }
}

/// Whether relation `relation` is in `set`.
pub(super) fn contains(set: RelSet, relation: usize) -> bool {
    set >> relation & 1 == 1
}

/// The column indices that `expr` mentions.
pub(super) fn columns_of(expr: &Expr) -> Vec<usize> {
    let mut columns = Vec::new();
    // The closure never fails.
    let _: Result<_> = expr.apply(|node| {
        columns.extend(node.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    });
    columns
}
