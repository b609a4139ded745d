//! Parts of a query that are kept, or are to be kept, put into its plan.
//!
//! ```text
//!   optimized plan ─► candidates, the largest first ─┬─ kept ─────────────► a leaf that gives its rows
//!                                                    ├─ an aggregate over files: a leaf that gives what is kept of each
//!                                                    │  file, and reads the others
//!                                                    └─ neither ──────────► planned with the rest
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `places.rs` | the candidates of a plan, and leaves in their places |
//! | `leaf.rs` | a part of a plan that is planned already |
//! | `file_aggregate.rs` | aggregates over tables of several files |
//! | `aggregates.rs` | which aggregates have states that can be kept |
//!
//! Parts are found in the *logical* plan. There a part is a relation: what it means does not depend on what is above it. A
//! physical subtree is not: dynamic filters, limits and exchanges reach into it from outside, a scan's partitions take work
//! from each other, and the operators of one subtree may be another's. A part is planned by itself, and stands in the plan of
//! its query as a leaf, which nothing is pushed into.

mod aggregates;
mod file_aggregate;
mod leaf;
mod places;

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::logical_expr::{Analyze, Explain, LogicalPlan};

use super::Slipstream;
use super::cache::{Asked, current_versions, identify, is_query, started};
use super::planner::BasePlanner;
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::{Refusal, Token, fingerprint_of_part};
use crate::operator::Recorder;
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::{Version, VersionedTable};
use places::{Places, is_aggregate};

/// Versions that were looked up for this query, before it is planned.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<(VersionedTable, Version)>);

impl Known {
    /// Those that the whole query's answer is to be kept under.
    pub(super) fn of(recorder: &Recorder) -> Self {
        Self(recorder.tables.iter().cloned().zip(recorder.versions.iter().cloned()).collect())
    }
}

/// Looks for the parts of one query.
pub(super) struct Parts<'a> {
    slipstream: &'a Slipstream,
    base: &'a BasePlanner,
    session: &'a dyn Session,
    options: &'a SlipstreamOptions,
    scope: &'a QueryScope,
    known: Known,
    /// EXPLAIN shows what would be done, and leaves no trace.
    explains: bool,
    /// What EXPLAIN says of file aggregates: what was done, and why others were not.
    applied: Vec<String>,
    refused: Vec<Refusal>,
    leaves: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        slipstream: &'a Slipstream,
        base: &'a BasePlanner,
        session: &'a dyn Session,
        options: &'a SlipstreamOptions,
        scope: &'a QueryScope,
        known: Known,
    ) -> Self {
        Self {
            slipstream,
            base,
            session,
            options,
            scope,
            known,
            explains: false,
            applied: Vec::new(),
            refused: Vec::new(),
            leaves: 0,
        }
    }

    /// `plan` with leaves in the places of parts; `None` where there are none.
    ///
    /// # Errors
    /// Where DataFusion fails to rebuild a plan.
    pub(super) async fn put_into(mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let options = self.options;
        if !options.enabled
            || !options.cache_enabled
            || options.cache_mode == CacheMode::Off
            || !options.cache_file_aggregates
        {
            return Ok(None);
        }
        let rewritten = match plan {
            LogicalPlan::Explain(explain) if is_query(&explain.plan) => {
                self.explains = true;
                let inner = self.rewrite(&explain.plan).await?;
                inner.map(|inner| LogicalPlan::Explain(Explain { plan: Arc::new(inner), ..explain.clone() }))
            }
            LogicalPlan::Analyze(analyze) if is_query(&analyze.input) => {
                let inner = self.rewrite(&analyze.input).await?;
                inner.map(|inner| LogicalPlan::Analyze(Analyze { input: Arc::new(inner), ..analyze.clone() }))
            }
            plan if is_query(plan) => self.rewrite(plan).await?,
            _ => None,
        };
        self.report();
        Ok(rewritten)
    }

    async fn rewrite(&mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let mut places = Places::of(plan, is_aggregate)?;
        while let Some(part) = places.next() {
            if let Some(leaf) = self.leaf(&part).await? {
                places.put(leaf);
            }
        }
        places.into_plan(plan)
    }

    /// What takes the place of `part`.
    async fn leaf(&mut self, part: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match self.file_aggregate(part).await? {
            Ok((leaf, said)) => {
                self.applied.push(said);
                Ok(Some(leaf))
            }
            Err(refusal) => {
                self.refused.push(refusal);
                Ok(None)
            }
        }
    }

    /// The key of a part, of this kind, and its tables.
    fn ask(&self, part: &LogicalPlan, kind: &'static str) -> Result<Asked, Refusal> {
        let mut print = fingerprint_of_part(part, started(self.session))?;
        print.tokens.push(Token::Kind(kind));
        identify(self.slipstream, print, self.session, self.options)
    }

    /// The version of `table` before the query is planned.
    async fn version(&mut self, table: &VersionedTable) -> Result<Version, Refusal> {
        let same = |known: &VersionedTable| Arc::ptr_eq(&known.table().provider, &table.table().provider);
        if let Some((_, version)) = self.known.0.iter().find(|(known, _)| same(known)) {
            return Ok(version.clone());
        }
        let versions = current_versions(std::slice::from_ref(table)).await?;
        let version = versions.into_iter().next();
        let version = version.ok_or_else(|| Refusal::new("table", "a table does not say its version"))?;
        self.known.0.push((table.clone(), version.clone()));
        Ok(version)
    }

    /// Says what was done, or else why nothing.
    fn report(&self) {
        let verdict = match (&self.applied[..], &self.refused[..]) {
            ([], []) => Verdict::Refused("the query has no aggregate".into()),
            ([], [first, ..]) => Verdict::Refused(first.reason.clone()),
            (applied, _) => Verdict::Applied(applied.join("; ").into()),
        };
        if self.applied.is_empty() && !self.explains {
            self.refused.iter().for_each(|refusal| self.slipstream.results().stats().refused(refusal.kind));
        }
        self.scope.report(RuleReport { rule: "file_aggregates", verdict, elapsed: Duration::ZERO });
    }
}
