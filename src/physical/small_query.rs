//! How much work a plan is at most, as far as statistics tell: whether it is over before a second core could help.
//!
//! Work is counted in rows: those that scans give, those that joins bring together, and several for each call of a function.
//! A plan that nobody can say this of is not small: a node or a function that is not known here, an input that does not know
//! its rows, a join by values of which it is not known how often each occurs.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{Column, LikeExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::estimate::{Known, estimate_leaf};
use crate::operator::NullSupplyingExec;

/// Rows that are handled in the time of one call of a function, and of one comparison with a pattern.
const CALL: f64 = 8.0;
const LIKE: f64 = 2.0;

/// Bytes that take as long to read as a narrow row, and how much longer text takes.
const WIDTH: f64 = 32.0;
const TEXT: f64 = 2.0;

/// What a node gives at most.
struct Output {
    rows: f64,
    /// Of each column, how many rows have the same value, on average.
    repeats: Vec<f64>,
}

/// Adds up the work of a plan.
struct Work<'a> {
    rows: f64,
    limit: f64,
    known: Known<'a>,
}

type Unknown = Cow<'static, str>;

/// The rows that `plan` handles at most, as DataFusion's planner made it, before any rule has seen it; or why it is not known
/// to be at most `limit` of them.
pub(crate) fn rows_handled(
    plan: &dyn ExecutionPlan,
    limit: usize,
    config: &ConfigOptions,
) -> Result<f64, Unknown> {
    let mut work = Work { rows: 0.0, limit: limit as f64, known: Known::of(config) };
    work.of(plan)?;
    Ok(work.rows)
}

impl Work<'_> {
    /// Adds the work of `node` and of all below it.
    fn of(&mut self, node: &dyn ExecutionPlan) -> Result<Output, Unknown> {
        let children = node.children();
        let output = match children.as_slice() {
            [] => {
                let leaf = estimate_leaf(node, self.known)
                    .ok_or_else(|| format!("{} does not know its rows", node.name()))?;
                let schema = node.schema();
                let columns = leaf.columns.iter().zip(schema.fields());
                let weight = |of: &DataType| if of.is_primitive() { 1.0 } else { TEXT };
                let width: f64 =
                    columns.map(|(column, field)| column.bytes * weight(field.data_type())).sum();
                self.add(leaf.rows * (width / WIDTH).max(1.0))?;
                let repeats = leaf.columns.iter().map(|column| match column.guessed {
                    true => leaf.rows,
                    false => leaf.rows / column.distinct.max(1.0),
                });
                Output { rows: leaf.rows, repeats: repeats.collect() }
            }
            [input] => {
                let input = self.of(input.as_ref())?;
                self.of_calls(node, input.rows)?;
                through(node, input).ok_or_else(|| unknown(node))?
            }
            [main, subqueries @ ..] if node.is::<ScalarSubqueryExec>() => {
                let output = self.of(main.as_ref())?;
                subqueries.iter().try_for_each(|subquery| self.of(subquery.as_ref()).map(drop))?;
                output
            }
            inputs if node.is::<UnionExec>() => {
                let rows = inputs.iter().map(|input| Ok(self.of(input.as_ref())?.rows));
                let rows: f64 = rows.sum::<Result<f64, Unknown>>()?;
                Output { rows, repeats: vec![rows; node.schema().fields().len()] }
            }
            [left, right] => {
                let (left, right) = (self.of(left.as_ref())?, self.of(right.as_ref())?);
                self.of_calls(node, left.rows + right.rows)?;
                self.of_join(node, &left, &right)?
            }
            _ => return Err(unknown(node)),
        };
        match output.repeats.len() == node.schema().fields().len() {
            true => Ok(output),
            false => Err(unknown(node)),
        }
    }

    fn add(&mut self, rows: f64) -> Result<(), Unknown> {
        self.rows += rows;
        match self.rows <= self.limit {
            true => Ok(()),
            false => Err(format!("it may handle more than {} rows", self.limit).into()),
        }
    }

    /// The functions that `node` calls for each of `rows`.
    fn of_calls(&mut self, node: &dyn ExecutionPlan, rows: f64) -> Result<(), Unknown> {
        let mut calls = 0.0;
        let mut foreign = None;
        let walked = node.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
            expr.apply(|expr| {
                if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
                    calls += CALL;
                    if !is_datafusions(call.fun().name()) {
                        foreign = Some(call.fun().name().to_owned());
                    }
                } else if expr.is::<LikeExpr>() {
                    calls += LIKE;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        match foreign {
            Some(name) => Err(format!("nobody knows how long {name}() takes").into()),
            None if walked.is_err() => Err(unknown(node)),
            None => self.add(calls * rows),
        }
    }

    fn of_join(
        &mut self,
        node: &dyn ExecutionPlan,
        left: &Output,
        right: &Output,
    ) -> Result<Output, Unknown> {
        let mut pairs = left.rows * right.rows;
        let (mut of_left, mut of_right) = (right.rows, left.rows);
        let mut projection = None;
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            for (on_left, on_right) in join.on() {
                of_left = of_left.min(repeats(on_right, right));
                of_right = of_right.min(repeats(on_left, left));
            }
            // Outer joins give rows without a partner, too.
            of_left = of_left.max(1.0);
            of_right = of_right.max(1.0);
            pairs = (left.rows * of_left).min(right.rows * of_right).max(left.rows).max(right.rows);
            projection = join.projection.as_deref();
        } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            projection = join.projection().as_deref();
        } else if !node.is::<CrossJoinExec>() {
            return Err(unknown(node));
        }
        self.add(pairs)?;
        let width = node.schema().fields().len();
        let left_repeats = left.repeats.iter().map(|repeats| repeats * of_left);
        let right_repeats = right.repeats.iter().map(|repeats| repeats * of_right);
        let all: Vec<f64> = left_repeats.chain(right_repeats).map(|repeats| repeats.min(pairs)).collect();
        let repeats = match projection {
            Some(projection) => {
                projection.iter().map(|index| all.get(*index).copied().unwrap_or(pairs)).collect()
            }
            None if all.len() == width => all,
            // Semi, anti and mark joins give the rows of one side.
            None => vec![pairs; width],
        };
        Ok(Output { rows: pairs, repeats })
    }
}

/// How many rows of `input` have the same value of `key`.
fn repeats(key: &Arc<dyn PhysicalExpr>, input: &Output) -> f64 {
    let column = key.downcast_ref::<Column>();
    column.and_then(|column| input.repeats.get(column.index()).copied()).unwrap_or(input.rows)
}

/// What `node` gives of the rows of its only input; `None` where that is not known.
fn through(node: &dyn ExecutionPlan, input: Output) -> Option<Output> {
    let rows = input.rows;
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let repeats = projection.expr().iter().map(|item| repeats(&item.expr, &input)).collect();
        return Some(Output { rows, repeats });
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let Some(projection) = filter.projection() else { return Some(input) };
        let repeats = projection.iter().map(|index| input.repeats.get(*index).copied());
        return Some(Output { rows, repeats: repeats.collect::<Option<_>>()? });
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let keys = aggregate.group_expr().expr();
        // One row for each combination of them: alone, each value of a key once.
        let key = |expr| if keys.len() == 1 { 1.0 } else { repeats(expr, &input) };
        let mut columns: Vec<f64> = keys.iter().map(|(expr, _)| key(expr)).collect();
        columns.resize(node.schema().fields().len(), rows);
        return Some(Output { rows, repeats: columns });
    }
    let keeps = node.is::<SortExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<NullSupplyingExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>();
    keeps.then_some(input)
}

fn unknown(node: &dyn ExecutionPlan) -> Unknown {
    format!("it has a {}", node.name()).into()
}

/// Whether a function of this name comes with DataFusion, and takes no longer than those do.
fn is_datafusions(name: &str) -> bool {
    static OWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
        SessionStateDefaults::default_scalar_functions()
            .iter()
            .map(|function| function.name().to_owned())
            .collect()
    });
    OWN.contains(name)
}
