//! One case, a statement and a configuration, as proptest draws it and makes it smaller.

use std::collections::HashSet;
use std::fmt::{Display, Formatter};

use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::ast::Statement;
use super::generate::{Dice, statement};
use super::setup::Setup;
use super::shrink;

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) statement: Statement,
    pub(super) setup: Setup,
}

impl Case {
    /// Smaller cases, the smallest first.
    fn smaller(&self) -> Vec<Self> {
        let setup = |setup| Self { statement: self.statement.clone(), setup };
        let statement = |statement| Self { statement, setup: self.setup.clone() };
        let mut smaller: Vec<Self> = self.setup.simpler().into_iter().map(setup).collect();
        smaller.extend(shrink::smaller(&self.statement).into_iter().map(statement));
        smaller.sort_by_key(Self::size);
        // Sizes decrease, so that shrinking ends.
        let size = self.size();
        smaller.retain(|case| case.size() < size);
        smaller
    }

    /// The columns of the result by which the statement orders it.
    pub(super) fn keys(&self) -> Vec<usize> {
        self.statement.query.order.iter().map(|key| key.column).collect()
    }

    pub(super) fn size(&self) -> usize {
        shrink::size(&self.statement) + self.setup.size()
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  with {}", self.statement, self.setup)
    }
}

/// All cases.
#[derive(Debug, Default)]
pub(super) struct Cases {
    /// Those in which the layer has little memory.
    pub(super) in_little_memory: bool,
}

impl Strategy for Cases {
    type Tree = Shrinking;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut dice = Dice::new(runner.new_rng());
        let setup = Setup::draw(&mut dice);
        let setup = if self.in_little_memory { setup.in_little_memory(&mut dice) } else { setup };
        let statement = statement(runner.new_rng());
        Ok(Shrinking::of(Case { statement, setup }))
    }
}

/// A case that fails, and those smaller ones that may fail too.
pub(super) struct Shrinking {
    failing: Case,
    /// The one that is tried now.
    trying: Option<Case>,
    untried: std::vec::IntoIter<Case>,
    /// Different steps lead to the same case; trying one costs two queries.
    tried: HashSet<String>,
}

impl Shrinking {
    pub(super) fn of(failing: Case) -> Self {
        Self { failing, trying: None, untried: vec![].into_iter(), tried: HashSet::new() }
    }

    fn try_next(&mut self) -> bool {
        let tried = &mut self.tried;
        self.trying = self.untried.find(|case| tried.insert(case.to_string()));
        self.trying.is_some()
    }
}

impl ValueTree for Shrinking {
    type Value = Case;

    fn current(&self) -> Case {
        self.trying.as_ref().unwrap_or(&self.failing).clone()
    }

    /// The current case fails: goes on with one that is smaller.
    fn simplify(&mut self) -> bool {
        if let Some(failing) = self.trying.take() {
            self.failing = failing;
        }
        self.untried = self.failing.smaller().into_iter();
        self.try_next()
    }

    /// The current case passes: goes on with another one that is smaller than the last failing one.
    fn complicate(&mut self) -> bool {
        self.try_next()
    }
}
