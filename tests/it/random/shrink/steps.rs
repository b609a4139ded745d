//! What may stand in the place of a node.

use super::super::ast::{Body, Expr, JoinKind, Query, Relation, Select, Source, Tree};
use super::super::types::Type;
use super::super::walk::Node;
use super::Part;

pub(super) fn from(node: &Node<'_>) -> Vec<Part> {
    match node {
        Node::Query(query) => queries(query).into_iter().map(Part::Query).collect(),
        Node::Body(body) => bodies(body).into_iter().map(Part::Body).collect(),
        Node::Select(select) => selects(select).into_iter().map(Part::Select).collect(),
        Node::Tree(tree) => trees(tree).into_iter().map(Part::Tree).collect(),
        Node::Relation(relation) => relations(relation).into_iter().map(Part::Relation).collect(),
        Node::Expr(expr) => exprs(expr).into_iter().map(Part::Expr).collect(),
    }
}

/// A clone that `change` has changed.
fn with<T: Clone>(part: &T, change: impl FnOnce(&mut T)) -> T {
    let mut changed = part.clone();
    change(&mut changed);
    changed
}

fn queries(query: &Query) -> Vec<Query> {
    let mut found = vec![];
    if let Some(limit) = &query.limit {
        found.push(with(query, |query| query.limit = None));
        if limit.offset > 0 {
            found.push(with(query, |query| query.limit.iter_mut().for_each(|limit| limit.offset = 0)));
        }
    }
    if !query.order.is_empty() {
        found.push(Query::unordered(query.body.clone()));
    }
    for at in 0..query.order.len() {
        found.push(with(query, |query| _ = query.order.remove(at)));
        found.push(with(query, |query| query.order[at].descending = false));
        found.push(with(query, |query| query.order[at].nulls_first = None));
    }
    found
}

fn bodies(body: &Body) -> Vec<Body> {
    match body {
        Body::Select(_) => vec![],
        Body::Set { left, right, .. } => vec![Body::clone(left), Body::clone(right)],
    }
}

fn selects(select: &Select) -> Vec<Select> {
    let mut found = vec![
        with(select, |select| select.distinct = false),
        with(select, |select| select.having = None),
        with(select, |select| select.filters.clear()),
        with(select, |select| select.items.iter_mut().for_each(|item| item.key = false)),
    ];
    for at in 0..select.filters.len() {
        found.push(with(select, |select| drop(select.filters.remove(at))));
    }
    if select.from.len() > 1 {
        for at in 0..select.from.len() {
            found.push(with(select, |select| drop(select.from.remove(at))));
        }
    }
    if select.items.len() > 1 {
        for at in 0..select.items.len() {
            found.push(with(select, |select| select.items = vec![select.items[at].clone()]));
            found.push(with(select, |select| drop(select.items.remove(at))));
        }
    }
    found
}

fn trees(tree: &Tree) -> Vec<Tree> {
    let Tree::Join { kind, left, right, on } = tree else { return vec![] };
    let simpler: &[JoinKind] = match kind {
        JoinKind::Full => &[JoinKind::Left, JoinKind::Right, JoinKind::Inner],
        JoinKind::Left | JoinKind::Right => &[JoinKind::Inner],
        _ => &[],
    };
    let join =
        |kind: JoinKind, on: Vec<Expr>| Tree::Join { kind, left: left.clone(), right: right.clone(), on };
    let mut found = vec![Tree::clone(left), Tree::clone(right)];
    found.extend(simpler.iter().map(|kind| join(*kind, on.clone())));
    found.extend((0..on.len()).map(|at| join(*kind, with(on, |on| drop(on.remove(at))))));
    found
}

fn relations(relation: &Relation) -> Vec<Relation> {
    match relation.source {
        Source::Table { name, in_files: true } => {
            let source = Source::Table { name, in_files: false };
            vec![Relation { source, alias: relation.alias.clone() }]
        }
        _ => vec![],
    }
}

fn exprs(expr: &Expr) -> Vec<Expr> {
    let ty = expr.ty();
    if matches!(expr, Expr::Literal { .. }) {
        return vec![];
    }
    let mut found = vec![Expr::null(ty)];
    if ty == Type::Bool {
        found.push(Expr::Literal { sql: Some("TRUE".to_owned()), ty });
    }
    let mut below = expr.clone();
    let children = below.children_mut().into_iter().map(|child| child.clone());
    found.extend(children.filter(|child| child.ty().compares_with(ty)));
    match expr {
        Expr::Logic { operands, .. } | Expr::InList { operands, .. } if operands.len() > 2 => {
            for at in 1..operands.len() {
                found.push(with(expr, |expr| drop_operand(expr, at)));
            }
        }
        Expr::Aggregate(_) => {
            for change in [|expr: &mut Expr| set_plain(expr, true), |expr: &mut Expr| set_plain(expr, false)]
            {
                found.push(with(expr, change));
            }
        }
        Expr::InList { .. } | Expr::Between { .. } | Expr::InQuery { .. } | Expr::Exists { .. } => {
            found.push(with(expr, affirm));
        }
        Expr::Window(_) => {
            for at in 0..2 {
                found.push(with(expr, |expr| drop_window_part(expr, at)));
            }
        }
        _ => {}
    }
    found
}

fn drop_operand(expr: &mut Expr, at: usize) {
    if let Expr::Logic { operands, .. } | Expr::InList { operands, .. } = expr {
        operands.remove(at);
    }
}

/// Takes DISTINCT or FILTER from an aggregate.
fn set_plain(expr: &mut Expr, distinct: bool) {
    let Expr::Aggregate(aggregate) = expr else { return };
    if distinct {
        aggregate.distinct = false;
    } else {
        aggregate.filter = None;
    }
}

/// Takes NOT from a condition.
fn affirm(expr: &mut Expr) {
    if let Expr::InList { negated, .. }
    | Expr::Between { negated, .. }
    | Expr::InQuery { negated, .. }
    | Expr::Exists { negated, .. } = expr
    {
        *negated = false;
    }
}

fn drop_window_part(expr: &mut Expr, at: usize) {
    let Expr::Window(window) = expr else { return };
    if at == 0 {
        window.partition.clear();
    } else {
        window.order = None;
    }
}
