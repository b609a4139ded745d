//! The disk on a query's road: behind a miss in memory, before anything is planned.
//!
//! ```text
//!   no answer in memory ─► versions ─► words of the plan ─┬─ a file of these versions ─► into memory, or batch by batch
//!                                                         └─ none ─► computed, kept in memory, written behind
//! ```
//!
//! | mode | looks on disk | puts what it finds into memory | leaves its answer |
//! |---|---|---|---|
//! | `use` | yes | yes | yes |
//! | `read_only`, `only_if_cached` | yes | no: they leave nothing | no |
//! | `refresh` | no | | yes, in the place of one that is there |
//! | `off` | no | | no |
//!
//! Identical queries that miss at one time read the file once: the first one reads it, the others find it in memory.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use tokio::runtime::Handle;

use super::Slipstream;
use super::cache::{describe, report, started, time_to_live};
use super::planner::SlipstreamPlanner;
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::{Refusal, Words, fingerprint, portable};
use crate::operator::{CachedResultExec, DiskCopy, DiskResultExec, NotPromoted, Promotion, Recorder};
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::{CachedResult, DiskAnswer, DiskKey, DiskTier, Sought, Version, VersionedTable};

/// What EXPLAIN and the log call it.
const RULE: &str = "disk_cache";

/// An answer that came from disk.
enum Taken {
    /// It is in memory now.
    Promoted(Arc<CachedResult>),
    /// Somebody else has put it there meanwhile.
    InMemory(Arc<CachedResult>),
    /// It stays where it is.
    OnDisk(Arc<DiskAnswer>),
}

/// What `plan` is called on disk, and the versions of its tables.
///
/// It is made anew of the plan, and not of the key in memory, whose tables are addresses by then. That takes some ten
/// microseconds, of a query that was going to be planned.
///
/// # Errors
/// Something of it means nothing in another process; or there is no directory to be used.
pub(super) fn copy(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    tables: &[VersionedTable],
    versions: &[Version],
) -> Result<DiskCopy, Refusal> {
    let tier = slipstream.disk();
    if let Some(problem) = tier.problem() {
        return Err(Refusal::new("directory", problem));
    }
    let mut words =
        portable(&fingerprint(plan, started(session))?, tier.built_ins(), session.config_options())?;
    words.count(tables.len());
    tables.iter().try_for_each(|table| table.describe(&mut words))?;
    words.text(&slipstream.results().memo().text(session.config().options()));
    words.text(&options.cache_tag);
    rules(session, &mut words)?;
    let mut files = Words::default();
    versions.iter().try_for_each(|version| version.describe(&mut files))?;
    Ok(DiskCopy { tier: Arc::clone(tier), key: Arc::new(DiskKey::new(words)), versions: files.into_bytes() })
}

/// Which rules plan the query, by name. What the logical ones did is in the plan; what physical ones do to it is not, and one
/// that is another session's may leave rows out. A planner of the owner's has no name.
fn rules(session: &dyn Session, words: &mut Words) -> Result<(), Refusal> {
    let foreign = |what: &'static str| Refusal::new("rules", what);
    let state = session.as_any().downcast_ref::<SessionState>();
    let state = state.ok_or_else(|| foreign("the session is of a kind of its own"))?;
    if SlipstreamPlanner::of(state).is_none_or(|(planner, _)| planner.has_own_base()) {
        return Err(foreign("the session has a query planner of its own"));
    }
    words.count(state.physical_optimizers().len());
    state.physical_optimizers().iter().for_each(|rule| words.text(rule.name()));
    Ok(())
}

/// The plan of the answer that is on disk, if there is one that may be given now; and where the answer of `recorder` goes, if
/// there is none.
pub(super) async fn look_up(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
    recorder: &mut Recorder,
) -> Option<Arc<dyn ExecutionPlan>> {
    let tier = slipstream.disk();
    if !tier.is_on() || !has_runtime() {
        return None;
    }
    let copied = copy(slipstream, plan, session, options, &recorder.tables, &recorder.versions);
    let taken = match copied {
        Err(refusal) => Err(refusal),
        Ok(copy) => {
            let sought = match options.cache_mode {
                CacheMode::Refresh => Ok(None),
                _ => take(tier, &copy, recorder, options).await,
            };
            recorder.on_disk = Some(copy).filter(|_| recorder.keeps && sought.is_ok());
            sought
        }
    };
    match taken {
        Ok(Some(Taken::Promoted(result))) => {
            say(scope, format!("answered from disk by {} ({} rows)", on_disk(&result), result.rows));
            Some(Arc::new(CachedResultExec::new(result)))
        }
        Ok(Some(Taken::InMemory(result))) => {
            slipstream.results().used(&result);
            scope.cache_outcome("hit");
            report(scope, Verdict::Applied(describe(&result).into()));
            Some(Arc::new(CachedResultExec::new(result)))
        }
        Ok(Some(Taken::OnDisk(answer))) => {
            say(scope, format!("answered from disk by {} ({} rows)", answer.name, answer.header.rows));
            Some(Arc::new(DiskResultExec::new(answer)))
        }
        Ok(None) => {
            tier.stats().miss();
            None
        }
        Err(refusal) => {
            tier.stats().refused(refusal.kind);
            say_why_not(scope, refusal);
            None
        }
    }
}

/// Whether there are threads to read files on: somebody may plan on an executor that is not tokio's.
fn has_runtime() -> bool {
    Handle::try_current().is_ok()
}

fn on_disk(result: &CachedResult) -> &str {
    result.on_disk().map_or("its file", |name| name)
}

/// An answer came from disk.
fn say(scope: &QueryScope, what: String) {
    scope.cache_outcome("hit on disk");
    report(scope, Verdict::Applied(what.into()));
}

/// The query is not for the disk.
fn say_why_not(scope: &QueryScope, refusal: Refusal) {
    let verdict = Verdict::Refused(refusal.reason);
    scope.report(RuleReport { rule: RULE, verdict, elapsed: Duration::ZERO });
}

/// Reads the answer, and puts it into memory where the mode leaves answers. It goes on by itself: whoever waits for the same
/// file does not wait for a caller who asks no more.
async fn take(
    tier: &Arc<DiskTier>,
    copy: &DiskCopy,
    recorder: &Recorder,
    options: &SlipstreamOptions,
) -> Result<Option<Taken>, Refusal> {
    let promotion = Promotion {
        store: Arc::clone(&recorder.store),
        clock: Arc::clone(&recorder.clock),
        pool: Arc::clone(&recorder.pool),
        key: Arc::clone(&recorder.key),
        pins: recorder.pins.clone(),
        tables: recorder.tables.clone(),
        versions: recorder.versions.clone(),
        limits: recorder.limits,
        tag: recorder.tag.clone(),
        shape: recorder.shape.clone(),
        max_age: time_to_live(options, false),
    };
    let promotes = options.cache_mode == CacheMode::Use;
    let max_age = promotion.max_age;
    let (tier, key, versions) = (Arc::clone(tier), Arc::clone(&copy.key), copy.versions.clone());
    let (load, store) = (tier.load(&key), Arc::clone(&recorder.store));
    let task = SpawnedTask::spawn(async move {
        let _permit = load.acquire().await;
        if promotes && let Some(result) = promotion.in_memory() {
            return Ok(Some(Taken::InMemory(result)));
        }
        let now = promotion.clock.system_time();
        let reader = Arc::clone(&tier);
        let found = SpawnedTask::spawn_blocking(move || {
            reader.find(&Sought { key: &key, versions: &versions, now, max_age })
        });
        let found = found.join().await.unwrap_or(Ok(None))?;
        let Some(answer) = found.map(Arc::new) else { return Ok(None) };
        let taken = match promotes {
            true => match promotion.promote(&answer).await {
                Ok(result) => Taken::Promoted(result),
                Err(NotPromoted::Refused(refusal)) => {
                    store.stats().refused(refusal.kind);
                    Taken::OnDisk(Arc::clone(&answer))
                }
                Err(NotPromoted::Corrupt) => {
                    tier.is_corrupt(&answer);
                    return Ok(None);
                }
            },
            false => Taken::OnDisk(Arc::clone(&answer)),
        };
        tier.gave(&answer);
        Ok(Some(taken))
    });
    // The runtime is going down, or the task panicked: no answer.
    task.join().await.unwrap_or(Ok(None))
}

/// What EXPLAIN says of a query whose answer is not in memory: whether it is on disk, or why it never will be.
pub(super) async fn foresee(
    slipstream: &Slipstream,
    plan: &LogicalPlan,
    session: &dyn Session,
    options: &SlipstreamOptions,
    scope: &QueryScope,
    tables: &[VersionedTable],
) -> Option<Verdict> {
    let tier = slipstream.disk();
    if !tier.is_on() || !has_runtime() || options.cache_mode == CacheMode::Refresh {
        return None;
    }
    let versions = super::cache::current_versions(tables).await.ok()?;
    let found = match copy(slipstream, plan, session, options, tables, &versions) {
        Err(refusal) => Err(refusal),
        Ok(DiskCopy { tier, key, versions }) => {
            let (now, max_age) = (slipstream.clock().system_time(), time_to_live(options, false));
            let look = SpawnedTask::spawn_blocking(move || {
                let rows = tier.foresee(&Sought { key: &key, versions: &versions, now, max_age });
                rows.map(|rows| rows.map(|rows| (Arc::clone(key.name()), rows)))
            });
            look.join().await.unwrap_or(Ok(None))
        }
    };
    match found {
        Ok(found) => found.map(|(name, rows)| {
            Verdict::Applied(format!("answered from disk by {name} ({rows} rows)").into())
        }),
        Err(refusal) => {
            say_why_not(scope, refusal);
            None
        }
    }
}
