//! When one subplan gives the rows of another.
//!
//! | node | is compared by | may differ |
//! |---|---|---|
//! | every node | kind, number of inputs and partitions, limit, bounded input | names of columns |
//! | scan | files, ranges, options, order, predicate; the very batches of a table in memory | columns that are read |
//! | filter | conjuncts in any order | columns that are kept |
//! | projection | expressions | columns more |
//! | hash join | type, mode, keys, filter, NULL handling | columns that are kept |
//! | aggregate | mode, groups, grouping sets, order of the input | aggregates more |
//! | sort, merge, exchange, limit | keys, options, partitioning, skipped rows | |
//! | union, cross join, coalesced partitions | their inputs | |
//! | any other | | never the same |

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr};

use super::aggregated::covered_aggregate;
use super::expr::{Conjuncts, Places, all_same, produced, same, same_order};
use super::joined::covered_join;
use super::source;
use crate::operator::NullSupplyingExec;
use crate::physical::lineage::ScanId;

type Plan = Arc<dyn ExecutionPlan>;

/// The wide subplan gives the rows of the narrow one.
#[derive(Debug)]
pub(super) struct Cover {
    /// Where each column of the narrow subplan is in the wide one.
    pub(super) places: Vec<usize>,
    /// Dynamic filters from outside that the wide one must lose, since the narrow one does not have them.
    pub(super) strip: BTreeSet<u64>,
    /// Dynamic filters from outside that are lost: of the wide one, then of the narrow one.
    pub(super) lost: [Vec<Lost>; 2],
}

/// A dynamic filter, and the scan that it is on; without one where it is on another node.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) filter: Arc<dyn PhysicalExpr>,
    pub(super) node: Plan,
}

impl Lost {
    /// The node that it is on.
    pub(super) fn scan(&self) -> ScanId {
        ScanId::of(&self.node)
    }
}

/// How `wide` covers `narrow`, if it does.
///
/// Only nodes that are known are compared, field by field; every other node differs from everything. What may differ:
/// names, the order of conjuncts, columns that the narrow one does not have, and dynamic filters. A filter that a node
/// *inside* a subplan makes for another node inside it leaves the subplan's rows as they are, so it is not compared. One
/// that comes from outside drops rows: it must be on both, or is taken off.
pub(super) fn cover(wide: &Plan, narrow: &Plan) -> Result<Option<Cover>> {
    let mut comparison = Comparison {
        own: [produced(wide)?, produced(narrow)?],
        cover: Cover { places: Vec::new(), strip: BTreeSet::new(), lost: [Vec::new(), Vec::new()] },
    };
    let places = comparison.places(wide, narrow);
    Ok(places.map(|places| Cover { places, ..comparison.cover }))
}

/// Two subplans while they are compared. What comes first of two is of the wide one.
struct Comparison {
    /// The dynamic filters that each makes itself.
    own: [HashSet<u64>; 2],
    /// What is known so far.
    cover: Cover,
}

impl Comparison {
    /// Where the columns of `narrow` are in `wide`; `None` where it does not cover it.
    fn places(&mut self, wide: &Plan, narrow: &Plan) -> Option<Vec<usize>> {
        let (inputs, narrow_inputs) = (wide.children(), narrow.children());
        let wrapped = wide.downcast_delegate().is_some() || narrow.downcast_delegate().is_some();
        let alike = wide.name() == narrow.name()
            && wide.fetch() == narrow.fetch()
            && partitions(wide) == partitions(narrow)
            && inputs.len() == narrow_inputs.len();
        if wrapped || !alike || wide.boundedness().is_unbounded() {
            return None;
        }
        if let (Some(scan), Some(other)) =
            (wide.downcast_ref::<DataSourceExec>(), narrow.downcast_ref::<DataSourceExec>())
        {
            let places = source::same_rows(scan, other)?;
            let predicates = [source::predicate(scan), source::predicate(other)];
            self.predicates([wide, narrow], predicates.each_ref().map(Option::as_ref), Places::Same)?;
            return Some(places);
        }
        let below = inputs.into_iter().zip(narrow_inputs).map(|(wide, narrow)| self.places(wide, narrow));
        let below = below.collect::<Option<Vec<_>>>()?;
        if let (Some(filter), Some(other)) =
            (wide.downcast_ref::<FilterExec>(), narrow.downcast_ref::<FilterExec>())
        {
            let predicates = [Some(filter.predicate()), Some(other.predicate())];
            self.predicates([wide, narrow], predicates, Places::At(&below[0]))?;
            let kept = [filter.projection(), other.projection()].map(|kept| kept.as_deref());
            return picked(below.into_iter().next()?, kept, filter.input().schema().fields().len());
        }
        covered(wide, narrow, below)
    }

    /// Compares the predicates of two nodes, and takes note of the dynamic filters that one of them has alone.
    fn predicates(
        &mut self,
        nodes: [&Plan; 2],
        predicates: [Option<&Arc<dyn PhysicalExpr>>; 2],
        places: Places<'_>,
    ) -> Option<()> {
        let [wide, narrow] = predicates.map(Conjuncts::of);
        if !wide.same_written(&narrow, places) {
            return None;
        }
        let common = |one: &Arc<dyn PhysicalExpr>, others: &[&Arc<dyn PhysicalExpr>], narrow_first: bool| {
            others.iter().any(|other| {
                let (wide, narrow) = if narrow_first { (*other, one) } else { (one, *other) };
                let keys = all_same(wide.children().into_iter(), narrow.children().into_iter(), places);
                one.expression_id() == other.expression_id() && keys
            })
        };
        for (side, filters, others) in
            [(0, &wide.dynamic, &narrow.dynamic), (1, &narrow.dynamic, &wide.dynamic)]
        {
            for filter in filters {
                let Some(id) = filter.expression_id().filter(|id| !self.own[side].contains(id)) else {
                    continue;
                };
                if !common(filter, others, side == 1) {
                    let lost = Lost { filter: Arc::clone(filter), node: Arc::clone(nodes[side]) };
                    self.cover.lost[side].push(lost);
                    if side == 0 {
                        self.cover.strip.insert(id);
                    }
                }
            }
        }
        Some(())
    }
}

/// The nodes that have neither a source nor a predicate.
fn covered(wide: &Plan, narrow: &Plan, mut below: Vec<Vec<usize>>) -> Option<Vec<usize>> {
    macro_rules! both {
        ($node:ty) => {
            (wide.downcast_ref::<$node>(), narrow.downcast_ref::<$node>())
        };
    }
    if let (Some(wide), Some(narrow)) = both!(HashJoinExec) {
        return covered_join(wide, narrow, &below);
    }
    if wide.is::<UnionExec>() || wide.is::<InterleaveExec>() {
        let first = below.pop()?;
        return below.iter().all(|places| *places == first).then_some(first);
    }
    if wide.is::<CrossJoinExec>() {
        let [left, right] = [below.first()?, below.get(1)?];
        let width = wide.children().first()?.schema().fields().len();
        return Some(left.iter().copied().chain(right.iter().map(|place| place + width)).collect());
    }
    let input = below.pop()?;
    let places = Places::At(&input);
    if let (Some(wide), Some(narrow)) = both!(ProjectionExec) {
        let place = |expr| wide.expr().iter().position(|item| same(&item.expr, expr, places));
        return narrow.expr().iter().map(|item| place(&item.expr)).collect();
    }
    if let (Some(wide), Some(narrow)) = both!(AggregateExec) {
        return covered_aggregate(wide, narrow, &input);
    }
    let same = if let (Some(wide), Some(narrow)) = both!(RepartitionExec) {
        wide.preserve_order() == narrow.preserve_order()
            && same_partitioning(wide.partitioning(), narrow.partitioning(), places)
    } else if let (Some(wide), Some(narrow)) = both!(SortExec) {
        wide.preserve_partitioning() == narrow.preserve_partitioning()
            && same_order(wide.expr(), narrow.expr(), places)
    } else if let (Some(wide), Some(narrow)) = both!(SortPreservingMergeExec) {
        same_order(wide.expr(), narrow.expr(), places)
    } else if let (Some(wide), Some(narrow)) = both!(GlobalLimitExec) {
        wide.skip() == narrow.skip()
    } else {
        wide.is::<CoalescePartitionsExec>()
            || wide.is::<LocalLimitExec>()
            || wide.is::<CooperativeExec>()
            || wide.is::<NullSupplyingExec>()
    };
    same.then_some(input)
}

/// Whether rows go to the same partitions. Ranges are not compared: nothing makes them today.
fn same_partitioning(wide: &Partitioning, narrow: &Partitioning, places: Places<'_>) -> bool {
    match (wide, narrow) {
        (Partitioning::Hash(wide, count), Partitioning::Hash(narrow, other)) => {
            count == other && all_same(wide.iter(), narrow.iter(), places)
        }
        (Partitioning::RoundRobinBatch(count), Partitioning::RoundRobinBatch(other)) => count == other,
        _ => false,
    }
}

/// The places of the columns that a node keeps of its own output: `kept` of the wide and of the narrow one, all of them
/// where absent. `width` is that of the wide output.
pub(super) fn picked(places: Vec<usize>, kept: [Option<&[usize]>; 2], width: usize) -> Option<Vec<usize>> {
    let [wide, narrow] = kept;
    let places = match narrow {
        Some(narrow) => {
            narrow.iter().map(|column| places.get(*column).copied()).collect::<Option<Vec<_>>>()?
        }
        None => places,
    };
    match wide {
        Some(wide) => places.iter().map(|place| wide.iter().position(|kept| kept == place)).collect(),
        None => places.iter().all(|place| *place < width).then_some(places),
    }
}

/// How many streams a plan gives.
fn partitions(plan: &Plan) -> usize {
    plan.output_partitioning().partition_count()
}
