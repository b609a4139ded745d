//! GROUP BY, aggregates and HAVING.

use super::super::ast::{Aggregate, Expr, Select};
use super::super::types::Type;
use super::{Generator, Scope};

impl Generator {
    /// Gives a SELECT so many keys, and aggregates.
    pub(super) fn aggregates(&mut self, select: &mut Select, scope: &Scope, keys: usize, level: usize) {
        for _ in 0..keys {
            let column = self.column(scope, |_| true);
            let key = match column {
                Some(column) if self.dice.chance(82) => column.expr(),
                _ => {
                    let ty = *self.dice.pick(&Type::ALL);
                    self.scalar(ty, scope, 1)
                }
            };
            self.push(select, key, true);
        }
        let count =
            if keys == 0 { 1 + self.dice.below(3) } else { self.dice.weighted(&[(6, 0), (50, 1), (44, 2)]) };
        for _ in 0..count {
            let aggregate = self.aggregate(scope, level);
            self.push(select, Expr::Aggregate(Box::new(aggregate)), false);
        }
        if self.dice.chance(15) {
            select.having = Some(self.having(scope));
        }
    }

    /// Level 0 is a result that nothing adds up: averages are inexact.
    pub(super) fn aggregate(&mut self, scope: &Scope, level: usize) -> Aggregate {
        let form = self.dice.weighted(&[(15, 0), (10, 1), (15, 2), (22, 3), (13, 4), (13, 5), (12, 6)]);
        let number = self.column(scope, |visible| visible.column.ty.is_number());
        let any = self.column(scope, |_| true);
        let (function, distinct, argument, ty) = match (form, number, any) {
            (1, _, Some(any)) => ("count", false, Some(any.expr()), Type::BigInt),
            (2, _, Some(any)) => ("count", true, Some(any.expr()), Type::BigInt),
            (3, Some(number), _) => {
                let ty = if number.column.ty == Type::Int { Type::BigInt } else { number.column.ty };
                let argument = if self.dice.chance(80) {
                    number.expr()
                } else {
                    self.scalar(number.column.ty, scope, 1)
                };
                ("sum", self.dice.chance(12), Some(argument), ty)
            }
            (4, _, Some(any)) => ("min", false, Some(any.expr()), any.column.ty),
            (5, _, Some(any)) => ("max", false, Some(any.expr()), any.column.ty),
            (6, Some(number), _) if level == 0 => {
                let decimal = number.column.ty == Type::Decimal;
                ("avg", false, Some(number.expr()), if decimal { Type::Decimal } else { Type::Double })
            }
            _ => ("count", false, None, Type::BigInt),
        };
        let filter = self.dice.chance(8).then(|| self.predicate(scope, 1));
        Aggregate { function, distinct, argument, filter, ty }
    }

    fn having(&mut self, scope: &Scope) -> Expr {
        let aggregate = self.aggregate(scope, 0);
        let ty = aggregate.ty;
        let aggregate = Expr::Aggregate(Box::new(aggregate));
        if self.dice.chance(20) {
            return Expr::Is { operand: Box::new(aggregate), what: "NOT NULL" };
        }
        let operator = self.dice.weighted(&[(6, ">="), (4, "<>"), (2, "<="), (1, "=")]);
        let right = self.literal(ty);
        Expr::compare(aggregate, operator, right)
    }
}
