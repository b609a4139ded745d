//! Dynamic filters that DataFusion 55.2 has put on the wrong column are taken off.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::dynamic_filters::{DynamicFilters, Landing, Place};
use super::estimate::Known;
use super::lineage::{ScanId, with_source};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;

/// Removes dynamic filters from scans, and from filters above them, whose columns they were not made for.
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
/// comes from, by position, and compares. DataFusion puts filters for tables in memory above their scans: their columns are
/// followed down from there. A dynamic filter only ever saves work, so removing one is always right.
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
                let guarded = match (node.downcast_ref::<DataSourceExec>(), node.downcast_ref::<FilterExec>())
                {
                    (Some(scan), _) => scan_without(scan, ScanId::of(&node), &filters),
                    (_, Some(filter)) => filter_without(filter, &filters)?,
                    (None, None) => None,
                };
                Ok(match guarded {
                    Some((guarded, count)) => {
                        removed += count;
                        Transformed::yes(guarded)
                    }
                    None => Transformed::no(node),
                })
            })
            .data()?;
        if removed == 0 {
            return Ok(Rewrite::refused(plan, "no dynamic filter is on a column that it was not made for"));
        }
        Ok(Rewrite::applied(guarded, format!("misplaced dynamic filters removed: {removed}")))
    }
}

/// A node without its misplaced filters, and how many they were.
type Guarded = (Arc<dyn ExecutionPlan>, usize);

/// The scan without its misplaced filters; `None` where it has none.
fn scan_without(scan: &DataSourceExec, id: ScanId, filters: &DynamicFilters) -> Option<Guarded> {
    let (config, source) = scan.downcast_to_file_source::<ParquetSource>()?;
    let (kept, removed) = without_misplaced(&source.filter()?, Landing::Scan(id), filters)?;
    // A source's predicate can be replaced, but not taken away.
    Some((with_source(scan, config, source.with_predicate(kept)), removed))
}

/// The same of a filter, which DataFusion puts above what takes none itself, such as tables in memory.
fn filter_without(filter: &FilterExec, filters: &DynamicFilters) -> Result<Option<Guarded>> {
    let Some((kept, removed)) =
        without_misplaced(filter.predicate(), Landing::Above(filter.input()), filters)
    else {
        return Ok(None);
    };
    let guarded = FilterExecBuilder::from(filter).with_predicate(kept).build()?;
    Ok(Some((Arc::new(guarded), removed)))
}

/// What is left of `predicate`, TRUE where that is nothing, and how many filters were misplaced; `None` where none was.
fn without_misplaced(
    predicate: &Arc<dyn PhysicalExpr>,
    at: Landing<'_>,
    filters: &DynamicFilters,
) -> Option<(Arc<dyn PhysicalExpr>, usize)> {
    let conjuncts = split_conjunction(predicate);
    let kept = conjuncts.iter().filter(|conjunct| filters.place(conjunct, at) != Place::Wrong);
    let kept: Vec<Arc<dyn PhysicalExpr>> = kept.map(|conjunct| Arc::clone(conjunct)).collect();
    match conjuncts.len() - kept.len() {
        0 => None,
        removed => Some((conjunction(kept), removed)),
    }
}
