//! What a join's dynamic filter is expected to keep.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::physical::estimate::{ColumnEstimate, estimate, key_distinct, selectivity};

/// The hash joins of a plan that produce dynamic filters.
#[derive(Debug)]
pub(super) struct Producers {
    /// By the filter's id: distinct keys of the build side.
    keys: HashMap<u64, f64>,
}

/// The share of the rows that a conjunct keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    /// Of a filter that is written in the query.
    Static(f64),
    /// Of a join's filter.
    Join(f64),
    /// Of a filter whose effect shows only at run time, such as that of a top-k sort.
    Unknown,
}

impl Producers {
    /// Those of `plan`.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Self> {
        let mut keys = HashMap::new();
        plan.apply(|node| {
            if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                for filter in node.dynamic_expressions_produced() {
                    let distinct = build_keys(join);
                    keys.extend(filter.expression_id().zip(distinct));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Self { keys })
    }

    /// What `conjunct` keeps of a table of `rows` rows.
    pub(super) fn share(
        &self,
        conjunct: &Arc<dyn PhysicalExpr>,
        rows: f64,
        columns: &[ColumnEstimate],
    ) -> Share {
        let Some(id) = conjunct.expression_id() else {
            let dynamic = conjunct.exists(|expr| Ok(expr.expression_id().is_some())).unwrap_or(true);
            return if dynamic { Share::Unknown } else { Share::Static(selectivity(conjunct, columns)) };
        };
        let Some(build) = self.keys.get(&id) else {
            return Share::Unknown;
        };
        let scanned: f64 = conjunct
            .children()
            .into_iter()
            .map(|key| {
                let column = key.downcast_ref::<Column>().and_then(|column| columns.get(column.index()));
                column.map_or(rows, |column| column.distinct)
            })
            .product();
        Share::Join((build / scanned.min(rows).max(1.0)).min(1.0))
    }
}

/// The number of distinct keys on the build side of `join`.
fn build_keys(join: &HashJoinExec) -> Option<f64> {
    let build = estimate(join.left())?;
    let distinct: f64 = join.on().iter().map(|(key, _)| key_distinct(key, &build)).product();
    Some(distinct.min(build.rows).max(1.0))
}
