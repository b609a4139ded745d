//! Arithmetic on decimals without a check for each value.
//!
//! The rule changes no plan's shape: expressions of projections, conditions of filters and arguments of aggregates become
//! others with the same values and the same picture. When 64 bits are enough is decided while the query runs, from the rows at hand.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::intervals::utils::check_support;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::narrow_decimals;

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;

/// Replaces products of decimals (of 128 bits) in projections, filters and the arguments of aggregates by expressions that
/// are computed as one, in 64 bits where these are enough.
///
/// Refuses where no decimals are multiplied, for volatile operands, in aggregates that need an order, and in a node of
/// which DataFusion would know less than before: orders and constants that it has found by comparing expressions, and
/// selectivities that it has found by taking them apart.
#[derive(Debug, Default)]
pub(crate) struct NarrowDecimals;

impl PhysicalRule for NarrowDecimals {
    fn name(&self) -> &'static str {
        "narrow_decimals"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.narrow_decimals_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Plan, _config: &ConfigOptions) -> Result<Rewrite> {
        let mut rewriter = Rewriter::default();
        let rewritten = Arc::clone(&plan).transform_up(|node| rewriter.node(node)).data()?;
        Ok(match rewriter {
            Rewriter { narrowed: 0, kept: 0, .. } => {
                Rewrite::refused(plan, "no projection, filter or aggregate multiplies decimals")
            }
            Rewriter { narrowed: 0, .. } => {
                Rewrite::refused(plan, "the products of decimals are known to be ordered or constant")
            }
            Rewriter { narrowed, .. } => Rewrite::applied(rewritten, format!("{narrowed} expressions")),
        })
    }
}

/// Goes over the nodes of one plan.
#[derive(Default)]
struct Rewriter {
    /// Expressions that were replaced.
    narrowed: usize,
    /// Expressions that could have been.
    kept: usize,
}

impl Rewriter {
    /// The node with its own expressions replaced.
    fn node(&mut self, node: Plan) -> Result<Transformed<Plan>> {
        let new = if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            self.projection(projection)?
        } else if let Some(filter) = node.downcast_ref::<FilterExec>() {
            self.filter(filter)?
        } else if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            self.aggregate(aggregate)?
        } else {
            None
        };
        Ok(new.map_or_else(|| Transformed::no(node), Transformed::yes))
    }

    /// The projection, unless an order or a constant is known by an expression that would no longer be found.
    fn projection(&mut self, projection: &ProjectionExec) -> Result<Option<Plan>> {
        let schema = projection.input().schema();
        let mut count = 0;
        let items = projection.expr().iter().map(|item| {
            let expr = narrowed(&item.expr, &schema, &mut count)?;
            Ok(ProjectionExpr::new(expr, item.alias.clone()))
        });
        let items = items.collect::<Result<Vec<_>>>()?;
        if count == 0 {
            return Ok(None);
        }
        let input = Arc::clone(projection.input());
        let new = ProjectionExec::try_new_with_schema_metadata(items, input, &projection.schema())?;
        if !knows_the_same(projection, &new) {
            self.kept += count;
            return Ok(None);
        }
        self.narrowed += count;
        Ok(Some(Arc::new(new)))
    }

    /// The filter, unless something is known by its condition: a constant, or what a range keeps.
    fn filter(&mut self, filter: &FilterExec) -> Result<Option<Plan>> {
        let schema = filter.input().schema();
        let mut count = 0;
        let predicate = narrowed(filter.predicate(), &schema, &mut count)?;
        if count == 0 {
            return Ok(None);
        }
        let new = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
        if check_support(filter.predicate(), &schema) || !knows_the_same(filter, &new) {
            self.kept += count;
            return Ok(None);
        }
        self.narrowed += count;
        Ok(Some(Arc::new(new)))
    }

    /// The aggregate with other arguments. What is known of its rows does not depend on them.
    fn aggregate(&mut self, aggregate: &AggregateExec) -> Result<Option<Plan>> {
        if aggregate.mode().input_mode() != AggregateInputMode::Raw {
            // These have states for arguments, whatever their expressions say.
            return Ok(None);
        }
        let schema = aggregate.input_schema();
        let mut count = 0;
        let functions = aggregate.aggr_expr().iter().map(|function| {
            let arguments = function.expressions();
            let mut found = 0;
            let arguments = arguments.iter().map(|argument| narrowed(argument, &schema, &mut found));
            let arguments = arguments.collect::<Result<Vec<_>>>()?;
            let new = if found == 0 { None } else { with_arguments(function, arguments) };
            Ok(match new {
                Some(new) => {
                    count += found;
                    Arc::new(new)
                }
                None => Arc::clone(function),
            })
        });
        let functions = functions.collect::<Result<Vec<_>>>()?;
        self.narrowed += count;
        Ok((count > 0).then(|| Arc::new(aggregate.with_new_aggr_exprs(functions)) as Plan))
    }
}

/// `function` of other arguments, where they are all that it depends on.
fn with_arguments(function: &AggregateFunctionExpr, arguments: Vec<Expr>) -> Option<AggregateFunctionExpr> {
    // DataFusion forgets of a reversed function that it is one.
    if function.is_reversed() || !function.order_bys().is_empty() {
        return None;
    }
    function.with_new_expressions(arguments, vec![])
}

/// `expr`, or what is computed in its place, which is counted.
fn narrowed(expr: &Expr, schema: &Schema, count: &mut usize) -> Result<Expr> {
    Ok(match narrow_decimals(expr, schema)? {
        Some(narrowed) => {
            *count += 1;
            narrowed
        }
        None => Arc::clone(expr),
    })
}

/// Whether the same orders, partitions and equal columns are known of two nodes.
fn knows_the_same(old: &dyn ExecutionPlan, new: &dyn ExecutionPlan) -> bool {
    // A picture, since unknown partitionings are never equal.
    let known = |node: &dyn ExecutionPlan| {
        let properties = node.properties();
        let equivalences = properties.equivalence_properties();
        let partitioning = properties.output_partitioning().to_string();
        (equivalences.oeq_class().clone(), equivalences.eq_group().to_vec(), partitioning)
    };
    old.schema() == new.schema() && known(old) == known(new)
}
