//! Batch sizes that follow the width of rows.
//!
//! A batch of 8192 rows is one of 8 GB where rows have a megabyte each, and it is decoded before any operator asks the memory
//! pool for it. How wide rows are is known when a query is planned, how much memory there is when it is executed; so the rule
//! finds the widths, and the wrappers that it puts around nodes do the rest.

mod source;
mod width;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec,
    SymmetricHashJoinExec,
};
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::partitioned_topk::PartitionedTopKExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

use self::width::{fixed_width, row_width, widths};
use super::estimate::Known;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{BatchPolicy, cut, sized};
use crate::scope::QueryScope;

/// Gives each node of a plan with wide rows a batch size of its own, and cuts large batches before operators that reserve
/// memory for them.
///
/// ```text
///   SortExec (1 MB a row)                sized(SortExec, 1 MB)
///     FilterExec (1 MB a row)      ─►      cut(sized(FilterExec, 1 MB))
///       DataSourceExec (1 MB a row)          sized(DataSourceExec, 1 MB)
/// ```
///
/// Sizes come into it only where a batch of the configured size would take a megabyte or more, and then for all nodes, since a
/// node hands its batch size down. What the sizes are is decided at execution; without a limit, ordinary rows keep theirs.
///
/// Refuses where the width of all rows is fixed and small.
#[derive(Debug, Default)]
pub(crate) struct BatchSize;

impl PhysicalRule for BatchSize {
    fn name(&self) -> &'static str {
        "batch_size"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.batch_size_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let options = SlipstreamOptions::active(config).cloned().unwrap_or_default();
        let policy = BatchPolicy {
            target_bytes: options.batch_size_target_bytes,
            min_rows: options.batch_size_min_rows,
        };
        let configured = config.execution.batch_size.get();
        if !plan.exists_wide(policy, configured) {
            return Ok(Rewrite::refused(plan, "all rows are narrow"));
        }
        let sources = source::Sources { known: Known::of(config), scope: QueryScope::of(config) };
        let tree = Tree::of(&plan, &sources)?;
        let widest = tree.widest();
        let sizes = policy.may_shrink(widest, configured);
        let mut rewriting = Rewriting { policy, configured, sizes, cut: 0 };
        let plan = rewriting.rewrite(plan, &tree, false)?;
        Ok(match (sizes, rewriting.cut) {
            (false, 0) => Rewrite::refused(plan, "all rows are narrow, and no operator keeps them"),
            (true, cut) => Rewrite::applied(
                plan,
                format!("rows of up to {:.0} bytes; {cut} inputs are cut under a memory limit", widest),
            ),
            (false, cut) => Rewrite::applied(plan, format!("{cut} inputs are cut under a memory limit")),
        })
    }
}

/// Looking for columns of varying width.
trait ExistsWide {
    /// Whether some node gives rows whose width varies, or is large.
    fn exists_wide(&self, policy: BatchPolicy, configured: usize) -> bool;
}

impl ExistsWide for Arc<dyn ExecutionPlan> {
    fn exists_wide(&self, policy: BatchPolicy, configured: usize) -> bool {
        varies(&self.schema(), policy, configured)
            || self.children().into_iter().any(|child| child.exists_wide(policy, configured))
    }
}

/// Whether batches of this schema may be large.
fn varies(schema: &SchemaRef, policy: BatchPolicy, configured: usize) -> bool {
    let fixed: Option<f64> = schema.fields().iter().map(|field| fixed_width(field.data_type())).sum();
    fixed.is_none_or(|width| policy.may_shrink(width, configured))
}

/// The widths of a plan's rows, node by node.
struct Tree {
    /// Bytes of a value of each column.
    columns: Vec<f64>,
    children: Vec<Self>,
}

impl Tree {
    fn of(plan: &Arc<dyn ExecutionPlan>, sources: &source::Sources<'_>) -> Result<Self> {
        let children = plan.children().into_iter().map(|child| Self::of(child, sources));
        let children = children.collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&[f64]> = children.iter().map(|child| child.columns.as_slice()).collect();
        let columns = if inputs.is_empty() { sources.widths(plan) } else { widths(plan.as_ref(), &inputs) };
        Ok(Self { columns, children })
    }

    /// Bytes of the widest row of all nodes.
    fn widest(&self) -> f64 {
        self.children.iter().map(Self::widest).fold(row_width(&self.columns), f64::max)
    }
}

/// Puts the wrappers in.
struct Rewriting {
    policy: BatchPolicy,
    configured: usize,
    /// Whether nodes get batch sizes.
    sizes: bool,
    /// Inputs that are cut.
    cut: usize,
}

impl Rewriting {
    /// `plan` in its wrappers; `kept` where the node above reserves memory for its batches.
    fn rewrite(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        tree: &Tree,
        kept: bool,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let keeps = keeps_inputs(plan.as_ref());
        let mut children = Vec::with_capacity(tree.children.len());
        for (place, (child, tree)) in plan.children().into_iter().zip(&tree.children).enumerate() {
            let kept = keeps.is_some_and(|keeps| place < keeps);
            children.push(self.rewrite(Arc::clone(child), tree, kept)?);
        }
        let plan = if children.is_empty() { plan } else { replace_children_if_necessary(plan, children)? };
        // Other leaves may be about the session itself: SHOW reads the batch size that it shows from its context. Rows without
        // width give a node the configured size back.
        let reads = !plan.children().is_empty() || plan.is::<DataSourceExec>();
        let width = if reads { whole_bytes(row_width(&tree.columns)) } else { 0 };
        let plan = if self.sizes { sized(plan, width, self.policy) } else { plan };
        if kept && varies(&plan.schema(), self.policy, self.configured) {
            self.cut += 1;
            return Ok(cut(plan, self.policy));
        }
        Ok(plan)
    }
}

/// A width in whole bytes; it is no more than an estimate.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is out of range becomes the nearest number, none becomes 0"
)]
fn whole_bytes(width: f64) -> usize {
    width.ceil() as usize
}

/// How many of its inputs, counted from the first, `node` reserves memory for batch by batch. The probe side of a hash join
/// is not kept; exchanges and windows reserve what they make of a batch, or nothing.
fn keeps_inputs(node: &dyn ExecutionPlan) -> Option<usize> {
    let first = node.is::<SortExec>()
        || node.is::<AggregateExec>()
        || node.is::<HashJoinExec>()
        || node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<PartialSortExec>()
        || node.is::<PartitionedTopKExec>()
        || node.is::<PiecewiseMergeJoinExec>();
    let all = node.is::<SortPreservingMergeExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<SymmetricHashJoinExec>()
        // The layer's own join, which keeps rows of both sides on disk.
        || node.name() == "SpillJoinExec";
    if all { Some(usize::MAX) } else { first.then_some(1) }
}
