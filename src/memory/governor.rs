//! The process's memory: one governor for all sessions that share a `Slipstream`.

use std::fmt;
use std::ptr::addr_eq;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use datafusion::common::Result;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use parking_lot::Mutex;

use super::account::Account;
use super::admission::Admission;
use super::disk;
use super::policy::{Asking, Level, Refused};
use super::query_pool::{QueryPool, Role};
use super::reclaim::Reclaim;
use crate::config::{ProcessOptions, SlipstreamOptions};

/// Stands in front of the sessions' memory pools: decides, under a limit, which request is granted.
///
/// ```text
///   operators of query 7 ─► QueryPool 7 ─┐             ┌─► the runtime's MemoryPool (its own limit and policy)
///   operators of query 8 ─► QueryPool 8 ─┼─► governor ─┤
///   result cache         ─► QueryPool    ─┘  (decides)  └─► counters: process, query, operator
/// ```
///
/// Everything is counted always, by relaxed atomics. Only where a limit is set is a request decided on, one at a time,
/// under a lock that is held for a few dozen instructions.
pub(crate) struct MemoryGovernor {
    settings: Arc<ProcessOptions>,
    /// Whether a session's settings were taken over: the first session's are, later ones find these.
    adopted: AtomicBool,
    /// The pools of the sessions' runtimes: one, mostly. Its lock is the one under which requests are decided on.
    homes: Mutex<Vec<Arc<Home>>>,
    /// Everyone who is, or was lately, counted.
    pools: Mutex<Vec<Weak<QueryPool>>>,
    /// The caches. They belong to somebody else, and are asked for as long as they live.
    reclaimers: Mutex<Vec<Weak<dyn Reclaim>>>,
    admission: Arc<Admission>,
    /// Bytes of the spill files of queries that have a limit for them.
    spilled: Arc<AtomicUsize>,
}

impl Default for MemoryGovernor {
    fn default() -> Self {
        let settings = Arc::<ProcessOptions>::default();
        Self {
            admission: Arc::new(Admission::new(&settings)),
            settings,
            adopted: AtomicBool::new(false),
            homes: Mutex::default(),
            pools: Mutex::default(),
            reclaimers: Mutex::default(),
            spilled: Arc::default(),
        }
    }
}

/// A runtime's memory pool, and what is held of it through the governor.
pub(super) struct Home {
    /// Kept alive, so that its address is not another pool's.
    pub(super) pool: Arc<dyn MemoryPool>,
    /// What is held of it by all views that count.
    pub(super) account: Account,
}

impl Home {
    /// What is held of the pool: those who reserve past the governor count too.
    fn reserved(&self) -> usize {
        self.account.reserved().max(self.pool.reserved())
    }

    /// The pool's own limit.
    pub(super) fn limit(&self) -> Option<usize> {
        match self.pool.memory_limit() {
            MemoryLimit::Finite(bytes) => Some(bytes),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        }
    }
}

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// `slipstream.memory.limit`
    Process,
    /// That of the session's memory pool.
    Pool,
    /// `slipstream.memory.query_limit`
    Query,
}

/// A refusal, and by which limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// Which limit.
    pub(super) limit: Limit,
    /// How much it is.
    pub(super) bytes: usize,
    /// What was in the way.
    pub(super) refused: Refused,
}

impl MemoryGovernor {
    /// The values of the settings that belong to the process.
    pub(crate) fn settings(&self) -> &Arc<ProcessOptions> {
        &self.settings
    }

    /// A session that shares this governor starts with `settings`: from the first one they are taken over.
    pub(crate) fn adopt(&self, settings: &ProcessOptions) {
        if !self.adopted.swap(true, Ordering::Relaxed) {
            self.settings.adopt(settings);
        }
    }

    /// Whether a query with these settings is limited in anything by the governor.
    pub(crate) fn governs(&self, options: &SlipstreamOptions) -> bool {
        let settings = &self.settings;
        let limits = [
            settings.memory_limit(),
            options.memory_query_limit,
            settings.disk_limit(),
            options.disk_query_limit,
            options.disk_directory.len(),
            settings.max_queries(),
        ];
        limits.iter().any(|limit| *limit > 0)
    }

    /// How many queries run at once.
    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The disk manager for a query in a task that has `given`.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn disk_manager(
        &self,
        given: &Arc<DiskManager>,
        options: &SlipstreamOptions,
    ) -> Result<Arc<DiskManager>> {
        let own = disk::manager(given, options, &self.settings, &self.spilled)?;
        Ok(own.unwrap_or_else(|| Arc::clone(given)))
    }

    /// The memory pool for a runtime that has `pool`: those who reserve from it outside of queries (the shell's tables,
    /// queries with the layer switched off) keep to the governor's limit too.
    pub(crate) fn runtime_pool(self: &Arc<Self>, pool: &Arc<dyn MemoryPool>) -> Arc<dyn MemoryPool> {
        match QueryPool::is_outside(pool, self) {
            true => Arc::clone(pool),
            false => self.enlist(QueryPool::outside(self, Arc::clone(pool))),
        }
    }

    /// The view of `pool`, the memory pool of the task, that counts and limits one query.
    pub(crate) fn query_pool(
        self: &Arc<Self>,
        query_id: Option<u64>,
        pool: &Arc<dyn MemoryPool>,
        limit: usize,
    ) -> Arc<QueryPool> {
        self.enlist(QueryPool::governed(self, Role::Query(query_id), pool, limit))
    }

    /// The view of `pool` that a cache reserves from. It gets at most half of what is free, and should be registered by
    /// [`on_shortage`](Self::on_shortage).
    pub(crate) fn cache_pool(self: &Arc<Self>, name: &str, pool: &Arc<dyn MemoryPool>) -> Arc<QueryPool> {
        self.enlist(QueryPool::governed(self, Role::Cache(name.to_owned()), pool, 0))
    }

    /// Asks `cache` for memory from now on, before a query is refused.
    pub(crate) fn on_shortage(&self, cache: Weak<dyn Reclaim>) {
        self.reclaimers.lock().push(cache);
    }

    /// Remembers a view, for those who ask who holds what.
    fn enlist(&self, pool: QueryPool) -> Arc<QueryPool> {
        let pool = Arc::new(pool);
        let mut pools = self.pools.lock();
        // Cleared where it would grow otherwise: as many are looked at as were added since.
        if pools.len() == pools.capacity() {
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Arc::downgrade(&pool));
        pool
    }

    /// All pools in use.
    pub(super) fn pools(&self) -> Vec<Arc<QueryPool>> {
        self.pools.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The home of `pool`. Homes whose pool nobody else uses any more are forgotten.
    pub(super) fn home(&self, pool: &Arc<dyn MemoryPool>) -> Arc<Home> {
        let mut homes = self.homes.lock();
        let found = homes.iter().find(|home| addr_eq(Arc::as_ptr(&home.pool), Arc::as_ptr(pool)));
        if let Some(home) = found {
            return Arc::clone(home);
        }
        homes.retain(|home| Arc::strong_count(home) > 1 || Arc::strong_count(&home.pool) > 1);
        let home = Arc::new(Home { pool: Arc::clone(pool), account: Account::default() });
        homes.push(Arc::clone(&home));
        home
    }

    /// Grants a request or says why not; `grant` counts what is granted, before the next request is decided on.
    pub(super) fn decide(
        &self,
        home: &Home,
        query: (&Account, usize),
        asking: &Asking,
        grant: impl FnOnce(),
    ) -> Result<(), Refusal> {
        let reserve_percent = self.settings.unspillable_reserve();
        let homes = self.homes.lock();
        let check = |limit: Limit, bytes: usize, level: Level| {
            let reserve = bytes / 100 * reserve_percent;
            let level = Level { limit: bytes, reserve, ..level };
            level.admit(asking).map_err(|refused| Refusal { limit, bytes, refused })
        };
        let (account, query_limit) = query;
        if query_limit > 0 {
            check(Limit::Query, query_limit, level(account, account.reserved()))?;
        }
        if let Some(bytes) = home.limit() {
            check(Limit::Pool, bytes, level(&home.account, home.reserved()))?;
        }
        let limit = self.settings.memory_limit();
        if limit > 0 {
            let all =
                homes.iter().map(|home| level(&home.account, home.reserved())).fold(Level::default(), sum);
            check(Limit::Process, limit, all)?;
        }
        grant();
        Ok(())
    }

    /// Has caches give back `bytes`; how many they gave.
    pub(super) fn reclaim(&self, bytes: usize) -> usize {
        let caches: Vec<_> = {
            let mut reclaimers = self.reclaimers.lock();
            reclaimers.retain(|cache| cache.strong_count() > 0);
            reclaimers.iter().filter_map(Weak::upgrade).collect()
        };
        let mut given = 0;
        for cache in caches.iter().filter(|cache| cache.held() > 0) {
            if given >= bytes {
                break;
            }
            let part = cache.reclaim(bytes - given);
            log::debug!("slipstream: cache {} gave back {part} bytes", cache.name());
            given += part;
        }
        given
    }

    /// What all hold, and the most that was held of one pool.
    pub(super) fn totals(&self) -> (usize, usize) {
        let homes = self.homes.lock();
        let sum = |get: fn(&Home) -> usize| homes.iter().map(|home| get(home)).sum();
        (sum(Home::reserved), sum(|home| home.account.peak()))
    }

    /// The smallest limit that a query over `home` with a limit of its own has; `None` where there is none.
    pub(super) fn smallest_limit(&self, home: &Home, query_limit: usize) -> Option<usize> {
        let own = [self.settings.memory_limit(), query_limit].into_iter().filter(|limit| *limit > 0);
        own.chain(home.limit()).min()
    }
}

/// What an account says of a level.
fn level(account: &Account, reserved: usize) -> Level {
    Level { reserved, spillable: account.spillable(), queries: account.queries(), ..Level::default() }
}

/// Two levels under one limit.
fn sum(one: Level, other: Level) -> Level {
    Level {
        reserved: one.reserved + other.reserved,
        spillable: one.spillable + other.spillable,
        queries: one.queries + other.queries,
        ..one
    }
}

impl fmt::Debug for MemoryGovernor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryGovernor").field("settings", &self.settings).finish_non_exhaustive()
    }
}
