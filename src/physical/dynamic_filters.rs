//! The dynamic filters of a plan: who produces each, and which scanned columns it speaks of.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::estimate::{ColumnEstimate, KeyValues, Known, estimate};
use super::lineage::{ScanId, Source, column_index, ingredients, sources};

/// The producers of a plan's dynamic filters, by the filters' ids.
#[derive(Debug)]
pub(super) struct DynamicFilters(HashMap<u64, Producer>);

/// A node that makes a filter while it runs, for rows that its input is still to give.
#[derive(Debug)]
struct Producer {
    /// For each key that the filter looks at: the scanned columns it may stand for, where that is known.
    keys: Vec<Option<Vec<Source>>>,
    /// For each key: the scanned columns that it is computed from, where that is known.
    ingredients: Vec<Option<Vec<Source>>>,
    /// Of a join's filter: what is known of the rows that make it.
    build: Option<BuildSide>,
    /// Whether rows that the filter drops are needed by the very node that makes it.
    unsound: bool,
}

/// The build side of the join that makes a filter.
#[derive(Debug)]
pub(super) struct BuildSide {
    /// The join.
    pub(super) join: ScanId,
    /// Rows that are expected.
    pub(super) rows: f64,
    /// The values of each key, in the order of the filter's children.
    pub(super) keys: Vec<KeyValues>,
}

/// Where a filter has landed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Landing<'a> {
    /// In a scan, whose columns are its table's.
    Scan(ScanId),
    /// In a filter above this plan.
    Above(&'a Arc<dyn ExecutionPlan>),
}

impl Landing<'_> {
    fn sources(self, column: usize) -> Option<Vec<Source>> {
        match self {
            Self::Scan(scan) => Some(vec![Source { scan, column }]),
            Self::Above(plan) => sources(plan, column),
        }
    }

    fn ingredients(self, column: usize) -> Option<Vec<Source>> {
        match self {
            Self::Scan(scan) => Some(vec![Source { scan, column }]),
            Self::Above(plan) => ingredients(plan, column),
        }
    }
}

/// Whether a filter that has reached a scan speaks of the columns that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its columns are those of the producer's.
    Right,
    /// They are others, or the rows that it drops are needed.
    Wrong,
    /// The way of a column cannot be followed.
    Unknown,
}

impl DynamicFilters {
    /// Those of `plan`. The plan must stay as it is while they are in use: scans are known by their addresses.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, known: Known<'_>) -> Result<Self> {
        let mut producers = HashMap::new();
        plan.apply(|node| {
            let join = node.downcast_ref::<HashJoinExec>();
            for filter in node.dynamic_expressions_produced() {
                let Some(id) = filter.expression_id() else {
                    continue;
                };
                // A join's filter is for its probe side, any other for the only input.
                let input = join.map_or_else(|| node.children().first().copied(), |join| Some(join.right()));
                let indexes: Vec<_> = filter.children().into_iter().map(column_index).collect();
                let keys = indexes.iter().map(|index| sources(input?, (*index)?)).collect();
                let ingredients = indexes.iter().map(|index| ingredients(input?, (*index)?)).collect();
                let unsound = node.downcast_ref::<AggregateExec>().is_some_and(|node| !only_min_max(node));
                producers.insert(
                    id,
                    Producer {
                        keys,
                        ingredients,
                        build: join.and_then(|join| build_side(join, ScanId::of(node), known)),
                        unsound,
                    },
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Self(producers))
    }

    /// Where `filter`, a conjunct of the predicate of a scan, or of a filter above other nodes, has landed.
    pub(super) fn place(&self, filter: &Arc<dyn PhysicalExpr>, at: Landing<'_>) -> Place {
        let Some(producer) = filter.expression_id().and_then(|id| self.0.get(&id)) else {
            return Place::Unknown;
        };
        if producer.unsound {
            return Place::Wrong;
        }
        let mut all_known = true;
        for (landed, expected) in filter.children().into_iter().zip(&producer.keys) {
            match (column_index(landed).and_then(|column| at.sources(column)), expected) {
                (Some(here), Some(expected)) if !here.iter().all(|source| expected.contains(source)) => {
                    return Place::Wrong;
                }
                (Some(_), Some(_)) => {}
                _ => all_known = false,
            }
        }
        // A key that is computed must be computed from the same columns, whatever is done with them.
        for (landed, expected) in filter.children().into_iter().zip(&producer.ingredients) {
            let Some(expected) = expected else { continue };
            let columns = collect_columns(landed);
            let mut here = columns.iter().filter_map(|column| at.ingredients(column.index())).flatten();
            if here.any(|source| !expected.contains(&source)) {
                return Place::Wrong;
            }
        }
        if all_known { Place::Right } else { Place::Unknown }
    }

    /// The share of a scan's `rows` that `filter` is expected to keep: the distinct keys of its build side among those of
    /// the scanned `columns`. `None` where nothing is known of the build side, or of a column while `guess` is false; else
    /// such a column is taken to be unique.
    pub(super) fn kept_share(
        &self,
        filter: &Arc<dyn PhysicalExpr>,
        (rows, columns): (f64, &[ColumnEstimate]),
        guess: bool,
    ) -> Option<f64> {
        let distinct = |key| {
            let column = column_index(key).and_then(|index| columns.get(index));
            let values = KeyValues::of_column(column, rows);
            (guess || !values.guessed).then_some(values.distinct)
        };
        let scanned: f64 = filter.children().into_iter().map(distinct).product::<Option<_>>()?;
        Some((self.build_keys(filter)? / scanned.min(rows).max(1.0)).min(1.0))
    }

    /// Distinct keys on the build side of the join that makes `filter`: it lets through that many of the column's values.
    pub(super) fn build_keys(&self, filter: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let build = self.build_side(filter)?;
        let distinct: f64 = build.keys.iter().map(|key| key.distinct).product();
        Some(distinct.min(build.rows).max(1.0))
    }

    /// The build side of the join that makes `filter`, as far as its rows can be estimated.
    pub(super) fn build_side(&self, filter: &Arc<dyn PhysicalExpr>) -> Option<&BuildSide> {
        self.0.get(&filter.expression_id()?)?.build.as_ref()
    }
}

/// Whether all aggregates are minima and maxima of columns.
///
/// The filter of `MIN(a), MAX(b)` drops rows that improve neither. DataFusion 55.2 makes it although another aggregate
/// of the same node, such as `MIN(c + 1)`, needs those rows.
fn only_min_max(node: &AggregateExec) -> bool {
    node.aggr_expr().iter().all(|aggregate| {
        let name = aggregate.fun().name();
        let columns = aggregate.expressions().iter().all(|argument| argument.is::<Column>());
        (name == "min" || name == "max") && columns
    })
}

fn build_side(join: &HashJoinExec, id: ScanId, known: Known<'_>) -> Option<BuildSide> {
    let build = estimate(join.left(), known)?;
    let keys = join.on().iter().map(|(key, _)| KeyValues::of(key, &build)).collect();
    Some(BuildSide { join: id, rows: build.rows, keys })
}
