//! When one aggregate gives the rows of another.

use std::ops::Range;

use datafusion::logical_expr::Volatility;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode, AggregateOutputMode};
use datafusion::physical_plan::udaf::AggregateFunctionExpr;

use super::expr::{Places, all_same, same, same_order};

/// Where the columns of `narrow` are in `wide`, given where the columns of its input are.
///
/// The groups must be the same, all of them: a group less gives other rows. Aggregates may be missing. One aggregate is
/// one column of the result, or, between the two halves of an aggregation, the columns of its state:
///
/// ```text
///   wide:    group │ group │ sum │ count, sum of an avg │ max
///   narrow:  group │ group │ count, sum of an avg
/// ```
pub(super) fn covered_aggregate(
    wide: &AggregateExec,
    narrow: &AggregateExec,
    input: &[usize],
) -> Option<Vec<usize>> {
    // The second half reads states; the expressions that it carries are those of the first half's input.
    let on_states = wide.mode().input_mode() == AggregateInputMode::Partial;
    let same = wide.mode() == narrow.mode()
        && wide.limit_options() == narrow.limit_options()
        && wide.input_order_mode() == narrow.input_order_mode()
        && same_groups(wide, narrow, input);
    if !same {
        return None;
    }
    let states = |node: &AggregateExec| columns(node, node.input().schema().fields().len(), true);
    let states = if on_states { Some([states(wide)?, states(narrow)?]) } else { None };
    let arguments = if on_states { Places::Any } else { Places::At(input) };
    let is_at = |index: usize, place: usize| {
        same_aggregate(&wide.aggr_expr()[place], &narrow.aggr_expr()[index], arguments)
            && same_filter(wide, place, narrow, index, arguments)
            && states.as_ref().is_none_or(|[wide, narrow]| {
                let states = input.get(narrow.at[index].clone());
                states.is_some_and(|states| states.iter().copied().eq(wide.at[place].clone()))
            })
    };
    let partial = wide.mode().output_mode() == AggregateOutputMode::Partial;
    let output = |node: &AggregateExec| columns(node, node.schema().fields().len(), partial);
    let (wide_output, narrow_output) = (output(wide)?, output(narrow)?);
    if wide_output.groups != narrow_output.groups {
        return None;
    }
    let mut places: Vec<usize> = (0..wide_output.groups).collect();
    for index in 0..narrow.aggr_expr().len() {
        let place = (0..wide.aggr_expr().len()).find(|place| is_at(index, *place))?;
        if wide_output.at[place].len() != narrow_output.at[index].len() {
            return None;
        }
        places.extend(wide_output.at[place].clone());
    }
    Some(places)
}

/// How the columns of an aggregate's input or output are divided.
struct Columns {
    /// The first ones, which belong to the groups.
    groups: usize,
    /// Those of each aggregate.
    at: Vec<Range<usize>>,
}

/// The division of `count` columns.
fn columns(node: &AggregateExec, count: usize, states: bool) -> Option<Columns> {
    let width = |aggregate: &AggregateFunctionExpr| {
        if states { aggregate.state_fields().ok().map(|fields| fields.len()) } else { Some(1) }
    };
    let widths = node.aggr_expr().iter().map(|aggregate| width(aggregate)).collect::<Option<Vec<_>>>()?;
    let groups = count.checked_sub(widths.iter().sum())?;
    let mut next = groups;
    let at = widths.into_iter().map(|width| {
        next += width;
        next - width..next
    });
    Some(Columns { at: at.collect(), groups })
}

fn same_groups(wide: &AggregateExec, narrow: &AggregateExec, input: &[usize]) -> bool {
    let (wide, narrow) = (wide.group_expr(), narrow.group_expr());
    wide.groups() == narrow.groups()
        && wide.has_grouping_set() == narrow.has_grouping_set()
        && all_same(
            wide.expr().iter().map(|(expr, _)| expr),
            narrow.expr().iter().map(|(expr, _)| expr),
            Places::At(input),
        )
}

fn same_aggregate(wide: &AggregateFunctionExpr, narrow: &AggregateFunctionExpr, places: Places<'_>) -> bool {
    wide.fun() == narrow.fun()
        && wide.fun().signature().volatility != Volatility::Volatile
        && wide.field().data_type() == narrow.field().data_type()
        && wide.is_distinct() == narrow.is_distinct()
        && wide.ignore_nulls() == narrow.ignore_nulls()
        && wide.is_reversed() == narrow.is_reversed()
        && all_same(wide.expressions().iter(), narrow.expressions().iter(), places)
        && same_order(wide.order_bys(), narrow.order_bys(), places)
}

/// Whether the same rows are given to two aggregates.
fn same_filter(
    wide: &AggregateExec,
    place: usize,
    narrow: &AggregateExec,
    index: usize,
    places: Places<'_>,
) -> bool {
    match (wide.filter_expr().get(place), narrow.filter_expr().get(index)) {
        (Some(Some(wide)), Some(Some(narrow))) => same(wide, narrow, places),
        (Some(None), Some(None)) => true,
        _ => false,
    }
}
