//! The map of plans, and its bounds.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use parking_lot::Mutex;

use super::entry::{CachedPlan, PlannedStatement, plan_bytes};
use super::environment::Environment;
use super::tables::DetachedPlan;
use crate::clock::Clock;
use crate::config::ProcessOptions;
use crate::fingerprint::{Refusal, SettingsMemo};
use crate::memory::{MemoryGovernor, Reclaim};
use crate::store::bounded::Bounded;
use crate::store::results::{Budget, CacheStats, Evicted, ResultStore};

/// What `slipstream.memory` calls the plans.
const NAME: &str = "plans";

/// Plans take at most this part of what all tiers together may take.
const SHARE: usize = 4;

/// Texts of which it is remembered that they were asked.
const SEEN: usize = 10_000;

/// Environments that are remembered: states of sessions, mostly one for each session.
const ENVIRONMENTS: usize = 64;

/// Plans of all sessions that share a `Slipstream`.
///
/// One lock, held for a look into a map and never while a plan is compared, made or dropped: planning takes thousands of times
/// as long as what is done under it.
pub(crate) struct PlanCache {
    plans: Mutex<Bounded<u64, Arc<CachedPlan>>>,
    seen: Mutex<Bounded<u64, ()>>,
    environments: Mutex<Vec<Arc<Environment>>>,
    hasher: RandomState,
    settings: Arc<ProcessOptions>,
    memo: SettingsMemo,
    budget: Budget,
    /// The answers, with which it shares the bound of bytes.
    results: Arc<ResultStore>,
    stats: CacheStats,
    last_id: AtomicU64,
    bytes: AtomicUsize,
}

impl PlanCache {
    /// An empty cache, whose memory `governor` counts and asks for, and which shares the bound of `results`.
    pub(crate) fn new(governor: &Arc<MemoryGovernor>, results: &Arc<ResultStore>) -> Arc<Self> {
        let cache = Arc::new(Self {
            plans: Mutex::default(),
            seen: Mutex::default(),
            environments: Mutex::default(),
            hasher: RandomState::new(),
            settings: Arc::clone(governor.settings()),
            memo: SettingsMemo::of_planning(),
            budget: Budget::new(governor, NAME),
            results: Arc::clone(results),
            stats: CacheStats::default(),
            last_id: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        });
        let reclaimer: Arc<dyn Reclaim> = Arc::clone(&cache) as _;
        governor.on_shortage(Arc::downgrade(&reclaimer));
        cache
    }

    /// Counters.
    pub(crate) fn stats(&self) -> &CacheStats {
        &self.stats
    }

    /// Texts of settings.
    pub(crate) fn memo(&self) -> &SettingsMemo {
        &self.memo
    }

    fn hash(&self, owner: &str, text: &str) -> u64 {
        self.hasher.hash_one((owner, text))
    }

    /// The plan of `text`, which is not used yet: whether it still is the plan is for the caller to find out.
    pub(crate) fn get(&self, owner: &str, text: &str) -> Option<Arc<CachedPlan>> {
        let plan = self.plans.lock().get(&self.hash(owner, text)).cloned();
        // The hash only finds it.
        plan.filter(|plan| plan.owner == owner && plan.text == text)
    }

    /// The plan was used.
    pub(crate) fn used(&self, plan: &CachedPlan) {
        plan.used();
        self.stats.hit(plan.cost);
    }

    /// Whether `text` was asked before, as far as remembered; from now on it was. Of many texts that are asked once nothing
    /// more than this is kept, and keeping nothing costs nothing.
    pub(crate) fn was_asked(&self, owner: &str, text: &str) -> bool {
        let hash = self.hash(owner, text);
        let mut seen = self.seen.lock();
        let known = seen.get(&hash).is_some();
        if !known {
            seen.put(hash, (), 1, SEEN, SEEN);
        }
        known
    }

    /// What `state` plans with: the same object as last time where it is the same.
    ///
    /// # Errors
    /// Its plans are not kept.
    pub(crate) fn environment(&self, state: &SessionState) -> Result<Arc<Environment>, Refusal> {
        let settings = self.memo.text(state.config_options());
        let mut known = self.environments.lock();
        if let Some(environment) = known.iter().find(|known| known.is_of(state, &settings)) {
            return Ok(Arc::clone(environment));
        }
        let environment = Arc::new(Environment::of(state, settings)?);
        if known.len() == ENVIRONMENTS {
            known.remove(0);
        }
        known.push(Arc::clone(&environment));
        Ok(environment)
    }

    /// Puts a plan in, which makes room by dropping those that were used longest ago, and answers.
    ///
    /// # Errors
    /// It is too large, or there is no memory for it.
    pub(crate) fn put(
        &self,
        planned: PlannedStatement,
        pool: &Arc<dyn MemoryPool>,
        clock: &dyn Clock,
    ) -> Result<Arc<CachedPlan>, Refusal> {
        let failed =
            |error: datafusion::common::DataFusionError| Refusal::new("plan", error.strip_backtrace());
        let bytes =
            plan_bytes(&planned.plan).map_err(failed)? + size_of::<CachedPlan>() + 2 * planned.text.len();
        let (max_bytes, max_entries) =
            (self.settings.cache_max_bytes() / SHARE, self.settings.cache_max_entries());
        if bytes > max_bytes || max_entries == 0 {
            return Err(Refusal::new("size", "the plan is larger than one may be"));
        }
        let reservation = self.budget.reserve(pool, bytes);
        let reservation = reservation.ok_or_else(|| Refusal::new("memory", "there is no memory for it"))?;
        let hash = self.hash(&planned.owner, &planned.text);
        let plan = Arc::new(CachedPlan {
            owner: planned.owner,
            text: planned.text,
            statement: planned.statement,
            environment: planned.environment,
            tables: planned.tables,
            plan: DetachedPlan::new(planned.plan).map_err(failed)?,
            cost: planned.cost,
            tag: planned.tag,
            hash,
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            bytes,
            created: clock.now(),
            created_at: clock.system_time(),
            hits: AtomicU64::new(0),
            _reservation: reservation,
        });
        let gone = {
            let mut plans = self.plans.lock();
            let gone = plans.put_and_take(hash, Arc::clone(&plan), bytes, max_entries, max_bytes);
            self.bytes.store(plans.size().1, Ordering::Relaxed);
            gone
        };
        let replaced = gone.iter().filter(|gone| gone.hash == hash).count() as u64;
        self.stats.evicted(Evicted::Replaced, replaced);
        self.stats.evicted(Evicted::Size, gone.len() as u64 - replaced);
        self.stats.stored();
        self.results.others_hold(self.bytes.load(Ordering::Relaxed));
        Ok(plan)
    }

    /// Takes this very plan out; whether it was there.
    pub(crate) fn remove(&self, plan: &Arc<CachedPlan>, why: Evicted) -> bool {
        let mut plans = self.plans.lock();
        let there = plans.get(&plan.hash).is_some_and(|known| Arc::ptr_eq(known, plan));
        if there {
            plans.remove(&plan.hash);
            self.bytes.store(plans.size().1, Ordering::Relaxed);
            drop(plans);
            self.results.others_hold(self.bytes.load(Ordering::Relaxed));
            self.stats.evicted(why, 1);
        }
        there
    }

    /// All plans, the newest first.
    pub(crate) fn plans(&self) -> Vec<Arc<CachedPlan>> {
        let mut plans: Vec<_> = self.plans.lock().values().cloned().collect();
        plans.sort_unstable_by_key(|plan| std::cmp::Reverse(plan.id));
        plans
    }

    /// Drops the plans for which `which` is true; how many there were.
    pub(crate) fn drop_where(&self, which: impl Fn(&CachedPlan) -> bool) -> u64 {
        let plans = self.plans();
        plans.iter().filter(|plan| which(plan) && self.remove(plan, Evicted::Dropped)).count() as u64
    }

    /// Plans and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.plans.lock().size()
    }
}

impl fmt::Debug for PlanCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanCache").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl Reclaim for PlanCache {
    fn name(&self) -> &str {
        NAME
    }

    fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reclaim(&self, bytes: usize) -> usize {
        let mut free = 0;
        while free < bytes {
            let oldest = self.plans.lock().oldest().cloned();
            let Some(oldest) = oldest else { break };
            if self.remove(&oldest, Evicted::Memory) && Arc::strong_count(&oldest) == 1 {
                free += oldest.bytes;
            }
        }
        free
    }
}
