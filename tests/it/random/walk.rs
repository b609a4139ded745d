//! Visits every node of a statement, in one place.

use super::ast::{Body, Expr, Query, Relation, Select, Source, Statement, Tree};

pub(super) enum Node<'a> {
    Query(&'a mut Query),
    Body(&'a mut Body),
    Select(&'a mut Select),
    Tree(&'a mut Tree),
    Relation(&'a mut Relation),
    Expr(&'a mut Expr),
}

pub(super) type Visit<'v> = &'v mut dyn FnMut(Node<'_>);

impl Statement {
    /// Each node before the nodes below it; what `visit` puts in a node's place is walked on.
    pub(super) fn walk(&mut self, visit: Visit<'_>) {
        for cte in &mut self.ctes {
            cte.query.walk(visit);
        }
        self.query.walk(visit);
    }
}

impl Query {
    pub(super) fn walk(&mut self, visit: Visit<'_>) {
        visit(Node::Query(self));
        self.body.walk(visit);
    }
}

impl Body {
    fn walk(&mut self, visit: Visit<'_>) {
        visit(Node::Body(self));
        match self {
            Self::Select(select) => select.walk(visit),
            Self::Set { left, right, .. } => {
                left.walk(visit);
                right.walk(visit);
            }
        }
    }
}

impl Select {
    fn walk(&mut self, visit: Visit<'_>) {
        visit(Node::Select(self));
        self.from.iter_mut().for_each(|tree| tree.walk(visit));
        self.filters.iter_mut().for_each(|filter| filter.walk(visit));
        self.items.iter_mut().for_each(|item| item.expr.walk(visit));
        self.having.iter_mut().for_each(|having| having.walk(visit));
    }
}

impl Tree {
    fn walk(&mut self, visit: Visit<'_>) {
        visit(Node::Tree(self));
        match self {
            Self::Relation(relation) => {
                visit(Node::Relation(relation));
                if let Source::Derived(query) = &mut relation.source {
                    query.walk(visit);
                }
            }
            Self::Join { left, right, on, .. } => {
                left.walk(visit);
                right.walk(visit);
                on.iter_mut().for_each(|condition| condition.walk(visit));
            }
        }
    }
}

impl Expr {
    fn walk(&mut self, visit: Visit<'_>) {
        visit(Node::Expr(self));
        if let Some(query) = self.query_mut() {
            query.walk(visit);
        }
        for child in self.children_mut() {
            child.walk(visit);
        }
    }
}
