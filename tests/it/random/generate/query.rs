//! Queries: SELECT with its items, set operations, ORDER BY and LIMIT.

use super::super::ast::{Body, Expr, Item, Key, Limit, Query, Select, Window};
use super::super::types::Type;
use super::from::From;
use super::{Generator, MAX_LEVEL, Output, Scope, Yields};

const SET_OPERATIONS: &[(u32, &str)] = &[
    (40, "UNION ALL"),
    (25, "UNION"),
    (17, "INTERSECT"),
    (17, "EXCEPT"),
    (3, "INTERSECT ALL"),
    (3, "EXCEPT ALL"),
];

impl Generator {
    /// A query of this level: 0 is the statement's own, derived tables and subqueries are below.
    pub(super) fn query(&mut self, level: usize) -> Yields<Query> {
        let Yields { part: body, outputs, rows } = self.body(level);
        let mut query = Query::unordered(body);
        if self.dice.chance(if level == 0 { 45 } else { 10 }) {
            self.order(&mut query, level);
        }
        Yields { part: query, outputs, rows }
    }

    fn body(&mut self, level: usize) -> Yields<Body> {
        let operations = self.dice.weighted(&[(86, 0), (11, 1), (3, 2)]);
        let relations = self.relation_count(if operations > 0 { level + 1 } else { level });
        let first = self.select(level, relations, None);
        let mut outputs = first.outputs;
        let mut rows = first.rows;
        let mut body = Body::Select(Box::new(first.part));
        for _ in 0..operations {
            let operation = self.dice.weighted(SET_OPERATIONS);
            let types: Vec<Type> = outputs.iter().map(|output| output.ty).collect();
            let relations = self.relation_count(level + 1);
            let second = self.select(level, relations, Some(&types));
            rows += second.rows;
            for (output, other) in outputs.iter_mut().zip(&second.outputs) {
                output.distinct += other.distinct;
            }
            let right = Box::new(Body::Select(Box::new(second.part)));
            body = Body::Set { operation, left: Box::new(body), right };
        }
        Yields { part: body, outputs, rows }
    }

    fn relation_count(&mut self, level: usize) -> usize {
        let wanted = match level {
            0 => self.dice.weighted(&[(11, 1), (25, 2), (26, 3), (18, 4), (10, 5), (6, 6), (4, 7)]),
            _ => self.dice.weighted(&[(45, 1), (40, 2), (15, 3)]),
        };
        wanted.min(self.relations).max(1)
    }

    /// Sort keys; with all columns among them also LIMIT, sometimes.
    fn order(&mut self, query: &mut Query, level: usize) {
        let columns = query.body.items().len();
        let mut places: Vec<usize> = (0..columns).collect();
        // A derived table's order is lost; only LIMIT shows it.
        let total = level > 0 || self.dice.chance(70);
        let keys = if total { columns } else { 1 + self.dice.below(columns) };
        for _ in 0..keys {
            let column = places.remove(self.dice.below(places.len()));
            let descending = self.dice.chance(40);
            let nulls_first = self.dice.weighted(&[(50, None), (25, Some(true)), (25, Some(false))]);
            query.order.push(Key { column, descending, nulls_first });
        }
        if keys == columns && (level > 0 || self.dice.chance(50)) {
            let offset = self.dice.weighted(&[(74, 0), (16, 1), (8, 3), (2, 40)]);
            query.limit =
                Some(Limit { count: self.dice.weighted(&[(1, 0), (20, 1), (50, 7), (29, 30)]), offset });
        }
    }

    /// `types`: those of the columns that a set operation wants.
    fn select(&mut self, level: usize, relations: usize, types: Option<&[Type]>) -> Yields<Select> {
        let From { trees, scope, filters } = self.from(relations, level);
        let mut select =
            Select { distinct: self.dice.chance(12), items: vec![], from: trees, filters, having: None };
        let filters: &[(u32, usize)] =
            if level == 0 { &[(52, 0), (36, 1), (12, 2)] } else { &[(66, 0), (29, 1), (5, 2)] };
        for _ in 0..self.dice.weighted(filters) {
            let filter = self.predicate(&scope, 2);
            select.filters.push(filter);
        }
        if level < MAX_LEVEL && self.relations > 0 && self.dice.chance(if level == 0 { 30 } else { 10 }) {
            let filter = self.subquery_predicate(&scope, level + 1);
            select.filters.push(filter);
        }
        match types {
            Some(types) => {
                for ty in types {
                    let expr = self.scalar(*ty, &scope, 1);
                    self.push(&mut select, expr, false);
                }
            }
            // Derived tables with aggregates are joined to others more often than not.
            None if self.dice.chance(if level == 0 { 35 } else { 50 }) => {
                let keys = self.dice.weighted(&[(22, 0), (40, 1), (28, 2), (10, 3)]);
                self.aggregates(&mut select, &scope, keys, level);
            }
            None => self.plain_items(&mut select, &scope, level),
        }
        let outputs: Vec<Output> = select
            .items
            .iter()
            .map(|item| {
                let (name, ty) = (item.name.clone(), item.expr.ty());
                let origin = scope.column(&item.expr).map_or(&name, |visible| &visible.origin).clone();
                Output { name, ty, distinct: scope.distinct(&item.expr), origin }
            })
            .collect();
        let grouped = select.items.iter().any(|item| item.key || matches!(item.expr, Expr::Aggregate(_)));
        let groups =
            select.items.iter().filter(|item| item.key).map(|item| scope.distinct(&item.expr)).product();
        let rows = if grouped { scope.rows.min(groups) } else { scope.rows };
        Yields { part: select, outputs, rows }
    }

    pub(super) fn push(&mut self, select: &mut Select, expr: Expr, key: bool) {
        let name = self.name("c");
        select.items.push(Item { expr, name, key });
    }

    fn plain_items(&mut self, select: &mut Select, scope: &Scope, level: usize) {
        for _ in 0..self.dice.weighted(&[(15, 1), (30, 2), (30, 3), (25, 4)]) {
            let ty = *self.dice.pick(&Type::ALL);
            let expr = match self.column(scope, |_| true) {
                Some(column) if self.dice.chance(70) => column.expr(),
                _ => self.scalar(ty, scope, 2),
            };
            self.push(select, expr, false);
        }
        if self.dice.chance(10) {
            let window = self.window(scope);
            self.push(select, window, false);
        }
        if level == 0 && self.relations > 0 && self.dice.chance(5) {
            let subquery = self.scalar_subquery(scope, level + 1);
            self.push(select, subquery, false);
        }
    }

    /// Over the default frame rows that the order holds equal get the same value, so that ties do not show.
    fn window(&mut self, scope: &Scope) -> Expr {
        let partition = self.column(scope, |_| true).filter(|_| self.dice.chance(75));
        let order = self.column(scope, |_| true).filter(|_| self.dice.chance(60));
        let number = self.column(scope, |visible| visible.column.ty.is_number());
        let any = self.column(scope, |_| true);
        let (function, argument, ty) = match (self.dice.below(5), number, any) {
            (0, Some(number), _) => {
                let ty = if number.column.ty == Type::Int { Type::BigInt } else { number.column.ty };
                ("sum", Some(number.expr()), ty)
            }
            (1, _, Some(any)) => ("min", Some(any.expr()), any.column.ty),
            (2, _, Some(any)) => ("max", Some(any.expr()), any.column.ty),
            (3, _, Some(any)) => ("count", Some(any.expr()), Type::BigInt),
            (_, _, _) if order.is_some() => ("dense_rank", None, Type::BigInt),
            _ => ("count", Some(self.literal(Type::Int)), Type::BigInt),
        };
        let partition = partition.map(|column| column.expr()).into_iter().collect();
        let order = order.map(|column| column.expr());
        Expr::Window(Box::new(Window { function, argument, partition, order, ty }))
    }
}
