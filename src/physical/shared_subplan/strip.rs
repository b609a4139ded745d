//! A subplan without some of the dynamic filters on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::physical::lineage::with_source;

/// `plan` without the dynamic filters whose ids are `ids`, which `cover` has found on Parquet scans and filters.
/// Such a filter only ever saves work: without it there are more
/// rows, which the node that made it drops.
pub(super) fn stripped(plan: &Arc<dyn ExecutionPlan>, ids: &BTreeSet<u64>) -> Result<Arc<dyn ExecutionPlan>> {
    if ids.is_empty() {
        return Ok(Arc::clone(plan));
    }
    let strip = |node: Arc<dyn ExecutionPlan>| {
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            return Ok(match rest(filter.predicate(), ids) {
                Some(rest) => {
                    let builder = FilterExecBuilder::from(filter).with_predicate(rest);
                    Transformed::yes(Arc::new(builder.build()?) as _)
                }
                None => Transformed::no(node),
            });
        }
        let Some(scan) = node.downcast_ref::<DataSourceExec>() else {
            return Ok(Transformed::no(node));
        };
        let stripped = scan.downcast_to_file_source::<ParquetSource>().and_then(|(config, source)| {
            let rest = rest(&source.filter()?, ids)?;
            Some(with_source(scan, config, source.with_predicate(rest)))
        });
        Ok(stripped.map_or_else(|| Transformed::no(node), Transformed::yes))
    };
    Arc::clone(plan).transform_up(strip).data()
}

/// The conjuncts of `predicate` that stay; `None` where all do. Without any left it is TRUE.
fn rest(predicate: &Arc<dyn PhysicalExpr>, ids: &BTreeSet<u64>) -> Option<Arc<dyn PhysicalExpr>> {
    let conjuncts = split_conjunction(predicate);
    let goes =
        |conjunct: &Arc<dyn PhysicalExpr>| conjunct.expression_id().is_some_and(|id| ids.contains(&id));
    let stays: Vec<_> =
        conjuncts.iter().filter(|conjunct| !goes(conjunct)).map(|conjunct| Arc::clone(conjunct)).collect();
    (stays.len() < conjuncts.len()).then(|| conjunction(stays))
}
