//! Estimates of plan nodes, from the leaves up.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::stats::Precision;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::Estimate;
use super::column::ColumnEstimate;
use super::key::KeyValues;
use super::known::Known;
use super::selectivity::selectivity;
use crate::operator::{NullSupplyingExec, SharedSubplanExec, filter_of};

type Plan = Arc<dyn ExecutionPlan>;

/// What is expected of `plan`, with what is `known`; `None` where some source below it does not know its rows.
pub(crate) fn estimate(plan: &Plan, known: Known<'_>) -> Option<Estimate> {
    let derived = derive(plan, known);
    let Some(rows) = known.observed(plan) else {
        return derived;
    };
    let unknown = || {
        let schema = plan.schema();
        let columns = schema.fields().iter().map(|field| ColumnEstimate::unknown(field.data_type(), rows));
        Estimate { rows: rows.max(1.0), columns: columns.collect() }
    };
    Some(derived.map_or_else(unknown, |derived| derived.observed(rows)))
}

/// What follows for `plan` from its inputs and from statistics.
fn derive(plan: &Plan, known: Known<'_>) -> Option<Estimate> {
    let node = plan.as_ref();
    let estimated = if let Some(filter) = filter_of(node) {
        of_filter(filter, known)?
    } else if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let input = estimate(projection.input(), known)?;
        project(&input, projection.expr().iter().map(|item| &item.expr), plan)
    } else if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        of_aggregate(aggregate, plan, known)?
    } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        of_hash_join(join, known)?
    } else if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        let (left, right) = (estimate(join.left(), known)?, estimate(join.right(), known)?);
        Estimate { rows: left.rows * right.rows, columns: [left.columns, right.columns].concat() }
    } else if node.is::<UnionExec>() {
        of_union(node, known)?
    } else if let Some(shared) = node.downcast_ref::<SharedSubplanExec>() {
        estimate(&shared.subplan(), known)?
    } else if keeps_rows(node) {
        estimate(node.children().first()?, known)?
    } else if node.children().is_empty() {
        estimate_leaf(node, known)?
    } else {
        return None;
    };
    // A node of a kind that changes its columns otherwise than is known here.
    if estimated.columns.len() != plan.schema().fields().len() {
        return None;
    }
    Some(match node.fetch() {
        Some(fetch) => estimated.limited(fetch as f64),
        None => estimated,
    })
}

/// Nodes that give the rows of their only input, in another order or other partitions.
fn keeps_rows(node: &dyn ExecutionPlan) -> bool {
    node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<RepartitionExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<NullSupplyingExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
}

/// A source says itself what it has, or ANALYZE has counted it. One that does not know its rows stops the estimate of
/// all above it: an order of joins that is chosen by a guess is worse than the one that somebody wrote.
pub(crate) fn estimate_leaf(node: &dyn ExecutionPlan, known: Known<'_>) -> Option<Estimate> {
    let schema = node.schema();
    let statistics = StatisticsContext::new().compute(node, &StatisticsArgs::new()).ok()?;
    let profile = known.profile(node);
    let rows = match (statistics.num_rows, &profile) {
        (Precision::Exact(rows), _) => rows as f64,
        (_, Some(profile)) => profile.rows as f64,
        (Precision::Inexact(rows), _) => rows as f64,
        (Precision::Absent, _) if node.is::<EmptyExec>() => 0.0,
        (Precision::Absent, _) if node.is::<PlaceholderRowExec>() => 1.0,
        (Precision::Absent, _) => return None,
    };
    let columns = schema.fields().iter().zip(&statistics.column_statistics);
    let columns = columns.enumerate().map(|(index, (field, column))| {
        let own = ColumnEstimate::of_source(field.data_type(), column, rows);
        let place = table_column(node, index);
        match profile.as_ref().zip(place).and_then(|(profile, place)| profile.column(place)) {
            Some(profile) => own.analyzed(profile, rows),
            None => own,
        }
    });
    Some(Estimate { rows, columns: columns.collect() })
}

/// The place in its table of column `index` of the leaf `node`.
///
/// Statistics speak of a table's columns; a scan's are some of them, in its own order, or expressions, which have no place.
fn table_column(node: &dyn ExecutionPlan, index: usize) -> Option<usize> {
    let source = node.downcast_ref::<DataSourceExec>()?.data_source();
    if let Some(memory) = source.downcast_ref::<MemorySourceConfig>() {
        return memory.projection().as_ref().map_or(Some(index), |kept| kept.get(index).copied());
    }
    match source.downcast_ref::<FileScanConfig>()?.file_source().projection() {
        Some(projection) => projection.as_ref().get(index)?.expr.downcast_ref::<Column>().map(Column::index),
        None => Some(index),
    }
}

/// The rows of a scanned table of files and all its columns, by their places in the table's schema.
pub(crate) fn source_columns(
    config: &FileScanConfig,
    known: Known<'_>,
) -> Option<(f64, Vec<ColumnEstimate>)> {
    let statistics = config.statistics();
    let profile = known.profile_of_files(config);
    let counted = statistics.num_rows.get_value().map(|rows| *rows as f64);
    let rows = counted.or_else(|| profile.as_ref().map(|profile| profile.rows as f64))?;
    let schema = config.file_source().table_schema().schema_without_virtual_columns();
    let columns = schema.fields().iter().zip(&statistics.column_statistics).enumerate();
    let columns: Vec<_> = columns
        .map(|(place, (field, column))| {
            let own = ColumnEstimate::of_source(field.data_type(), column, rows);
            match profile.as_ref().and_then(|profile| profile.column(place)) {
                // What a column takes in its file matters there, and not what its values take in memory.
                Some(profile) => ColumnEstimate { bytes: own.bytes, ..own.analyzed(profile, rows) },
                None => own,
            }
        })
        .collect();
    (columns.len() == schema.fields().len()).then_some((rows, columns))
}

/// A filter keeps the share that its predicate has of the input, and of each column's values those that Yao's
/// formula expects to be met by the rows that are left. The column that is compared is treated like the others: its
/// values are fewer still, which matters little since joins seldom use it.
fn of_filter(filter: &FilterExec, known: Known<'_>) -> Option<Estimate> {
    let input = estimate(filter.input(), known)?;
    let share = selectivity(filter.predicate(), &input.columns);
    let mut filtered = input.filtered(share);
    if let Some(projection) = filter.projection() {
        filtered.columns =
            projection.iter().map(|index| filtered.columns.get(*index).cloned()).collect::<Option<_>>()?;
    }
    Some(filtered)
}

/// The columns that expressions make of an input's.
fn project<'a>(
    input: &Estimate,
    exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>,
    plan: &Plan,
) -> Estimate {
    let schema = plan.schema();
    let columns = exprs.zip(schema.fields()).map(|(expr, field)| {
        let column = expr.downcast_ref::<Column>().and_then(|column| input.columns.get(column.index()));
        column.cloned().unwrap_or_else(|| ColumnEstimate::unknown(field.data_type(), input.rows))
    });
    Estimate { rows: input.rows, columns: columns.collect() }
}

/// Groups are as many as the keys' combinations, and never more than rows.
///
/// NULL is a group of its own. A partial aggregate is taken for a final one: it gives more rows, one for each
/// group and partition, but nothing above an aggregate tells the two apart. Each grouping set is counted as if it
/// had all the keys, which is too many; none has more groups than the input has rows.
fn of_aggregate(aggregate: &AggregateExec, plan: &Plan, known: Known<'_>) -> Option<Estimate> {
    let input = estimate(aggregate.input(), known)?;
    let keys = aggregate.group_expr().expr();
    let key_exprs = keys.iter().map(|(expr, _)| expr);
    let mut output = project(&input, key_exprs, plan);
    let mut groups = 1.0_f64;
    for column in &output.columns {
        groups *= column.distinct + if column.nulls > 0.0 { 1.0 } else { 0.0 };
    }
    groups *= aggregate.group_expr().groups().len().max(1) as f64;
    output.rows = if keys.is_empty() { 1.0 } else { groups.min(input.rows) };
    let schema = plan.schema();
    let aggregates = schema.fields().iter().skip(output.columns.len());
    let aggregates: Vec<_> =
        aggregates.map(|field| ColumnEstimate::unknown(field.data_type(), output.rows)).collect();
    output.columns.extend(aggregates);
    Some(output)
}

/// A join outside the reach of join ordering.
///
/// Of two keys the values of the side that has fewer are taken to be among those of the other (containment), the
/// keys of several columns to be independent as long as there are not more of them than rows, and every other
/// condition to keep half. NULL keys match nothing.
fn of_hash_join(join: &HashJoinExec, known: Known<'_>) -> Option<Estimate> {
    let (left, right) = (estimate(join.left(), known)?, estimate(join.right(), known)?);
    let (mut left_distinct, mut right_distinct) = (1.0_f64, 1.0_f64);
    let (mut left_filled, mut right_filled) = (1.0_f64, 1.0_f64);
    for (l, r) in join.on() {
        let (l, r) = (KeyValues::of(l, &left), KeyValues::of(r, &right));
        left_filled *= 1.0 - l.nulls;
        right_filled *= 1.0 - r.nulls;
        let (l, r) = (l.within(r).distinct, r.within(l).distinct);
        left_distinct *= l;
        right_distinct *= r;
    }
    let left_distinct = left_distinct.min(left.rows).max(1.0);
    let right_distinct = right_distinct.min(right.rows).max(1.0);
    let filter = if join.filter().is_some() { 0.5 } else { 1.0 };
    let (left_keys, right_keys) = (left.rows * left_filled, right.rows * right_filled);
    let pairs = left_keys * right_keys / left_distinct.max(right_distinct) * filter;
    let left_matched = left_keys * (right_distinct / left_distinct).min(1.0) * filter;
    let right_matched = right_keys * (left_distinct / right_distinct).min(1.0) * filter;
    let rows = match join.join_type() {
        JoinType::Inner => pairs,
        JoinType::Left => pairs.max(left.rows),
        JoinType::Right => pairs.max(right.rows),
        JoinType::Full => pairs.max(left.rows + right.rows),
        JoinType::LeftSemi => left_matched,
        JoinType::RightSemi => right_matched,
        JoinType::LeftAnti => left.rows - left_matched,
        JoinType::RightAnti => right.rows - right_matched,
        // The mark has no source column to take an estimate from.
        JoinType::LeftMark | JoinType::RightMark => return None,
    };
    let columns = match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
        JoinType::RightSemi | JoinType::RightAnti => right.columns,
        _ => [left.columns, right.columns].concat(),
    };
    let columns = match &join.projection {
        Some(projection) => {
            projection.iter().map(|index| columns.get(*index).cloned()).collect::<Option<_>>()?
        }
        None => columns,
    };
    let mut joined = Estimate { rows: rows.max(1.0), columns };
    for column in &mut joined.columns {
        column.distinct = column.distinct.min(joined.rows);
    }
    Some(joined)
}

/// Rows add up, and so do distinct values: that their inputs share some is possible, and not known.
fn of_union(node: &dyn ExecutionPlan, known: Known<'_>) -> Option<Estimate> {
    let inputs =
        node.children().into_iter().map(|input| estimate(input, known)).collect::<Option<Vec<_>>>()?;
    let mut inputs = inputs.into_iter();
    let mut union = inputs.next()?;
    for input in inputs {
        union.rows += input.rows;
        for (column, other) in union.columns.iter_mut().zip(&input.columns) {
            column.distinct += other.distinct;
            column.domain += other.domain;
            column.guessed |= other.guessed;
            column.bounds = match (column.bounds, other.bounds) {
                (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                _ => None,
            };
            column.bytes = column.bytes.max(other.bytes);
            column.spread = None;
        }
    }
    Some(union)
}
