//! The plan that computes a query from the answer to a broader one.
//!
//! ```text
//!   Projection        the query's columns, under their names
//!     Limit
//!       Sort          where the answer is not in the query's order
//!         Filter      having
//!           Aggregate where the query has other groups
//!             Filter  the conjuncts that do not follow from the answer's
//!               leaf  the rows of the answer
//! ```

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Limit, LogicalPlan, Projection, Sort, SortExpr, lit,
};

use super::super::leaf::leaf_with;
use super::compare::{Difference, Grain, compare};
use super::rewrite::{Columns, cannot_fail};
use super::rollup::Rollup;
use crate::fingerprint::{Refusal, Shape, Term};
use crate::operator::CachedResultExec;
use crate::store::CachedResult;

/// How a query is computed from an answer.
#[derive(Debug)]
pub(super) struct Compensation {
    /// With the answer as a leaf.
    pub(super) plan: LogicalPlan,
    /// Whether the rows have an order that no exchange may mix up, although nothing above asks for it.
    pub(super) in_order: bool,
    /// What is done, for people.
    pub(super) steps: Vec<String>,
}

/// `plan`, whose shape is `asked`, computed from `result`, an answer with the same source.
///
/// # Errors
/// Why it cannot be.
pub(super) fn compensate(
    result: &Arc<CachedResult>,
    asked: &Shape,
    plan: &LogicalPlan,
) -> Result<Compensation, Refusal> {
    let shaped = result.shape().ok_or_else(|| Refusal::new("broader shape", "the answer has no shape"))?;
    let kept = &shaped.shape;
    let difference = compare(kept, result.rows, asked)?;
    let columns = Columns::of(result.schema(), &kept.outputs)?;
    let conjuncts = conditions(&difference, kept, &columns)?;
    let written = match difference.grain {
        Grain::Same => Written::over_rows(asked, &difference, conjuncts, &columns)?,
        Grain::Rows | Grain::Groups => Written::over_groups(asked, &difference, conjuncts, &columns)?,
    };
    let steps = written.steps(asked, &difference);
    let leaf = CachedResultExec::named(Arc::clone(result), Arc::clone(&columns.names));
    let leaf = leaf_with(Arc::clone(&columns.schema), Arc::new(leaf), 0);
    let in_order = written.in_order || written.computes_behind_its_sort();
    let built = written.build(leaf, &difference, asked, plan);
    let built = built.map_err(|error| {
        Refusal::new("broader schema", format!("it has no plan: {}", error.strip_backtrace()))
    })?;
    let schemas = (built.schema().as_arrow(), plan.schema().as_arrow());
    if schemas.0 != schemas.1 {
        return Err(Refusal::new("broader schema", "the columns would have other types"));
    }
    Ok(Compensation { plan: built, in_order, steps })
}

/// The conjuncts that are left, over the answer's columns.
///
/// They are on rows of the source, and no aggregate stands in them. Where the answer has groups, they are found among its keys
/// or not at all: a condition on keys holds for all rows of a group or for none.
fn conditions(
    difference: &Difference<'_>,
    kept: &Shape,
    columns: &Columns<'_>,
) -> Result<Vec<Expr>, Refusal> {
    let mut conditions = Vec::with_capacity(difference.conjuncts.len());
    for conjunct in &difference.conjuncts {
        let condition = columns.rewrite(conjunct.expr()).map_err(|mut refusal| {
            refusal.kind = "broader filter";
            refusal
        })?;
        // One group may hold -0.0 and 0.0, and shows one of them.
        if kept.group.is_some() && columns.uses_floats(&condition) {
            return Err(Refusal::new("broader filter", format!("groups of floats: {}", conjunct.text())));
        }
        conditions.push(safe(conjunct, condition, &|expr| columns.type_of(expr))?);
    }
    Ok(conditions)
}

/// A condition that has a value for every row.
fn safe(term: &Term, condition: Expr, type_of: &impl Fn(&Expr) -> Option<DataType>) -> Result<Expr, Refusal> {
    match cannot_fail(&condition, type_of) {
        true => Ok(condition),
        false => Err(Refusal::new(
            "broader filter",
            format!("{} might fail for a row that the query does not look at", term.text()),
        )),
    }
}

/// The expressions of a query, over the columns of an answer or of its groups.
struct Written {
    /// What is left to be asked of the answer's rows.
    conjuncts: Vec<Expr>,
    /// Keys and aggregates, where the rows are grouped.
    groups: Option<(Vec<Expr>, Vec<Expr>)>,
    /// What is left to be asked of groups.
    having: Vec<Expr>,
    /// By what they are sorted; nothing, where the query has no order, or the answer is in it.
    order: Vec<SortExpr>,
    /// The query's columns.
    outputs: Vec<Expr>,
    /// Whether the rows are taken in the order in which the answer has them.
    in_order: bool,
}

impl Written {
    /// Of a query whose rows are rows of the answer.
    fn over_rows(
        asked: &Shape,
        difference: &Difference<'_>,
        conjuncts: Vec<Expr>,
        columns: &Columns<'_>,
    ) -> Result<Self, Refusal> {
        let mut having = Vec::with_capacity(difference.having.len());
        for term in &difference.having {
            let condition = columns.rewrite(term.expr())?;
            if columns.uses_float_keys(&condition) {
                return Err(Refusal::new("broader filter", format!("groups of floats: {}", term.text())));
            }
            having.push(safe(term, condition, &|expr| columns.type_of(expr))?);
        }
        let outputs = asked.outputs.iter().map(|term| columns.rewrite(term.expr()));
        let outputs = outputs.collect::<Result<_, _>>()?;
        let (order, in_order) = match ordered(asked, |expr| columns.rewrite(expr)) {
            Ok(order) => (order, false),
            Err(_) if difference.ordered => (Vec::new(), true),
            Err(refusal) => return Err(Refusal { kind: "broader order", ..refusal }),
        };
        Ok(Self { conjuncts, groups: None, having, order, outputs, in_order })
    }

    /// Of a query that groups the rows of the answer.
    fn over_groups(
        asked: &Shape,
        difference: &Difference<'_>,
        conjuncts: Vec<Expr>,
        columns: &Columns<'_>,
    ) -> Result<Self, Refusal> {
        let keys = asked.group.as_deref().unwrap_or_default();
        let mut rollup = Rollup::by(keys, columns, difference.grain)?;
        let outputs = asked.outputs.iter().map(|term| rollup.rewrite(term.expr()));
        let outputs = outputs.collect::<Result<_, _>>()?;
        let order = ordered(asked, |expr| rollup.rewrite(expr))?;
        let mut having = Vec::with_capacity(difference.having.len());
        for term in &difference.having {
            // They are looked at for the very groups that a plain plan looks at.
            having.push(rollup.rewrite(term.expr())?);
        }
        let groups = Some(rollup.into_exprs());
        Ok(Self { conjuncts, groups, having, order, outputs, in_order: false })
    }

    /// Whether something is computed of rows that are sorted already: DataFusion may put an exchange between the two, since it
    /// takes only the sort itself for the end of the query.
    fn computes_behind_its_sort(&self) -> bool {
        !self.order.is_empty() && self.outputs.iter().any(|output| !matches!(output, Expr::Column(_)))
    }

    /// What is done, in words.
    fn steps(&self, asked: &Shape, difference: &Difference<'_>) -> Vec<String> {
        let texts = |terms: &[&Term]| terms.iter().map(|term| term.text()).collect::<Vec<_>>().join(" AND ");
        let mut steps = Vec::new();
        if !self.conjuncts.is_empty() {
            steps.push(format!("filtered by {}", texts(&difference.conjuncts)));
        }
        if self.groups.is_some() {
            steps.push(if difference.grain == Grain::Rows { "grouped" } else { "rolled up" }.to_owned());
        }
        if !self.having.is_empty() {
            steps.push(format!("its groups filtered by {}", texts(&difference.having)));
        }
        if !self.order.is_empty() {
            steps.push("sorted".to_owned());
        }
        if asked.window.cuts() {
            steps.push("cut".to_owned());
        }
        if steps.is_empty() {
            steps.push("projected".to_owned());
        }
        steps
    }

    /// The whole plan, over `leaf`.
    ///
    /// The query's columns come last, behind the limit: what might fail for some row is computed of the rows that are given,
    /// as it is in a plain plan, and of no other.
    fn build(
        self,
        leaf: LogicalPlan,
        difference: &Difference<'_>,
        asked: &Shape,
        plan: &LogicalPlan,
    ) -> DataFusionResult<LogicalPlan> {
        let mut built = filtered(leaf, self.conjuncts)?;
        if let Some((keys, aggregates)) = self.groups {
            built = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(built), keys, aggregates)?);
        }
        built = filtered(built, self.having)?;
        let (skip, fetch) = (difference.skip, asked.window.fetch);
        if !self.order.is_empty() {
            let fetch = fetch.and_then(|fetch| fetch.checked_add(skip));
            built = LogicalPlan::Sort(Sort { expr: self.order, input: Arc::new(built), fetch });
        }
        if skip > 0 || fetch.is_some() {
            let number = |number: usize| Box::new(lit(i64::try_from(number).unwrap_or(i64::MAX)));
            built = LogicalPlan::Limit(Limit {
                skip: Some(number(skip)),
                fetch: fetch.map(number),
                input: Arc::new(built),
            });
        }
        // Columns of an answer may have one name: here each has a relation of its own, which an answer does not show.
        let fields = plan.schema().fields().iter().zip(self.outputs).enumerate();
        let outputs = fields
            .map(|(place, (field, expr))| expr.alias_qualified(Some(format!("c{place}")), field.name()));
        Ok(LogicalPlan::Projection(Projection::try_new(outputs.collect(), Arc::new(built))?))
    }
}

/// The query's order, over what `rewrite` writes its expressions over.
fn ordered(
    asked: &Shape,
    mut rewrite: impl FnMut(&Expr) -> Result<Expr, Refusal>,
) -> Result<Vec<SortExpr>, Refusal> {
    let keys = asked.order.iter();
    keys.map(|key| Ok(SortExpr::new(rewrite(key.term.expr())?, key.asc, key.nulls_first))).collect()
}

/// `plan` with a filter above it, where there is something to ask.
fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> DataFusionResult<LogicalPlan> {
    match conjunction(conditions) {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)),
        None => Ok(plan),
    }
}
