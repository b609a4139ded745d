//! The candidates of a plan, from the top, and leaves in the places of some of them.
//!
//! ```text
//!   Sort                      next()  ─► Aggregate 0          put(leaf 0): 1 and 2, below it, are passed over
//!     Aggregate 0                        Join 3
//!       Join 1, Aggregate 2   into_plan() ─► Sort over leaf 0
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;

/// Parts that are looked at in one query: each costs some microseconds.
const MAX_PLACES: usize = 64;

/// Candidates of a plan in the order in which they are met from the top, subqueries included.
pub(super) struct Places {
    is_candidate: fn(&LogicalPlan) -> bool,
    /// Each with the number of the first one that is not below it.
    parts: Vec<(LogicalPlan, usize)>,
    next: usize,
    /// By the number of the candidate that each stands for.
    leaves: HashMap<usize, LogicalPlan>,
}

/// Whether `plan` is worth keeping: what makes few rows of many, or takes long.
pub(super) fn is_part(plan: &LogicalPlan) -> bool {
    matches!(
        plan,
        LogicalPlan::Aggregate(_) | LogicalPlan::Join(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_)
    )
}

impl Places {
    /// The candidates of `plan`: none, where there are more than [`MAX_PLACES`].
    pub(super) fn of(plan: &LogicalPlan, is_candidate: fn(&LogicalPlan) -> bool) -> Result<Self> {
        let mut parts = Vec::new();
        plan.apply_with_subqueries(|node| {
            if is_candidate(node) {
                parts.push((node.clone(), parts.len()));
            }
            Ok(match parts.len() > MAX_PLACES {
                true => TreeNodeRecursion::Stop,
                false => TreeNodeRecursion::Continue,
            })
        })?;
        // Of a plan with so many parts none would be more than a small part of it.
        if parts.len() > MAX_PLACES {
            parts.clear();
        }
        for (part, end) in &mut parts {
            part.apply_with_subqueries(|node| {
                *end += usize::from(is_candidate(node));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(Self { is_candidate, parts, next: 0, leaves: HashMap::new() })
    }

    /// The next candidate that is not below a leaf.
    pub(super) fn next(&mut self) -> Option<LogicalPlan> {
        let (part, _) = self.parts.get(self.next)?;
        self.next += 1;
        Some(part.clone())
    }

    /// Whether the candidate that was given last is the first of all.
    pub(super) fn is_first(&self) -> bool {
        self.next == 1
    }

    /// Puts `leaf` in the place of the candidate that was given last.
    pub(super) fn put(&mut self, leaf: LogicalPlan) {
        let Some(place) = self.next.checked_sub(1) else { return };
        self.next = self.parts.get(place).map_or(self.next, |(_, end)| *end);
        self.leaves.insert(place, leaf);
    }

    /// `plan`, of which these are the places, with all leaves in it; `None` where there are none.
    pub(super) fn into_plan(mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if self.leaves.is_empty() {
            return Ok(None);
        }
        let mut place = 0;
        let mut found = true;
        let rewritten = plan.clone().transform_down_with_subqueries(|node| {
            if !(self.is_candidate)(&node) {
                return Ok(Transformed::no(node));
            }
            let Some((part, end)) = self.parts.get(place) else {
                found = false;
                return Ok(Transformed::no(node));
            };
            // Both walks take the same way, or nothing is put anywhere.
            found &= Arc::ptr_eq(part.schema(), node.schema());
            match self.leaves.remove(&place) {
                Some(leaf) => {
                    place = *end;
                    Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
                }
                None => {
                    place += 1;
                    Ok(Transformed::no(node))
                }
            }
        });
        let rewritten = rewritten.data()?;
        Ok((found && self.leaves.is_empty()).then_some(rewritten))
    }
}
