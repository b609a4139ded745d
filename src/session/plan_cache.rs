//! The cache of plans on the road of `ctx.query()`: before the text is parsed.
//!
//! ```text
//!   text ─┬─ a plan of it, still right ──────────────────────────────► physical planning
//!         ├─ asked before ─► parsed, planned, optimized ─► kept ─────► physical planning
//!         └─ asked for the first time ─► parsed, planned, optimized ─► physical planning
//! ```
//!
//! Physical plans are not kept: one is single-use, since its scans drain a queue and its joins keep what they built, and its
//! dynamic filters are wired through it, where DataFusion has no way to make a fresh copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;

use super::Slipstream;
use super::planner::SlipstreamPlanner;
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::Refusal;
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::{CachedPlan, Environment, Evicted, NamedTable, PlannedStatement, admit, resolve};

/// What the cache has for a text.
pub(super) enum Sought {
    /// It is off.
    Nothing,
    /// Its plan.
    Known(KnownPlan),
    /// No plan, and why the one that is to come will not be kept.
    Refused(Refusal),
    /// No plan, and what it takes to keep the one that is to come.
    Unknown(Box<PlanKeeper>),
}

/// A plan from an earlier time, with its tables.
pub(super) struct KnownPlan {
    entry: Arc<CachedPlan>,
    pub(super) plan: LogicalPlan,
}

impl KnownPlan {
    /// The statement's own text.
    pub(super) fn text(&self) -> &str {
        self.entry.statement()
    }

    /// Says in `scope` that the plan is an old one.
    pub(super) fn report(&self, scope: &QueryScope) {
        scope.plan_outcome("hit");
        report(scope, Verdict::Applied(describe(&self.entry).into()));
    }
}

/// What it takes to keep the plan of a text.
pub(super) struct PlanKeeper {
    owner: String,
    text: String,
    tag: String,
    mode: CacheMode,
    environment: Arc<Environment>,
    begun: Instant,
    tables: Vec<NamedTable>,
}

/// A text without what stands behind its last word: the same statement.
fn trimmed(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}

/// Who asks: a session, or all that have its tag.
fn owner(state: &SessionState, options: &SlipstreamOptions) -> String {
    match options.cache_tag.as_str() {
        "" => format!("session {}", state.session_id()),
        tag => format!("tag {tag}"),
    }
}

/// Looks for the plan of `sql`.
pub(super) async fn seek(state: &SessionState, sql: &str) -> Sought {
    let Some((planner, options)) = SlipstreamPlanner::active(state) else { return Sought::Nothing };
    if !options.cache_plans || options.cache_mode == CacheMode::Off {
        return Sought::Nothing;
    }
    let slipstream = planner.slipstream();
    let begun = slipstream.clock().now();
    let (owner, text) = (owner(state, options), trimmed(sql));
    if options.cache_mode != CacheMode::Refresh
        && let Some(known) = current(slipstream, state, &owner, text).await
    {
        slipstream.plans().used(&known.entry);
        return Sought::Known(known);
    }
    let cache = slipstream.plans();
    cache.stats().miss();
    if options.cache_mode == CacheMode::ReadOnly {
        return Sought::Refused(Refusal::new("mode", "slipstream.cache.mode leaves nothing"));
    }
    if !cache.was_asked(&owner, text) {
        return Sought::Refused(Refusal::new("first", "it is asked for the first time"));
    }
    match cache.environment(state) {
        Ok(environment) => Sought::Unknown(Box::new(PlanKeeper {
            owner,
            text: text.to_owned(),
            tag: options.cache_tag.clone(),
            mode: options.cache_mode,
            environment,
            begun,
            tables: Vec::new(),
        })),
        Err(refusal) => Sought::Refused(refusal),
    }
}

/// The plan of `text`, where it is still the one that planning would give.
async fn current(
    slipstream: &Slipstream,
    state: &SessionState,
    owner: &str,
    text: &str,
) -> Option<KnownPlan> {
    let cache = slipstream.plans();
    let entry = cache.get(owner, text)?;
    let settings = cache.memo().text(state.config_options());
    match entry.plan_in(state, &settings).await {
        Some(plan) => Some(KnownPlan { entry, plan }),
        None => {
            cache.remove(&entry, Evicted::Stale);
            None
        }
    }
}

impl PlanKeeper {
    /// Looks up the tables that `statement` names, before it is planned.
    ///
    /// # Errors
    /// Why its plan is not kept.
    pub(super) async fn note_tables(
        &mut self,
        state: &SessionState,
        statement: &Statement,
    ) -> Result<(), Refusal> {
        let names = state.resolve_table_references(statement);
        let names = names.map_err(|error| Refusal::new("plan", error.strip_backtrace()))?;
        self.tables = resolve(state, names).await?;
        Ok(())
    }

    /// Keeps `optimized`, which was made of `plan`.
    ///
    /// # Errors
    /// Why it is not kept.
    pub(super) async fn keep(
        self,
        slipstream: &Slipstream,
        state: &SessionState,
        options: &SlipstreamOptions,
        statement: &str,
        plan: &LogicalPlan,
        optimized: &LogicalPlan,
    ) -> Result<(), Refusal> {
        if !options.enabled || !options.cache_plans || options.cache_mode != self.mode {
            return Err(Refusal::new("mode", "a hint asks for something else"));
        }
        admit(plan, &self.tables, slipstream.table_versions())?;
        // A view that was defined anew while its old definition was planned would be taken for the new one.
        for table in &self.tables {
            if !table.is_still_meant(state).await {
                return Err(Refusal::new("changed", format!("table {} changed meanwhile", table.name())));
            }
        }
        let clock = slipstream.clock();
        let planned = PlannedStatement {
            owner: self.owner,
            text: self.text,
            statement: statement.to_owned(),
            environment: self.environment,
            tables: self.tables,
            plan: optimized.clone(),
            cost: clock.now().saturating_duration_since(self.begun),
            tag: self.tag,
        };
        slipstream.plans().put(planned, &state.runtime_env().memory_pool, clock.as_ref())?;
        Ok(())
    }
}

/// What EXPLAIN says of the statement that `sql` explains and does not run.
pub(super) async fn foresee(state: &SessionState, sql: &str, scope: &QueryScope) {
    let Some((planner, options)) = SlipstreamPlanner::active(state) else { return };
    if !options.cache_plans || options.cache_mode == CacheMode::Off {
        return;
    }
    let text = explained_text(trimmed(sql));
    let verdict = match current(planner.slipstream(), state, &owner(state, options), text).await {
        Some(known) => Verdict::Applied(describe(&known.entry).into()),
        None => Verdict::Refused("no plan of it is kept yet".into()),
    };
    report(scope, verdict);
}

/// What stands behind EXPLAIN and its options.
fn explained_text(mut sql: &str) -> &str {
    const WORDS: [&str; 3] = ["EXPLAIN", "ANALYZE", "VERBOSE"];
    loop {
        let (word, rest) = sql.split_once(char::is_whitespace).unwrap_or((sql, ""));
        sql = match () {
            () if WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)) => rest.trim_start(),
            () if word.eq_ignore_ascii_case("FORMAT") => {
                rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start())
            }
            () => return sql,
        };
    }
}

/// A plan in one line, without times: a picture of the same should be the same.
fn describe(plan: &CachedPlan) -> String {
    let tables = plan.tables();
    match tables.is_empty() {
        true => format!("the plan {} is used again", plan.name()),
        false => format!("the plan {} is used again (of {})", plan.name(), tables.join(", ")),
    }
}

/// Says in `scope` why the plan of a query is not kept.
pub(super) fn refused(slipstream: &Slipstream, scope: &QueryScope, refusal: Refusal) {
    slipstream.plans().stats().refused(refusal.kind);
    scope.plan_outcome(format!("not stored: {}", refusal.reason));
    report(scope, Verdict::Refused(refusal.reason));
}

/// Says in `scope` that the plan of a query is kept from now on.
pub(super) fn stored(scope: &QueryScope) {
    scope.plan_outcome("stored");
    report(scope, Verdict::Refused("there was no plan of it yet".into()));
}

fn report(scope: &QueryScope, verdict: Verdict) {
    scope.report(RuleReport { rule: "plan_cache", verdict, elapsed: Duration::ZERO });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_what_stands_behind_explain() {
        for (sql, text) in [
            ("EXPLAIN SELECT 1", "SELECT 1"),
            ("explain  verbose\nSELECT  1", "SELECT  1"),
            ("EXPLAIN ANALYZE VERBOSE SELECT 1", "SELECT 1"),
            ("EXPLAIN FORMAT TREE SELECT a FROM format", "SELECT a FROM format"),
            ("SELECT 1", "SELECT 1"),
            ("EXPLAIN", ""),
        ] {
            assert_eq!(explained_text(sql), text);
        }
    }

    #[test]
    fn what_stands_behind_the_last_word_does_not_matter() {
        assert_eq!(trimmed("  SELECT 1 ;; \n"), "SELECT 1");
        assert_eq!(trimmed("SELECT ';'"), "SELECT ';'");
    }
}
