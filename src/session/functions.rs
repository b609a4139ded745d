//! Functions in an order that, registered one after the other, gives the same names to the same functions.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;

/// Puts the functions of `state` into `builder`, which was made from it, so that each name keeps its function.
///
/// A function may take over a name or an alias of another, as the functions of Spark do with DataFusion's.
/// `SessionStateBuilder::new_from_existing` hands functions on in the order of a hash map, and registering in that
/// order gives some of the names back to whom they were taken from.
pub(super) fn keep_functions(builder: SessionStateBuilder, state: &SessionState) -> SessionStateBuilder {
    builder
        .with_scalar_functions(ordered(state.scalar_functions(), |f| (f.name(), f.aliases())))
        .with_higher_order_functions(ordered(state.higher_order_functions(), |f| (f.name(), f.aliases())))
        .with_aggregate_functions(ordered(state.aggregate_functions(), |f| (f.name(), f.aliases())))
        .with_window_functions(ordered(state.window_functions(), |f| (f.name(), f.aliases())))
}

/// The distinct functions of `registered`, each behind all that would take a name from it.
fn ordered<F>(registered: &HashMap<String, Arc<F>>, names: impl Fn(&F) -> (&str, &[String])) -> Vec<Arc<F>> {
    let mut functions: Vec<&Arc<F>> = registered.values().collect();
    functions.sort_unstable_by_key(|function| Arc::as_ptr(function));
    functions.dedup_by_key(|function| Arc::as_ptr(function));
    let place = |wanted: &Arc<F>| {
        functions.binary_search_by_key(&Arc::as_ptr(wanted), |function| Arc::as_ptr(function)).ok()
    };
    // (earlier, later): the later one has a name now that the earlier one would take.
    let mut pairs = Vec::new();
    for (earlier, function) in functions.iter().enumerate() {
        let (name, aliases) = names(function);
        for claimed in std::iter::once(name).chain(aliases.iter().map(String::as_str)) {
            let later = registered.get(claimed).and_then(&place);
            pairs.extend(later.filter(|later| *later != earlier).map(|later| (earlier, later)));
        }
    }
    // The session came about in some order, so the pairs have no cycle; the bound is for one that was edited.
    let mut rank = vec![0_usize; functions.len()];
    for _ in 0..=pairs.len() {
        let mut moved = false;
        for (earlier, later) in &pairs {
            if rank[*later] <= rank[*earlier] {
                rank[*later] = rank[*earlier] + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut places: Vec<usize> = (0..functions.len()).collect();
    places.sort_by_key(|place| rank[*place]);
    places.into_iter().map(|place| Arc::clone(functions[place])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Function(&'static str, Vec<String>);

    /// Registers in the given order, and checks that the ordered list leads to the same names.
    fn check(functions: &[(&'static str, &[&str])]) {
        let register = |functions: &[Arc<Function>]| {
            let mut registered = HashMap::new();
            for function in functions {
                for name in std::iter::once(function.0).chain(function.1.iter().map(String::as_str)) {
                    registered.insert(name.to_owned(), Arc::clone(function));
                }
            }
            registered
        };
        let functions: Vec<Arc<Function>> = functions
            .iter()
            .map(|(name, aliases)| {
                Arc::new(Function(name, aliases.iter().map(ToString::to_string).collect()))
            })
            .collect();
        let registered = register(&functions);
        let again = register(&ordered(&registered, |function| (function.0, &function.1)));
        for (name, function) in &registered {
            assert!(Arc::ptr_eq(function, &again[name]), "{name}");
        }
        assert_eq!(registered.len(), again.len());
    }

    #[test]
    fn each_name_keeps_its_function() {
        check(&[("a", &[]), ("b", &[])]);
        check(&[("array_has", &["list_has", "array_contains"]), ("array_contains", &[])]);
        check(&[("c", &["x", "y"]), ("b", &["y", "z"]), ("a", &["z"]), ("z2", &["x"])]);
        check(&[("a", &["x"]), ("b", &["x"]), ("c", &["x"]), ("d", &["x"])]);
    }
}
