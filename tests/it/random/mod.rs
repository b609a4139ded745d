//! Random queries: a session with the layer returns what the plain engine returns.
//!
//! ```text
//!  rng ─► generate ─► ast ─► sql ─► engines: plain, layered ─► rows: the same? ─► tally
//!                      ▲                                          │
//!                      └────────────── shrink ◄───────────────────┘ no: a smaller one
//! ```
//!
//! Each case is a statement and a session configuration. Both engines run it in that configuration over the same
//! tables, and must both fail or give the same rows. Which statements are drawn is said in `generate`; what is
//! compared, in `rows`.
//!
//! A difference is excused where the plain engine's answer is no measure: it is another one when asked again, or
//! another one when no filter is pushed down the physical plan, and the layer has that one (`check::Verdict`). Both are
//! listed, and bounded.
//!
//! | test | cases | seed |
//! |---|---|---|
//! | `short` | 150, in every `cargo test` | fixed |
//! | `long` (ignored) | 10,000, or `PROPTEST_CASES` | drawn and printed, or `PROPTEST_RNG_SEED` |
//! | `short_in_little_memory`, `long_in_little_memory` | the same, with a limit for the layer | the same |

mod ast;
mod case;
mod check;
mod engines;
mod generate;
mod rows;
mod setup;
mod shrink;
mod sql;
mod tables;
mod tally;
mod tests;
mod types;
mod walk;

use std::cell::RefCell;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner, contextualize_config};

use case::{Case, Cases};
use check::{Checker, Verdict};
use tally::{MANY_JOINS, Tally};

const SHORT_CASES: u32 = 150;

const SHORT_SEED: u64 = 20_260_101;

const LONG_CASES: u32 = 10_000;

/// What every short run must have met, besides what [`assert_not_degenerate`] asks for.
const CONSTRUCTS: &[&str] = &[
    "INNER JOIN",
    "LEFT JOIN",
    "RIGHT JOIN",
    "FULL JOIN",
    "LEFT SEMI JOIN",
    "RIGHT SEMI JOIN",
    "LEFT ANTI JOIN",
    "RIGHT ANTI JOIN",
    "comma join",
    "join, bushy",
    "join on several keys",
    "join with residual condition",
    "derived table, aggregated",
    "CTE",
    "IN (subquery)",
    "NOT IN (subquery)",
    "EXISTS",
    "NOT EXISTS",
    "scalar subquery",
    "GROUP BY",
    "HAVING",
    "UNION ALL",
    "LIMIT",
];

fn config(cases: u32, rng_seed: RngSeed) -> Config {
    // What fails is printed whole; nothing need be written beside the sources.
    let config = Config { cases, rng_seed, failure_persistence: None, ..Config::default() };
    Config { max_shrink_iters: 4_000, max_shrink_time: 300_000, ..config }
}

/// Draws, checks and counts cases; fails with a small one.
fn run(config: Config, cases: &Cases) -> Tally {
    let checker = Checker::new();
    let tally = RefCell::new(Tally::default());
    let first_failure = RefCell::new(None::<Case>);
    let seed = config.rng_seed;
    let result = TestRunner::new(config).run(cases, |case| match checker.check(&case) {
        Ok(verdict) => {
            if matches!(verdict, Verdict::TimedOut | Verdict::Unstable | Verdict::PlainWrong) {
                eprintln!("{verdict:?}: {case}");
            }
            if first_failure.borrow().is_none() {
                tally.borrow_mut().add(&case, &verdict);
            }
            Ok(())
        }
        Err(report) => {
            first_failure.borrow_mut().get_or_insert(case);
            Err(TestCaseError::fail(report))
        }
    });
    let tally = tally.into_inner();
    match (result, first_failure.into_inner()) {
        (Ok(()), _) => tally,
        (Err(TestError::Fail(report, _)), Some(first)) => panic!(
            "case {} of seed {seed} fails: {report}\n\nbefore it was made smaller: {first}",
            tally.all.cases + 1
        ),
        (Err(error), _) => panic!("{error}"),
    }
}

#[test]
fn short() {
    let tally = run(config(SHORT_CASES, RngSeed::Fixed(SHORT_SEED)), &Cases::default());
    eprintln!("{tally}");
    assert_not_degenerate(&tally);
    for construct in CONSTRUCTS {
        assert!(tally.construct(construct).with_rows > 0, "no query with {construct} has rows:\n{tally}");
    }
}

#[test]
#[ignore = "takes a quarter of an hour; PROPTEST_CASES changes how many cases it draws"]
fn long() {
    assert_not_degenerate(&run_long(&Cases::default()));
}

/// The rules that keep queries within a limit, on plans that nobody thought of: the rows of the plain engine, or one error
/// for want of memory; and nothing is left behind.
#[test]
fn short_in_little_memory() {
    let cases = Cases { in_little_memory: true };
    let tally = run(config(SHORT_CASES, RngSeed::Fixed(SHORT_SEED)), &cases);
    eprintln!("{tally}");
    assert_enough_memory(&tally);
}

#[test]
#[ignore = "takes a quarter of an hour; PROPTEST_CASES changes how many cases it draws"]
fn long_in_little_memory() {
    assert_enough_memory(&run_long(&Cases { in_little_memory: true }));
}

/// With another seed in each run.
fn run_long(cases: &Cases) -> Tally {
    let config = contextualize_config(config(LONG_CASES, RngSeed::Random));
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand_seed(),
    };
    eprintln!(
        "{} cases; the same again: PROPTEST_CASES={} PROPTEST_RNG_SEED={seed}",
        config.cases, config.cases
    );
    let tally = run(Config { rng_seed: RngSeed::Fixed(seed), ..config }, cases);
    eprintln!("{tally}");
    tally
}

/// From the keys that the standard library draws for its maps.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// Errors for want of memory are no comparison.
fn assert_enough_memory(tally: &Tally) {
    assert!(tally.percent(tally.exhausted) <= 40, "too few queries have the memory they need:\n{tally}");
    assert!(tally.percent(tally.exhausted) >= 1, "all queries have the memory they need:\n{tally}");
    assert!(tally.percent(tally.all.with_rows) >= 30, "too few queries have rows:\n{tally}");
}

/// A comparison of queries that fail, or of empty answers, finds nothing.
fn assert_not_degenerate(tally: &Tally) {
    assert!(tally.percent(tally.all.succeeded) >= 90, "too few queries succeed:\n{tally}");
    assert!(tally.percent(tally.all.with_rows) >= 50, "too few queries have rows:\n{tally}");
    assert!(tally.percent(tally.construct(MANY_JOINS).cases) >= 30, "too few queries join much:\n{tally}");
    assert!(tally.percent(tally.timed_out) <= 1, "too many queries take too long:\n{tally}");
    let excused = tally.unstable + tally.plain_wrong;
    assert!(tally.percent(excused) <= 1, "too many queries have no right answer to compare with:\n{tally}");
}
