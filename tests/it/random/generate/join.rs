//! Joins: their kinds and their conditions.

use super::super::ast::{Expr, JoinKind, Tree};
use super::super::types::Type;
use super::from::Part;
use super::{Generator, Scope, Visible};

/// A join that would have more rows is given another condition or kind.
const MAX_ROWS: f64 = 1_200.0;

/// As many pairs of rows are compared where no key leads from one side to the other.
const MAX_PAIRS: f64 = 6_000.0;

const KINDS: &[(u32, JoinKind)] = &[
    (38, JoinKind::Inner),
    (20, JoinKind::Left),
    (9, JoinKind::Right),
    (10, JoinKind::Full),
    (4, JoinKind::Cross),
    (7, JoinKind::LeftSemi),
    (4, JoinKind::RightSemi),
    (5, JoinKind::LeftAnti),
    (3, JoinKind::RightAnti),
];

const COMPARISONS: &[(u32, &str)] =
    &[(3, "<"), (3, "<="), (3, ">"), (3, ">="), (3, "<>"), (1, "IS DISTINCT FROM")];

/// The conjuncts of a condition, and which share of all pairs satisfies it.
struct Condition {
    conjuncts: Vec<Expr>,
    share: f64,
}

impl Generator {
    pub(super) fn join(&mut self, left: Part, right: Part) -> Part {
        let pairs = left.scope.rows * right.scope.rows;
        let mut kind = self.dice.weighted(KINDS);
        let mut on = Condition { conjuncts: vec![], share: 1.0 };
        if kind == JoinKind::Cross && pairs > MAX_ROWS {
            kind = JoinKind::Inner;
        }
        if kind != JoinKind::Cross {
            on = self.condition(&left.scope, &right.scope);
        }
        let mut rows = joined_rows(kind, &left.scope, &right.scope, on.share);
        if rows > MAX_ROWS {
            // A semi join never has more rows than one side.
            kind = if left.scope.rows < right.scope.rows { JoinKind::LeftSemi } else { JoinKind::RightSemi };
            rows = joined_rows(kind, &left.scope, &right.scope, on.share);
        }
        let (shows_left, shows_right) = kind.shows();
        let shown = [(shows_left, left.scope), (shows_right, right.scope)];
        let columns = shown.into_iter().filter(|(shows, _)| *shows).flat_map(|(_, scope)| scope.columns);
        let scope = Scope { columns: columns.collect(), rows };
        let (left, right) = (Box::new(left.tree), Box::new(right.tree));
        Part { tree: Tree::Join { kind, left, right, on: on.conjuncts }, scope }
    }

    /// What WHERE needs when a comma stands between the two; `None` when that would be too many rows.
    pub(super) fn comma_join(&mut self, left: &Scope, right: &Scope) -> Option<(Vec<Expr>, Scope)> {
        let on = self.condition(left, right);
        let rows = joined_rows(JoinKind::Inner, left, right, on.share);
        let columns = left.columns.iter().chain(&right.columns).cloned().collect();
        (rows <= MAX_ROWS).then_some((on.conjuncts, Scope { columns, rows }))
    }

    fn condition(&mut self, left: &Scope, right: &Scope) -> Condition {
        let mut on = Condition { conjuncts: vec![], share: 1.0 };
        let pairs = left.rows * right.rows;
        if pairs > MAX_PAIRS || !self.dice.chance(10) {
            for _ in 0..self.dice.weighted(&[(86, 1), (12, 2), (2, 3)]) {
                self.equality(&mut on, left, right);
            }
        }
        // An equality that leaves too many pairs gets help from another one.
        if pairs * on.share > MAX_ROWS {
            self.equality(&mut on, left, right);
        }
        if on.conjuncts.is_empty() || self.dice.chance(18) {
            let residual = self.residual(left, right);
            let at = self.dice.below(on.conjuncts.len() + 1);
            on.conjuncts.insert(at, residual);
        }
        on
    }

    /// Adds an equality between the sides, where they have columns that compare.
    fn equality(&mut self, on: &mut Condition, left: &Scope, right: &Scope) {
        let Some((left, right)) = self.pair(left, right) else { return };
        // Some values are more frequent than others, and meet more often.
        let distinct = (left.distinct.max(right.distinct) * 0.6).max(1.0);
        let (l, r) = (left.expr(), right.expr());
        let ty = left.column.ty;
        let form = self.dice.weighted(&[(77, 0), (9, 1), (5, 2), (4, 3), (5, 4)]);
        let equality = match form {
            1 => Expr::compare(l, "IS NOT DISTINCT FROM", r),
            2 if ty.is_number() => {
                let operands = vec![l, Expr::Literal { sql: Some("1".to_owned()), ty: Type::Int }];
                Expr::compare(Expr::Arithmetic { operator: "+", operands, ty }, "=", r)
            }
            3 if ty == right.column.ty && ty != Type::Double => {
                let text = |operand| Expr::Cast { operand: Box::new(operand), ty: Type::Text };
                Expr::compare(text(l), "=", text(r))
            }
            4 => {
                let default = self.literal(ty);
                let coalesce =
                    |column| Expr::Call { function: "coalesce", operands: vec![column, default.clone()], ty };
                Expr::compare(coalesce(l), "=", coalesce(r))
            }
            _ if self.dice.chance(30) => Expr::compare(r, "=", l),
            _ => Expr::compare(l, "=", r),
        };
        on.conjuncts.push(equality);
        on.share /= distinct;
    }

    /// Two columns that compare: mostly such as belong together, so that joins have rows.
    pub(super) fn pair(&mut self, left: &Scope, right: &Scope) -> Option<(Visible, Visible)> {
        if self.dice.chance(82) {
            let pairs = left.columns.iter().flat_map(|l| right.columns.iter().map(move |r| (l, r)));
            let related: Vec<(&Visible, &Visible)> = pairs.filter(|(l, r)| are_related(l, r)).collect();
            if !related.is_empty() {
                let (l, r) = *self.dice.pick(&related);
                return Some((l.clone(), r.clone()));
            }
        }
        let mut best: Option<(Visible, Visible)> = None;
        // Of a few pairs the one with the most values: keys, mostly.
        for _ in 0..if self.dice.chance(75) { 5 } else { 1 } {
            let Some(l) = self.column(left, |_| true) else { continue };
            let comparable = |visible: &Visible| l.column.ty.compares_with(visible.column.ty);
            let Some(r) = self.column(right, comparable) else { continue };
            let distinct = |(l, r): &(Visible, Visible)| l.distinct.min(r.distinct);
            let pair = (l, r);
            if best.as_ref().is_none_or(|best| distinct(&pair) > distinct(best)) {
                best = Some(pair);
            }
        }
        best
    }

    /// A condition that no hash table serves.
    fn residual(&mut self, left: &Scope, right: &Scope) -> Expr {
        let side = if self.dice.chance(50) { left } else { right };
        match self.dice.below(4) {
            0 => self.predicate(side, 1),
            1 => {
                let operands = vec![self.comparison(left, right), self.predicate(side, 1)];
                Expr::Logic { operator: "OR", operands }
            }
            _ => self.comparison(left, right),
        }
    }

    /// An inequality between the sides.
    pub(super) fn comparison(&mut self, left: &Scope, right: &Scope) -> Expr {
        let operator = self.dice.weighted(COMPARISONS);
        match self.pair(left, right) {
            Some((l, r)) => Expr::compare(l.expr(), operator, r.expr()),
            None => self.predicate(left, 1),
        }
    }
}

/// Whether the tables mean the same by two columns.
fn are_related(left: &Visible, right: &Visible) -> bool {
    let is_key = |visible: &Visible| ["id", "item"].contains(&visible.origin.as_str());
    left.column.ty.compares_with(right.column.ty)
        && (left.origin == right.origin && left.distinct > 1.0 || is_key(left) && is_key(right))
}

fn joined_rows(kind: JoinKind, left: &Scope, right: &Scope, share: f64) -> f64 {
    let matches = left.rows * right.rows * share;
    match kind {
        JoinKind::Inner | JoinKind::Cross => matches,
        JoinKind::Left => matches.max(left.rows),
        JoinKind::Right => matches.max(right.rows),
        JoinKind::Full => matches + left.rows + right.rows,
        JoinKind::LeftSemi | JoinKind::LeftAnti => left.rows,
        JoinKind::RightSemi | JoinKind::RightAnti => right.rows,
    }
}
