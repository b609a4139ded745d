//! The order of all physical rules: DataFusion's list, with ours spliced in at named places.

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;

use super::layer_rule::LayerRule;
use crate::clock::Clock;
use crate::physical::{
    BatchSize, ClusteredAggregate, CompactViews, DynamicFilterGuard, FusedFilter, JoinOrder, KeyFilter,
    LateMaterialization, MemoryGuard, NarrowDecimals, NestedLoopJoinGuard, OperatorMetrics, OuterJoinGuard,
    PhysicalRule, ScanFilter, ScanRanges, SharedSubplan, SpillJoin,
};

/// A physical rule as a session has it.
pub(super) type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Where a rule of the layer stands: directly before the rule of DataFusion that has this name.
struct Splice {
    rule: fn() -> Arc<dyn PhysicalRule>,
    before: &'static str,
}

/// The rules of the layer in the order in which they run. Rules with the same anchor keep this order.
///
/// | rule | stands before | why there |
/// |---|---|---|
/// | `join_order` | `LimitedDistinctAggregation` | behind DataFusion's `join_selection`, whose build sides and modes it replaces, and before exchanges and sorts are put in |
/// | `outer_join_guard` | `LimitedDistinctAggregation` | behind `join_order`, which gives joins their inputs, and before anything asks whether rows are sorted |
/// | `late_materialization` | `PushdownSort` | sorts, their limits and exchanges are in place, and the narrow scan is still to get the sort's order and dynamic filter |
/// | `dynamic_filter_guard` | `SanityCheckPlan` | dynamic filters have reached their scans by then |
/// | `shared_subplan` | `SanityCheckPlan` | behind every rule that changes or pushes something into one copy and not into another, and before `scan_filter`, which decides copy by copy |
/// | `scan_filter` | `SanityCheckPlan` | dynamic filters have reached their scans by then |
/// | `compact_views` | `SanityCheckPlan` | it looks at the build sides that remain, and at which readers filter |
/// | `narrow_decimals` | `SanityCheckPlan` | the rules above read expressions that it replaces, and `clustered_aggregate` takes those of aggregates over |
/// | `clustered_aggregate` | `SanityCheckPlan` | it looks at final exchanges, and the rules above follow columns through DataFusion's aggregates only |
/// | `fused_filter` | `SanityCheckPlan` | the rules above know DataFusion's filter only |
/// | `key_filter` | `SanityCheckPlan` | `scan_filter` has decided which readers filter, and no rule above knows its operator and its wrappers |
/// | `scan_ranges` | `SanityCheckPlan` | `late_materialization` and `shared_subplan` compare scans, and no rule above cuts files |
/// | `spill_join` | `SanityCheckPlan` | every rule above looks for hash joins, or changes their inputs |
/// | `memory_guard` | `SanityCheckPlan` | it looks at final operators and partition counts, and makes nested-loop joins, which the next rule guards |
/// | `nested_loop_join_guard` | `SanityCheckPlan` | it looks at final join types and partition counts, and no rule that runs later may take its wrappers apart |
/// | `batch_size` | `SanityCheckPlan` | it looks at the widths of all final operators |
/// | `operator_metrics` | `SanityCheckPlan` | all operators are in place, and what wrappers hold for a node is counted with it |
const ORDER: &[Splice] = &[
    Splice { rule: || Arc::new(JoinOrder), before: "LimitedDistinctAggregation" },
    Splice { rule: || Arc::new(OuterJoinGuard), before: "LimitedDistinctAggregation" },
    Splice { rule: || Arc::new(LateMaterialization), before: "PushdownSort" },
    Splice { rule: || Arc::new(DynamicFilterGuard), before: CHECKER },
    Splice { rule: || Arc::new(SharedSubplan), before: CHECKER },
    Splice { rule: || Arc::new(ScanFilter), before: CHECKER },
    Splice { rule: || Arc::new(CompactViews), before: CHECKER },
    Splice { rule: || Arc::new(NarrowDecimals), before: CHECKER },
    Splice { rule: || Arc::new(ClusteredAggregate), before: CHECKER },
    Splice { rule: || Arc::new(FusedFilter), before: CHECKER },
    Splice { rule: || Arc::new(KeyFilter), before: CHECKER },
    Splice { rule: || Arc::new(ScanRanges), before: CHECKER },
    Splice { rule: || Arc::new(SpillJoin), before: CHECKER },
    Splice { rule: || Arc::new(MemoryGuard), before: CHECKER },
    Splice { rule: || Arc::new(NestedLoopJoinGuard), before: CHECKER },
    Splice { rule: || Arc::new(BatchSize), before: CHECKER },
    Splice { rule: || Arc::new(OperatorMetrics), before: CHECKER },
];

/// DataFusion's rule that rejects plans which cannot be executed; it stays behind all of ours.
const CHECKER: &str = "SanityCheckPlan";

/// `rules` with the layer's rules at their places, and the names of those that found no place.
///
/// A session whose list was replaced by its owner may lack an anchor. A rule without its anchor is left out
/// rather than put somewhere else, where it might break the plan.
pub(super) fn splice(rules: &[Rule], clock: &Arc<dyn Clock>) -> (Vec<Rule>, Vec<&'static str>) {
    let mut spliced = rules.to_vec();
    let mut homeless = Vec::new();
    for Splice { rule, before } in ORDER {
        let rule = rule();
        match spliced.iter().position(|other| other.name() == *before) {
            Some(place) => spliced.insert(place, Arc::new(LayerRule::new(rule, Arc::clone(clock)))),
            None => homeless.push(rule.name()),
        }
    }
    (spliced, homeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::RULE_NAMES;
    use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

    fn names(rules: &[Rule]) -> Vec<String> {
        rules.iter().map(|rule| rule.name().to_owned()).collect()
    }

    #[test]
    fn datafusions_list_is_the_one_that_the_order_was_written_for() {
        let expected = [
            "OutputRequirements",
            "aggregate_statistics",
            "join_selection",
            "LimitedDistinctAggregation",
            "FilterPushdown",
            "WindowTopN",
            "EnsureRequirements",
            "CombinePartialFinalAggregate",
            "OptimizeAggregateOrder",
            "ProjectionPushdown",
            "OutputRequirements",
            "LimitAggregation",
            "LimitPushPastWindows",
            "HashJoinBuffering",
            "LimitPushdown",
            "TopKRepartition",
            "ProjectionPushdown",
            "PushdownSort",
            "EnsureCooperative",
            "FilterPushdown(Post)",
            "SanityCheckPlan",
        ];
        assert_eq!(
            names(&PhysicalOptimizer::new().rules),
            expected,
            "DataFusion's physical rules changed: check each anchor in ORDER against the new list, then update this one"
        );
    }

    #[test]
    fn ours_are_spliced_and_the_checker_stays_last() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (spliced, homeless) = splice(&PhysicalOptimizer::new().rules, &clock);
        let names = names(&spliced);
        assert_eq!(homeless, Vec::<&str>::new());
        assert_eq!(names.last().map(String::as_str), Some(CHECKER));
        let ours: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| RULE_NAMES.contains(name)).collect();
        assert_eq!(ours, RULE_NAMES, "config::RULE_NAMES lists the rules in the order in which they run");
    }

    #[test]
    fn a_rule_without_its_anchor_is_left_out_and_named() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (spliced, homeless) = splice(&[], &clock);
        assert!(spliced.is_empty());
        assert_eq!(homeless, RULE_NAMES);
    }
}
