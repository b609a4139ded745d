//! Which plans may be used again.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{
    Expr, LogicalPlan, Signature, TableScan, Volatility, WindowFunctionDefinition,
};

use super::tables::NamedTable;
use crate::fingerprint::Refusal;
use crate::store::version::TableVersions;

/// Whether the optimized form of `plan` is the same at each planning, as long as its environment and `tables` are.
///
/// `plan` is the one *before* DataFusion's optimizer: that puts values in the place of functions, and `now()` in a plan that
/// is used again would be the time of its first use.
///
/// # Errors
/// Why it may be another.
pub(crate) fn admit(
    plan: &LogicalPlan,
    tables: &[NamedTable],
    declared: &[Arc<dyn TableVersions>],
) -> Result<(), Refusal> {
    let mut known = Known::of(tables, declared);
    until_refused(
        |look| plan.apply_with_subqueries(look),
        |node| {
            known.views.retain(|view| !is_definition(view.as_ref(), node));
            node_of(node, &known).and_then(|()| exprs_of(node))
        },
    )?;
    match known.views.is_empty() {
        true => Ok(()),
        false => Err(Refusal::new("changed", "a view was changed while the statement was planned")),
    }
}

/// Shows `look` all that `walk` comes to, until it refuses something.
fn until_refused<T>(
    walk: impl FnOnce(&mut dyn FnMut(&T) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion>,
    mut look: impl FnMut(&T) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut refusal = None;
    let walked = walk(&mut |at| {
        refusal = look(at).err();
        Ok(match refusal {
            None => TreeNodeRecursion::Continue,
            Some(_) => TreeNodeRecursion::Stop,
        })
    });
    match (refusal, walked) {
        (Some(refusal), _) => Err(refusal),
        (None, Err(error)) => Err(failed(&error)),
        (None, Ok(_)) => Ok(()),
    }
}

/// Whether `node` is what a scan of `view` was replaced by.
fn is_definition(view: &dyn TableProvider, node: &LogicalPlan) -> bool {
    let LogicalPlan::SubqueryAlias(alias) = node else { return false };
    view.downcast_ref::<ViewTable>().is_some_and(|view| view.logical_plan() == alias.input.as_ref())
}

/// What may be scanned: the tables that the statement names, and those of the views among them.
struct Known<'a> {
    providers: Vec<Arc<dyn TableProvider>>,
    /// Views that were not found in the plan yet. Each is in it, by its definition, or the plan is of an older one.
    views: Vec<Arc<dyn TableProvider>>,
    declared: &'a [Arc<dyn TableVersions>],
}

impl<'a> Known<'a> {
    fn of(tables: &[NamedTable], declared: &'a [Arc<dyn TableVersions>]) -> Self {
        let mut providers = Vec::with_capacity(tables.len());
        let mut views = Vec::new();
        for provider in tables.iter().filter_map(NamedTable::provider) {
            if let Some(view) = provider.downcast_ref::<ViewTable>() {
                // A view's definition has its views in their definitions already.
                let _ = view.logical_plan().apply_with_subqueries(|node| {
                    if let LogicalPlan::TableScan(scan) = node {
                        providers.extend(source_as_provider(&scan.source).ok());
                    }
                    Ok(TreeNodeRecursion::Continue)
                });
                views.push(Arc::clone(&provider));
            }
            providers.push(provider);
        }
        Self { providers, views, declared }
    }

    /// Tables whose columns, filters and definition do not change while they are the same object; and tables whose owner
    /// declares their versions, who knows what a table is.
    fn scan(&self, scan: &TableScan) -> Result<(), Refusal> {
        let refused = |why: &str| Err(Refusal::new("table", format!("table {} {why}", scan.table_name)));
        let Ok(provider) = source_as_provider(&scan.source) else {
            return refused("is of a kind of its own");
        };
        if !self.providers.iter().any(|known| Arc::ptr_eq(known, &provider)) {
            return refused("comes from no catalog, or has changed while it was planned");
        }
        let lasting = provider.is::<MemTable>()
            || provider.is::<ListingTable>()
            || provider.is::<ViewTable>()
            || provider.is::<EmptyTable>();
        match lasting || self.declared.iter().any(|by| by.table(provider.as_ref()).is_some()) {
            true => Ok(()),
            false => refused("is of a kind that may be planned in another way each time"),
        }
    }
}

fn node_of(node: &LogicalPlan, known: &Known<'_>) -> Result<(), Refusal> {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Unnest(_) => Ok(()),
        LogicalPlan::TableScan(scan) => known.scan(scan),
        LogicalPlan::Extension(_) => Err(Refusal::new("plan", "an extension node may do anything")),
        LogicalPlan::RecursiveQuery(_) => Err(Refusal::new("plan", "recursive queries are not on the list")),
        _ => Err(Refusal::new("plan", "only plans of queries are kept")),
    }
}

fn exprs_of(node: &LogicalPlan) -> Result<(), Refusal> {
    until_refused(|look| node.apply_expressions(|expr| expr.apply(&mut *look)), expr_of)
}

/// An expression that is the same at each planning. One that is not known to be is refused, where it is not made of others:
/// those are looked at themselves.
fn expr_of(expr: &Expr) -> Result<(), Refusal> {
    match expr {
        Expr::ScalarFunction(call) => lasting(call.func.name(), call.func.signature()),
        Expr::AggregateFunction(call) => lasting(call.func.name(), call.func.signature()),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                lasting(function.name(), function.signature())
            }
            WindowFunctionDefinition::WindowUDF(function) => lasting(function.name(), function.signature()),
        },
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => {
            Err(Refusal::new("expression", "functions of functions are not on the list"))
        }
        Expr::ScalarVariable(..) => Err(Refusal::new("expression", "a session variable may change")),
        Expr::Placeholder(_) => Err(Refusal::new("expression", "a parameter has no value")),
        _ => Ok(()),
    }
}

fn lasting(name: &str, signature: &Signature) -> Result<(), Refusal> {
    match signature.volatility {
        Volatility::Immutable => Ok(()),
        Volatility::Stable | Volatility::Volatile => {
            Err(Refusal::new("function", format!("{name}() has another value in another statement")))
        }
    }
}

fn failed(error: &DataFusionError) -> Refusal {
    Refusal::new("plan", format!("its plan cannot be walked: {}", error.strip_backtrace()))
}
