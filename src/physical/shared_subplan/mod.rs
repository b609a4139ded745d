//! A subplan that occurs more than once runs once.

mod aggregated;
mod choice;
mod cost;
mod cover;
mod expr;
mod joined;
mod source;
mod strip;
mod tree;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::expressions::{Column, UnKnownColumn};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

use self::choice::{Choice, Terms, choose};
use self::strip::stripped;
use self::tree::Tree;
use super::dynamic_filters::DynamicFilters;
use super::estimate::Known;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::share;

type Plan = Arc<dyn ExecutionPlan>;

/// More subplans than this are not looked for in one plan.
const MAX_SHARED: usize = 16;

/// Runs equal subplans once, where that is cheaper than to run each.
///
/// DataFusion inlines a common table expression wherever it is used, and copies subqueries when it takes away their
/// correlation; physically they are different subplans that do the same.
///
/// ```text
///   join                                   join
///     filter: amount > …                     filter: amount > …
///       aggregate ─┐                           SharedSubplanExec: id=1, consumer=1 of 2
///         scan     │ the same        ─►          aggregate
///     aggregate: max                               scan
///       aggregate ─┘                         aggregate: max
///         scan                                 SharedSubplanExec: id=1, consumer=2 of 2
/// ```
///
/// The largest subplans go first; what is left is searched again. Two subplans are the same where all that decides about
/// their rows is, node by node, over kinds of nodes that are known here (`cover.rs`); hashes only say which to compare.
/// One may have columns more than the other, which then gets a projection. Dynamic filters that come from outside a
/// subplan are an obstacle, since they drop rows: they are taken off where that is expected to pay.
///
/// Common subexpressions of physical plans are shared in SCOPE (Silva, Larson, Zhou: *Exploiting Common Subexpressions
/// for Cloud Query Processing*, ICDE 2012, which also weighs keeping against running again), exchanges in Spark
/// (`ReuseExchangeAndSubquery`), and common table expressions in `DuckDB` (materialized by default). Unlike these the
/// rule runs behind all that choose a plan: sharing is a choice between two finished plans.
///
/// Refuses where nothing occurs twice, and where it is cheaper to run it again than to keep its rows.
#[derive(Debug, Default)]
pub(crate) struct SharedSubplan;

impl PhysicalRule for SharedSubplan {
    fn name(&self) -> &'static str {
        "shared_subplan"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.shared_subplan_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Plan, config: &ConfigOptions) -> Result<Rewrite> {
        let options = SlipstreamOptions::active(config);
        let terms = Terms {
            known: Known::of(config),
            worth_it: 1.0
                - options.map_or(0, |options| options.shared_subplan_min_gain_percent) as f64 / 100.0,
            memory: options.map_or(f64::INFINITY, |options| options.shared_subplan_max_memory_bytes as f64),
        };
        let mut rewritten = Arc::clone(&plan);
        let (mut done, mut twice) = (Vec::new(), false);
        while done.len() < MAX_SHARED {
            let tree = Tree::of(&rewritten);
            let Some((next, said)) = share_largest(&tree, &rewritten, done.len() + 1, &terms, &mut twice)?
            else {
                break;
            };
            done.push(said);
            rewritten = next;
        }
        if done.is_empty() {
            let reason = if twice {
                "it is cheaper to run twice what occurs twice"
            } else {
                "no subplan occurs twice"
            };
            return Ok(Rewrite::refused(plan, reason));
        }
        // Orders and partitions were compared where subplans were replaced; this looks at what they are needed for.
        if let Err(error) = SanityCheckPlan::new().optimize(Arc::clone(&rewritten), config) {
            log::warn!("slipstream: a plan with shared subplans is not valid, and not taken: {error}");
            return Ok(Rewrite::refused(plan, "the plan would not be valid"));
        }
        Ok(Rewrite::applied(rewritten, done.join("; ")))
    }
}

/// The plan with its largest subplan shared that is worth it, and what EXPLAIN says of it. `twice` is set where any subplan
/// occurs twice.
fn share_largest(
    tree: &Tree,
    plan: &Plan,
    id: usize,
    terms: &Terms<'_>,
    twice: &mut bool,
) -> Result<Option<(Plan, String)>> {
    if tree.alike().is_empty() {
        return Ok(None);
    }
    // Of the plan as it is now: it knows scans by their addresses.
    let filters = DynamicFilters::of(plan, terms.known)?;
    let mut barred = BTreeSet::new();
    loop {
        let (choice, found) = choose(tree, &filters, terms, &barred)?;
        *twice |= found;
        let Some(choice) = choice else {
            return Ok(None);
        };
        if let Some(next) = shared(tree, &choice, id)? {
            return Ok(Some((next, said(tree, &choice))));
        }
        barred.insert(choice.wide);
    }
}

/// What EXPLAIN says of a choice.
fn said(tree: &Tree, choice: &Choice) -> String {
    let consumers = choice.others.len() + 1;
    let mut said = format!("{} runs once for {consumers} consumers", tree.plan(choice.wide).name());
    if !choice.strip.is_empty() || choice.others.iter().any(|(_, cover)| !cover.lost[1].is_empty()) {
        said.push_str(" without the dynamic filters of one");
    }
    if let Some(remaining) = choice.remaining {
        said.push_str(&format!(", {:.0} % of the cost", 100.0 * remaining));
    }
    said
}

/// The plan with the subplans of `choice` shared; `None` where a parent would miss a property of what it had.
fn shared(tree: &Tree, choice: &Choice, id: usize) -> Result<Option<Plan>> {
    let subplan = stripped(tree.plan(choice.wide), &choice.strip)?;
    let same = (0..subplan.schema().fields().len()).collect::<Vec<_>>();
    let mut places = vec![(choice.wide, &same)];
    places.extend(choice.others.iter().map(|(place, cover)| (*place, &cover.places)));
    // The consumer that has the subplan as its input is the first of the plan.
    places.sort_by_key(|(place, _)| *place);
    let mut replaced = HashMap::new();
    for ((place, columns), consumer) in places.iter().zip(share(&subplan, id, places.len())) {
        let Some(consumer) = instead_of(tree.plan(*place), consumer, columns)? else {
            return Ok(None);
        };
        replaced.insert(*place, consumer);
    }
    Ok(Some(tree.with(&replaced)?))
}

/// `consumer`, with `columns` of it under the names of `plan`, which it takes the place of.
fn instead_of(plan: &Plan, consumer: Plan, columns: &[usize]) -> Result<Option<Plan>> {
    let schema = plan.schema();
    let same = columns.iter().enumerate().all(|(index, column)| index == *column);
    let consumer = if same && schema == consumer.schema() {
        consumer
    } else {
        let from = consumer.schema();
        let column = |(field, index): (&Arc<datafusion::arrow::datatypes::Field>, &usize)| {
            let expr = Arc::new(Column::new(from.field(*index).name(), *index));
            ProjectionExpr { expr, alias: field.name().clone() }
        };
        let exprs: Vec<_> = schema.fields().iter().zip(columns).map(column).collect();
        Arc::new(ProjectionExec::try_new(exprs, consumer)?)
    };
    let (before, after) = (plan.output_partitioning(), consumer.output_partitioning());
    let partitioned = match before {
        Partitioning::UnknownPartitioning(count) | Partitioning::RoundRobinBatch(count) => {
            *count == after.partition_count()
        }
        // By a column that the plan does not give: nobody can make use of that.
        Partitioning::Hash(keys, count) if keys.iter().any(|key| key.is::<UnKnownColumn>()) => {
            *count == after.partition_count()
        }
        _ => before == after,
    };
    let ordered = match plan.output_ordering() {
        Some(order) => consumer.equivalence_properties().ordering_satisfy(order.clone())?,
        None => true,
    };
    Ok((schema == consumer.schema() && partitioned && ordered).then_some(consumer))
}
