//! Takes the wrapping from derived tables and CTEs.

use std::collections::HashMap;

use super::super::ast::{Body, Expr, Query, Relation, Source, Statement, Tree};
use super::super::walk::Node;

/// Each derived table in turn replaced by the join tree that it reads. Whatever else it does is dropped.
pub(super) fn derived_tables(statement: &Statement) -> Vec<Statement> {
    let mut found = vec![];
    statement.clone().walk(&mut |node| {
        if let Node::Relation(Relation { source: Source::Derived(query), alias }) = node
            && let Some(tree) = only_tree(query)
        {
            let items = query.body.items().iter();
            let exprs = items.map(|item| (item.name.clone(), item.expr.clone())).collect();
            found.push(without(statement, alias, tree, &exprs));
        }
    });
    found
}

fn only_tree(query: &Query) -> Option<&Tree> {
    match &query.body {
        Body::Select(select) => select.from.first().filter(|_| select.from.len() == 1),
        Body::Set { .. } => None,
    }
}

fn without(statement: &Statement, alias: &str, reads: &Tree, exprs: &HashMap<String, Expr>) -> Statement {
    let mut statement = statement.clone();
    statement.walk(&mut |node| match node {
        Node::Tree(tree) => {
            if matches!(tree, Tree::Relation(relation) if relation.alias == alias) {
                *tree = reads.clone();
            }
        }
        Node::Expr(expr) => {
            if let Expr::Column(column) = expr
                && column.relation == alias
                && let Some(computed) = exprs.get(&column.name)
            {
                *expr = computed.clone();
            }
        }
        _ => {}
    });
    statement
}

/// Each CTE that one relation reads made a derived table there.
pub(super) fn ctes(statement: &Statement) -> Vec<Statement> {
    let mut uses = HashMap::<String, usize>::new();
    let reads = |relation: &Relation| match &relation.source {
        Source::Cte(name) => Some(name.clone()),
        _ => None,
    };
    statement.clone().walk(&mut |node| {
        if let Node::Relation(relation) = node
            && let Some(name) = reads(relation)
        {
            *uses.entry(name).or_default() += 1;
        }
    });
    let once = statement.ctes.iter().filter(|cte| uses.get(&cte.name) == Some(&1));
    once.map(|cte| {
        let mut statement = statement.clone();
        statement.walk(&mut |node| {
            if let Node::Relation(relation) = node
                && reads(relation).as_ref() == Some(&cte.name)
            {
                relation.source = Source::Derived(Box::new(cte.query.clone()));
            }
        });
        statement
    })
    .collect()
}
