//! Compacts strings below the operators that keep all their rows, where they may hold much more than they use.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, JoinType, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};

use super::estimate::{Known, estimate};
use super::lineage::ScanId;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{NullSupplyingExec, compact_views, has_views};

type Plan = Arc<dyn ExecutionPlan>;

/// Puts [`compact_views`] between an operator that keeps its rows and an input whose strings may be loose.
///
/// ```text
///   HashJoinExec                       HashJoinExec
///     HashJoinExec (rows and strings)    CompactViewsExec
///       …                           ─►     HashJoinExec
///     DataSourceExec                     DataSourceExec
/// ```
///
/// | keeps rows | strings are loose |
/// |---|---|
/// | build sides of hash, nested-loop and cross joins | that come from the build side of a join, where that has more than one batch or is a join itself: each batch of the join lists the buffers of all |
/// | a sort without a limit, which counts each batch's buffers in full, and spills by that | that a Parquet reader has filtered: a batch holds all pages that it has rows of |
///
/// What keeps no input buffers gets none: aggregates copy their keys, a top-k sort compacts itself. Nor do inputs whose
/// strings were filtered by a `FilterExec` alone: it compacts rows that are few, and rows that are many waste little.
///
/// Refuses where no such operator has such an input. Whether a batch is copied is decided when it is there.
#[derive(Debug, Default)]
pub(crate) struct CompactViews;

impl PhysicalRule for CompactViews {
    fn name(&self) -> &'static str {
        "compact_views"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.compact_views_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let mut rewriter = Rewriter {
            batch_rows: config.execution.batch_size.get() as f64,
            spreading: HashMap::new(),
            places: Vec::new(),
        };
        let rewritten = rewriter.rewrite(&plan)?;
        if rewriter.places.is_empty() {
            let reason = "no operator that keeps its rows has an input with loose strings";
            return Ok(Rewrite::refused(plan, reason));
        }
        Ok(Rewrite::applied(rewritten, format!("strings compacted for {}", rewriter.places.join(", "))))
    }
}

struct Rewriter {
    batch_rows: f64,
    /// The build sides of which a join's batches list many buffers, by their addresses.
    spreading: HashMap<ScanId, bool>,
    /// The operators that got a new input.
    places: Vec<String>,
}

impl Rewriter {
    fn rewrite(&mut self, plan: &Plan) -> Result<Plan> {
        let keeper = keeps_first_input(plan);
        let mut children = Vec::new();
        for (index, child) in plan.children().into_iter().enumerate() {
            let rewritten = self.rewrite(child)?;
            let loose = keeper && index == 0 && self.has_loose(child);
            children.push(if loose { compact_views(rewritten) } else { rewritten });
            if loose {
                self.places.push(plan.name().trim_end_matches("Exec").to_owned());
            }
        }
        replace_children_if_necessary(Arc::clone(plan), children)
    }

    /// Whether any string of `plan`'s rows may be loose.
    fn has_loose(&mut self, plan: &Plan) -> bool {
        let schema = plan.schema();
        let views = (0..schema.fields().len()).filter(|index| has_views(schema.field(*index).data_type()));
        !plan.boundedness().is_unbounded() && views.into_iter().any(|index| self.is_loose(plan, index))
    }

    /// Whether the views of column `index` may point into buffers of which little is used. Where nothing is known of
    /// a node, they do not.
    fn is_loose(&mut self, plan: &Plan, index: usize) -> bool {
        if plan.children().is_empty() {
            return filters_in_reader(plan);
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            return projection.expr().get(index).is_some_and(|projected| {
                columns(&projected.expr).into_iter().any(|index| self.is_loose(projection.input(), index))
            });
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            let kept = filter.projection().as_ref().map_or(Some(index), |kept| kept.get(index).copied());
            return kept.is_some_and(|index| self.is_loose(filter.input(), index));
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            return self.of_join(
                *join.join_type(),
                join.projection.as_deref(),
                [join.left(), join.right()],
                index,
            );
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let projection = join.projection().as_deref();
            return self.of_join(*join.join_type(), projection, [join.left(), join.right()], index);
        }
        if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
            return self.of_join(JoinType::Inner, None, [join.left(), join.right()], index);
        }
        if plan.is::<UnionExec>() {
            return plan.children().into_iter().any(|input| self.is_loose(input, index));
        }
        hands_on(plan) && plan.children().first().is_some_and(|input| self.is_loose(input, index))
    }

    /// Rows of the build (left) side list all of its buffers; rows of the probe side, those of their own batch.
    fn of_join(
        &mut self,
        join_type: JoinType,
        projection: Option<&[usize]>,
        [left, right]: [&Plan; 2],
        index: usize,
    ) -> bool {
        let Some(index) = projection.map_or(Some(index), |kept| kept.get(index).copied()) else {
            return false;
        };
        let left_width = left.schema().fields().len();
        let (side, index) = match join_type {
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (JoinSide::Right, index),
            _ if index < left_width => (JoinSide::Left, index),
            _ => (JoinSide::Right, index - left_width),
        };
        match side {
            JoinSide::Left => self.spreads(left),
            _ => self.is_loose(right, index),
        }
    }

    /// Whether `build` has, or may have, more than one batch: then each of the join's batches lists the buffers of all.
    ///
    /// An estimate above joins is too rough to tell one batch from three, and through a chain of joins lists grow by the
    /// power of it.
    fn spreads(&mut self, build: &Plan) -> bool {
        let batch_rows = self.batch_rows;
        let joins = |node: &Plan| Ok(node.is::<HashJoinExec>() || node.is::<NestedLoopJoinExec>());
        let spreads = || {
            build.exists(joins).unwrap_or(true)
                || estimate(build, Known::nothing()).is_none_or(|estimate| estimate.rows > batch_rows)
        };
        *self.spreading.entry(ScanId::of(build)).or_insert_with(spreads)
    }
}

/// Operators that hold all rows of their first input until they end.
///
/// A hash exchange is none of them: its coalescer compacts what it holds, and its channels are short. A top-k sort holds
/// few rows, an aggregate copies its keys into memory of its own. Windows take sorted input, behind such a sort.
fn keeps_first_input(plan: &Plan) -> bool {
    plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
        || plan.downcast_ref::<SortExec>().is_some_and(|sort| sort.fetch().is_none())
}

/// Nodes that hand their only input's columns on, each at its place.
fn hands_on(plan: &Plan) -> bool {
    plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<NullSupplyingExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
}

/// Whether `plan` scans Parquet files and drops rows while it reads.
fn filters_in_reader(plan: &Plan) -> bool {
    let scan = plan.downcast_ref::<DataSourceExec>();
    let parquet = scan.and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>);
    parquet.is_some_and(|(_, source)| {
        source.filter().is_some() && source.table_parquet_options().global.pushdown_filters
    })
}

/// The columns that `expr` reads: functions such as `substr` give views into their argument's buffers.
fn columns(expr: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    let mut found = Vec::new();
    // The closure never fails.
    let _ = expr.apply(|node| {
        found.extend(node.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
