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
//! | `subplan.rs` | aggregates, joins and windows that several queries have in common |
//! | `aggregates.rs` | which aggregates have states that can be kept |
//! | `broader/` | queries that are computed from the answer to a broader one |
//!
//! Parts are found in the *logical* plan. There a part is a relation: what it means does not depend on what is above it. A
//! physical subtree is not: dynamic filters, limits and exchanges reach into it from outside, a scan's partitions take work
//! from each other, and the operators of one subtree may be another's. A part is planned by itself, and stands in the plan of
//! its query as a leaf, which nothing is pushed into.

mod aggregates;
mod broader;
mod file_aggregate;
mod leaf;
mod places;
mod subplan;

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::logical_expr::{Analyze, Explain, LogicalPlan};

pub(super) use broader::{Broader, Current, seek, shaped};

use super::Slipstream;
use super::cache::{Asked, current_versions, identify, is_query, started};
use super::planner::BasePlanner;
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::Key;
use crate::fingerprint::{Refusal, Token, fingerprint_of_part};
use crate::operator::Recorder;
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::{Version, VersionedTable};
use places::{Places, is_part};

/// What was looked up for the whole query, before it is planned.
#[derive(Debug, Default)]
pub(super) struct Known {
    versions: Vec<(VersionedTable, Version)>,
    /// Which query it is.
    query: Option<u64>,
}

impl Known {
    /// What the whole query's answer is to be kept under.
    pub(super) fn of(recorder: &Recorder) -> Self {
        Self {
            versions: recorder.tables.iter().cloned().zip(recorder.versions.iter().cloned()).collect(),
            query: Some(recorder.key.hash()),
        }
    }
}

/// What EXPLAIN says: what was done, and why nothing else.
#[derive(Debug, Default)]
struct Said {
    files: Vec<String>,
    no_files: Vec<Refusal>,
    subplans: Vec<String>,
    no_subplans: Vec<Refusal>,
}

/// What the top of a plan is, when it is a candidate itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    /// The whole query, whose answer is kept as such.
    Query,
    /// A part that is about to be computed: only what is below it is looked for.
    Part,
}

/// Looks for the parts of one query.
pub(super) struct Parts<'a> {
    slipstream: &'a Slipstream,
    base: &'a BasePlanner,
    session: &'a dyn Session,
    options: &'a SlipstreamOptions,
    scope: &'a QueryScope,
    versions: Vec<(VersionedTable, Version)>,
    /// Queries with one number are the same. One whose answer is not kept is another each time: its parts are the more
    /// worth keeping.
    query: u64,
    /// EXPLAIN shows what would be done, and leaves no trace.
    explains: bool,
    said: Said,
    leaves: usize,
    /// Parts that this query computes in order to keep them.
    recording: Vec<Arc<Key>>,
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
            versions: known.versions,
            query: known.query.unwrap_or_else(|| slipstream.results().next_number()),
            explains: false,
            said: Said::default(),
            leaves: 0,
            recording: Vec::new(),
        }
    }

    /// `plan` with leaves in the places of parts; `None` where there are none.
    ///
    /// # Errors
    /// Where DataFusion fails to rebuild a plan.
    pub(super) async fn put_into(mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let options = self.options;
        let on = options.enabled && options.cache_enabled && options.cache_mode != CacheMode::Off;
        if !on || !(options.cache_file_aggregates || options.cache_subplans) {
            return Ok(None);
        }
        let rewritten = match plan {
            LogicalPlan::Explain(explain) if is_query(&explain.plan) => {
                self.explains = true;
                let inner = self.rewrite(&explain.plan, Top::Query).await?;
                inner.map(|inner| LogicalPlan::Explain(Explain { plan: Arc::new(inner), ..explain.clone() }))
            }
            LogicalPlan::Analyze(analyze) if is_query(&analyze.input) => {
                let inner = self.rewrite(&analyze.input, Top::Query).await?;
                inner.map(|inner| LogicalPlan::Analyze(Analyze { input: Arc::new(inner), ..analyze.clone() }))
            }
            plan if is_query(plan) => self.rewrite(plan, Top::Query).await?,
            _ => None,
        };
        self.report();
        Ok(rewritten)
    }

    /// `plan` with leaves.
    async fn rewrite(&mut self, plan: &LogicalPlan, top: Top) -> Result<Option<LogicalPlan>> {
        let mut places = Places::of(plan, is_part)?;
        while let Some(part) = places.next() {
            let is_top = places.is_first() && is_part(plan);
            if is_top && top == Top::Part {
                continue;
            }
            if let Some(leaf) = self.leaf(&part, is_top).await? {
                places.put(leaf);
            }
        }
        places.into_plan(plan)
    }

    /// What takes the place of `part`: its rows, where they are kept; else what its files contribute; else a plan that is to be
    /// kept.
    async fn leaf(&mut self, part: &LogicalPlan, is_known: bool) -> Result<Option<LogicalPlan>> {
        let mut subplan = None;
        if self.options.cache_subplans && !is_known {
            match self.subplan(part).await {
                Ok(found) => subplan = Some(found),
                Err(refusal) => self.said.no_subplans.push(refusal),
            }
        }
        if let Some(subplan) = &subplan
            && let Some(leaf) = self.kept_subplan(part, subplan)
        {
            return Ok(Some(leaf));
        }
        if self.options.cache_file_aggregates && matches!(part, LogicalPlan::Aggregate(_)) {
            match self.file_aggregate(part).await? {
                Ok((leaf, said)) => {
                    self.said.files.push(said);
                    return Ok(Some(leaf));
                }
                Err(refusal) => self.said.no_files.push(refusal),
            }
        }
        match subplan {
            Some(subplan) => self.recorded_subplan(part, subplan).await,
            None => Ok(None),
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
        if let Some((_, version)) = self.versions.iter().find(|(known, _)| same(known)) {
            return Ok(version.clone());
        }
        let versions = current_versions(std::slice::from_ref(table)).await?;
        let version = versions.into_iter().next();
        let version = version.ok_or_else(|| Refusal::new("table", "a table does not say its version"))?;
        self.versions.push((table.clone(), version.clone()));
        Ok(version)
    }

    /// Says what was done, or else why nothing.
    fn report(&self) {
        let Said { files, no_files, subplans, no_subplans } = &self.said;
        if self.options.cache_file_aggregates {
            self.report_as("file_aggregates", files, no_files, "the query has no aggregate");
        }
        if self.options.cache_subplans {
            self.report_as("subplans", subplans, no_subplans, "no part of the query is kept");
        }
    }

    fn report_as(&self, rule: &'static str, applied: &[String], refused: &[Refusal], nothing: &'static str) {
        let verdict = match (applied, refused) {
            ([], []) => Verdict::Refused(nothing.into()),
            ([], [first, ..]) => Verdict::Refused(first.reason.clone()),
            (applied, _) => Verdict::Applied(applied.join("; ").into()),
        };
        if !self.explains {
            refused.iter().for_each(|refusal| self.slipstream.results().stats().refused(refusal.kind));
        }
        self.scope.report(RuleReport { rule, verdict, elapsed: Duration::ZERO });
    }
}
