//! The expression gives what DataFusion's gives: values, NULLs, types, errors.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch};
use datafusion::arrow::buffer::{NullBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};

use super::{Expr, NarrowDecimals, narrow_decimals};

/// The largest magnitude that 38 digits have, and what DataFusion lets pass all the same.
const MAX: i128 = 10_i128.pow(38) - 1;

/// Values around every limit: of 64 bits, of their products, of 38 digits, of 128 bits.
fn edges() -> Vec<i128> {
    let wide = i128::from(i64::MAX);
    let half = 1_i128 << 32;
    let mut edges = vec![0, 1, 7, 100, 10_494_950, half - 1, half, wide / 100, wide - 1, wide, wide + 1];
    edges.extend([3_037_000_499, 3_037_000_500, wide * 2, 1 << 100, 1 << 126, MAX, i128::MAX - 1, i128::MAX]);
    let negative: Vec<i128> = edges.iter().map(|value| -value).collect();
    edges.extend(negative);
    edges.extend([i128::from(i64::MIN), i128::from(i64::MIN) - 1, i128::MIN, i128::MIN + 1]);
    edges
}

fn array(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    let array: Decimal128Array = values.into_iter().collect();
    Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
}

fn rows_of(columns: &[ArrayRef]) -> RecordBatch {
    let fields = columns.iter().enumerate();
    let fields = fields.map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.to_vec()).unwrap()
}

fn column(at: usize) -> Expr {
    Arc::new(Column::new(&format!("c{at}"), at))
}

fn number(value: Option<i128>, precision: u8, scale: i8) -> Expr {
    Arc::new(Literal::new(ScalarValue::Decimal128(value, precision, scale)))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Arc::new(BinaryExpr::new(left, op, right))
}

fn times(left: Expr, right: Expr) -> Expr {
    binary(left, Operator::Multiply, right)
}

fn minus(left: Expr, right: Expr) -> Expr {
    binary(left, Operator::Minus, right)
}

fn plus(left: Expr, right: Expr) -> Expr {
    binary(left, Operator::Plus, right)
}

/// The replacement; `expr` has one.
fn narrowed(expr: &Expr, schema: &Schema) -> Expr {
    let narrowed = narrow_decimals(expr, schema).unwrap();
    narrowed.unwrap_or_else(|| panic!("{expr} is left as it is"))
}

/// Whether the unchecked loops have computed it.
fn is_computed_narrow(expr: &Expr, batch: &RecordBatch) -> bool {
    narrowed(expr, &batch.schema()).downcast_ref::<NarrowDecimals>().unwrap().narrow(batch).is_some()
}

/// Both give the same; null slots included.
fn assert_same(expr: &Expr, batch: &RecordBatch) {
    let ours = narrowed(expr, &batch.schema());
    match (expr.evaluate(batch), ours.evaluate(batch)) {
        (Ok(ColumnarValue::Array(want)), Ok(ColumnarValue::Array(have))) => {
            assert_eq!(want.data_type(), have.data_type(), "{expr}");
            assert_eq!(&want, &have, "{expr}");
            let raw = |array: &ArrayRef| array.as_primitive::<Decimal128Type>().values().clone();
            assert_eq!(raw(&want), raw(&have), "{expr}: the slots of NULLs");
        }
        (Ok(ColumnarValue::Scalar(want)), Ok(ColumnarValue::Scalar(have))) => assert_eq!(want, have),
        (Err(want), Err(have)) => assert_eq!(want.strip_backtrace(), have.strip_backtrace(), "{expr}"),
        (want, have) => panic!("{expr}: {want:?} and {have:?}"),
    }
    assert_eq!(expr.data_type(&batch.schema()).unwrap(), ours.data_type(&batch.schema()).unwrap());
    assert_eq!(expr.return_field(&batch.schema()).unwrap(), ours.return_field(&batch.schema()).unwrap());
    assert_eq!(expr.to_string(), ours.to_string());
}

/// Expressions over columns `c0 DECIMAL(15, 2)`, `c1 DECIMAL(38, 0)` and `c2 DECIMAL(20, 5)`.
fn expressions() -> Vec<Expr> {
    let one = || number(Some(1), 20, 0);
    vec![
        times(column(0), column(1)),
        times(column(0), column(0)),
        times(column(1), column(1)),
        plus(column(0), column(1)),
        minus(column(1), column(2)),
        minus(column(2), column(0)),
        times(column(0), minus(one(), column(2))),
        times(times(column(0), minus(one(), column(2))), plus(one(), column(0))),
        times(number(Some(i128::from(i64::MAX) + 1), 38, 0), column(0)),
        times(column(1), number(Some(-3), 3, 1)),
        plus(times(column(0), column(2)), times(column(2), column(0))),
        times(minus(column(1), column(1)), plus(column(1), column(1))),
        times(times(one(), number(Some(25), 2, 1)), column(0)),
        plus(times(number(Some(MAX), 38, 0), number(Some(MAX), 38, 0)), column(1)),
        times(column(0), number(None, 15, 2)),
        times(one(), number(Some(25), 2, 1)),
        times(column(0), binary(column(2), Operator::Divide, one())),
    ]
}

/// Every pair of edges, each in a batch of its own, so that no other value decides.
#[test]
fn every_value_gives_what_datafusion_gives() {
    for left in edges() {
        for right in edges() {
            let batch = rows_of(&[
                array(vec![Some(left)], 15, 2),
                array(vec![Some(right)], 38, 0),
                array(vec![Some(right)], 20, 5),
            ]);
            for expr in expressions() {
                assert_same(&expr, &batch);
            }
        }
    }
}

#[test]
fn nulls_stay_and_what_is_in_their_slots_shows_nowhere() {
    let values = |nulls: &[usize]| {
        let valid = (0..5_000).map(|row| !nulls.iter().any(|every| row % every == 0));
        let values: ScalarBuffer<i128> = (0..5_000).map(|row| (row - 2_000) * 31).collect();
        Decimal128Array::new(values, Some(NullBuffer::from_iter(valid)))
    };
    let typed = |array: Decimal128Array, precision, scale| -> ArrayRef {
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    };
    let batch = rows_of(&[
        typed(values(&[7]), 15, 2),
        typed(values(&[11, 4]), 38, 0),
        // None of its rows are NULL, though it could say so.
        typed(values(&[]), 20, 5),
    ]);
    for expr in expressions() {
        assert_same(&expr, &batch);
        assert_same(&expr, &batch.slice(100, 0));
        assert_same(&expr, &batch.slice(1_001, 2_048));
        assert_same(&expr, &batch.slice(4_999, 1));
    }
    let all_null =
        rows_of(&[array(vec![None; 3], 15, 2), array(vec![None; 3], 38, 0), array(vec![Some(9); 3], 20, 5)]);
    expressions().iter().for_each(|expr| assert_same(expr, &all_null));
}

/// The slot of a NULL may hold anything; it must not make an error of it.
#[test]
fn what_would_overflow_in_the_slot_of_a_null_does_not() {
    let values: ScalarBuffer<i128> = vec![i128::MAX, 5, i128::MIN].into();
    let nulls = NullBuffer::from(vec![false, true, false]);
    let hidden = Decimal128Array::new(values, Some(nulls)).with_precision_and_scale(15, 2).unwrap();
    let batch = rows_of(&[Arc::new(hidden.clone()), Arc::new(hidden.clone()), Arc::new(hidden)]);
    let expr = times(column(0), column(1));
    assert_same(&expr, &batch);
    assert!(expr.evaluate(&batch).is_ok());
}

/// One row of a later block overflows: the batch fails, as it does in DataFusion, and names the same numbers.
#[test]
fn an_overflow_is_the_error_that_it_was() {
    let mut values = vec![Some(12_345); 3_000];
    values[2_500] = Some(i128::MAX / 2);
    let batch = rows_of(&[array(values.clone(), 38, 2), array(values.clone(), 38, 2), array(values, 38, 2)]);
    for expr in [times(column(0), column(1)), plus(times(column(0), number(Some(3), 1, 0)), column(2))] {
        assert_same(&expr, &batch);
        let error = narrowed(&expr, &batch.schema()).evaluate(&batch).unwrap_err().to_string();
        assert!(error.contains("verflow"), "{error}");
    }
    let fits = batch.slice(0, 2_000);
    assert_same(&times(column(0), column(1)), &fits);
    assert!(is_computed_narrow(&times(column(0), column(1)), &fits));
}

#[test]
fn common_values_are_computed_unchecked() {
    let prices = array((0..9_000).map(|row| Some(row * 1_049)).collect(), 15, 2);
    let rates = array((0..9_000).map(|row| Some(row % 11)).collect(), 15, 2);
    let large = array((0..9_000).map(|row| Some(10_i128.pow(25) + row)).collect(), 38, 0);
    let batch = rows_of(&[prices, rates, large]);
    let one = || number(Some(1), 20, 0);
    let charge = times(times(column(0), minus(one(), column(1))), plus(one(), column(1)));
    for expr in [charge, times(column(2), column(1)), times(column(0), number(Some(-1), 3, 1))] {
        assert!(is_computed_narrow(&expr, &batch), "{expr}");
        assert_same(&expr, &batch);
    }
    assert!(!is_computed_narrow(&times(column(2), column(2)), &batch));
}

/// Where batch after batch is too large, their operands are no longer evaluated for nothing; one that fits keeps it going.
#[test]
fn too_many_misses_end_the_attempts() {
    let large = rows_of(&[array(vec![Some(MAX - MAX / 10)], 38, 0), array(vec![Some(1)], 38, 0)]);
    let small = rows_of(&[array(vec![Some(6)], 38, 0), array(vec![Some(7)], 38, 0)]);
    let expr = times(column(0), column(1));
    let ours = narrowed(&expr, &large.schema());
    let tries = |batch: &RecordBatch| {
        let same = ours.evaluate(batch).unwrap().into_array(1).unwrap();
        assert_eq!(&same, &expr.evaluate(batch).unwrap().into_array(1).unwrap());
        ours.downcast_ref::<NarrowDecimals>().unwrap().narrow(batch).is_some()
    };
    for _ in 0..3 {
        // Each of these misses twice.
        (0..5).for_each(|_| assert!(!tries(&large)));
        assert!(tries(&small));
    }
    (0..8).for_each(|_| assert!(!tries(&large)));
    assert!(!tries(&small));
}

#[test]
fn what_gains_nothing_is_left_alone() {
    let types = [
        DataType::Decimal128(15, 2),
        DataType::Decimal32(5, 2),
        DataType::Decimal64(12, 2),
        DataType::Decimal256(50, 2),
        DataType::Int64,
        DataType::Decimal128(38, 30),
    ];
    let fields = types.iter().enumerate().map(|(at, ty)| Field::new(format!("c{at}"), ty.clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let left_alone = |expr: Expr| narrow_decimals(&expr, &schema).unwrap().is_none();
    for (at, ty) in types.iter().enumerate().filter(|(at, _)| (1..5).contains(at)) {
        assert!(left_alone(times(column(at), column(at))), "{ty}");
    }
    assert!(left_alone(plus(column(0), column(0))), "a sum alone");
    assert!(left_alone(binary(column(0), Operator::Divide, column(0))), "a quotient");
    assert!(left_alone(column(0)), "a column");
    assert!(left_alone(times(column(5), column(5))), "a scale of 60 has no type");
    assert!(!left_alone(times(column(0), column(0))));
    assert!(!left_alone(minus(column(0), column(5))), "scales that differ");
}

/// Inside of other expressions, and with others inside.
#[test]
fn it_is_found_and_printed_where_it_stands() {
    let batch = rows_of(&[array(vec![Some(150), None], 15, 2), array(vec![Some(7), Some(8)], 15, 2)]);
    let product = || times(column(0), minus(number(Some(1), 20, 0), column(1)));
    let cast = |expr: Expr| -> Expr { Arc::new(CastExpr::new(expr, DataType::Decimal128(20, 2), None)) };
    for expr in [
        binary(plus(product(), column(1)), Operator::Divide, column(1)),
        binary(column(1), Operator::Minus, cast(product())),
        binary(product(), Operator::Gt, number(Some(3), 38, 4)),
        times(cast(times(column(0), column(1))), column(1)),
        cast(binary(product(), Operator::Modulo, column(1))),
    ] {
        let schema = batch.schema();
        let ours = narrow_decimals(&expr, &schema).unwrap().unwrap();
        assert_eq!(ours.to_string(), expr.to_string());
        let values = [&expr, &ours].map(|expr| expr.evaluate(&batch).unwrap().into_array(2).unwrap());
        assert_eq!(&values[0], &values[1], "{expr}");
    }
}

#[test]
fn other_operands_are_put_in_their_places() {
    let batch =
        rows_of(&[array(vec![Some(2)], 15, 2), array(vec![Some(3)], 15, 2), array(vec![Some(5)], 15, 2)]);
    let expr = minus(times(column(0), column(1)), times(column(1), column(0)));
    let ours = narrowed(&expr, &batch.schema());
    assert_eq!(ours.children().len(), 4);
    let children = vec![column(2), column(1), column(0), plus(column(0), column(1))];
    let moved = ours.with_new_children(children).unwrap();
    assert_eq!(moved.to_string(), "c2@2 * c1@1 - c0@0 * (c0@0 + c1@1)");
    let value = moved.evaluate(&batch).unwrap().into_array(1).unwrap();
    assert_eq!(value.as_primitive::<Decimal128Type>().value(0), 5 * 3 - 2 * 5);
    // An operand of another type is left to DataFusion.
    let expr = times(column(0), column(1));
    let wider =
        narrowed(&expr, &batch.schema()).with_new_children(vec![column(0), number(Some(3), 38, 4)]).unwrap();
    let value = wider.evaluate(&batch).unwrap().into_array(1).unwrap();
    assert_eq!(value.data_type(), &DataType::Decimal128(38, 6));
}

#[test]
fn range_and_order_are_those_of_the_original() {
    let schema = Schema::new(vec![
        Field::new("c0", DataType::Decimal128(15, 2), false),
        Field::new("c1", DataType::Decimal128(15, 2), true),
    ]);
    let range = |from: i128, to: i128| {
        let bound = |value| ScalarValue::Decimal128(Some(value), 15, 2);
        Interval::try_new(bound(from), bound(to)).unwrap()
    };
    let product: Expr = times(column(0), column(1));
    let ours = narrowed(&product, &schema);
    let ranges = [range(100, 500), range(-200, 300)];
    let bounds = [&ranges[0], &ranges[1]];
    assert_eq!(product.evaluate_bounds(&bounds).unwrap(), ours.evaluate_bounds(&bounds).unwrap());
    assert_eq!(product.nullable(&schema).unwrap(), ours.nullable(&schema).unwrap());
    let sum = plus(column(0), minus(column(1), number(Some(1), 20, 0)));
    let ours = narrowed(&sum, &schema);
    let ordered = |range: Interval| ExprProperties {
        sort_properties: SortProperties::Ordered(Default::default()),
        ..ExprProperties::new_unknown().with_range(range)
    };
    let literal = ExprProperties::new_unknown().with_order(SortProperties::Singleton).with_range(range(1, 1));
    let leaves = [ordered(ranges[0].clone()), ordered(ranges[1].clone()), literal];
    let binary = sum.downcast_ref::<BinaryExpr>().unwrap();
    let inner = binary.right().get_properties(&leaves[1..]).unwrap();
    let want = sum.get_properties(&[leaves[0].clone(), inner]).unwrap();
    let have = ours.get_properties(&leaves).unwrap();
    assert_eq!(want.sort_properties, have.sort_properties);
    assert_eq!(want.range, have.range);
}
