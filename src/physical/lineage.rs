//! Which column of which scan a column of a plan comes from.
//!
//! Columns are followed by their positions, through the nodes that hand them on as they are. At a node that is not known
//! the way ends without an answer, which callers must take for "anywhere".

use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType};
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::operator::{NullSupplyingExec, filter_of};

type Plan = Arc<dyn ExecutionPlan>;

/// A column of a scanned table, or of another leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// The node that scans it.
    pub(super) scan: ScanId,
    /// Its place in the schema of a Parquet table, or in what another leaf puts out.
    pub(super) column: usize,
}

/// A node of a plan that is not changed meanwhile: its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScanId(usize);

impl ScanId {
    /// The id of `plan`.
    pub(super) fn of(plan: &Plan) -> Self {
        Self(Arc::as_ptr(plan).cast::<()>() as usize)
    }
}

/// The scanned columns that column `index` of `plan` has its values from; `None` where one of them is not known.
///
/// Several where the plan is a union, and for the key of a semi join, whose rows have the same value on both sides.
pub(super) fn sources(plan: &Plan, index: usize) -> Option<Vec<Source>> {
    follow(plan, index, Computed::Stop)
}

/// The scanned columns that column `index` of `plan` is, or is computed from; `None` where one of them is not known.
pub(super) fn ingredients(plan: &Plan, index: usize) -> Option<Vec<Source>> {
    follow(plan, index, Computed::Enter)
}

/// What to do at an expression that is more than a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Computed {
    Stop,
    /// Follow all columns in it.
    Enter,
}

/// The scanned columns behind `expr`, an expression over what `plan` puts out.
fn behind(plan: &Plan, expr: &Arc<dyn PhysicalExpr>, computed: Computed) -> Option<Vec<Source>> {
    match (column_index(expr), computed) {
        (Some(index), _) => follow(plan, index, computed),
        (None, Computed::Stop) => None,
        (None, Computed::Enter) => {
            let columns = collect_columns(expr);
            let each = columns.iter().map(|column| follow(plan, column.index(), computed));
            Some(each.collect::<Option<Vec<_>>>()?.concat())
        }
    }
}

fn follow(plan: &Plan, index: usize, computed: Computed) -> Option<Vec<Source>> {
    if plan.children().is_empty() {
        return of_leaf(plan, index, computed);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return behind(projection.input(), &projection.expr().get(index)?.expr, computed);
    }
    if let Some(filter) = filter_of(plan.as_ref()) {
        let index = filter.projection().as_ref().map_or(Some(index), |kept| kept.get(index).copied())?;
        return follow(filter.input(), index, computed);
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let (key, _) = aggregate.group_expr().expr().get(index)?;
        return behind(aggregate.input(), key, computed);
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return of_join(join, index, computed);
    }
    if plan.is::<UnionExec>() {
        let inputs = plan.children().into_iter().map(|input| follow(input, index, computed));
        return Some(inputs.collect::<Option<Vec<_>>>()?.concat());
    }
    if keeps_all_rows(plan.as_ref()) { follow(plan.children().first()?, index, computed) } else { None }
}

/// Nodes that give the rows of their only input in another order or other partitions, as far as they have no limit.
pub(super) fn keeps_all_rows(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<NullSupplyingExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
}

/// A Parquet scan may compute its columns; any other leaf is taken for a table.
fn of_leaf(plan: &Plan, index: usize, computed: Computed) -> Option<Vec<Source>> {
    let source = |column| Source { scan: ScanId::of(plan), column };
    let parquet = plan.downcast_ref::<DataSourceExec>();
    let parquet = parquet.and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>);
    let Some(projection) = parquet.and_then(|(_, source)| source.projection()) else {
        return Some(vec![source(index)]);
    };
    let expr = &projection.as_ref().get(index)?.expr;
    match (column_index(expr), computed) {
        (Some(column), _) => Some(vec![source(column)]),
        (None, Computed::Stop) => None,
        (None, Computed::Enter) => {
            Some(collect_columns(expr).iter().map(|column| source(column.index())).collect())
        }
    }
}

/// A join's columns come from whichever side they are of. What an outer join adds to them, NULLs, is no reason to stop:
/// a filter that may pass such a join keeps or drops rows that were there before it.
fn of_join(join: &HashJoinExec, index: usize, computed: Computed) -> Option<Vec<Source>> {
    let index = join.projection.as_ref().map_or(Some(index), |kept| kept.get(index).copied())?;
    let left_width = join.left().schema().fields().len();
    let (side, index) = match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti => (JoinSide::Left, index),
        JoinType::RightSemi | JoinType::RightAnti => (JoinSide::Right, index),
        JoinType::LeftMark | JoinType::RightMark => return None,
        _ if index < left_width => (JoinSide::Left, index),
        _ => (JoinSide::Right, index - left_width),
    };
    let (input, other) =
        if side == JoinSide::Left { (join.left(), join.right()) } else { (join.right(), join.left()) };
    let mut found = follow(input, index, computed)?;
    if matches!(join.join_type(), JoinType::LeftSemi | JoinType::RightSemi) {
        for (left, right) in join.on() {
            let (own, others) = if side == JoinSide::Left { (left, right) } else { (right, left) };
            if column_index(own) == Some(index)
                && let Some(key) = column_index(others)
            {
                found.extend(follow(other, key, computed).unwrap_or_default());
            }
        }
    }
    Some(found)
}

/// The index of the column that `expr` is.
pub(super) fn column_index(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// `scan` of Parquet files with another source: other filters, or filters applied elsewhere.
pub(super) fn with_source(
    scan: &DataSourceExec,
    config: &FileScanConfig,
    source: ParquetSource,
) -> Arc<dyn ExecutionPlan> {
    let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
    Arc::new(scan.clone().with_data_source(Arc::new(config)))
}
