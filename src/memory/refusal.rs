//! What a refused request is told: what it asked, what was in the way, who holds the memory, and what to change.

use std::fmt::Write;

use datafusion::common::{DataFusionError, human_readable_size};
use datafusion::execution::memory_pool::MemoryConsumer;

use super::governor::{Limit, MemoryGovernor, Refusal};
use super::policy::Reason;
use super::query_pool::Role;

/// Holders that an error names.
const TOP: usize = 5;

/// The error. Operators know it by its variant, as that of any memory pool, and spill.
pub(super) fn error(
    governor: &MemoryGovernor,
    role: &Role,
    consumer: &MemoryConsumer,
    bytes: usize,
    refusal: &Refusal,
    query_limit: usize,
) -> DataFusionError {
    let mut text = format!(
        "Failed to allocate additional {} for {} of {role}: {}. ",
        human_readable_size(bytes),
        consumer.name(),
        reason(refusal, governor.settings().unspillable_reserve()),
    );
    let only = (refusal.limit == Limit::Query).then_some(role);
    describe_holders(&mut text, governor, only);
    text.push_str(match refusal.limit {
        Limit::Query => "To give one query more: SET slipstream.memory.query_limit",
        Limit::Pool => {
            "The limit is that of the session's memory pool: SET datafusion.runtime.memory_limit, or --memory-limit"
        }
        Limit::Process => "To give all queries more: SET slipstream.memory.limit, or --memory-limit",
    });
    if refusal.refused.reason == Reason::Reserve {
        text.push_str("; to keep less in reserve: SET slipstream.memory.unspillable_reserve");
    }
    if refusal.limit != Limit::Query && query_limit == 0 && refusal.refused.reason == Reason::QueryShare {
        text.push_str("; to bound each query: SET slipstream.memory.query_limit");
    }
    DataFusionError::ResourcesExhausted(text)
}

/// Which limit it was, what is free of it, and for whom that is kept.
fn reason(refusal: &Refusal, reserve_percent: usize) -> String {
    let limit = match refusal.limit {
        Limit::Process => "process limit",
        Limit::Pool => "limit of the session's memory pool",
        Limit::Query => "query limit",
    };
    let (size, free) = (human_readable_size(refusal.bytes), human_readable_size(refusal.refused.free));
    let kept = match refusal.refused.reason {
        Reason::Full => String::new(),
        Reason::Reserve => {
            format!(", and {reserve_percent} % of the limit are kept for operators that cannot spill")
        }
        Reason::Share => ", and this consumer holds its share: the rest is left to others".to_owned(),
        Reason::QueryShare => {
            ", and this query holds its share: the rest is left to the other queries".to_owned()
        }
    };
    format!("of the {limit} of {size}, {free} are free{kept}")
}

/// Adds who holds most, of all or of one query.
fn describe_holders(text: &mut String, governor: &MemoryGovernor, only: Option<&Role>) {
    let pools = governor.pools();
    let pools = pools.iter().filter(|pool| only.is_none_or(|role| pool.role() == role));
    let mut holders: Vec<_> = pools
        .flat_map(|pool| pool.holdings().into_iter().map(|holding| (pool.role().clone(), holding)))
        .filter(|(_, holding)| holding.held > 0)
        .collect();
    if holders.is_empty() {
        return;
    }
    holders.sort_by_key(|(_, holding)| std::cmp::Reverse(holding.held));
    text.push_str("Most is held by ");
    for (i, (role, holding)) in holders.iter().take(TOP).enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        let spills = if holding.can_spill { " (can spill)" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{separator}{}{spills} of {role}: {}",
            holding.name,
            human_readable_size(holding.held)
        );
    }
    if holders.len() > TOP {
        let rest: usize = holders.iter().skip(TOP).map(|(_, holding)| holding.held).sum();
        let _ = write!(text, ", and {} others: {}", holders.len() - TOP, human_readable_size(rest));
    }
    text.push_str(". ");
}
