//! Conditions over the columns of one scope.

use super::super::ast::Expr;
use super::super::types::Type;
use super::{Generator, Scope, Visible};

/// Those that most rows satisfy are more frequent, so that most queries have rows.
const OPERATORS: &[(u32, &str)] = &[
    (4, "="),
    (14, "<>"),
    (5, "<"),
    (9, "<="),
    (5, ">"),
    (15, ">="),
    (3, "IS DISTINCT FROM"),
    (1, "IS NOT DISTINCT FROM"),
];

const LIKE_OPERATORS: &[(u32, &str)] = &[(5, "LIKE"), (4, "NOT LIKE"), (2, "ILIKE"), (1, "NOT ILIKE")];

const PATTERNS: &[&str] = &["%", "a%", "%b", "_", "%b%", "a_%", "", "ä%", "1"];

const TRUTHS: &[&str] = &["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"];

impl Generator {
    /// `depth` bounds how far it nests.
    pub(super) fn predicate(&mut self, scope: &Scope, depth: usize) -> Expr {
        let nested = if depth > 0 { 1 } else { 0 };
        match self.dice.weighted(&[
            (30, 0),
            (12, 1),
            (12, 2),
            (8, 3),
            (7, 4),
            (7, 5),
            (4, 6),
            (5 * nested, 7),
            (20 * nested, 8),
            (4 * nested, 9),
        ]) {
            0 => self.comparison_with_literal(scope, depth),
            1 => self.comparison_of_columns(scope, depth),
            2 => {
                let what = if self.dice.chance(28) { "NULL" } else { "NOT NULL" };
                Expr::Is { operand: Box::new(self.any_column(scope)), what }
            }
            3 => self.in_list(scope),
            4 => self.between(scope),
            5 => self.like(scope),
            6 => self.column_or_literal(Type::Bool, scope),
            7 => Expr::Not(Box::new(self.predicate(scope, depth - 1))),
            8 => {
                let operator = if self.dice.chance(75) { "OR" } else { "AND" };
                let count = 2 + self.dice.below(2);
                let operands = (0..count).map(|_| self.predicate(scope, depth - 1)).collect();
                Expr::Logic { operator, operands }
            }
            _ => {
                let what = *self.dice.pick(TRUTHS);
                Expr::Is { operand: Box::new(self.predicate(scope, depth - 1)), what }
            }
        }
    }

    fn comparison_with_literal(&mut self, scope: &Scope, depth: usize) -> Expr {
        let operator = self.dice.weighted(OPERATORS);
        let column = self.any_column(scope);
        let ty = column.ty();
        let left = if depth > 0 && self.dice.chance(15) { self.scalar(ty, scope, depth - 1) } else { column };
        let right = self.literal(ty);
        Expr::compare(left, operator, right)
    }

    fn comparison_of_columns(&mut self, scope: &Scope, depth: usize) -> Expr {
        let operator = self.dice.weighted(OPERATORS);
        let left = self.any_column(scope);
        let another = |visible: &Visible| {
            let same = matches!(&left, Expr::Column(column)
                if column.relation == visible.column.relation && column.name == visible.column.name);
            visible.column.ty.compares_with(left.ty()) && !same
        };
        let right = match self.column(scope, another) {
            Some(right) if depth == 0 || self.dice.chance(85) => right.expr(),
            _ => self.scalar(left.ty(), scope, depth.saturating_sub(1)),
        };
        Expr::compare(left, operator, right)
    }

    fn in_list(&mut self, scope: &Scope) -> Expr {
        let operand = self.any_column(scope);
        let ty = operand.ty();
        let count = 1 + self.dice.below(5);
        let operands = std::iter::once(operand).chain((0..count).map(|_| self.literal(ty))).collect();
        Expr::InList { operands, negated: self.dice.chance(35) }
    }

    fn between(&mut self, scope: &Scope) -> Expr {
        let operand = self.any_column(scope);
        let ty = operand.ty();
        let low = self.dice.below(4);
        let high = low + 1 + self.dice.below(8);
        let bound = |at| Expr::Literal { sql: Some(ty.literal(at)), ty };
        Expr::Between { operands: vec![operand, bound(low), bound(high)], negated: self.dice.chance(25) }
    }

    fn like(&mut self, scope: &Scope) -> Expr {
        let operand = Box::new(self.column_or_literal(Type::Text, scope));
        let operator = self.dice.weighted(LIKE_OPERATORS);
        let pattern = *self.dice.pick(PATTERNS);
        Expr::Like { operand, operator, pattern }
    }

    /// A scope always has a column, but a literal serves where it has not.
    fn any_column(&mut self, scope: &Scope) -> Expr {
        match self.column(scope, |_| true) {
            Some(column) => column.expr(),
            None => self.literal(Type::Int),
        }
    }
}
