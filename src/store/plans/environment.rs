//! Everything of a session that a logical plan is made with, but for the tables: settings, functions, rules.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ptr::addr_eq;
use std::sync::{Arc, LazyLock, Weak};

use datafusion::catalog::TableFunction;
use datafusion::execution::SessionState;
use datafusion::functions::all_default_functions;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};
use datafusion::optimizer::analyzer::{Analyzer, AnalyzerRule};
use datafusion::optimizer::{Optimizer, OptimizerRule};

use crate::fingerprint::Refusal;

/// What a session plans with, by identity.
///
/// Everything is held weakly, which keeps an address from being given to another object and holds nothing of the session.
/// Registries are compared whole, names and objects, whether a plan uses them or not: a rule may look a function up by its
/// name, and a name may come to mean another kind of function. Copies of a session's state have their entries in the same
/// order; a registry in another order is taken for another one, which costs planning once more.
#[derive(Debug)]
pub(crate) struct Environment {
    settings: Arc<str>,
    scalar: Registry<ScalarUDF>,
    remade: Box<[Arc<ScalarUDF>]>,
    aggregate: Registry<AggregateUDF>,
    window: Registry<WindowUDF>,
    higher_order: Registry<HigherOrderUDF>,
    table: Registry<TableFunction>,
    analyzer_rules: Objects<dyn AnalyzerRule + Send + Sync>,
    optimizer_rules: Objects<dyn OptimizerRule + Send + Sync>,
    expr_planners: Objects<dyn ExprPlanner>,
}

impl Environment {
    /// What `state` plans with; `settings` are the text of its settings.
    ///
    /// # Errors
    /// It has rules or planners of its owner's, which may do something else each time.
    pub(crate) fn of(state: &SessionState, settings: Arc<str>) -> Result<Self, Refusal> {
        has_datafusions_rules(state)?;
        Ok(Self {
            settings,
            scalar: Registry::of(state.scalar_functions()),
            remade: remade(state),
            aggregate: Registry::of(state.aggregate_functions()),
            window: Registry::of(state.window_functions()),
            higher_order: Registry::of(state.higher_order_functions()),
            table: Registry::of(state.table_functions()),
            analyzer_rules: Objects::of(&state.analyzer().rules),
            optimizer_rules: Objects::of(state.optimizers()),
            expr_planners: Objects::of(state.expr_planners()),
        })
    }

    /// Whether `state`, with settings of this text, plans with the same.
    pub(crate) fn is_of(&self, state: &SessionState, settings: &str) -> bool {
        *self.settings == *settings
            && self.analyzer_rules.are(&state.analyzer().rules)
            && self.optimizer_rules.are(state.optimizers())
            && self.expr_planners.are(state.expr_planners())
            && has_datafusions_rules(state).is_ok()
            && self.scalar.is(state.scalar_functions(), |name, now| self.is_remade(name, now))
            && self.aggregate.is(state.aggregate_functions(), |_, _| false)
            && self.window.is(state.window_functions(), |_, _| false)
            && self.higher_order.is(state.higher_order_functions(), |_, _| false)
            && self.table.is(state.table_functions(), |_, _| false)
    }

    /// Whether `now` is what `SET` made of the function that was called `name`.
    fn is_remade(&self, name: &str, now: &ScalarUDF) -> bool {
        let mut known = self.remade.iter();
        known.any(|known| {
            (known.name() == name || known.aliases().iter().any(|alias| alias == name)) && **known == *now
        })
    }
}

/// The functions of DataFusion's in `state` that `SET` makes anew each time, whatever is set, since they hold settings: other
/// objects then, but the same functions where what they hold is the same, as their equality says. That is known of
/// DataFusion's own types alone.
fn remade(state: &SessionState) -> Box<[Arc<ScalarUDF>]> {
    let kind = |function: &ScalarUDF| {
        let function: &dyn Any = function.inner().as_ref();
        function.type_id()
    };
    let options = state.config_options();
    let own: Vec<TypeId> = all_default_functions()
        .iter()
        .filter(|function| function.inner().with_updated_config(options).is_some())
        .map(|function| kind(function))
        .collect();
    state
        .scalar_functions()
        .values()
        .filter(|function| own.contains(&kind(function)))
        .map(Arc::clone)
        .collect()
}

/// DataFusion's own rules make the same plan of the same statement. Of others nobody knows: one may put in who asks, or a
/// view that was materialized a moment ago.
fn has_datafusions_rules(state: &SessionState) -> Result<(), Refusal> {
    static OWN: LazyLock<(Analyzer, Optimizer)> = LazyLock::new(|| (Analyzer::new(), Optimizer::new()));
    let (own, optimizer) = &*OWN;
    let analyzer = state.analyzer();
    let foreign = |what: &str| Refusal::new("rules", format!("the session has {what} of its own"));
    if !analyzer.rules.iter().map(|rule| rule.name()).eq(own.rules.iter().map(|rule| rule.name()))
        || analyzer.function_rewrites().len() != own.function_rewrites().len()
    {
        return Err(foreign("analyzer rules"));
    }
    let optimizers = state.optimizers().iter().map(|rule| rule.name());
    if !optimizers.eq(optimizer.rules.iter().map(|rule| rule.name())) {
        return Err(foreign("optimizer rules"));
    }
    if !state.relation_planners().is_empty() {
        return Err(foreign("relation planners"));
    }
    Ok(())
}

/// Named objects, in the order of their map.
#[derive(Debug)]
struct Registry<T>(Box<[(Box<str>, Weak<T>)]>);

impl<T> Registry<T> {
    fn of(map: &HashMap<String, Arc<T>>) -> Self {
        Self(map.iter().map(|(name, object)| (name.as_str().into(), Arc::downgrade(object))).collect())
    }

    /// Whether `map` has the same objects, or such as are the `same` though they are others, under the same names.
    fn is(&self, map: &HashMap<String, Arc<T>>, same: impl Fn(&str, &T) -> bool) -> bool {
        self.0.len() == map.len()
            && self.0.iter().zip(map).all(|((name, known), (other, object))| {
                **name == **other && (addr_eq(known.as_ptr(), Arc::as_ptr(object)) || same(name, object))
            })
    }
}

/// Objects of a list, in its order.
#[derive(Debug)]
struct Objects<T: ?Sized>(Box<[Weak<T>]>);

impl<T: ?Sized> Objects<T> {
    fn of(list: &[Arc<T>]) -> Self {
        Self(list.iter().map(Arc::downgrade).collect())
    }

    fn are(&self, list: &[Arc<T>]) -> bool {
        self.0.len() == list.len()
            && self.0.iter().zip(list).all(|(known, object)| addr_eq(known.as_ptr(), Arc::as_ptr(object)))
    }
}
