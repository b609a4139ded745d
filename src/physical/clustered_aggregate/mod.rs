//! Aggregates over a clustered key in one step, without an exchange.

mod footer;

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::Distribution;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::InterleaveExec;
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode, Partitioning};

use self::footer::{Footers, clustered_scan, may_come_late};
use super::estimate::Known;
use super::lineage::column_index;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{ClusteredAggregateExec, KeyIntervals, SharedSubplanExec};
use crate::scope::QueryScope;

type Plan = Arc<dyn ExecutionPlan>;

/// Row groups below which the work would be spread too unevenly over the partitions.
const ROW_GROUPS_PER_PARTITION: usize = 2;
/// Below this many values in a row group, most of its rows may have a key that it shares with a neighbour.
const MIN_WIDTH: u64 = 8;

/// Replaces the two steps of a grouped aggregate by one where the files are clustered by a group key.
///
/// ```text
///   AggregateExec: FinalPartitioned
///     RepartitionExec: Hash            ─►   ClusteredAggregateExec
///       AggregateExec: Partial                input
///         input
/// ```
///
/// The exchange is kept above the operator where a node further up relies on its partitioning.
///
/// Whether a file is clustered is read from the row groups' minima and maxima, which DataFusion keeps in its metadata
/// cache; nothing is read for it. The key's rows must reach the aggregate row group by row group: through filters,
/// projections, and the probe side of joins that have one build side for all partitions.
///
/// Refuses otherwise; for keys other than integers, dates and timestamps; for keys with NULLs; for aggregates that
/// need an order, grouping sets or a limit; for tables with fewer rows than `min_rows` or fewer than two row groups
/// for each partition; and where partitions may be executed apart from each other
/// (`datafusion.execution.enable_file_stream_work_stealing = false`).
#[derive(Debug, Default)]
pub(crate) struct ClusteredAggregate;

impl PhysicalRule for ClusteredAggregate {
    fn name(&self) -> &'static str {
        "clustered_aggregate"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.clustered_aggregate_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Plan, config: &ConfigOptions) -> Result<Rewrite> {
        let Some(cache) = QueryScope::of(config).and_then(QueryScope::footers) else {
            return Ok(Rewrite::refused(plan, "the session shows no metadata cache"));
        };
        if !config.execution.enable_file_stream_work_stealing {
            return Ok(Rewrite::refused(plan, "partitions may be executed apart from each other"));
        }
        let min_rows =
            SlipstreamOptions::active(config).map_or(0, |options| options.clustered_aggregate_min_rows);
        let spills = SlipstreamOptions::active(config).is_some_and(|options| options.spill_join_enabled);
        let limit = QueryScope::of(config).and_then(QueryScope::memory_limit).filter(|_| spills);
        let mut rewriter = Rewriter {
            footers: Footers { cache, min_rows },
            limit,
            known: Known::of(config),
            applied: Vec::new(),
            refused: Cow::Borrowed("the plan has no grouped aggregate in two steps"),
        };
        let rewritten = rewriter.rewrite(&plan, false)?;
        if rewriter.applied.is_empty() {
            return Ok(Rewrite::refused(plan, rewriter.refused));
        }
        Ok(Rewrite::applied(rewritten, rewriter.applied.join("; ")))
    }
}

struct Rewriter<'a> {
    footers: Footers,
    /// The memory limit, where joins spill under it.
    limit: Option<usize>,
    known: Known<'a>,
    applied: Vec<String>,
    /// Why the last candidate was left as it was.
    refused: Cow<'static, str>,
}

impl Rewriter<'_> {
    /// `hashed` says whether a node above relies on how the rows of `plan` are spread over its partitions.
    fn rewrite(&mut self, plan: &Plan, hashed: bool) -> Result<Plan> {
        if let Some(steps) = TwoSteps::of(plan) {
            match self.clustered(&steps) {
                Ok((key, intervals)) => return self.replace(&steps, key, intervals, hashed),
                Err(reason) => self.refused = reason,
            }
        }
        // Consumers of a shared subplan that are elsewhere in the plan may rely on it.
        let hashed = hashed || plan.is::<SharedSubplanExec>();
        let demands = plan.input_distribution_requirements();
        let children = plan.children().into_iter().enumerate().map(|(index, child)| {
            let hashed = match demands.child_distribution(index) {
                Some(Distribution::SinglePartition) => false,
                Some(Distribution::UnspecifiedDistribution) if plan.is::<RepartitionExec>() => false,
                Some(Distribution::UnspecifiedDistribution) => hashed || plan.is::<InterleaveExec>(),
                _ => true,
            };
            self.rewrite(child, hashed)
        });
        let children = children.collect::<Result<Vec<_>>>()?;
        replace_children_if_necessary(Arc::clone(plan), children)
    }

    /// The group key by which the scan below is clustered, or why there is none.
    ///
    /// Any one of several keys will do: rows that agree in all of them agree in that one.
    fn clustered(&self, steps: &TwoSteps<'_>) -> Result<(usize, KeyIntervals), Cow<'static, str>> {
        let partial = steps.partial;
        if let Some(reason) = steps.why_not() {
            return Err(reason.into());
        }
        let mut refused = Cow::Borrowed("no group key is a column");
        for (index, (expr, _)) in partial.group_expr().expr().iter().enumerate() {
            let Some(column) = column_index(expr) else { continue };
            let partitions = steps.partitions * ROW_GROUPS_PER_PARTITION;
            let late = |join: &HashJoinExec| may_come_late(join, self.limit, self.known);
            let intervals = clustered_scan(partial.input(), column, &late)
                .and_then(|(scan, column)| self.footers.intervals(scan, column));
            match intervals {
                Ok(intervals) if intervals.len() < partitions => {
                    refused = format!("{} row groups are too few to share out", intervals.len()).into();
                }
                Ok(intervals) if intervals.median_width() < MIN_WIDTH => {
                    refused = "row groups have too few keys of their own".into();
                }
                Ok(intervals) => return Ok((index, intervals)),
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }

    /// The operator in place of `steps`, under its exchange where `hashed` says that a node above relies on it.
    fn replace(
        &mut self,
        steps: &TwoSteps<'_>,
        key: usize,
        intervals: KeyIntervals,
        hashed: bool,
    ) -> Result<Plan> {
        let names = steps.partial.group_expr().expr();
        let name = names.get(key).map_or("", |(_, name)| name.as_str());
        self.applied.push(format!("by {name} in {} row groups", intervals.len()));
        let input = self.rewrite(steps.partial.input(), false)?;
        let partial = replace_children_if_necessary(Arc::clone(steps.plan), vec![input])?;
        let schema = steps.last.schema();
        let one = ClusteredAggregateExec::try_new(partial, schema, key, Arc::new(intervals))?;
        let one: Plan = Arc::new(one);
        if !hashed {
            return Ok(one);
        }
        Ok(Arc::new(RepartitionExec::try_new(one, steps.partitioning.clone())?))
    }
}

/// A grouped aggregate in two steps.
///
/// Aggregates in one step, which DataFusion plans where the input has a single partition or is partitioned by the
/// group keys already, have no exchange to save.
struct TwoSteps<'a> {
    last: &'a AggregateExec,
    partitioning: &'a Partitioning,
    partitions: usize,
    partial: &'a AggregateExec,
    /// `partial` as a plan.
    plan: &'a Plan,
}

impl<'a> TwoSteps<'a> {
    fn of(plan: &'a Plan) -> Option<Self> {
        let last = plan.downcast_ref::<AggregateExec>()?;
        let exchange = last.input().downcast_ref::<RepartitionExec>()?;
        let plan = exchange.input();
        let partial = plan.downcast_ref::<AggregateExec>()?;
        let modes = (last.mode(), partial.mode());
        if modes != (&AggregateMode::FinalPartitioned, &AggregateMode::Partial) {
            return None;
        }
        let partitioning = exchange.partitioning();
        Some(Self { last, partitioning, partitions: partitioning.partition_count(), partial, plan })
    }

    /// What the operator cannot do.
    fn why_not(&self) -> Option<&'static str> {
        let Self { last, partial, .. } = self;
        let group = partial.group_expr();
        if group.has_grouping_set() || !group.is_single() || group.is_empty() {
            return Some("grouping sets");
        }
        if last.limit_options().is_some() || partial.limit_options().is_some() {
            return Some("the aggregate stops at a limit");
        }
        if [last.input_order_mode(), partial.input_order_mode()]
            .iter()
            .any(|mode| **mode != InputOrderMode::Linear)
        {
            return Some("the aggregate streams over ordered input already");
        }
        if !partial.dynamic_expressions_produced().is_empty()
            || !last.dynamic_expressions_produced().is_empty()
        {
            return Some("the aggregate makes a dynamic filter");
        }
        let aggregates = partial.aggr_expr();
        if aggregates.iter().any(|each| !each.groups_accumulator_supported() || !each.order_bys().is_empty())
        {
            return Some("an aggregate needs an order, or has no accumulator for many groups");
        }
        None
    }
}
