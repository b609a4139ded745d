//! What finished queries teach: the rows that came out of their scans, filters, joins and aggregates.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec};
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::operator_statistics::{
    ExtendedStatistics, StatisticsProvider, StatisticsResult,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::estimate::{Known, estimate_leaf};
use super::fingerprint::fingerprint;
use super::lineage::keeps_all_rows;
use crate::config::SlipstreamOptions;
use crate::store::Knowledge;

/// Keeps the row counts of `plan`, all of whose partitions have come to their end.
///
/// Only of nodes that gave all their rows: what stands between them and the root draws its input to the end.
///
/// | node | its inputs |
/// |---|---|
/// | filter, projection, exchange, union, sort, aggregate | drawn to the end |
/// | join | build side drawn to the end; probe side where every partition of the join gave rows, as a join may leave it unread when nothing can match |
/// | anything with a limit, and any other node | not looked at |
///
/// What was dropped by a dynamic filter from further up has no fingerprint.
pub(crate) fn observe(plan: &dyn ExecutionPlan, knowledge: &Knowledge, options: &SlipstreamOptions) {
    if plan.fetch().is_some() {
        return;
    }
    if is_observed(plan)
        && let Some(rows) = plan.metrics().and_then(|metrics| metrics.output_rows())
        && let Ok(fingerprint) = fingerprint(plan)
    {
        let (entries, bytes) = (options.feedback_max_entries, options.feedback_max_bytes);
        knowledge.observations().put(fingerprint, rows as u64, entries, bytes);
    }
    let join = plan.is::<HashJoinExec>() || plan.is::<CrossJoinExec>();
    let limited = plan.downcast_ref::<AggregateExec>().is_some_and(|node| node.limit_options().is_some());
    let drains = plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<AggregateExec>()
        || plan.is::<UnionExec>()
        || keeps_all_rows(plan);
    for (index, child) in plan.children().into_iter().enumerate() {
        if drains && !limited || join && (index == 0 || gave_rows_everywhere(plan)) {
            observe(child.as_ref(), knowledge, options);
        }
    }
}

/// Nodes whose rows are worth remembering: those that change how many there are, and scans, which may not know.
pub(super) fn is_observed(plan: &dyn ExecutionPlan) -> bool {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return *aggregate.mode() != AggregateMode::Partial && !aggregate.group_expr().expr().is_empty();
    }
    plan.is::<DataSourceExec>() || plan.is::<FilterExec>() || plan.is::<HashJoinExec>()
}

/// Whether each partition of a join has put out rows: then none has given up its probe side for want of a possible match.
fn gave_rows_everywhere(plan: &dyn ExecutionPlan) -> bool {
    let Some(metrics) = plan.metrics() else {
        return false;
    };
    let gave = |partition| {
        metrics.iter().any(|metric| {
            let rows = matches!(metric.value(), MetricValue::OutputRows(rows) if rows.value() > 0);
            rows && metric.partition() == Some(partition)
        })
    };
    (0..plan.output_partitioning().partition_count()).all(gave)
}

/// The layer's knowledge as DataFusion's own rules ask for it, where `datafusion.optimizer.use_statistics_registry` is on.
///
/// In 55.2 that is `JoinSelection` alone, which picks build sides. It answers for the leaves that were analyzed and for the nodes whose rows were observed; what is above them
/// DataFusion estimates by its own providers.
#[derive(Debug)]
pub(crate) struct LayerStatistics {
    knowledge: Knowledge,
    options: SlipstreamOptions,
}

impl LayerStatistics {
    /// What is known to a query with these options.
    pub(crate) fn new(knowledge: Knowledge, options: SlipstreamOptions) -> Self {
        Self { knowledge, options }
    }

    /// An analyzed table. Nothing is called exact, though rows were counted: DataFusion answers `count(*)` and minima from
    /// exact statistics without reading the table, and a file may have changed since it was listed.
    fn of_leaf(&self, plan: &dyn ExecutionPlan) -> Result<Option<Statistics>> {
        let profile = if self.options.statistics_enabled { self.knowledge.profile(plan) } else { None };
        let Some(profile) = profile else {
            return Ok(None);
        };
        let own = StatisticsContext::new().compute(plan, &StatisticsArgs::new())?;
        let mut statistics = own.as_ref().clone();
        if !matches!(statistics.num_rows, Precision::Exact(_)) {
            statistics.num_rows = Precision::Inexact(whole(profile.rows as f64));
        }
        let known = Known::with(&self.knowledge, &self.options);
        if let Some(estimate) = estimate_leaf(plan, known) {
            let width: f64 = estimate.columns.iter().map(|column| column.bytes).sum();
            statistics.total_byte_size = Precision::Inexact(whole(width * estimate.rows));
            for (column, estimate) in statistics.column_statistics.iter_mut().zip(estimate.columns) {
                column.distinct_count = Precision::Inexact(whole(estimate.distinct));
            }
        }
        Ok(Some(statistics))
    }

    /// The rows that an equal subtree gave, beside DataFusion's own statistics of the columns.
    fn of_observed(&self, plan: &dyn ExecutionPlan) -> Result<Option<Statistics>> {
        let asked = self.options.feedback_enabled && !self.knowledge.observations().is_empty();
        if !asked || !is_observed(plan) {
            return Ok(None);
        }
        let Some(rows) = fingerprint(plan).ok().and_then(|text| self.knowledge.observed(&text)) else {
            return Ok(None);
        };
        let own = StatisticsContext::new().compute(plan, &StatisticsArgs::new())?;
        let mut statistics = own.as_ref().clone();
        statistics.num_rows = Precision::Inexact(whole(rows as f64));
        statistics.calculate_total_byte_size(plan.schema().as_ref());
        Ok(Some(statistics))
    }
}

impl StatisticsProvider for LayerStatistics {
    fn compute_statistics(
        &self,
        plan: &dyn ExecutionPlan,
        _children: &[ExtendedStatistics],
    ) -> Result<StatisticsResult> {
        let known = if plan.children().is_empty() { self.of_leaf(plan)? } else { None };
        Ok(match known.map_or_else(|| self.of_observed(plan), |known| Ok(Some(known)))? {
            Some(known) => StatisticsResult::Computed(ExtendedStatistics::new_arc(Arc::new(known))),
            None => StatisticsResult::Delegate,
        })
    }
}

/// A number of rows or bytes, as DataFusion counts them.
#[expect(clippy::cast_possible_truncation, reason = "it is an estimate of something that fits")]
fn whole(number: f64) -> usize {
    number.max(0.0) as usize
}
