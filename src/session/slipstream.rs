//! The swappable components of the layer.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::MemoryPool;

use crate::clock::{Clock, SystemClock};
use crate::config::SlipstreamOptions;
use crate::memory::MemoryGovernor;
use crate::monitor::{QueryLog, ReceivedQuery};
use crate::scope::QueryScope;
use crate::store::{DiskTier, Knowledge, PlanCache, ResultStore, TableVersions};

/// What the layer is made of. Values are settings (`SET slipstream.*`); this holds what is no value.
///
/// Clones share their components: installed into many sessions, one `Slipstream` is one query log and one memory of
/// statistics.
///
/// ```
/// use datafusion::execution::memory_pool::GreedyMemoryPool;
/// use datafusion_slipstream::Slipstream;
/// use std::sync::Arc;
///
/// let slipstream = Slipstream::default().with_memory_pool(Arc::new(GreedyMemoryPool::new(512 << 20)));
/// assert!(slipstream.query_log().queries().is_empty());
/// ```
#[derive(Debug, Clone)]
pub struct Slipstream {
    clock: Arc<dyn Clock>,
    query_log: Arc<QueryLog>,
    knowledge: Knowledge,
    memory_pool: Option<Arc<dyn MemoryPool>>,
    governor: Arc<MemoryGovernor>,
    results: Arc<ResultStore>,
    disk: Arc<DiskTier>,
    plans: Arc<PlanCache>,
    table_versions: Vec<Arc<dyn TableVersions>>,
}

impl Default for Slipstream {
    fn default() -> Self {
        let governor: Arc<MemoryGovernor> = Arc::default();
        let results = ResultStore::new(&governor);
        Self {
            disk: DiskTier::new(governor.settings(), &results),
            plans: PlanCache::new(&governor, &results),
            results,
            table_versions: Vec::new(),
            clock: Arc::new(SystemClock),
            query_log: Arc::default(),
            knowledge: Knowledge::default(),
            memory_pool: None,
            governor,
        }
    }
}

impl Slipstream {
    /// Reads the time from `clock`. Default: the operating system's.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Records queries in `query_log`. Default: a log of its own.
    pub fn with_query_log(mut self, query_log: Arc<QueryLog>) -> Self {
        self.query_log = query_log;
        self
    }

    /// Replaces the session's memory pool at installation. Default: the session keeps the one it has.
    pub fn with_memory_pool(mut self, memory_pool: Arc<dyn MemoryPool>) -> Self {
        self.memory_pool = Some(memory_pool);
        self
    }

    /// Limits what all queries and caches of the sessions that share this value reserve together; the same as
    /// `SET slipstream.memory.limit`, which changes it later. 0 is no limit.
    ///
    /// The session keeps its memory pool, whose own limit stays in force. Where a number has to hold, give the session a
    /// pool without a limit (DataFusion's default): the layer then decides alone, and operators spill by its policy.
    ///
    /// ```
    /// # use datafusion::prelude::SessionContext;
    /// # use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
    /// # fn main() -> datafusion::common::Result<()> {
    /// let ctx = SessionContext::new();
    /// ctx.install_slipstream(Slipstream::default().with_memory_limit(512 << 20))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_memory_limit(self, bytes: usize) -> Self {
        self.governor.settings().set_memory_limit(bytes);
        self
    }

    /// Tells the result cache which versions tables of some kind have, so that it keeps answers that were made from them.
    /// May be given several times; the first that knows a table is asked. Tables of files and in memory need none.
    pub fn with_table_versions(mut self, versions: Arc<dyn TableVersions>) -> Self {
        self.table_versions.push(versions);
        self
    }

    /// The answers that are kept.
    pub(super) fn results(&self) -> &Arc<ResultStore> {
        &self.results
    }

    /// The answers that are kept as files.
    pub(super) fn disk(&self) -> &Arc<DiskTier> {
        &self.disk
    }

    /// The plans that are kept.
    pub(super) fn plans(&self) -> &Arc<PlanCache> {
        &self.plans
    }

    /// Who declares versions of tables.
    pub(super) fn table_versions(&self) -> &[Arc<dyn TableVersions>] {
        &self.table_versions
    }

    /// What limits memory, disk and the number of queries.
    pub(super) fn governor(&self) -> &Arc<MemoryGovernor> {
        &self.governor
    }

    /// The log behind `slipstream.queries`.
    pub fn query_log(&self) -> &Arc<QueryLog> {
        &self.query_log
    }

    /// What outlives queries: statistics and observed row counts.
    pub(super) fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn memory_pool(&self) -> Option<&Arc<dyn MemoryPool>> {
        self.memory_pool.as_ref()
    }

    /// Opens the record of a query that just came in.
    pub(super) fn received(
        &self,
        options: &SlipstreamOptions,
        scope: &QueryScope,
        text: &str,
        parse: Option<Duration>,
    ) -> ReceivedQuery {
        ReceivedQuery::new(&self.query_log, &self.clock, options, scope.clone(), text, parse)
    }
}
