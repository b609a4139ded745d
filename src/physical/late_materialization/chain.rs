//! What stands between a sort and the scan of its rows, in terms of the scan's columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use crate::physical::lineage::column_index;

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;

/// The nodes from a scan up to a sort. Projections are none of them: they are in the expressions.
///
/// ```text
///   ProjectionExec: b@1 + 1 as c, a@0 as a      outputs    = [b@4 + 1, a@2]
///     FilterExec: a@0 > 7, projection=[a, b] ─► steps      = [Filter(a@2 > 7), Moves(RoundRobin)]
///       RepartitionExec: RoundRobin             scan       = …, a at 2, b at 4
///         DataSourceExec
/// ```
#[derive(Debug)]
pub(super) struct Chain {
    /// A `DataSourceExec` of Parquet files.
    pub(super) scan: Plan,
    /// From the scan upwards.
    steps: Vec<Step>,
    /// What the uppermost node puts out, of the scan's columns.
    pub(super) outputs: Vec<Expr>,
}

#[derive(Debug)]
enum Step {
    /// A filter by a predicate of the scan's columns.
    Filter { predicate: Expr, selectivity: u8, batch_rows: usize },
    /// A node that moves rows between partitions, whatever their columns.
    Moves(Plan),
}

impl Chain {
    /// The chain below a sort's input; `Err` is the reason for which there is none.
    pub(super) fn follow(plan: &Plan) -> Result<std::result::Result<Self, String>> {
        if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
            if scan.downcast_to_file_source::<ParquetSource>().is_none() {
                return Ok(Err("the rows are not scanned from Parquet files".to_owned()));
            }
            let schema = plan.schema();
            let column = |(index, field): (usize, &Arc<_>)| -> Expr { column(field, index) };
            let outputs = schema.fields().iter().enumerate().map(column).collect();
            return Ok(Ok(Self { scan: Arc::clone(plan), steps: Vec::new(), outputs }));
        }
        let input = plan.children().into_iter().next().filter(|_| hands_on(plan));
        let Some(input) = input else {
            return Ok(Err(format!("{} stands between the scan and the sort", plan.name())));
        };
        match Self::follow(input)? {
            Ok(chain) => chain.with(plan).map(Ok),
            refused => Ok(refused),
        }
    }

    /// This chain with `node`, which [`hands_on`], on top.
    fn with(mut self, node: &Plan) -> Result<Self> {
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let exprs = projection.expr().iter().map(|projected| substitute(&projected.expr, &self.outputs));
            self.outputs = exprs.collect::<Result<_>>()?;
        } else if let Some(filter) = node.downcast_ref::<FilterExec>() {
            self.steps.push(Step::Filter {
                predicate: substitute(filter.predicate(), &self.outputs)?,
                selectivity: filter.default_selectivity(),
                batch_rows: filter.batch_size(),
            });
            if let Some(kept) = filter.projection().as_ref() {
                self.outputs = kept.iter().filter_map(|index| self.outputs.get(*index).cloned()).collect();
            }
        } else {
            self.steps.push(Step::Moves(Arc::clone(node)));
        }
        Ok(self)
    }

    /// The predicates of its filters.
    pub(super) fn predicates(&self) -> impl Iterator<Item = &Expr> {
        self.steps.iter().filter_map(|step| match step {
            Step::Filter { predicate, .. } => Some(predicate),
            Step::Moves(_) => None,
        })
    }

    /// The same nodes over `scan`, which has the columns that `columns` stand for.
    pub(super) fn over(&self, scan: Plan, columns: &[Expr]) -> Result<Plan> {
        self.steps.iter().try_fold(scan, |input, step| match step {
            Step::Filter { predicate, selectivity, batch_rows } => {
                let filter = FilterExecBuilder::new(substitute(predicate, columns)?, input)
                    .with_default_selectivity(*selectivity)
                    .with_batch_size(*batch_rows)
                    .build()?;
                Ok(Arc::new(filter) as Plan)
            }
            Step::Moves(node) => replace_children_if_necessary(Arc::clone(node), vec![input]),
        })
    }
}

/// Nodes that give each of their input's rows at most once, whole or in parts.
///
/// Aggregates, joins, windows and unnests make new rows, which no row number names. A limit keeps rows by their arrival,
/// and a second reading of the same plan would keep others. A hash exchange is not put below a sort with a limit.
fn hands_on(plan: &Plan) -> bool {
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_));
    }
    plan.fetch().is_none()
        && (plan.is::<ProjectionExec>()
            || plan.is::<FilterExec>()
            || plan.is::<CoalescePartitionsExec>()
            || plan.is::<CooperativeExec>())
}

/// A reference to a column.
pub(super) fn column(field: &datafusion::arrow::datatypes::Field, index: usize) -> Expr {
    Arc::new(Column::new(field.name(), index))
}

/// `expr` with each column replaced by the expression that stands at its place.
///
/// # Errors
/// Where there is none, which would be a defect of the plan.
pub(super) fn substitute(expr: &Expr, columns: &[Expr]) -> Result<Expr> {
    Arc::clone(expr)
        .transform_down(|node| {
            let Some(index) = column_index(&node) else {
                return Ok(Transformed::no(node));
            };
            match columns.get(index) {
                // What is put in has columns of its own, which stay.
                Some(replaced) => Ok(Transformed::new(Arc::clone(replaced), true, TreeNodeRecursion::Jump)),
                None => internal_err!("{expr} has no column {index}"),
            }
        })
        .data()
}
