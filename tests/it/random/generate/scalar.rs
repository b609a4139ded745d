//! Values computed from the columns of one scope. None of them can fail to be computed.

use super::super::ast::Expr;
use super::super::types::Type;
use super::{Generator, Scope};

impl Generator {
    /// A value of type `ty`; `depth` bounds how far it nests.
    pub(super) fn scalar(&mut self, ty: Type, scope: &Scope, depth: usize) -> Expr {
        if depth == 0 || self.dice.chance(55) {
            return self.column_or_literal(ty, scope);
        }
        match self.dice.weighted(&[(20, 0), (15, 1), (8, 2), (57, 3)]) {
            0 => {
                let operands = vec![
                    self.predicate(scope, depth - 1),
                    self.scalar(ty, scope, depth - 1),
                    self.scalar(ty, scope, depth - 1),
                ];
                Expr::Case { operands, ty }
            }
            1 => {
                let operands = vec![self.scalar(ty, scope, depth - 1), self.column_or_literal(ty, scope)];
                Expr::Call { function: "coalesce", operands, ty }
            }
            2 => {
                let operands = vec![self.scalar(ty, scope, depth - 1), self.literal(ty)];
                Expr::Call { function: "nullif", operands, ty }
            }
            _ => self.of_type(ty, scope, depth - 1),
        }
    }

    fn of_type(&mut self, ty: Type, scope: &Scope, depth: usize) -> Expr {
        match ty {
            Type::Int => match self.dice.below(3) {
                0 => self.call("length", Type::Text, ty, scope),
                1 => {
                    let part = *self.dice.pick(&["day", "month", "year"]);
                    let part = Expr::Literal { sql: Some(format!("'{part}'")), ty: Type::Text };
                    let operands = vec![part, self.column_or_literal(Type::Date, scope)];
                    Expr::Call { function: "date_part", operands, ty }
                }
                _ => self.arithmetic(ty, scope, depth),
            },
            Type::BigInt => match self.dice.below(4) {
                0 => self.cast(Type::Int, ty, scope),
                1 => self.cast(Type::Bool, ty, scope),
                _ => self.arithmetic(ty, scope, depth),
            },
            Type::Decimal | Type::Double if self.dice.chance(30) => self.cast(Type::Int, ty, scope),
            Type::Decimal | Type::Double => self.arithmetic(ty, scope, depth),
            Type::Date => self.column_or_literal(ty, scope),
            Type::Text => match self.dice.below(5) {
                0 => self.call("upper", Type::Text, ty, scope),
                1 => self.cast(Type::BigInt, ty, scope),
                2 => self.cast(Type::Date, ty, scope),
                _ => {
                    let operands = vec![self.scalar(ty, scope, depth), self.literal(ty)];
                    Expr::Arithmetic { operator: "||", operands, ty }
                }
            },
            Type::Bool => self.predicate(scope, depth),
        }
    }

    /// Of small numbers, so that nothing overflows; never a product that could be a negative zero.
    fn arithmetic(&mut self, ty: Type, scope: &Scope, depth: usize) -> Expr {
        let number = |sql: &str| Expr::Literal { sql: Some(sql.to_owned()), ty: Type::Int };
        let left = self.scalar(ty, scope, depth);
        let (operator, right) = match self.dice.below(7) {
            0 | 1 => ("+", self.column_or_literal(ty, scope)),
            2 | 3 => ("-", self.column_or_literal(ty, scope)),
            4 => ("*", number("2")),
            5 if matches!(ty, Type::Int | Type::BigInt) => ("%", number("3")),
            _ => return Expr::Call { function: "abs", operands: vec![left], ty },
        };
        Expr::Arithmetic { operator, operands: vec![left, right], ty }
    }

    fn call(&mut self, function: &'static str, from: Type, ty: Type, scope: &Scope) -> Expr {
        Expr::Call { function, operands: vec![self.column_or_literal(from, scope)], ty }
    }

    fn cast(&mut self, from: Type, ty: Type, scope: &Scope) -> Expr {
        Expr::Cast { operand: Box::new(self.column_or_literal(from, scope)), ty }
    }

    pub(super) fn column_or_literal(&mut self, ty: Type, scope: &Scope) -> Expr {
        match self.column(scope, |visible| visible.column.ty == ty) {
            Some(column) if self.dice.chance(92) => column.expr(),
            _ => self.literal(ty),
        }
    }
}
