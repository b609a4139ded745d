//! Smaller statements, each by one step.
//!
//! A step replaces one node by a smaller one. What it leaves behind is repaired where that is simple: a column
//! whose relation is gone becomes NULL. Where it is not, the statement is invalid, both engines refuse it, and so
//! it is not taken for a smaller failure.

mod inline;
mod repair;
mod steps;

use std::mem;

use super::ast::{Body, Expr, JoinKind, Query, Relation, Select, Source, Statement, Tree};
use super::walk::Node;

/// What a step puts in a node's place.
enum Part {
    Query(Query),
    Body(Body),
    Select(Select),
    Tree(Tree),
    Relation(Relation),
    Expr(Expr),
}

/// In no order, and not all of them smaller.
pub(super) fn smaller(statement: &Statement) -> Vec<Statement> {
    let mut found = inline::derived_tables(statement);
    found.extend(inline::ctes(statement));
    let mut steps = vec![];
    let mut walked = statement.clone();
    walked.walk(&mut |node| {
        if let Node::Query(query) = &node {
            // A query from inside is a statement of its own.
            found.push(Statement { ctes: statement.ctes.clone(), query: Query::clone(query) });
        }
        steps.push(steps::from(&node));
    });
    for (at, parts) in steps.into_iter().enumerate() {
        for part in parts {
            found.push(replaced(statement, at, part));
        }
    }
    found.iter_mut().for_each(repair::repair);
    found
}

/// The statement with another part in the place of the node with this number.
fn replaced(statement: &Statement, at: usize, part: Part) -> Statement {
    let mut statement = statement.clone();
    let mut part = Some(part);
    let mut number = 0;
    statement.walk(&mut |node| {
        let here = number == at;
        number += 1;
        if !here {
            return;
        }
        match (node, part.take()) {
            (Node::Query(node), Some(Part::Query(part))) => drop(mem::replace(node, part)),
            (Node::Body(node), Some(Part::Body(part))) => drop(mem::replace(node, part)),
            (Node::Select(node), Some(Part::Select(part))) => drop(mem::replace(node, part)),
            (Node::Tree(node), Some(Part::Tree(part))) => drop(mem::replace(node, part)),
            (Node::Relation(node), Some(Part::Relation(part))) => drop(mem::replace(node, part)),
            (Node::Expr(node), Some(Part::Expr(part))) => drop(mem::replace(node, part)),
            _ => unreachable!("a step replaces a node by one of its kind"),
        }
    });
    statement
}

/// How much there is to read.
pub(super) fn size(statement: &Statement) -> usize {
    let mut size = statement.ctes.len();
    statement.clone().walk(&mut |node| {
        size += match node {
            Node::Query(query) => {
                let offset = query.limit.as_ref().is_some_and(|limit| limit.offset > 0);
                let keys = query.order.iter();
                let keys: usize = keys
                    .map(|key| 1 + usize::from(key.descending) + usize::from(key.nulls_first.is_some()))
                    .sum();
                1 + keys + usize::from(query.limit.is_some()) + usize::from(offset)
            }
            Node::Body(_) => 1,
            Node::Select(select) => {
                let keys = select.items.iter().filter(|item| item.key).count();
                usize::from(select.distinct) + select.items.len() + keys
            }
            Node::Tree(Tree::Join { kind, .. }) => match kind {
                JoinKind::Inner | JoinKind::Cross => 2,
                JoinKind::Full => 4,
                _ => 3,
            },
            Node::Tree(Tree::Relation(_)) => 1,
            Node::Relation(relation) => match relation.source {
                Source::Table { in_files: false, .. } => 1,
                Source::Table { in_files: true, .. } | Source::Cte(_) | Source::Derived(_) => 2,
            },
            Node::Expr(expr) => of_expr(expr),
        }
    });
    size
}

fn of_expr(expr: &Expr) -> usize {
    match expr {
        Expr::Literal { .. } => 1,
        Expr::Column(_) => 2,
        Expr::Aggregate(aggregate) => 2 + usize::from(aggregate.distinct),
        Expr::InList { negated, .. }
        | Expr::Between { negated, .. }
        | Expr::InQuery { negated, .. }
        | Expr::Exists { negated, .. } => 2 + usize::from(*negated),
        _ => 2,
    }
}
