//! Makes a statement valid again after a part of it was taken away.

use std::collections::{HashMap, HashSet};

use super::super::ast::{Expr, Query, Source, Statement};
use super::super::walk::Node;

/// The names of a relation's columns; `None` for a table, which loses none.
type Names = Option<Vec<String>>;

pub(super) fn repair(statement: &mut Statement) {
    drop_unused_ctes(statement);
    let known = relations(statement);
    statement.walk(&mut |node| match node {
        Node::Query(query) => repair_order(query),
        Node::Expr(expr) => {
            if let Expr::Column(column) = expr
                && !known.get(&column.relation).is_some_and(|names| shows(names, &column.name))
            {
                *expr = Expr::null(column.ty);
            }
        }
        _ => {}
    });
}

fn shows(names: &Names, name: &str) -> bool {
    names.as_ref().is_none_or(|names| names.iter().any(|shown| shown == name))
}

/// A CTE may be used by a later one alone, which goes first.
fn drop_unused_ctes(statement: &mut Statement) {
    for at in (0..statement.ctes.len()).rev() {
        let mut used = HashSet::new();
        let mut note = |node: Node<'_>| {
            if let Node::Relation(relation) = node
                && let Source::Cte(name) = &relation.source
            {
                used.insert(name.clone());
            }
        };
        statement.query.walk(&mut note);
        statement.ctes[at + 1..].iter_mut().for_each(|cte| cte.query.walk(&mut note));
        if !used.contains(&statement.ctes[at].name) {
            statement.ctes.remove(at);
        }
    }
}

fn relations(statement: &mut Statement) -> HashMap<String, Names> {
    let names = |query: &Query| Some(query.body.items().iter().map(|item| item.name.clone()).collect());
    let ctes: HashMap<String, Names> =
        statement.ctes.iter().map(|cte| (cte.name.clone(), names(&cte.query))).collect();
    let mut known = HashMap::new();
    statement.walk(&mut |node| {
        if let Node::Relation(relation) = node {
            let names = match &relation.source {
                Source::Table { .. } => None,
                Source::Cte(name) => ctes.get(name).cloned().flatten(),
                Source::Derived(query) => names(query),
            };
            known.insert(relation.alias.clone(), names);
        }
    });
    known
}

/// Keys are places: those behind the last column go, and with them LIMIT.
fn repair_order(query: &mut Query) {
    let columns = query.body.items().len();
    query.order.retain(|key| key.column < columns);
    if !query.is_total() {
        query.limit = None;
    }
}
