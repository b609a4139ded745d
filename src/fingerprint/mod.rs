//! What a query asks: one key for all texts and plans that have the same answer on the same data.
//!
//! ```text
//!   SELECT region, sum(x) FROM sale GROUP BY region          select  region , SUM( s.x ) from sale as s group by 1
//!                               └──────────────────► one Key ◄──────────────────┘
//!
//!   Key = tokens of the optimized plan · which tables (by address or declared id) · settings · who asks
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `token.rs` | the words that a key is made of, the key, and pins of addresses |
//! | `plan.rs`, `expr.rs` | the allow-list of plan nodes and expressions |
//! | `settings.rs` | the settings that can change an answer |
//! | `portable.rs`, `words.rs` | the same as bytes that mean the same in another process |
//! | `shape.rs`, `term.rs` | a query taken apart, to be compared with others of the same source |
//! | `draw.rs`, `relation.rs` | how a plan is taken apart |
//!
//! It is taken of the *optimized* logical plan. Aliases of tables are gone there, views are their definitions, and a function
//! that has one value for a whole statement (`now()`, `current_date`, a stable function of the user's) is its value: the key
//! holds the value, so `current_date` is answered from the cache for as long as it is the same day, and no longer.
//!
//! This is an allow-list: a node, an expression, a function or a source of rows that is not on it leaves a query without a
//! key, and the reason is said. Which rows a subtree of a *physical* plan has, whatever their order and columns, is another
//! question, asked for estimates: `physical/fingerprint.rs`.

mod draw;
mod expr;
mod plan;
mod portable;
mod relation;
mod settings;
mod shape;
mod term;
mod token;
mod words;

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;

pub(crate) use draw::draw;
use plan::Writer;
pub(crate) use portable::{BuiltIns, portable};
pub(crate) use settings::SettingsMemo;
pub(crate) use shape::{Shape, Shaped, SortKey};
pub(crate) use term::Term;
pub(crate) use token::{Key, Pin, Token};
pub(crate) use words::Words;

/// Why a query has no key, or its answer is not kept: a kind to count by, and what exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One of a few words.
    pub(crate) kind: &'static str,
    /// What a person reads.
    pub(crate) reason: Cow<'static, str>,
}

impl Refusal {
    /// A refusal of this kind.
    pub(crate) fn new(kind: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// A table that a plan reads.
#[derive(Debug, Clone)]
pub(crate) struct ScannedTable {
    /// As the query calls it.
    pub(crate) name: TableReference,
    /// What is scanned.
    pub(crate) provider: Arc<dyn TableProvider>,
}

/// A plan's tokens and the tables that it reads.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint {
    /// The plan, in words; tables are their places in `tables`.
    pub(crate) tokens: Vec<Token>,
    /// Each table once, in the order in which they are met.
    pub(crate) tables: Vec<ScannedTable>,
    /// What keeps the addresses of functions in `tokens` from being given to others.
    pub(crate) pins: Vec<Pin>,
    /// The answer is determined only where it has fewer rows than this: a LIMIT without an order.
    pub(crate) determined_below: Option<usize>,
}

/// The fingerprint of `plan`, an optimized query.
///
/// `started` is when the statement began, in nanoseconds: a timestamp that comes from it makes a key that nobody asks for
/// again, which is refused rather than kept.
///
/// # Errors
/// What is not on the list.
pub(crate) fn fingerprint(plan: &LogicalPlan, started: Option<i64>) -> Result<Fingerprint, Refusal> {
    let mut writer = Writer::new(started);
    writer.root(plan)?;
    Ok(writer.into_fingerprint())
}

/// The fingerprint of `plan`, a part of an optimized query: as [`fingerprint`], but for the names of its columns, which are
/// the query's affair. What is kept of it is given by the places of its columns.
///
/// # Errors
/// What is not on the list; and any limit whose rows are not determined.
pub(crate) fn fingerprint_of_part(plan: &LogicalPlan, started: Option<i64>) -> Result<Fingerprint, Refusal> {
    let mut writer = Writer::new(started);
    writer.part(plan)?;
    Ok(writer.into_fingerprint())
}

#[cfg(test)]
mod tests;
