//! Keys that are NULL, all alike, of several columns, and of types that are compared in their own way.

use super::*;
use datafusion::arrow::array::{DictionaryArray, Float64Array, StringViewArray};
use datafusion::arrow::datatypes::Int32Type;

const TINY: usize = 100_000;

async fn every_type(left: &Side, right: &Side, change: impl Fn(&mut Case)) -> Vec<Ran> {
    let mut all = Vec::new();
    // Each type in one mode: which one makes no difference to how keys are compared.
    for (join_type, mode) in TYPES.into_iter().zip(MODES.into_iter().cycle()) {
        let mut case = Case::new(left.clone(), right.clone(), join_type);
        case.mode = mode;
        change(&mut case);
        let ran = case.check(TINY).await;
        // Partitions that run after each other may each fit.
        assert!(ran.spilled_bytes > 0 || mode == PartitionMode::Partitioned, "{join_type:?} {mode:?}");
        all.push(ran);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_for_all_rows_is_joined_block_by_block() {
    let left = Side::ints((0..2000).map(|_| Some(7)), 128);
    let right = Side::ints((0..60).map(|row| Some(if row % 3 == 0 { 7 } else { 8 })), 16);
    let ran = every_type(&left, &right, |case| case.filter = true).await;
    assert!(ran.iter().all(|ran| ran.passes > 1), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe_rows_match_in_one_block_and_not_in_another() {
    // All build rows hash alike, and the filter decides: most probe rows match in some blocks only.
    let left = Side::ints((0..3000).map(|_| Some(7)), 64);
    let right = Side::ints((0..40).map(|_| Some(7)), 16);
    let ran = every_type(&left, &right, |case| {
        case.filter = true;
        case.projection = None;
    })
    .await;
    assert!(ran.iter().all(|ran| ran.passes > 1), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_keys_match_nothing_or_each_other() {
    let key = |row: i64| (row % 2 == 0).then_some(row % 600);
    let left = Side::ints((0..2000).map(key), 128);
    let right = Side::ints((0..300).map(|row| (row % 30 != 0).then_some(row)), 64);
    every_type(&left, &right, |_| ()).await;
    every_type(&left, &right, |case| case.null_equality = NullEquality::NullEqualsNull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_are_null() {
    let left = Side::ints((0..1500).map(|_| None), 128);
    let right = Side::ints((0..40).map(|_| None), 16);
    every_type(&left, &right, |_| ()).await;
    every_type(&left, &right, |case| case.null_equality = NullEquality::NullEqualsNull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_one_row() {
    let left = Side::ints((0..700).map(|row| Some(row % 500)), 1);
    let right = Side::ints((0..300).map(Some), 1);
    for join_type in [JoinType::Full, JoinType::RightMark, JoinType::LeftAnti] {
        let mut case = Case::new(left.clone(), right.clone(), join_type);
        case.batch_size = 1;
        assert!(case.check(60_000).await.spilled_bytes > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_keys() {
    let left = Side::ints((0..2000).map(|row| (row % 5 != 0).then_some(row % 40)), 128);
    let right = Side::ints((0..900).map(|row| (row % 7 != 0).then_some(row % 50)), 128);
    every_type(&left, &right, |case| case.on = vec![0, 1]).await;
    every_type(&left, &right, |case| {
        case.on = vec![0, 2];
        case.null_equality = NullEquality::NullEqualsNull;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_views_dictionaries_and_floats() {
    let text =
        |row: usize| (!row.is_multiple_of(13)).then(|| format!("a key that is not inlined {}", row % 700));
    let float = |row: usize| match row % 6 {
        0 => Some(f64::NAN),
        1 => Some(-0.0),
        2 => Some(0.0),
        3 => None,
        _ => Some(row as f64),
    };
    let sides = |keys: &dyn Fn(usize) -> ArrayRef| (Side::of(keys(1800), 128), Side::of(keys(300), 128));
    let kinds: [&dyn Fn(usize) -> ArrayRef; 4] = [
        &|rows| Arc::new(StringArray::from_iter((0..rows).map(text))),
        &|rows| Arc::new(StringViewArray::from_iter((0..rows).map(text))),
        &|rows| {
            let all: Vec<Option<String>> = (0..rows).map(text).collect();
            Arc::new(all.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())
        },
        &|rows| Arc::new(Float64Array::from_iter((0..rows).map(float))),
    ];
    for keys in kinds {
        let (left, right) = sides(keys);
        every_type(&left, &right, |case| case.null_equality = NullEquality::NullEqualsNull).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_in_with_and_without_nulls_on_either_side() {
    let build =
        |nulls: bool| Side::ints((0..3000).map(move |row| (!nulls || row % 9 != 0).then_some(row)), 128);
    let probes: [Vec<Option<i64>>; 5] = [
        Vec::new(),
        (0..900).map(Some).collect(),
        (0..900).map(|row| (row != 899).then_some(row)).collect(),
        vec![None],
        vec![Some(-1)],
    ];
    for nulls in [false, true] {
        for probe in &probes {
            for partitions in [1, 3] {
                let right = Side::ints(probe.clone(), 64);
                let mut case = Case::new(build(nulls), right, JoinType::LeftAnti);
                (case.null_aware, case.partitions) = (true, partitions);
                case.check(64 << 20).await;
                for limit in [400_000, 100_000] {
                    assert!(case.check(limit).await.spilled_bytes > 0, "{nulls} {limit}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_does_not_fit_is_divided_again() {
    let left = Side::ints((0..20_000).map(Some), 512);
    let right = Side::ints((0..3000).map(|row| Some(row * 3)), 512);
    for join_type in [JoinType::Inner, JoinType::Full, JoinType::LeftMark] {
        let mut case = Case::new(left.clone(), right.clone(), join_type);
        case.partitions = 1;
        let ran = case.check(60_000).await;
        assert!(ran.depth > 0 && ran.passes == 0, "{} passes", ran.passes);
    }
}

/// The join of the rows in memory ends before it asks for a probe row: it can tell that NULL keys match nothing. The probe
/// rows of the parts on disk are to be seen all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_null_keys_are_in_memory() {
    let left = Side::ints((0..1600).map(|row| (row % 32 != 0).then_some(5)), 128);
    let right = Side::ints((0..40).map(|row| Some(row % 8)), 16);
    for join_type in [JoinType::Inner, JoinType::LeftSemi, JoinType::RightSemi] {
        let mut case = Case::new(left.clone(), right.clone(), join_type);
        case.filter = true;
        let ran = case.check(TINY).await;
        assert!(ran.spilled_bytes > 0 && !ran.rows.is_empty(), "{join_type:?}");
    }
}
