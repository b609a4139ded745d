//! What a query asks, taken apart: a source, and what is done with its rows.
//!
//! ```text
//!   SELECT region, sum(x) AS total FROM sale WHERE day > 3 GROUP BY region ORDER BY total LIMIT 5
//!
//!   source      sale                       a key: one for all queries of these tables, joined in this way
//!   conjuncts   {$0.day > 3}               what its rows must satisfy, wherever an optimizer has put it
//!   group       {$0.region}
//!   outputs     $0.region, sum($0.x)
//!   order, window
//! ```
//!
//! Queries of one source differ in what can be compared: whether the rows of one are among the rows of the other, and whether
//! its columns can be computed from the other's. This is the normal form of Goldstein and Larson, *Optimizing Queries Using
//! Materialized Views: A Practical, Scalable Solution*, SIGMOD 2001. It is taken of optimized plans, in which filters and
//! projections have moved to where they cost least, so all of them are lifted out again: `draw.rs`.

use std::sync::Arc;

use super::term::Term;
use super::token::Key;

/// A part of the sequence of rows: as many as `fetch` behind the first `skip`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows that are left out.
    pub(crate) skip: usize,
    /// The most that are given.
    pub(crate) fetch: Option<usize>,
}

impl Window {
    /// Whether it leaves out rows, or may.
    pub(crate) fn cuts(self) -> bool {
        self != Self::default()
    }

    /// `skip` and `fetch` of what this one lets through.
    pub(super) fn then(self, skip: usize, fetch: Option<usize>) -> Self {
        let left = self.fetch.map(|fetch| fetch.saturating_sub(skip));
        Self { skip: self.skip.saturating_add(skip), fetch: left.into_iter().chain(fetch).min() }
    }
}

/// One key of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortKey {
    /// By what.
    pub(crate) term: Term,
    /// From the least to the greatest.
    pub(crate) asc: bool,
    /// Where NULL stands.
    pub(crate) nulls_first: bool,
}

/// A query over a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// What the source's rows must satisfy. Each once, in no order.
    pub(crate) conjuncts: Vec<Term>,
    /// The keys of its groups, where it groups: of DISTINCT all columns, of an aggregate of the whole none.
    pub(crate) group: Option<Vec<Term>>,
    /// What the groups must satisfy.
    pub(crate) having: Vec<Term>,
    /// The order of its rows, the first key first.
    pub(crate) order: Vec<SortKey>,
    /// Which of the rows, in this order, are asked for.
    pub(crate) window: Window,
    /// Its columns. Aggregate functions stand in them as they are, over the source's columns.
    pub(crate) outputs: Vec<Term>,
}

impl Shape {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        let groups = self.group.iter().flatten();
        let order = self.order.iter().map(|key| &key.term);
        let terms = self.conjuncts.iter().chain(groups).chain(&self.having).chain(order).chain(&self.outputs);
        size_of::<Self>() + terms.map(Term::bytes).sum::<usize>()
    }
}

/// A shape with the key of its source, as it is kept beside an answer.
#[derive(Debug)]
pub(crate) struct Shaped {
    /// What finds it: tables by identity, how they are joined, settings, and who asks.
    pub(crate) source: Arc<Key>,
    /// What is asked of it.
    pub(crate) shape: Shape,
}

impl Shaped {
    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.source.bytes() + self.shape.bytes()
    }
}
