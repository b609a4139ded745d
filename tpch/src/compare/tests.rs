//! The comparison finds what differs and lets pass what SQL leaves open.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, RecordBatchIterator, StringViewArray,
};

use super::*;

/// A result of one column in batches of two rows, so that groups cross the edges of batches.
fn column(name: &str, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(name, array, true)]).unwrap()
}

fn two_columns(k: &[i64], v: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("k", Arc::new(Int64Array::from(k.to_vec())) as ArrayRef),
        ("v", Arc::new(StringViewArray::from_iter_values(v))),
    ])
    .unwrap()
}

fn check(expected: &RecordBatch, actual: &RecordBatch, sql: &str) -> Verdict {
    let reader = |batch: &RecordBatch| {
        let halves: Vec<_> = (0..batch.num_rows())
            .step_by(2)
            .map(|i| Ok(batch.slice(i, 2.min(batch.num_rows() - i))))
            .collect();
        RecordBatchIterator::new(halves, batch.schema())
    };
    compare(reader(expected), reader(actual), &ResultOrder::of(sql).unwrap()).unwrap()
}

fn floats(values: &[Option<f64>]) -> RecordBatch {
    column("f", Arc::new(Float64Array::from(values.to_vec())))
}

const BY_K: &str = "select k, v from t order by k desc";

#[track_caller]
fn assert_different(verdict: &Verdict, what: &str) {
    let Verdict::Different(text) = verdict else { panic!("taken as the same rows") };
    assert!(text.contains(what), "{text}");
}

#[test]
fn order_by_fixes_the_order_of_keys_and_not_of_ties() {
    let rows = two_columns(&[3, 2, 2, 2, 1], &["a", "b", "c", "d", "e"]);
    assert_eq!(check(&rows, &rows, BY_K), Verdict::Same);
    let ties = two_columns(&[3, 2, 2, 2, 1], &["a", "d", "b", "c", "e"]);
    assert_eq!(check(&rows, &ties, BY_K), Verdict::Same);
    let moved = two_columns(&[2, 3, 2, 2, 1], &["b", "a", "c", "d", "e"]);
    assert_different(&check(&rows, &moved, BY_K), "row 1: expected (3, a), found (2, b)");
    assert_eq!(check(&rows, &moved, "select k, v from t"), Verdict::Same);
}

#[test]
fn a_changed_missing_or_doubled_row_is_found() {
    let rows = two_columns(&[2, 2, 1], &["b", "c", "e"]);
    for sql in [BY_K, "select k, v from t"] {
        assert_different(&check(&rows, &two_columns(&[2, 2, 1], &["b", "x", "e"]), sql), "x");
        assert_different(&check(&rows, &two_columns(&[2, 2, 1], &["b", "b", "e"]), sql), "(2, b)");
        let fewer = two_columns(&[2, 2], &["b", "c"]);
        assert_different(&check(&rows, &fewer, sql), "3 rows expected, 2 found");
        assert_different(&check(&fewer, &rows, sql), "2 rows expected, 3 found");
        assert_different(&check(&rows, &rows.slice(0, 0), sql), "3 rows expected, 0 found");
        assert_eq!(check(&rows.slice(0, 0), &rows.slice(0, 0), sql), Verdict::Same);
    }
}

#[test]
fn limit_may_choose_among_the_last_ties_only() {
    let rows = two_columns(&[2, 2, 1], &["b", "c", "e"]);
    let other = two_columns(&[2, 2, 1], &["b", "c", "x"]);
    assert_eq!(check(&rows, &other, "select k, v from t order by k desc limit 3"), Verdict::Same);
    assert_different(&check(&rows, &other, "select k, v from t order by k desc limit 4"), "(1, e)");
    let key = two_columns(&[2, 2, 0], &["b", "c", "e"]);
    assert_different(&check(&rows, &key, "select k, v from t order by k desc limit 3"), "(0, e)");
    let first = two_columns(&[2, 2, 1], &["b", "x", "e"]);
    assert_different(&check(&rows, &first, "select k, v from t order by k desc limit 3"), "(2, x)");
}

#[test]
fn floats_are_compared_with_a_relative_tolerance() {
    let sql = "select f from t";
    let check = |a: f64, b: f64| check(&floats(&[Some(a)]), &floats(&[Some(b)]), sql) == Verdict::Same;
    assert!(check(1e15, 1e15 + 1.0));
    assert!(check(1e-30, 1e-30 * (1.0 + 5e-10)));
    assert!(!check(1e-30, 1.1e-30));
    assert!(!check(1.0, 1.0 + 2e-9));
    assert!(check(0.0, -0.0));
    assert!(check(f64::NAN, -f64::NAN));
    assert!(!check(f64::NAN, 1.0));
    assert!(check(f64::INFINITY, f64::INFINITY));
    assert!(!check(f64::INFINITY, f64::NEG_INFINITY));
    assert!(!check(f64::INFINITY, f64::MAX));
}

#[test]
fn null_is_no_value() {
    let sql = "select f from t order by f";
    assert_eq!(check(&floats(&[None, Some(0.0)]), &floats(&[None, Some(-0.0)]), sql), Verdict::Same);
    assert_different(&check(&floats(&[None]), &floats(&[Some(0.0)]), sql), "expected (NULL), found (0.0)");
    assert_different(&check(&floats(&[None]), &floats(&[Some(f64::NAN)]), sql), "(NaN)");
    let ints = |v: Vec<Option<i64>>| column("i", Arc::new(Int64Array::from(v)));
    let sql = "select i from t";
    assert_eq!(check(&ints(vec![None, Some(1)]), &ints(vec![Some(1), None]), sql), Verdict::Same);
    assert_different(&check(&ints(vec![None]), &ints(vec![Some(0)]), sql), "expected (NULL), found (0)");
}

/// Two columns of floats which the tolerance brings into another order.
#[test]
fn floats_within_the_tolerance_may_sort_differently() {
    let rows = |a: [f64; 2], b: [f64; 2]| {
        let array = |v: [f64; 2]| Arc::new(Float64Array::from(v.to_vec())) as ArrayRef;
        RecordBatch::try_from_iter([("a", array(a)), ("b", array(b))]).unwrap()
    };
    let expected = rows([1.0, 1.0 + 1e-12], [5.0, 3.0]);
    let actual = rows([1.0 + 1e-12, 1.0], [5.0, 3.0]);
    assert_eq!(check(&expected, &actual, "select a, b from t"), Verdict::Same);
    let actual = rows([1.0 + 1e-12, 1.0], [5.0, 4.0]);
    assert_different(&check(&expected, &actual, "select a, b from t"), "expected");
}

/// In a group too large to be matched row by row, only sorting pairs the rows: bits of zero and NaN must not matter.
#[test]
fn one_zero_and_one_nan_sort_alike() {
    let rows = |a: &dyn Fn(u32) -> f64| {
        let a = Arc::new(Float64Array::from_iter_values((0..3_000).map(a))) as ArrayRef;
        let b = Arc::new(Float64Array::from_iter_values((0..3_000).map(f64::from))) as ArrayRef;
        RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap()
    };
    let sign = |i: u32| if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    let check =
        |value: f64| check(&rows(&|_| value), &rows(&|i| value.copysign(sign(i))), "select a, b from t");
    assert_eq!(check(0.0), Verdict::Same);
    assert_eq!(check(f64::NAN), Verdict::Same);
    assert_different(&check(1.0), "expected (1.0, 0.0)");
}

#[test]
fn decimals_are_exact_and_types_are_compared() {
    let decimals = |v: i128, scale| {
        let array = Decimal128Array::from(vec![v]).with_precision_and_scale(20, scale).unwrap();
        column("d", Arc::new(array))
    };
    let sql = "select d from t";
    assert_eq!(check(&decimals(100, 2), &decimals(100, 2), sql), Verdict::Same);
    assert_different(&check(&decimals(100_000_000_000, 2), &decimals(100_000_000_001, 2), sql), ".01)");
    assert_different(&check(&decimals(100, 2), &decimals(1000, 3), sql), "Decimal128(20, 3)");
    let ints = column("d", Arc::new(Int64Array::from(vec![1])));
    assert_different(&check(&decimals(100, 2), &ints, sql), "of type Int64 found");
    assert_different(&check(&column("e", Arc::clone(ints.column(0))), &ints, sql), "column \"e\"");
    assert_different(&check(&ints, &two_columns(&[1], &["a"]), sql), "1 columns expected, 2 found");
}

/// The files of two engines: what is written is read again, and one wrong value among many rows is found.
#[test]
fn files_are_compared() {
    use datafusion::arrow::ipc::writer::StreamWriter;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, batch: &RecordBatch| {
        let path = dir.path().join(name);
        let mut writer = StreamWriter::try_new(File::create(&path).unwrap(), &batch.schema()).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
        path
    };
    let mut values: Vec<i64> = (0..10_000).collect();
    let ints = |v: &[i64]| column("i", Arc::new(Int64Array::from(v.to_vec())));
    let expected = write("expected", &ints(&values));
    values.reverse();
    let order = ResultOrder::of("select i from t").unwrap();
    assert_eq!(compare_files(&expected, &write("same", &ints(&values)), &order).unwrap(), Verdict::Same);
    values[5_000] += 1;
    let verdict = compare_files(&expected, &write("wrong", &ints(&values)), &order).unwrap();
    assert_different(&verdict, "found (5000)");
    let error = compare_files(&expected, &dir.path().join("absent"), &order).unwrap_err().to_string();
    assert!(error.contains("cannot read the rows"), "{error}");
}
