//! The comparison sees what differs, and shrinking reaches small cases.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};

use super::case::{Case, Cases};
use super::rows::Answer;
use super::setup::Setup;
use super::tally::constructs;
use super::{SHORT_SEED, config};

fn answer(ints: Vec<Option<i64>>, floats: Vec<f64>) -> Answer {
    let columns: [(&str, ArrayRef); 2] =
        [("i", Arc::new(Int64Array::from(ints))), ("x", Arc::new(Float64Array::from(floats)))];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
    let batch = batch.unwrap();
    Answer::of(&batch.schema(), &[batch])
}

#[test]
fn rows_compare_as_multisets_within_the_order() {
    let want = answer(vec![Some(1), Some(1), None], vec![0.5, 1.5, 2.0]);
    let swapped = answer(vec![Some(1), Some(1), None], vec![1.5, 0.5, 2.0]);
    assert_eq!(want.difference(&swapped, &[]), None);
    assert_eq!(want.difference(&swapped, &[0]), None, "ORDER BY i leaves these two open");
    assert!(want.difference(&swapped, &[0, 1]).unwrap().contains("row 1 is out of order"));
    let duplicated = answer(vec![Some(1), Some(1), None], vec![0.5, 0.5, 2.0]);
    assert!(want.difference(&duplicated, &[]).unwrap().contains("(1 | 1.5) is expected, (1 | 0.5) is found"));
    let dropped = answer(vec![Some(1), Some(1)], vec![0.5, 1.5]);
    assert_eq!(want.difference(&dropped, &[]).unwrap(), "3 rows expected, 2 found");
    let null = answer(vec![Some(1), Some(1), Some(0)], vec![0.5, 1.5, 2.0]);
    assert!(want.difference(&null, &[]).is_some(), "NULL is not zero");
}

#[test]
fn floats_may_differ_by_a_billionth() {
    let want = answer(vec![Some(1), Some(2)], vec![3.0, 3.0 + 1e-10]);
    let near = answer(vec![Some(2), Some(1)], vec![3.0, 3.0 + 1e-10]);
    assert_eq!(want.difference(&near, &[]), None);
    assert_eq!(want.difference(&near, &[1]), None);
    assert!(want.difference(&answer(vec![Some(1), Some(2)], vec![3.0, 3.000_001]), &[]).is_some());
    assert_eq!(answer(vec![None], vec![-0.0]).difference(&answer(vec![None], vec![0.0]), &[0, 1]), None);
}

/// Shrinks the first drawn case that `fails`, as proptest does.
fn shrunk(fails: impl Fn(&Case) -> bool) -> Case {
    let mut runner = TestRunner::new(config(1, RngSeed::Fixed(SHORT_SEED)));
    let mut drawn = std::iter::repeat_with(|| Cases::default().new_tree(&mut runner).unwrap());
    let mut tree =
        drawn.by_ref().take(2_000).find(|tree| fails(&tree.current()) && tree.current().size() > 60).unwrap();
    let mut smaller = tree.simplify();
    while smaller {
        smaller = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
    }
    tree.current()
}

#[test]
fn what_fails_is_made_small() {
    for (construct, longest) in [
        ("FULL JOIN", 100),
        ("NOT IN (subquery)", 170),
        ("CTE used more than once", 170),
        ("derived table, aggregated", 130),
        ("window function", 100),
    ] {
        let case = shrunk(|case| constructs(&case.statement).contains(construct));
        let sql = case.statement.to_string();
        assert!(sql.len() <= longest, "{construct}: {sql}");
        assert_eq!(case.setup, Setup::PLAINEST);
    }
}

#[test]
fn a_seed_is_a_sequence_of_cases() {
    let drawn = || {
        let mut runner = TestRunner::new(config(1, RngSeed::Fixed(7)));
        std::iter::repeat_with(|| Cases::default().new_tree(&mut runner).unwrap().current().to_string())
            .take(20)
            .collect::<Vec<_>>()
    };
    let first = drawn();
    assert_eq!(first, drawn());
    assert!(first.iter().collect::<std::collections::HashSet<_>>().len() == first.len());
}
