//! When two expressions are the same, over inputs whose columns are in different places.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

type Expr = Arc<dyn PhysicalExpr>;

/// Where the columns of the narrow input are in the wide one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Places<'a> {
    /// Both inputs have the same columns.
    Same,
    /// Column `i` of the narrow input is column `places[i]` of the wide one.
    At(&'a [usize]),
    /// Columns are not compared: the expression is one that is not evaluated on these inputs.
    Any,
}

/// Whether `wide` on the wide input is `narrow` on the narrow one, row by row.
///
/// Names of columns do not matter, only places: a column of a physical plan carries a name that nobody evaluates, and
/// that aliases change.
pub(super) fn same(wide: &Expr, narrow: &Expr, places: Places<'_>) -> bool {
    let from = if matches!(places, Places::Any) { Places::Any } else { Places::Same };
    match (canonical(wide, from), canonical(narrow, places)) {
        (Some(wide), Some(narrow)) => wide == narrow,
        _ => false,
    }
}

/// [`same`] for lists, in their order.
pub(super) fn all_same<'a>(
    wide: impl ExactSizeIterator<Item = &'a Expr>,
    narrow: impl ExactSizeIterator<Item = &'a Expr>,
    places: Places<'_>,
) -> bool {
    wide.len() == narrow.len() && wide.zip(narrow).all(|(wide, narrow)| same(wide, narrow, places))
}

/// [`same`] for sort keys.
pub(super) fn same_order(wide: &[PhysicalSortExpr], narrow: &[PhysicalSortExpr], places: Places<'_>) -> bool {
    let same_key = |(wide, narrow): (&PhysicalSortExpr, &PhysicalSortExpr)| {
        wide.options == narrow.options && same(&wide.expr, &narrow.expr, places)
    };
    wide.len() == narrow.len() && wide.iter().zip(narrow).all(same_key)
}

/// `expr` with columns that have no name and the place that they have in the wide input; `None` where the expression
/// does not mean the same in two places: volatile functions, dynamic filters, and the slots of scalar subqueries.
fn canonical(expr: &Expr, places: Places<'_>) -> Option<Expr> {
    let mut known = true;
    let canonical = Arc::clone(expr).transform_up(|node| {
        let bound =
            node.expression_id().is_some() || node.is_volatile_node() || node.is::<ScalarSubqueryExpr>();
        known &= !bound;
        let Some(column) = node.downcast_ref::<Column>() else {
            return Ok(Transformed::no(node));
        };
        let place = match places {
            Places::Same => Some(column.index()),
            Places::At(places) => places.get(column.index()).copied(),
            Places::Any => Some(0),
        };
        known &= place.is_some();
        Ok(Transformed::yes(Arc::new(Column::new("", place.unwrap_or(0))) as _))
    });
    canonical.data().ok().filter(|_| known)
}

/// The conjuncts of a predicate, those that are known before the query runs apart from those that it makes itself.
#[derive(Debug, Default)]
pub(super) struct Conjuncts<'a> {
    /// TRUE is left out.
    pub(super) written: Vec<&'a Expr>,
    /// Told apart by the ids of their expressions.
    pub(super) dynamic: Vec<&'a Expr>,
}

impl<'a> Conjuncts<'a> {
    /// Those of `predicate`; none where there is no predicate.
    pub(super) fn of(predicate: Option<&'a Expr>) -> Self {
        let mut conjuncts = Self::default();
        for conjunct in predicate.map(split_conjunction).unwrap_or_default() {
            if conjunct.expression_id().is_some() {
                conjuncts.dynamic.push(conjunct);
            } else if !is_true(conjunct) {
                conjuncts.written.push(conjunct);
            }
        }
        conjuncts
    }

    /// Whether the written ones are the same, in whatever order.
    pub(super) fn same_written(&self, narrow: &Self, places: Places<'_>) -> bool {
        let mut left: Vec<&Expr> = narrow.written.clone();
        for wide in &self.written {
            let Some(found) = left.iter().position(|narrow| same(wide, narrow, places)) else {
                return false;
            };
            left.swap_remove(found);
        }
        left.is_empty()
    }
}

/// What is left of a predicate whose conjuncts were all taken away.
fn is_true(expr: &Expr) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| *literal.value() == ScalarValue::Boolean(Some(true)))
}

/// The ids of the dynamic filters that nodes of `plan` make.
pub(super) fn produced(plan: &Arc<dyn ExecutionPlan>) -> Result<HashSet<u64>> {
    let mut ids = HashSet::new();
    plan.apply(|node| {
        ids.extend(node.dynamic_expressions_produced().iter().filter_map(|filter| filter.expression_id()));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(ids)
}
