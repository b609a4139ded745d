//! `ORDER BY … LIMIT k` over wide Parquet rows: sorts keys and row numbers, and reads the other columns of k rows.

mod chain;
mod gain;
mod top_k;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;

use self::top_k::{Late, TopK};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;

/// Splits a top-k sort over a Parquet scan in two where that saves reading.
///
/// ```text
///   SortPreservingMergeExec: fetch=k        LateFetchExec: columns=[all]
///     SortExec: TopK(fetch=k)                 SortPreservingMergeExec: fetch=k
///       FilterExec                     ─►       SortExec: TopK(fetch=k)
///         DataSourceExec: all columns             FilterExec
///                                                   DataSourceExec: keys, filters' columns, file, row number
/// ```
///
/// It runs before dynamic filters are handed out, so the sort's own filter reaches the narrow scan as it would reach the
/// wide one. Expressions of the select list are computed of the k rows alone.
///
/// | refuses | because |
/// |---|---|
/// | more rows than `slipstream.late_materialization.max_rows` | each may be a page of its own in each column |
/// | other nodes than filters, projections and exchanges of whole batches below the sort | a row must be one row of one file |
/// | sources other than Parquet; files of unknown length, or read in parts by a plan of their owner's | rows are found by their numbers |
/// | expressions with random or shared values | they would be computed again, or twice |
/// | no column that only the result needs, or little saved by it | two reads of a narrow table cost more than one |
///
/// Which of several rows with the same keys come first is as open as it is in DataFusion.
#[derive(Debug, Default)]
pub(crate) struct LateMaterialization;

impl PhysicalRule for LateMaterialization {
    fn name(&self) -> &'static str {
        "late_materialization"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.late_materialization_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let Some(options) = SlipstreamOptions::active(config) else {
            return Ok(Rewrite::refused(plan, "the layer is switched off"));
        };
        let (mut applied, mut refused) = (Vec::new(), Vec::new());
        let rewritten = Arc::clone(&plan)
            .transform_down(|node| {
                let Some(top_k) = TopK::at(&node)? else {
                    return Ok(Transformed::no(node));
                };
                match top_k.late(options, config)? {
                    Ok(Late { plan, detail }) => {
                        applied.push(detail);
                        Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
                    }
                    Err(reason) => {
                        refused.push(reason);
                        Ok(Transformed::no(node))
                    }
                }
            })
            .data()?;
        if applied.is_empty() {
            let reason = refused.into_iter().next();
            let reason = reason.unwrap_or_else(|| "the plan has no ORDER BY with a LIMIT".to_owned());
            return Ok(Rewrite::refused(plan, reason));
        }
        Ok(Rewrite::applied(rewritten, applied.join("; ")))
    }
}
