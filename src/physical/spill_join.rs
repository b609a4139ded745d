//! Hash joins whose build side may not fit in memory get an operator that can spill.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{ClusteredAggregateExec, SpillJoinExec, in_its_place};
use crate::scope::QueryScope;

/// A build side that is known to take less than this part of the memory limit stays as it is.
const SMALL: usize = 64;

/// Replaces each `HashJoinExec` by a [`SpillJoinExec`], which is the same join while its build side fits.
///
/// It stands behind every rule that looks for hash joins or hands out dynamic filters, and keeps the joins' filters.
///
/// Refuses where memory is not limited, for build sides that are known to be small against the limit, where rows of an input
/// never end, and where something above relies on the order of a join's rows: rows that were on disk come last.
#[derive(Debug, Default)]
pub(crate) struct SpillJoin;

impl PhysicalRule for SpillJoin {
    fn name(&self) -> &'static str {
        "spill_join"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.spill_join_enabled
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let Some(limit) = QueryScope::of(config).and_then(QueryScope::memory_limit) else {
            return Ok(Rewrite::refused(plan, "memory is not limited"));
        };
        if !plan.exists(|node| Ok(node.is::<HashJoinExec>()))? {
            return Ok(Rewrite::refused(plan, "the plan has no hash join"));
        }
        let mut replacing = Replacing { limit, joins: Vec::new(), kept: Vec::new() };
        // The rows that the query gives are in the order that its plan says.
        let rewritten = replacing.replace(&plan, Above { ordered: true, grouped: false })?;
        if replacing.joins.is_empty() {
            return Ok(Rewrite::refused(plan, replacing.kept.join(", ")));
        }
        if !orders_hold(&rewritten) {
            return Ok(Rewrite::refused(plan, "the plan relies on the order of a join's rows"));
        }
        let mut detail = format!("may spill: {}", replacing.joins.join(", "));
        if !replacing.kept.is_empty() {
            detail = format!("{detail}; not: {}", replacing.kept.join(", "));
        }
        Ok(Rewrite::applied(rewritten, detail))
    }
}

/// What nodes above a join rely on.
#[derive(Debug, Clone, Copy)]
struct Above {
    /// Somebody may rely on the order of its rows.
    ordered: bool,
    /// Somebody takes the rows of its probe side row group by row group. Such an aggregate is not put above joins whose build
    /// sides are expected to be large.
    grouped: bool,
}

/// What was replaced, and what was not.
struct Replacing {
    limit: usize,
    /// Types of the joins that can spill now.
    joins: Vec<String>,
    /// Types of the others, with the reason.
    kept: Vec<String>,
}

impl Replacing {
    /// `node` with the joins in it replaced.
    fn replace(&mut self, node: &Arc<dyn ExecutionPlan>, above: Above) -> Result<Arc<dyn ExecutionPlan>> {
        let required = node.required_input_ordering();
        let kept = node.maintains_input_order();
        let mut children = Vec::new();
        for (index, child) in node.children().into_iter().enumerate() {
            let requires = required.get(index).is_some_and(Option::is_some) || node.is::<PartialSortExec>();
            let hands_on = kept.get(index).copied().unwrap_or(true);
            let ordered = requires || (above.ordered && hands_on);
            let grouped = node.is::<ClusteredAggregateExec>() || (above.grouped && kept.len() == index + 1);
            children.push(self.replace(child, Above { ordered, grouped })?);
        }
        let Some(join) = node.downcast_ref::<HashJoinExec>() else {
            return replace_children_if_necessary(Arc::clone(node), children);
        };
        let join_type = join.join_type().to_string();
        match self.why_not(join, above)? {
            Some(reason) => self.kept.push(format!("{join_type} ({reason})")),
            None => {
                self.joins.push(join_type);
                let join = replace_children_if_necessary(Arc::clone(node), children)?;
                return Ok(in_its_place(node, Arc::new(SpillJoinExec::try_new(join)?)));
            }
        }
        replace_children_if_necessary(Arc::clone(node), children)
    }

    fn why_not(&self, join: &HashJoinExec, above: Above) -> Result<Option<&'static str>> {
        if above.grouped {
            return Ok(Some("the aggregate above takes its rows row group by row group"));
        }
        if above.ordered && join.properties().output_ordering().is_some() {
            return Ok(Some("the order of its rows is relied on"));
        }
        if join.left().boundedness().is_unbounded() || join.right().boundedness().is_unbounded() {
            return Ok(Some("an input never ends"));
        }
        let (builds, probes) = (partitions(join.left()), partitions(join.right()));
        let as_planned = match join.partition_mode() {
            PartitionMode::CollectLeft => builds == 1,
            PartitionMode::Partitioned => builds == probes,
            PartitionMode::Auto => false,
        };
        if !as_planned {
            return Ok(Some("its inputs are not partitioned as it needs them"));
        }
        if join.null_aware && *join.partition_mode() == PartitionMode::Partitioned && probes > 1 {
            return Ok(Some("a NULL in one partition would have to be known in all"));
        }
        let statistics = StatisticsContext::new().compute(join.left().as_ref(), &StatisticsArgs::new())?;
        Ok(match statistics.total_byte_size {
            Precision::Exact(bytes) if bytes < self.limit / SMALL => Some("its build side is small"),
            _ => None,
        })
    }
}

fn partitions(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

/// Whether each node finds its inputs in the order that it requires.
fn orders_hold(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let required = plan.required_input_ordering();
    plan.children().into_iter().zip(required).all(|(child, required)| {
        let holds = required.is_none_or(|required| {
            let required = required.into_single();
            child.equivalence_properties().ordering_satisfy_requirement(required).unwrap_or(false)
        });
        holds && orders_hold(child)
    })
}
