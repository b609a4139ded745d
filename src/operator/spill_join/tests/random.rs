//! Random sides, types, filters and limits: the rows are those of the plain join.

use super::*;
use datafusion::arrow::array::Int32Array;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::TimeUnit;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// How often each key occurs, and whether NULL is among them.
#[derive(Debug, Clone)]
struct Keys {
    rows: usize,
    domain: i64,
    nulls: bool,
    /// Every second row has the same key.
    hot: bool,
    seed: u64,
}

impl Keys {
    fn side(&self, key_type: &DataType, batch_rows: usize) -> Side {
        let mut state = self.seed | 1;
        let keys: Vec<Option<i64>> = (0..self.rows)
            .map(|row| {
                // xorshift: the values need to be many, not good.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let key = i64::try_from(state >> 8).unwrap() % self.domain;
                let null = self.nulls && state.is_multiple_of(11);
                (!null).then_some(if self.hot && row % 2 == 0 { 0 } else { key })
            })
            .collect();
        let keys: ArrayRef = match key_type {
            DataType::Utf8View | DataType::Dictionary(..) | DataType::Binary | DataType::Utf8 => {
                let text = |key: &Option<i64>| key.map(|key| format!("key number {key}"));
                Arc::new(StringArray::from_iter(keys.iter().map(text)))
            }
            // Days, and what else has four bytes.
            DataType::Int32 | DataType::Date32 => {
                let short = |key: &Option<i64>| key.map(|key| i32::try_from(key % (1 << 20)).unwrap());
                Arc::new(Int32Array::from_iter(keys.iter().map(short)))
            }
            _ => Arc::new(Int64Array::from(keys)),
        };
        Side::of(cast(&keys, key_type).unwrap(), batch_rows)
    }
}

fn keys(rows: std::ops::Range<usize>) -> impl Strategy<Value = Keys> {
    let domain = select(vec![1_i64, 7, 400, 1 << 40]);
    (rows, domain, any::<bool>(), any::<bool>(), any::<u64>())
        .prop_map(|(rows, domain, nulls, hot, seed)| Keys { rows, domain, nulls, hot, seed })
}

fn key_types() -> Vec<DataType> {
    let text = Box::new(DataType::Utf8);
    vec![
        DataType::Int64,
        DataType::Int64,
        DataType::Int32,
        DataType::UInt64,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Utf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::Dictionary(Box::new(DataType::Int32), text),
    ]
}

fn case() -> impl Strategy<Value = (Case, usize)> {
    let sides = (keys(0..1500), keys(0..400), select(key_types()), select(vec![1_usize, 50, 300]));
    let shape = (select(TYPES.to_vec()), select(MODES.to_vec()), 1_usize..4, any::<bool>(), any::<bool>());
    let rest = (any::<bool>(), any::<bool>(), select(vec![7_usize, 256]), any::<bool>());
    let limit = select(vec![1_usize, 30_000, 120_000, 300_000, 4 << 20]);
    (sides, shape, rest, limit).prop_map(|(sides, shape, rest, limit)| {
        let (left, right, key_type, batch_rows) = sides;
        // Pairs of equal keys without a filter are many.
        let many = left.domain.min(right.domain) < 400 || (left.hot && right.hot);
        let mut case =
            Case::new(left.side(&key_type, batch_rows), right.side(&key_type, batch_rows), shape.0);
        let (two_keys, projected, batch_size, fair) = rest;
        (case.mode, case.partitions) = (shape.1, shape.2);
        case.filter = shape.3 || many;
        if shape.4 {
            case.null_equality = NullEquality::NullEqualsNull;
        }
        if two_keys {
            case.on = vec![0, 1];
        }
        case.projection = projected.then(|| vec![1]);
        (case.batch_size, case.fair) = (batch_size, fair);
        if case.join_type == JoinType::LeftAnti
            && case.on.len() == 1
            && case.mode == PartitionMode::CollectLeft
        {
            case.null_aware = left.seed.is_multiple_of(2) && !shape.4 && !case.filter;
        }
        (case, limit)
    })
}

/// `PROPTEST_CASES` draws more.
#[test]
fn random_joins_give_the_rows_of_the_plain_join() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spilled = std::sync::atomic::AtomicUsize::new(0);
    runner
        .run(&case(), |(case, limit)| {
            let ran = runtime.block_on(case.check(limit));
            spilled.fetch_add(usize::from(ran.spilled_bytes > 0), std::sync::atomic::Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    let spilled = spilled.into_inner();
    assert!(spilled * 3 >= usize::try_from(cases).unwrap(), "{spilled} of {cases} spilled");
}
