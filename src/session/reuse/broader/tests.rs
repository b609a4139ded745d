//! What follows from what: cases by hand, and all pairs of conditions against all values.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, binary_expr, col, in_list, lit};

use super::*;

fn term(expr: Expr) -> Term {
    Term::of(expr).unwrap()
}

fn follows(known: &[Expr], wanted: Expr) -> bool {
    let known: Vec<Term> = known.iter().cloned().map(term).collect();
    implies(&known, &term(wanted))
}

#[test]
fn ranges_lists_and_their_negations() {
    let a = || col("a");
    let list = |values: &[i64]| in_list(a(), values.iter().map(|value| lit(*value)).collect(), false);
    for (known, wanted, expected) in [
        (a().gt(lit(5)), a().gt(lit(3)), true),
        (a().gt(lit(5)), a().gt_eq(lit(5)), true),
        (a().gt_eq(lit(5)), a().gt(lit(5)), false),
        (a().gt(lit(3)), a().gt(lit(5)), false),
        (a().lt(lit(3)), a().lt(lit(5)), true),
        (a().lt(lit(3)), a().gt(lit(1)), false),
        (lit(5).lt(a()), a().gt(lit(3)), true),
        (a().eq(lit(4)), a().gt(lit(3)), true),
        (a().eq(lit(3)), a().gt(lit(3)), false),
        (a().gt(lit(3)), a().is_not_null(), true),
        (a().is_not_null(), a().gt(lit(3)), false),
        (a().gt(lit(3)), a().not_eq(lit(3)), true),
        (a().gt_eq(lit(3)), a().not_eq(lit(3)), false),
        (a().gt(lit(3)), a().is_null(), false),
        (a().is_null(), a().is_not_null(), false),
        (list(&[1, 2]), a().eq(lit(1_i64)).or(a().eq(lit(2_i64))).or(a().eq(lit(7_i64))), true),
        (list(&[1, 2]), list(&[2]), false),
        (a().lt(lit(3)).or(a().gt(lit(7))), a().not_eq(lit(5)), true),
        (a().lt(lit(3)).or(a().gt(lit(7))), a().lt(lit(3)), false),
        (a().lt(lit(2)), a().lt(lit(3)).or(a().gt(lit(7))), true),
        (col("b").gt(lit(5)), a().gt(lit(3)), false),
        ((a() + lit(1)).gt(lit(5)), (a() + lit(1)).gt(lit(3)), true),
    ] {
        assert_eq!(follows(std::slice::from_ref(&known), wanted.clone()), expected, "{known} => {wanted}");
    }
    // Together, where neither does alone.
    assert!(follows(&[list(&[1, 2, 9]), a().lt(lit(5_i64))], list(&[1, 2])));
}

#[test]
fn values_that_do_not_compare_imply_nothing() {
    let a = || col("a");
    let zoned = |zone: Option<&str>| lit(ScalarValue::TimestampSecond(Some(5), zone.map(Into::into)));
    let decimal = |value, scale| lit(ScalarValue::Decimal128(Some(value), 10, scale));
    for (known, wanted) in [
        // Of other types.
        (a().gt(lit(5_i64)), a().gt(lit(3_i32))),
        (a().gt(decimal(50, 1)), a().gt(decimal(30, 2))),
        (a().gt(zoned(Some("+02:00"))), a().gt_eq(zoned(None))),
        // NULL is in no range and in no list.
        (a().gt(lit(ScalarValue::Int64(None))), a().is_not_null()),
        // Neither -0.0 nor NaN has one place.
        (a().gt(lit(0.0)), a().gt(lit(-1.0))),
        (a().eq(lit(-0.0)), a().eq(lit(0.0))),
        (a().gt(lit(f64::NAN)), a().gt(lit(3.0))),
        (a().lt(lit(3.0)), a().lt(lit(f64::INFINITY))),
    ] {
        assert!(!follows(std::slice::from_ref(&known), wanted.clone()), "{known} => {wanted}");
    }
    assert!(follows(&[a().gt(lit(5.5))], a().gt(lit(3.5))));
    assert!(follows(&[a().gt(lit("b"))], a().gt(lit("Z"))), "byte by byte");
}

/// All conditions over a few values, in pairs and with two known: what is said to follow does, for every value and NULL.
#[test]
fn nothing_follows_that_does_not() {
    let ops = [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq];
    let mut conditions = vec![(col("a").is_not_null(), vec![true; 7])];
    let values = || 0..7_i64;
    for op in ops {
        for at in 1..6_i64 {
            let holds = |value: i64| match op {
                Operator::Eq => value == at,
                Operator::NotEq => value != at,
                Operator::Lt => value < at,
                Operator::LtEq => value <= at,
                Operator::Gt => value > at,
                _ => value >= at,
            };
            conditions.push((binary_expr(col("a"), op, lit(at)), values().map(holds).collect()));
        }
    }
    for index in (1..conditions.len()).step_by(3) {
        let (one, other) = (&conditions[index], &conditions[(index * 7) % conditions.len()]);
        let both = one.1.iter().zip(&other.1).map(|(one, other)| *one || *other).collect();
        conditions.push((one.0.clone().or(other.0.clone()), both));
    }
    let mut followed = 0;
    for (first, in_first) in &conditions {
        for (second, in_second) in &conditions {
            for (wanted, in_wanted) in &conditions {
                let known = [first.clone(), second.clone()];
                let is_so = values().all(|value| {
                    let place = usize::try_from(value).unwrap();
                    !(in_first[place] && in_second[place]) || in_wanted[place]
                });
                let found = follows(&known, wanted.clone());
                assert!(is_so || !found, "{first} AND {second} => {wanted}");
                followed += usize::from(found);
            }
        }
    }
    assert!(followed > 10_000, "{followed}");
}
