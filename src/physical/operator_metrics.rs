//! Memory and temporary files of each operator, for EXPLAIN ANALYZE.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{ContextUse, accounted, is_accounted};

/// Accounts the operators of a plan one by one.
///
/// ```text
///   SortPreservingMergeExec            accounted(SortPreservingMergeExec)
///     SortExec                           accounted(SortExec)
///       FilterExec                ─►       FilterExec
///         RepartitionExec                    accounted(RepartitionExec)
///           DataSourceExec                     DataSourceExec
/// ```
///
/// Wrapped are the nodes that reserve memory, keep batches or spill, and those of which nothing is known; the others hold
/// one batch at a time. The wrappers show no line of their own. The rule runs when all operators are in place, and before
/// nested-loop joins get wrappers that change the context between a join and its inputs.
///
/// Refuses where no operator of the plan uses memory.
#[derive(Debug, Default)]
pub(crate) struct OperatorMetrics;

impl PhysicalRule for OperatorMetrics {
    fn name(&self) -> &'static str {
        "operator_metrics"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.operator_metrics_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
        let mut operators = 0;
        let wrapped = account(Arc::clone(&plan), &mut operators)?.plan;
        Ok(if operators == 0 {
            Rewrite::refused(plan, "no operator of the plan uses memory")
        } else {
            Rewrite::applied(wrapped, format!("{operators} operators"))
        })
    }
}

/// A rewritten subtree.
struct Accounted {
    plan: Arc<dyn ExecutionPlan>,
    /// Whether something in it may look up functions in its context.
    functions: bool,
}

/// `plan` with all its operators accounted, which are added to `operators`.
fn account(plan: Arc<dyn ExecutionPlan>, operators: &mut usize) -> Result<Accounted> {
    let context_use = ContextUse::of(plan.as_ref());
    let mut functions = context_use.functions();
    let mut children = Vec::with_capacity(plan.children().len());
    for child in plan.children() {
        let child = account(Arc::clone(child), operators)?;
        functions |= child.functions;
        children.push(child.plan);
    }
    // Not for leaves, which would be built anew.
    let plan = if children.is_empty() { plan } else { replace_children_if_necessary(plan, children)? };
    if !context_use.accounted() {
        return Ok(Accounted { plan, functions });
    }
    *operators += 1;
    // Planned while a query was planned, and accounted then.
    let plan = if is_accounted(plan.as_ref()) { plan } else { accounted(plan, functions) };
    Ok(Accounted { plan, functions })
}
