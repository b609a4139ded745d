//! Which subplans are worth sharing.

use std::collections::BTreeSet;

use datafusion::common::Result;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;

use super::cost::{is_thin, keeping, reduces, work};
use super::cover::{Cover, Lost, cover};
use super::tree::Tree;
use crate::physical::dynamic_filters::{DynamicFilters, Landing, Place};
use crate::physical::estimate::{Known, source_columns};

/// A filter that is expected to keep less than this may keep next to nothing: estimates of few rows are the least sure.
const MIN_SHARE: f64 = 0.05;

/// Subplans of which one runs for all.
#[derive(Debug)]
pub(super) struct Choice {
    /// The place of the one that runs.
    pub(super) wide: usize,
    /// The places of the others, and how they are covered.
    pub(super) others: Vec<(usize, Cover)>,
    /// The dynamic filters that the one that runs loses.
    pub(super) strip: BTreeSet<u64>,
    /// What is left of the cost of running each, where it is known.
    pub(super) remaining: Option<f64>,
}

/// What decides, from the session's settings.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    /// What is known beside the plan.
    pub(super) known: Known<'a>,
    /// The share of the cost that may be left.
    pub(super) worth_it: f64,
    /// The bytes that are kept in memory.
    pub(super) memory: f64,
}

/// The largest subplans of `tree` that are worth sharing, and whether any subplan occurs twice at all. Those at the places
/// `barred` are not chosen.
pub(super) fn choose(
    tree: &Tree,
    filters: &DynamicFilters,
    terms: &Terms<'_>,
    barred: &BTreeSet<usize>,
) -> Result<(Option<Choice>, bool)> {
    let mut twice = false;
    for alike in tree.alike() {
        for group in groups(tree, &alike)? {
            twice = true;
            if barred.contains(&group.wide) {
                continue;
            }
            let exact = without_loss(&group);
            for group in [Some(group), exact].into_iter().flatten() {
                if let Some(choice) = weigh(tree, group, filters, terms) {
                    return Ok((Some(choice), true));
                }
            }
        }
    }
    Ok((None, twice))
}

/// One subplan, and those that it covers.
#[derive(Debug)]
struct Group {
    wide: usize,
    others: Vec<(usize, Cover)>,
}

/// Divides subplans that look alike into groups of which one covers the others: the widest first.
fn groups(tree: &Tree, alike: &[usize]) -> Result<Vec<Group>> {
    let mut left = alike.to_vec();
    // Stable: of those of one width, the first of the plan.
    left.sort_by_key(|place| std::cmp::Reverse(tree.plan(*place).schema().fields().len()));
    let mut groups = Vec::new();
    while let Some((&wide, rest)) = left.split_first() {
        let (mut others, mut uncovered) = (Vec::new(), Vec::new());
        // A batch without columns does not survive a file.
        let sharable = !tree.plan(wide).schema().fields().is_empty() && !is_thin(tree.plan(wide));
        for &place in rest {
            match cover(tree.plan(wide), tree.plan(place))?.filter(|_| sharable) {
                Some(cover) => others.push((place, cover)),
                None => uncovered.push(place),
            }
        }
        if !others.is_empty() {
            groups.push(Group { wide, others });
        }
        left = uncovered;
    }
    Ok(groups)
}

/// The members that lose no dynamic filter; `None` where that are all, or none.
fn without_loss(group: &Group) -> Option<Group> {
    let keeps = |cover: &Cover| cover.lost.iter().all(Vec::is_empty);
    let others: Vec<_> = group.others.iter().filter(|(_, cover)| keeps(cover)).collect();
    if others.is_empty() || others.len() == group.others.len() {
        return None;
    }
    let clear = |cover: &Cover| Cover {
        places: cover.places.clone(),
        strip: BTreeSet::new(),
        lost: [Vec::new(), Vec::new()],
    };
    let others = others.into_iter().map(|(place, cover)| (*place, clear(cover))).collect();
    Some(Group { wide: group.wide, others })
}

/// The choice of `group`, if running one and keeping its rows is cheaper than running each.
///
/// ```text
///   each    work(wide) × share of its filters  +  work(other) × share of its filters  + …
///   shared  work(wide)  +  keeping(wide) × readers
/// ```
///
/// A dynamic filter counts as if it left out its share of *all* of a subplan's work, the scan included. That is the most
/// it can do, so a filter is taken off only where sharing is cheaper even then.
fn weigh(tree: &Tree, group: Group, filters: &DynamicFilters, terms: &Terms<'_>) -> Option<Choice> {
    let Group { wide, others } = group;
    let strip: BTreeSet<u64> = others.iter().flat_map(|(_, cover)| cover.strip.iter().copied()).collect();
    let lossless = others.iter().all(|(_, cover)| cover.lost.iter().all(Vec::is_empty));
    let plan = tree.plan(wide);
    let Some((once, kept)) = work(plan, terms.known).zip(keeping(plan, terms.memory, terms.known)) else {
        let choice = Choice { wide, others, strip, remaining: None };
        return (lossless && reduces(plan)).then_some(choice);
    };
    // The wide one loses the same filter to several others, perhaps.
    let mut lost: Vec<&Lost> = Vec::new();
    for filter in others.iter().flat_map(|(_, cover)| &cover.lost[0]) {
        if lost.iter().all(|other| other.filter.expression_id() != filter.filter.expression_id()) {
            lost.push(filter);
        }
    }
    let mut each = once * remaining_share(lost.into_iter(), filters, terms.known);
    for (place, cover) in &others {
        each += work(tree.plan(*place), terms.known)?
            * remaining_share(cover.lost[1].iter(), filters, terms.known);
    }
    let shared = once + kept * (others.len() + 1) as f64;
    let remaining = shared / each.max(f64::MIN_POSITIVE);
    (remaining <= terms.worth_it).then_some(Choice { wide, others, strip, remaining: Some(remaining) })
}

/// The share of a subplan's cost that dynamic filters leave, at best.
fn remaining_share<'a>(
    lost: impl Iterator<Item = &'a Lost>,
    filters: &DynamicFilters,
    known: Known<'_>,
) -> f64 {
    lost.map(|lost| kept_share(lost, filters, known)).product::<f64>().max(MIN_SHARE)
}

/// The share of the rows of its scan that a dynamic filter keeps: the distinct keys of the build side among those of the
/// scanned columns. One that says nothing before the query runs, such as that of a top-k sort, may drop nearly all.
fn kept_share(lost: &Lost, filters: &DynamicFilters, known: Known<'_>) -> f64 {
    let share = || {
        let scan: &DataSourceExec = lost.node.downcast_ref()?;
        let (config, _) = scan.downcast_to_file_source::<ParquetSource>()?;
        let (rows, columns) = source_columns(config, known)?;
        if filters.place(&lost.filter, Landing::Scan(lost.scan())) != Place::Right {
            return None;
        }
        filters.kept_share(&lost.filter, (rows, &columns), true)
    };
    share().unwrap_or(0.0)
}
