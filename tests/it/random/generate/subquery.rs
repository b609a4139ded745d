//! Conditions and values with subqueries, correlated and not.

use super::super::ast::{Body, Expr, Query, Select};
use super::super::types::Type;
use super::from::From;
use super::{Generator, MAX_LEVEL, Scope};

impl Generator {
    /// A conjunct of WHERE over `scope`.
    pub(super) fn subquery_predicate(&mut self, scope: &Scope, level: usize) -> Expr {
        let predicate = match self.dice.weighted(&[(38, 0), (34, 1), (28, 2)]) {
            0 => self.in_query(scope, level),
            1 => self.exists(scope, level),
            _ => {
                let right = self.scalar_subquery(scope, level);
                let left = self.column_or_literal(right.ty(), scope);
                let operator = self.dice.weighted(&[(3, ">="), (3, "<="), (2, "<>"), (1, "="), (1, "<")]);
                Expr::compare(left, operator, right)
            }
        };
        // Under OR it cannot become a join that drops rows.
        if self.dice.chance(18) {
            let operands = vec![predicate, self.predicate(scope, 1)];
            return Expr::Logic { operator: "OR", operands };
        }
        if self.dice.chance(5) { Expr::Not(Box::new(predicate)) } else { predicate }
    }

    fn in_query(&mut self, outer: &Scope, level: usize) -> Expr {
        let correlated = self.dice.chance(20);
        let (mut select, scope) = self.subselect(outer, level, correlated);
        let (operand, item) = match self.pair(outer, &scope) {
            Some((operand, item)) => (operand.expr(), item.expr()),
            None => (self.literal(Type::Int), self.literal(Type::Int)),
        };
        self.push(&mut select, item, false);
        Expr::InQuery { operand: Box::new(operand), query: query(select), negated: self.dice.chance(38) }
    }

    fn exists(&mut self, outer: &Scope, level: usize) -> Expr {
        let correlated = self.dice.chance(88);
        let (mut select, scope) = self.subselect(outer, level, correlated);
        if correlated && self.dice.chance(22) {
            select.filters.push(self.comparison(outer, &scope));
        }
        let one = Expr::Literal { sql: Some("1".to_owned()), ty: Type::Int };
        self.push(&mut select, one, false);
        Expr::Exists { query: query(select), negated: self.dice.chance(38) }
    }

    /// One row by construction: an aggregate without GROUP BY.
    pub(super) fn scalar_subquery(&mut self, outer: &Scope, level: usize) -> Expr {
        let correlated = self.dice.chance(45);
        let (mut select, scope) = self.subselect(outer, level, correlated);
        let aggregate = self.aggregate(&scope, level);
        let ty = aggregate.ty;
        self.push(&mut select, Expr::Aggregate(Box::new(aggregate)), false);
        Expr::Scalar { query: query(select), ty }
    }

    /// A SELECT without items, and what they may name.
    fn subselect(&mut self, outer: &Scope, level: usize, correlated: bool) -> (Select, Scope) {
        let relations = self.dice.weighted(&[(80, 1), (20, 2)]).min(self.relations.max(1));
        let From { trees, scope, mut filters } = self.from(relations, MAX_LEVEL);
        if correlated && let Some((outer, inner)) = self.pair(outer, &scope) {
            filters.push(Expr::compare(inner.expr(), "=", outer.expr()));
        }
        if self.dice.chance(40) {
            filters.push(self.predicate(&scope, 1));
        }
        if level < MAX_LEVEL && self.relations > 0 && self.dice.chance(8) {
            filters.push(self.subquery_predicate(&scope, level + 1));
        }
        (Select { distinct: false, items: vec![], from: trees, filters, having: None }, scope)
    }
}

fn query(select: Select) -> Box<Query> {
    Box::new(Query::unordered(Body::Select(Box::new(select))))
}
