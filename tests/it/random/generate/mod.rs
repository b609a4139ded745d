//! Draws statements that are valid by construction, terminate soon, and have one answer.
//!
//! What SQL leaves open is left out: no LIMIT without a total order, no window function that tells ties apart, no
//! cast or division that may fail, and only such floats as add up to the same number in every order. What an
//! average yields is not such a float, and so stands only where nothing adds it up.
//!
//! Each relation comes with an estimate of its rows, so that joins of many relations stay small.

mod aggregate;
mod dice;
mod from;
mod join;
mod predicate;
mod query;
mod scalar;
mod subquery;

use proptest::test_runner::TestRng;

pub(super) use dice::Dice;

use super::ast::{Column, Cte, Expr, Statement};
use super::types::Type;

/// How many relations a statement may have in all: planning a join of many in a development build takes long.
const MAX_RELATIONS: usize = 9;

/// Subqueries nest this deep.
const MAX_LEVEL: usize = 2;

/// A column that a relation shows, and about how many values it has.
#[derive(Debug, Clone)]
struct Visible {
    column: Column,
    distinct: f64,
    origin: String,
}

/// What expressions may name, and about how many rows that has.
#[derive(Debug, Clone, Default)]
struct Scope {
    columns: Vec<Visible>,
    rows: f64,
}

/// A column of a query's result.
#[derive(Debug, Clone)]
struct Output {
    name: String,
    ty: Type,
    distinct: f64,
    /// The name of the table's column that it is, through whatever derived tables; its own where it is computed.
    origin: String,
}

/// A part of a statement, and what it yields.
struct Yields<T> {
    part: T,
    outputs: Vec<Output>,
    rows: f64,
}

struct KnownCte {
    name: String,
    outputs: Vec<Output>,
    rows: f64,
    uses: usize,
}

struct Generator {
    dice: Dice,
    /// Names given so far.
    names: usize,
    /// Relations that may still be added.
    relations: usize,
    ctes: Vec<KnownCte>,
}

/// One statement. It depends on nothing but `rng`.
pub(super) fn statement(rng: TestRng) -> Statement {
    let mut generator = Generator { dice: Dice::new(rng), names: 0, relations: MAX_RELATIONS, ctes: vec![] };
    let mut ctes = vec![];
    for _ in 0..generator.dice.weighted(&[(70, 0), (22, 1), (8, 2)]) {
        let name = generator.name("w");
        let Yields { part: query, outputs, rows } = generator.query(1);
        ctes.push(Cte { name: name.clone(), query });
        generator.ctes.push(KnownCte { name, outputs, rows, uses: 0 });
    }
    // Leaves enough for the query itself, whatever the CTEs have taken.
    generator.relations = generator.relations.max(MAX_RELATIONS / 2);
    let query = generator.query(0).part;
    ctes.retain(|cte| generator.ctes.iter().any(|known| known.name == cte.name && known.uses > 0));
    Statement { ctes, query }
}

impl Generator {
    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Any column that `wanted` accepts.
    fn column(&mut self, scope: &Scope, wanted: impl Fn(&Visible) -> bool) -> Option<Visible> {
        let mut found: Vec<&Visible> = scope.columns.iter().filter(|column| wanted(column)).collect();
        // A column of NULLs alone makes most conditions false.
        if self.dice.chance(85) && found.iter().any(|column| column.distinct > 1.0) {
            found.retain(|column| column.distinct > 1.0);
        }
        (!found.is_empty()).then(|| (*self.dice.pick(&found)).clone())
    }

    fn literal(&mut self, ty: Type) -> Expr {
        let at = self.dice.below(9);
        // NULL as a literal is a constant that much folds away; seldom is enough.
        Expr::Literal { sql: (!self.dice.chance(3)).then(|| ty.literal(at)), ty }
    }
}

impl Visible {
    fn expr(&self) -> Expr {
        Expr::Column(self.column.clone())
    }
}

impl Scope {
    fn of(relation: &str, outputs: &[Output], rows: f64) -> Self {
        let visible = |output: &Output| Visible {
            column: Column { relation: relation.to_owned(), name: output.name.clone(), ty: output.ty },
            distinct: output.distinct,
            origin: output.origin.clone(),
        };
        Self { columns: outputs.iter().map(visible).collect(), rows }
    }

    /// The column that an expression is.
    fn column(&self, expr: &Expr) -> Option<&Visible> {
        let Expr::Column(column) = expr else { return None };
        let mut columns = self.columns.iter();
        columns
            .find(|visible| visible.column.relation == column.relation && visible.column.name == column.name)
    }

    /// About how many values an expression has: as many as all its columns together.
    fn distinct(&self, expr: &Expr) -> f64 {
        let distinct = match expr {
            Expr::Column(_) => self.column(expr).map_or(1.0, |visible| visible.distinct),
            other => other.clone().children_mut().into_iter().map(|child| self.distinct(child)).product(),
        };
        distinct.clamp(1.0, self.rows.max(1.0))
    }
}
