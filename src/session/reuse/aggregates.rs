//! Which aggregates give the same, whatever the order in which the states of their files are merged.
//!
//! | the state of a file | aggregates | kept |
//! |---|---|---|
//! | is merged by an operation that is associative and commutative | `count`, `sum` of integers and decimals, `min`, `max`, … | always |
//! | is merged with rounding | `sum` of floats, `stddev`, `var` | where a plain plan has several partitions |
//! | depends on the order of its rows | `array_agg`, `first_value`, functions of the owner | never |
//!
//! These are the distributive and algebraic functions of Gray et al. (*Data Cube*, 1997), and two holistic ones whose state
//! is all of their values.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::functions_aggregate as functions;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

/// Their states are merged to the same value in any order, where no float is rounded.
const EXACT: &[fn() -> Arc<AggregateUDF>] = &[
    functions::count::count_udaf,
    functions::sum::sum_udaf,
    functions::min_max::min_udaf,
    functions::min_max::max_udaf,
    functions::average::avg_udaf,
    functions::median::median_udaf,
    functions::bool_and_or::bool_and_udaf,
    functions::bool_and_or::bool_or_udaf,
    functions::bit_and_or_xor::bit_and_udaf,
    functions::bit_and_or_xor::bit_or_udaf,
    functions::bit_and_or_xor::bit_xor_udaf,
    functions::approx_distinct::approx_distinct_udaf,
];

/// These round in any case.
const ROUNDED: &[fn() -> Arc<AggregateUDF>] = &[
    functions::stddev::stddev_udaf,
    functions::stddev::stddev_pop_udaf,
    functions::variance::var_samp_udaf,
    functions::variance::var_pop_udaf,
];

/// Why the states of `aggregate` must not be kept file by file; `partitions` is how many a plain plan would have.
///
/// Floats that are added up in another order are rounded otherwise. A plain plan of several partitions does not say in which
/// order it adds up, so there it makes no difference; a plan of one partition does.
pub(super) fn why_not(aggregate: &AggregateExec, partitions: usize) -> Option<Cow<'static, str>> {
    if aggregate.limit_options().is_some() {
        return Some("the aggregate stops at a limit".into());
    }
    for function in aggregate.aggr_expr() {
        let is = |known: &&fn() -> Arc<AggregateUDF>| known().as_ref() == function.fun();
        let known = EXACT.iter().find(is).is_some() || ROUNDED.iter().find(is).is_some();
        if !function.order_bys().is_empty() || !known {
            return Some(format!("{} may depend on the order of its rows", function.name()).into());
        }
    }
    let rounds = |data_type: &DataType| data_type.is_floating() || data_type.is_nested();
    let schema = aggregate.schema();
    let input = aggregate.input().schema();
    let floats = schema.fields().iter().any(|field| rounds(field.data_type()));
    // The squares of integers, and means of them, are floats inside.
    let hidden = aggregate.aggr_expr().iter().any(|function| {
        ROUNDED.iter().any(|known| known().as_ref() == function.fun())
            || function.expressions().iter().any(|expr| expr.data_type(&input).is_ok_and(|of| rounds(&of)))
    });
    match partitions > 1 || !(floats || hidden) {
        true => None,
        false => Some("in one partition, floats are added up in the order of the files".into()),
    }
}
