//! Random choices, each with its weight.

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

pub(in super::super) struct Dice(TestRng);

impl Dice {
    pub(in super::super) fn new(rng: TestRng) -> Self {
        Self(rng)
    }

    pub(in super::super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(in super::super) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(in super::super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// One of the choices, each as often as its weight says.
    pub(in super::super) fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let mut at = self.0.random_range(0..choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        unreachable!("{at} is below the sum of the weights")
    }
}
