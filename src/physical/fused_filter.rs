//! Filters whose conditions are compiled, and ordered while they run.
//!
//! The rule changes no plan's shape: one node for another at the same place, with the same input. What it decides is where
//! that pays; how the conditions are evaluated is the operator's business.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::FusedFilterExec;

/// Replaces filters with several conditions, or with equalities or patterns of strings, by a
/// [`FusedFilterExec`](crate::operator::FusedFilterExec).
///
/// The conditions keep their meaning: a filter keeps the rows for which all of them are true, in whatever order they are
/// asked. Only errors tell orders apart, which is why conditions that may fail are not moved.
///
/// Refuses for a single condition that DataFusion evaluates as well, and for volatile conditions: how often `random()`
/// is called is seen in its rows.
#[derive(Debug, Default)]
pub(crate) struct FusedFilter;

impl PhysicalRule for FusedFilter {
    fn name(&self) -> &'static str {
        "fused_filter"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.fused_filter_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
        if !plan.exists(|node| Ok(node.is::<FilterExec>()))? {
            return Ok(Rewrite::refused(plan, "the plan has no filter"));
        }
        let mut fused = 0;
        let rewritten = Arc::clone(&plan)
            .transform_up(|node| {
                let volatile =
                    node.downcast_ref::<FilterExec>().is_some_and(|it| is_volatile(it.predicate()));
                let filter = if volatile { None } else { FusedFilterExec::of(&node)? };
                Ok(match filter {
                    Some(filter) => {
                        fused += 1;
                        Transformed::yes(Arc::new(filter) as Arc<dyn ExecutionPlan>)
                    }
                    None => Transformed::no(node),
                })
            })
            .data()?;
        if fused == 0 {
            return Ok(Rewrite::refused(plan, "no filter has several conditions or compares strings"));
        }
        Ok(Rewrite::applied(rewritten, format!("{fused} filters")))
    }
}
