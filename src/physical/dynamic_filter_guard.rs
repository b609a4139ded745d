//! Dynamic filters that DataFusion 55.2 has put on the wrong column are taken off.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::dynamic_filters::{DynamicFilters, Place};
use super::estimate::Known;
use super::lineage::{ScanId, with_source};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;

/// Removes dynamic filters from scans whose columns they were not made for.
///
/// DataFusion 55.2 finds a pushed filter's columns in a node's input by their *names*. Where the output of a join
/// has two columns of one name, a filter for the second lands on the first, and the scan below drops rows that the
/// query needs, silently ([25244], [25296], fixed upstream after 55.2):
///
/// ```text
///   join on b.id          filter: id (the second one) is among the build side's keys
///     [a.id, b.id]
///       scan a            predicate: id@0 …    ✗ removed
///       scan b
/// ```
///
/// The rule follows each column of a filter from the node that makes the filter down to the scans that the column
/// comes from, by position, and compares. A dynamic filter only ever saves work, so removing one is always right.
///
/// It also removes the filter of an aggregate's minima and maxima where the same node has another aggregate, which
/// needs the rows that the filter drops.
///
/// Refuses where all filters are in their place.
///
/// [25244]: https://github.com/apache/datafusion/issues/25244
/// [25296]: https://github.com/apache/datafusion/issues/25296
#[derive(Debug, Default)]
pub(crate) struct DynamicFilterGuard;

impl PhysicalRule for DynamicFilterGuard {
    fn name(&self) -> &'static str {
        "dynamic_filter_guard"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.dynamic_filter_guard_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
        let filters = DynamicFilters::of(&plan, Known::nothing())?;
        let mut removed = 0;
        let guarded = Arc::clone(&plan)
            // From the top: nodes below one that was not changed are still those that the filters know.
            .transform_down(|node| {
                let Some(scan) = node.downcast_ref::<DataSourceExec>() else {
                    return Ok(Transformed::no(node));
                };
                match without_misplaced(scan, ScanId::of(&node), &filters) {
                    Some((scan, count)) => {
                        removed += count;
                        Ok(Transformed::yes(scan))
                    }
                    None => Ok(Transformed::no(node)),
                }
            })
            .data()?;
        if removed == 0 {
            return Ok(Rewrite::refused(plan, "no dynamic filter is on a column that it was not made for"));
        }
        Ok(Rewrite::applied(guarded, format!("misplaced dynamic filters removed: {removed}")))
    }
}

/// The scan without its misplaced filters, and how many they were; `None` where it has none.
fn without_misplaced(
    scan: &DataSourceExec,
    id: ScanId,
    filters: &DynamicFilters,
) -> Option<(Arc<dyn ExecutionPlan>, usize)> {
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
    let predicate = source.filter()?;
    let conjuncts = split_conjunction(&predicate);
    let kept: Vec<Arc<dyn PhysicalExpr>> = conjuncts
        .iter()
        .filter(|conjunct| filters.place(conjunct, id) != Place::Wrong)
        .map(|conjunct| Arc::clone(conjunct))
        .collect();
    let removed = conjuncts.len() - kept.len();
    if removed == 0 {
        return None;
    }
    // Without any conjunct left it is TRUE: a source's predicate can be replaced, but not taken away.
    let source = source.with_predicate(conjunction(kept));
    Some((with_source(scan, config, source), removed))
}
