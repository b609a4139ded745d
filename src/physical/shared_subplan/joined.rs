//! When one hash join gives the rows of another.

use datafusion::common::{JoinSide, JoinType};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};

use super::cover::picked;
use super::expr::{Places, all_same, same};

/// Where the columns of `narrow` are in `wide`, given where the columns of their inputs are.
///
/// ```text
///   wide:    left a, b, c │ right d, e     keeps c, d, e
///   narrow:  left a, c    │ right d, e     keeps c, e          ─►  0, 2
/// ```
///
/// The keys, and what its filter looks at, need not be kept: they are compared on the inputs.
pub(super) fn covered_join(
    wide: &HashJoinExec,
    narrow: &HashJoinExec,
    below: &[Vec<usize>],
) -> Option<Vec<usize>> {
    let [left, right] = [below.first()?, below.get(1)?];
    let keys = |join: &HashJoinExec| -> [Vec<_>; 2] {
        let (left, right) = join.on().iter().cloned().unzip();
        [left, right]
    };
    let ([wide_left, wide_right], [narrow_left, narrow_right]) = (keys(wide), keys(narrow));
    let same = wide.join_type() == narrow.join_type()
        && wide.partition_mode() == narrow.partition_mode()
        && wide.null_equality() == narrow.null_equality()
        && wide.null_aware == narrow.null_aware
        && all_same(wide_left.iter(), narrow_left.iter(), Places::At(left))
        && all_same(wide_right.iter(), narrow_right.iter(), Places::At(right))
        && same_filter(wide.filter(), narrow.filter(), [left, right]);
    if !same {
        return None;
    }
    let width = wide.left().schema().fields().len();
    let on_the_right = || right.iter().map(|place| place + width);
    let (places, width): (Vec<usize>, usize) = match wide.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti => (left.clone(), width),
        JoinType::RightSemi | JoinType::RightAnti => (right.clone(), wide.right().schema().fields().len()),
        // The mark is the last column.
        JoinType::LeftMark => (left.iter().copied().chain([width]).collect(), width + 1),
        JoinType::RightMark => {
            let width = wide.right().schema().fields().len();
            (right.iter().copied().chain([width]).collect(), width + 1)
        }
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            let all = left.iter().copied().chain(on_the_right()).collect();
            (all, width + wide.right().schema().fields().len())
        }
    };
    picked(places, [wide.projection.as_deref(), narrow.projection.as_deref()], width)
}

/// A join's filter looks at columns of its own, each of which is one of an input's.
fn same_filter(wide: Option<&JoinFilter>, narrow: Option<&JoinFilter>, below: [&Vec<usize>; 2]) -> bool {
    let (wide, narrow) = match (wide, narrow) {
        (None, None) => return true,
        (Some(wide), Some(narrow)) => (wide, narrow),
        _ => return false,
    };
    let place = |column: &ColumnIndex| {
        let place = match column.side {
            JoinSide::Left => below[0].get(column.index).copied(),
            JoinSide::Right => below[1].get(column.index).copied(),
            JoinSide::None => Some(column.index),
        };
        let same_column = |wide: &ColumnIndex| wide.side == column.side && Some(wide.index) == place;
        wide.column_indices().iter().position(same_column)
    };
    let places: Option<Vec<usize>> = narrow.column_indices().iter().map(place).collect();
    places.is_some_and(|places| same(wide.expression(), narrow.expression(), Places::At(&places)))
}
