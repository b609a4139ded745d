//! The result cache on a query's road: between the optimized plan and the physical one.
//!
//! ```text
//!   optimized plan ─► key ─► versions of its tables ─┬─ an answer of these versions ──► its plan
//!                                                    ├─ one on disk (`disk.rs`) ────► its plan
//!                                                    └─ none ─► DataFusion's planner ─► the plan, recorded
//! ```

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use super::reuse::{Broader, Current, seek, shaped};
use super::{Slipstream, disk};
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::{Fingerprint, Key, Refusal, Shaped, Token, fingerprint};
use crate::operator::{CachedResultExec, Recorder};
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::{CachedResult, Evicted, Limits, Tier, Version, VersionedTable, are_current, versions_of};

/// What EXPLAIN says where there is nothing.
const NO_ANSWER: &str = "there is no answer to it yet";

/// Why a query is an error where the mode is `only_if_cached`.
pub(super) const UNANSWERED: &str = "there is no answer to it";

/// What the cache has for a query.
pub(super) enum Looked {
    /// It is off, or the statement is no query.
    Nothing,
    /// The plan of an answer that is there.
    Hit(Arc<dyn ExecutionPlan>),
    /// No answer, and what it takes to keep the one that is to come.
    Miss(Box<Recorder>),
    /// No answer, and a broader one that it can be computed from.
    Broader(Box<Broader>, Box<Recorder>),
}

/// A query, or a part of one, with its key and its tables.
pub(super) struct Asked {
    pub(super) key: Arc<Key>,
    pub(super) print: Fingerprint,
    pub(super) tables: Vec<VersionedTable>,
}

/// Looks for the answer of `plan`, and says in `scope` what came of it.
///
/// # Errors
/// There is none, and the mode is `only_if_cached`.
pub(super) async fn look_up(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
) -> Result<Looked> {
    if !options.enabled || !options.cache_enabled || options.cache_mode == CacheMode::Off {
        return Ok(Looked::Nothing);
    }
    match plan {
        LogicalPlan::Explain(explain) => {
            foresee(slipstream, &explain.plan, session, options, scope).await;
            return Ok(Looked::Nothing);
        }
        LogicalPlan::Analyze(_) => {
            report(scope, Verdict::Refused("EXPLAIN ANALYZE runs its query".into()));
            return Ok(Looked::Nothing);
        }
        plan if !is_query(plan) => return Ok(Looked::Nothing),
        _ => {}
    }
    let looked = find(slipstream, plan, session, options, scope).await;
    let refusal = match looked {
        Ok(Looked::Miss(_)) if options.cache_mode == CacheMode::OnlyIfCached => UNANSWERED.into(),
        Ok(looked) => return Ok(looked),
        Err(refusal) => {
            slipstream.results().stats().refused(refusal.kind);
            scope.cache_outcome(refusal.reason.clone());
            report(scope, Verdict::Refused(refusal.reason.clone()));
            refusal.reason
        }
    };
    match options.cache_mode {
        CacheMode::OnlyIfCached => not_cached(&refusal),
        _ => Ok(Looked::Nothing),
    }
}

/// The error of a query that has to be computed, where the mode is `only_if_cached`.
///
/// # Errors
/// Always.
pub(super) fn not_cached<T>(why: &str) -> Result<T> {
    plan_err!(
        "the query is not answered from the cache, as slipstream.cache.mode = only_if_cached asks: {why}"
    )
}

/// Whether `plan` gives rows and does nothing else.
pub(super) fn is_query(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => false,
        LogicalPlan::DescribeTable(_) => false,
        // What is left of a statement that has acted.
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row || !empty.schema.fields().is_empty(),
        _ => true,
    }
}

async fn find(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
) -> Result<Looked, Refusal> {
    let store = slipstream.results();
    let asked = ask(slipstream, plan, session, options)?;
    if options.cache_mode != CacheMode::Refresh
        && let Some(result) = current(slipstream, &asked, options).await
    {
        store.used(&result);
        if let Some(name) = result.on_disk() {
            slipstream.disk().used(name);
        }
        scope.cache_outcome("hit");
        report(scope, Verdict::Applied(describe(&result).into()));
        return Ok(Looked::Hit(Arc::new(CachedResultExec::new(result))));
    }
    let recorder = recorder(slipstream, asked, session, options, scope).await;
    let mut recorder = recorder.inspect_err(|_| store.stats().miss())?;
    let shape = draw(slipstream, plan, &mut recorder, session, options);
    if let Some(answer) = disk::look_up(slipstream, plan, session, options, scope, &mut recorder).await {
        return Ok(Looked::Hit(answer));
    }
    match broader(slipstream, plan, shape, &recorder, options).await {
        Some(Ok(broader)) => return Ok(Looked::Broader(Box::new(broader), Box::new(recorder))),
        Some(Err(refusal)) => not_from_broader(slipstream, scope, refusal),
        None => {}
    }
    missed(slipstream, scope);
    Ok(Looked::Miss(Box::new(recorder)))
}

/// There is no answer, and none to compute it from.
pub(super) fn missed(slipstream: &Slipstream, scope: &QueryScope) {
    slipstream.results().stats().miss();
    scope.cache_outcome("miss");
    report(scope, Verdict::Refused(NO_ANSWER.into()));
}

/// The query is computed from a broader answer.
pub(super) fn from_broader(slipstream: &Slipstream, scope: &QueryScope, broader: &Broader) {
    slipstream.results().used_for_narrower(&broader.result);
    scope.cache_outcome("broader");
    report(scope, Verdict::Refused(NO_ANSWER.into()));
    report_broader(scope, Verdict::Applied(broader.said.clone().into()));
}

/// It is not, and why.
pub(super) fn not_from_broader(slipstream: &Slipstream, scope: &QueryScope, refusal: Refusal) {
    slipstream.results().stats().refused(refusal.kind);
    report_broader(scope, Verdict::Refused(refusal.reason));
}

/// Takes what is asked apart, where broader answers are looked for, and puts it into the recorder, for narrower queries to come.
fn draw(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    recorder: &mut Recorder,
    session: &dyn Session,
    options: &SlipstreamOptions,
) -> Option<Result<Arc<Shaped>, Refusal>> {
    let shape =
        options.cache_broader.then(|| shaped(slipstream, plan, &recorder.tables, session, options))?;
    recorder.shape = shape.as_ref().ok().cloned();
    Some(shape)
}

/// A broader answer of the versions that `recorder` knows; `None` where none is looked for.
async fn broader(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    shape: Option<Result<Arc<Shaped>, Refusal>>,
    recorder: &Recorder,
    options: &SlipstreamOptions,
) -> Option<Result<Broader, Refusal>> {
    let shape = match shape? {
        Ok(shape) => shape,
        Err(refusal) => return Some(Err(refusal)),
    };
    if options.cache_mode == CacheMode::Refresh {
        return Some(Err(Refusal::new("broader mode", "slipstream.cache.mode = refresh computes anew")));
    }
    Some(seek(slipstream, plan, &shape, options, Current::Versions(&recorder.versions)).await)
}

/// The key of `plan`: what is asked, of which tables, under which settings, by whom.
fn ask(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
) -> Result<Asked, Refusal> {
    identify(slipstream, fingerprint(plan, started(session))?, session, options)
}

/// When the statement began, in nanoseconds.
pub(super) fn started(session: &dyn Session) -> Option<i64> {
    session.execution_props().query_execution_start_time.and_then(|started| started.timestamp_nanos_opt())
}

/// The key of what has this fingerprint.
pub(super) fn identify(
    slipstream: &Slipstream,
    mut print: Fingerprint,
    session: &dyn Session,
    options: &SlipstreamOptions,
) -> Result<Asked, Refusal> {
    let aging = options.cache_max_age_ms > 0;
    let mut tables = Vec::with_capacity(print.tables.len());
    for table in std::mem::take(&mut print.tables) {
        tables.push(VersionedTable::new(table, session, slipstream.table_versions(), aging)?);
    }
    print.pins.extend(tables.iter().filter_map(VersionedTable::pin));
    let key = key_of(slipstream, std::mem::take(&mut print.tokens), &tables, session, options);
    Ok(Asked { key, print, tables })
}

/// The key of what these words say of `tables`: under the session's settings, and for whom it is.
pub(super) fn key_of(
    slipstream: &Slipstream,
    mut tokens: Vec<Token>,
    tables: &[VersionedTable],
    session: &dyn Session,
    options: &SlipstreamOptions,
) -> Arc<Key> {
    tokens.extend(tables.iter().map(VersionedTable::token));
    let store = slipstream.results();
    tokens.push(Token::Text(store.memo().text(session.config().options()).as_ref().into()));
    match options.cache_tag.as_str() {
        "" => tokens.extend([Token::Kind("session"), Token::Text(session.session_id().into())]),
        tag => tokens.extend([Token::Kind("tag"), Token::Text(tag.into())]),
    }
    store.key(tokens)
}

/// The answer to what was asked, if there is one that may be given now.
async fn current(
    slipstream: &Slipstream,
    asked: &Asked,
    options: &SlipstreamOptions,
) -> Option<Arc<CachedResult>> {
    let store = slipstream.results();
    let result = store.get(&asked.key)?;
    let now = slipstream.clock().now();
    if result.is_expired(now) {
        store.remove(&result, Evicted::Expired);
        return None;
    }
    // Somebody else may have allowed a longer time.
    let age = result.age(now);
    if time_to_live(options, result.is_aging()).is_some_and(|ttl| age > ttl) {
        return None;
    }
    if result.since_checked(now) < millis(options.cache_max_staleness_ms) {
        return Some(result);
    }
    if are_current(&asked.tables, result.versions()).await {
        result.checked(now);
        return Some(result);
    }
    store.remove(&result, Evicted::Stale);
    None
}

/// What it takes to keep the answer that is to come. The versions of the tables are taken here: before the query is planned.
async fn recorder(
    slipstream: &Slipstream,
    asked: Asked,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
) -> Result<Recorder, Refusal> {
    let Asked { key, print, tables } = asked;
    let store = slipstream.results();
    let clock = slipstream.clock();
    let versions = current_versions(&tables).await?;
    if tables.iter().zip(&versions).any(|(table, version)| !table.is_settled(version, clock.as_ref())) {
        return Err(Refusal::new(
            "unsettled",
            "a file was written a moment ago, and may be again within the same tick",
        ));
    }
    let asked_often = store.asked(&key) > options.cache_min_repeats;
    let aging = tables.iter().any(VersionedTable::is_aging);
    let uses = options.cache_mode == CacheMode::Use;
    let keeps = asked_often && (uses || options.cache_mode == CacheMode::Refresh);
    Ok(Recorder {
        tier: Tier::Result,
        store: Arc::clone(store),
        clock: Arc::clone(clock),
        pool: Arc::clone(&session.runtime_env().memory_pool),
        key,
        pins: print.pins,
        tables,
        versions,
        limits: Limits {
            bytes: options.cache_max_entry_bytes,
            rows: options.cache_max_entry_rows,
            min_cost: millis(options.cache_min_cost_ms),
        },
        determined_below: print.determined_below,
        tag: options.cache_tag.clone(),
        ttl: time_to_live(options, aging),
        // What will not be kept is not to be waited for.
        shares: uses && keeps && print.determined_below.is_none(),
        keeps,
        on_disk: None,
        shape: None,
        derived: false,
        scope: scope.clone(),
    })
}

/// The versions of `tables` now; what DataFusion remembers of other versions is forgotten. Or a query would read what
/// DataFusion's list says, and its answer be kept for what the store says.
pub(super) async fn current_versions(tables: &[VersionedTable]) -> Result<Vec<Version>, Refusal> {
    let versions = versions_of(tables).await.map_err(|error| {
        Refusal::new("table", format!("a table does not say its version: {}", error.strip_backtrace()))
    })?;
    tables.iter().zip(&versions).for_each(|(table, version)| table.forget_stale(version));
    Ok(versions)
}

/// How long an answer is given under these settings; `None` for as long as its data is the same.
pub(super) fn time_to_live(options: &SlipstreamOptions, aging: bool) -> Option<Duration> {
    let ttl = Some(options.cache_ttl_ms).filter(|ttl| *ttl > 0);
    let age = Some(options.cache_max_age_ms).filter(|_| aging);
    ttl.into_iter().chain(age).min().map(millis)
}

pub(super) fn millis(millis: usize) -> Duration {
    Duration::from_millis(millis as u64)
}

/// What EXPLAIN says of a query that it does not run.
async fn foresee(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
) {
    let asked = match ask(slipstream, plan, session, options) {
        Ok(asked) => asked,
        Err(refusal) => return report(scope, Verdict::Refused(refusal.reason)),
    };
    if let Some(result) = current(slipstream, &asked, options).await {
        return report(scope, Verdict::Applied(describe(&result).into()));
    }
    if let Some(on_disk) = disk::foresee(slipstream, plan, session, options, scope, &asked.tables).await {
        return report(scope, on_disk);
    }
    report(scope, Verdict::Refused(NO_ANSWER.into()));
    if !options.cache_broader {
        return;
    }
    let found = match shaped(slipstream, plan, &asked.tables, session, options) {
        Ok(shaped) => seek(slipstream, plan, &shaped, options, Current::Tables(&asked.tables)).await,
        Err(refusal) => Err(refusal),
    };
    report_broader(
        scope,
        match found {
            Ok(broader) => Verdict::Applied(broader.said.into()),
            Err(refusal) => Verdict::Refused(refusal.reason),
        },
    );
}

/// An answer in one line. Its age is left out, as all times are: a picture of the same should be the same.
pub(super) fn describe(result: &CachedResult) -> String {
    let tables = match result.tables() {
        [] => "no table".to_owned(),
        tables => tables.join(", "),
    };
    format!("answered by {} ({} rows, made from {tables})", result.name(), result.rows)
}

fn report_broader(scope: &QueryScope, verdict: Verdict) {
    scope.report(RuleReport { rule: "broader_answer", verdict, elapsed: Duration::ZERO });
}

pub(super) fn report(scope: &QueryScope, verdict: Verdict) {
    scope.report(RuleReport { rule: "result_cache", verdict, elapsed: Duration::ZERO });
}
