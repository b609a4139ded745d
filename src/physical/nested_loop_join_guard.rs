//! Nested-loop joins that spill only where DataFusion 55.2 spills them rightly.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{
    SharedSubplanExec, nested_loop_spill, no_spill, outer_context, probe_slices, rerunnable,
};

/// How the join's memory consumers are named.
const CONSUMER: &str = "NestedLoopJoin";

/// What a user reads when a guarded join lacks memory.
const ADVICE: &str = "a nested-loop join needs more memory for its build side, and must not spill here: DataFusion \
    55.2 would return wrong rows (apache/datafusion issues 22641, 24676, 24745). Raise the memory limit, or make \
    the build side smaller";

/// Guards `NestedLoopJoinExec` against the three defects of its spilling path in DataFusion 55.2.
///
/// When its build (left) side does not fit, the join executes that side a second time, writes it to disk, and
/// reads it back in chunks, with one pass over the probe (right) side for each. That goes wrong in three ways,
/// all of them silent:
///
/// | defect | joins | here |
/// |---|---|---|
/// | every probe partition emits its own unmatched build rows ([22641]) | left, left semi, left anti, left mark; more than one probe partition | does not spill |
/// | unmatched probe rows are dropped when the last chunk is empty ([24745]) | right, right semi, right anti, right mark, full | the last chunk is never empty |
/// | the build side's second execution yields the rest of a drained scan, or nothing ([24676]) | all | build side made rerunnable, else does not spill |
///
/// ```text
///   NestedLoopJoinExec: Right          nested_loop_spill(NestedLoopJoinExec: Right)
///     build                      ─►      outer_context(rerunnable(build))
///     probe                              outer_context(probe_slices(probe))
///
///   NestedLoopJoinExec: Left           no_spill(NestedLoopJoinExec: Left)
///     build                      ─►      outer_context(build)
///     probe, 2 partitions                outer_context(probe_slices(probe))
/// ```
///
/// Probe batches are cut so that the join can be cancelled within one (`operator/probe_slices.rs`).
///
/// A join that does not spill fails with `Resources exhausted` and advice. While the build side fits nothing
/// changes, and the wrappers do not show in the plan's picture. It runs behind the last rule of DataFusion that
/// rewrites plans, so the join types and partition counts it sees are those that are executed.
///
/// Refuses where the plan has no nested-loop join.
///
/// [22641]: https://github.com/apache/datafusion/issues/22641
/// [24676]: https://github.com/apache/datafusion/issues/24676
/// [24745]: https://github.com/apache/datafusion/issues/24745
#[derive(Debug, Default)]
pub(crate) struct NestedLoopJoinGuard;

impl PhysicalRule for NestedLoopJoinGuard {
    fn name(&self) -> &'static str {
        "nested_loop_join_guard"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.nested_loop_join_guard_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
        // Most plans have no such join; finding that out must not rebuild them.
        if !plan.exists(|node| Ok(node.is::<NestedLoopJoinExec>()))? {
            return Ok(Rewrite::refused(plan, "the plan has no nested-loop join"));
        }
        let mut barred = Vec::new();
        let mut spilling = 0;
        let guarded = plan
            .transform_up(|node| {
                let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else {
                    return Ok(Transformed::no(node));
                };
                let guarded = match why_not_spill(join)? {
                    Some(reason) => {
                        barred.push(format!("{} ({reason})", join.join_type()));
                        barred_join(&node, join)?
                    }
                    None => {
                        spilling += 1;
                        spilling_join(&node, join)?
                    }
                };
                Ok(Transformed::yes(guarded))
            })
            .data()?;
        Ok(Rewrite::applied(guarded, detail(&barred, spilling)))
    }
}

fn detail(barred: &[String], spilling: usize) -> String {
    let mut parts = Vec::new();
    if !barred.is_empty() {
        parts.push(format!("must not spill: {}", barred.join(", ")));
    }
    if spilling > 0 {
        parts.push(format!("may spill, over a rerunnable build side: {spilling}"));
    }
    parts.join("; ")
}

fn barred_join(node: &Arc<dyn ExecutionPlan>, join: &NestedLoopJoinExec) -> Result<Arc<dyn ExecutionPlan>> {
    let (build, probe) = probe_slices(Arc::clone(join.left()), Arc::clone(join.right()));
    Ok(no_spill(with_children(node, vec![outer_context(build), outer_context(probe)])?, CONSUMER, ADVICE))
}

fn spilling_join(node: &Arc<dyn ExecutionPlan>, join: &NestedLoopJoinExec) -> Result<Arc<dyn ExecutionPlan>> {
    let gives_probe_rows_alone = matches!(
        join.join_type(),
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark | JoinType::Full
    );
    let (build, batches) = rerunnable(Arc::clone(join.left()), gives_probe_rows_alone);
    let (build, probe) = probe_slices(build, Arc::clone(join.right()));
    let inputs = vec![outer_context(build), outer_context(probe)];
    Ok(nested_loop_spill(with_children(node, inputs)?, batches))
}

/// The same join over wrapped inputs. Their properties are those of the inputs they wrap.
fn with_children(
    join: &Arc<dyn ExecutionPlan>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(join).replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

/// The reason for which `join` would return wrong rows if it spilled.
fn why_not_spill(join: &NestedLoopJoinExec) -> Result<Option<&'static str>> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
    let emits_build_rows = match join.join_type() {
        Left | LeftSemi | LeftAnti | LeftMark | Full => true,
        Inner | Right | RightSemi | RightAnti | RightMark => false,
    };
    if emits_build_rows && join.right().output_partitioning().partition_count() > 1 {
        return Ok(Some("several probe partitions"));
    }
    Ok((!may_rerun(join.left())?).then_some("the build side cannot be executed twice"))
}

/// Whether a copy of `plan` with its state reset gives all rows of `plan`.
fn may_rerun(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut safe = true;
    plan.apply(|node| {
        safe = node_may_rerun(node.as_ref())?;
        Ok(if safe { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(safe)
}

fn node_may_rerun(node: &dyn ExecutionPlan) -> Result<bool> {
    // A consumer that was reset takes part in another execution of the subplan, which only one of them shows.
    if let Some(shared) = node.downcast_ref::<SharedSubplanExec>()
        && node.children().is_empty()
    {
        return may_rerun(&shared.subplan());
    }
    let known_leaf = node.downcast_ref::<DataSourceExec>().is_some_and(|scan| {
        let source = scan.data_source();
        source.is::<MemorySourceConfig>() || source.is::<FileScanConfig>()
    }) || node.is::<EmptyExec>()
        || node.is::<PlaceholderRowExec>()
        || node.is::<LazyMemoryExec>();
    if node.children().is_empty() && !known_leaf {
        return Ok(false);
    }
    // Their state is tied to nodes outside the subtree, or is not reset by `reset_state`.
    if node.is::<RecursiveQueryExec>() || node.is::<WorkTableExec>() || node.is::<ScalarSubqueryExec>() {
        return Ok(false);
    }
    let mut stateless = true;
    node.apply_expressions(&mut |root| {
        // Dynamic filters have an id, and so has whatever else is shared between places of a plan.
        stateless = stateless && !root.exists(|expr| Ok(expr.expression_id().is_some()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(stateless && node.dynamic_expressions_produced().is_empty())
}
