//! A query that has no answer, computed from the answer to a broader one.
//!
//! ```text
//!   kept     SELECT region, day, sum(x) FROM sale GROUP BY region, day              200 rows
//!   asked    SELECT region, sum(x) FROM sale WHERE day > 5 GROUP BY region          Aggregate { Filter { those 200 rows }}
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `implies.rs` | whether some conditions make another one hold |
//! | `compare.rs` | whether the rows of one query are among those of another |
//! | `rewrite.rs` | expressions over a source, over the columns of an answer |
//! | `rollup.rs` | aggregates of aggregates |
//! | `compensate.rs` | the plan over the answer |
//!
//! This is the matching of queries with materialized views (Goldstein and Larson, *Optimizing Queries Using Materialized Views:
//! A Practical, Scalable Solution*, SIGMOD 2001), where the views are the answers that happen to be there. Each step is a proof
//! or a refusal: what cannot be shown to be the same, value by value, is computed from the tables.

mod compare;
mod compensate;
mod implies;
mod rewrite;
mod rollup;

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::logical_expr::LogicalPlan;

use super::super::Slipstream;
use crate::config::SlipstreamOptions;
use crate::fingerprint::{Refusal, ScannedTable, Shaped, Token, draw};
use crate::session::cache::{describe, key_of, time_to_live};
use crate::store::{CachedResult, Evicted, Version, VersionedTable, are_current};
use compensate::compensate;

/// A query as it is computed from an answer.
pub(in crate::session) struct Broader {
    /// What is planned in the place of the query.
    pub(in crate::session) plan: LogicalPlan,
    /// Whether the rows have an order that no exchange may mix up.
    pub(in crate::session) in_order: bool,
    /// The answer.
    pub(in crate::session) result: Arc<CachedResult>,
    /// What EXPLAIN says.
    pub(in crate::session) said: String,
}

/// How it is known that an answer is of the data of this moment.
pub(in crate::session) enum Current<'a> {
    /// These are the versions now.
    Versions(&'a [Version]),
    /// The tables are looked at.
    Tables(&'a [VersionedTable]),
}

impl Current<'_> {
    async fn has(&self, result: &CachedResult) -> bool {
        match self {
            Self::Versions(versions) => result.versions() == *versions,
            Self::Tables(tables) => are_current(tables, result.versions()).await,
        }
    }
}

/// `plan`, a query that reads `tables`, taken apart.
///
/// # Errors
/// Why it cannot be.
pub(in crate::session) fn shaped(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    tables: &[VersionedTable],
    session: &dyn Session,
    options: &SlipstreamOptions,
) -> Result<Arc<Shaped>, Refusal> {
    let scanned: Vec<ScannedTable> = tables.iter().map(|table| table.table().clone()).collect();
    let (mut tokens, shape) = draw(plan, scanned)?;
    tokens.push(Token::Kind("source"));
    let source = key_of(slipstream, tokens, tables, session, options);
    Ok(Arc::new(Shaped { source, shape }))
}

/// The query `plan`, taken apart as `shaped`, computed from an answer that may be given now: of those that will do, the one
/// with the fewest rows.
///
/// # Errors
/// Why none will do.
pub(in crate::session) async fn seek(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    shaped: &Shaped,
    options: &SlipstreamOptions,
    current: Current<'_>,
) -> Result<Broader, Refusal> {
    let store = slipstream.results();
    let now = slipstream.clock().now();
    let mut refusal = Refusal::new("broader none", "no answer of the same tables and joins is kept");
    for result in store.of_source(&shaped.source) {
        // Two sources may have one hash, and never one key.
        if result.shape().is_none_or(|known| known.source != shaped.source) {
            continue;
        }
        if result.is_expired(now) {
            store.remove(&result, Evicted::Expired);
            continue;
        }
        if time_to_live(options, result.is_aging()).is_some_and(|ttl| result.age(now) > ttl) {
            continue;
        }
        let compensation = match compensate(&result, &shaped.shape, plan) {
            Ok(compensation) => compensation,
            Err(why) => {
                refusal = why;
                continue;
            }
        };
        if !current.has(&result).await {
            store.remove(&result, Evicted::Stale);
            continue;
        }
        let said = format!("{}: {}", describe(&result), compensation.steps.join(", "));
        return Ok(Broader { plan: compensation.plan, in_order: compensation.in_order, result, said });
    }
    Err(refusal)
}
