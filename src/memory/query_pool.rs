//! A view of the session's pool that counts what one query holds, and asks the governor first where there is a limit.

use std::fmt;
use std::ptr::addr_eq;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use super::account::Account;
use super::governor::{Home, MemoryGovernor, Refusal};
use super::ledger::{Holding, Ledger};
use super::policy::{Asking, Kind};
use super::refusal;

/// Forwards to the session's pool, counts what one query holds, and keeps to the limits of `slipstream.memory.*`.
///
/// ```text
///   operators of query 7 ─► QueryPool (operators, query, process: counted) ─┐
///                                                                           ├─► the session's MemoryPool
///   operators of query 8 ─► QueryPool                                      ─┘
/// ```
///
/// Without a limit it decides nothing, and counts by a few relaxed atomics. With one the governor decides before the pool
/// below is asked, whose own limit, fairness and errors stay in force.
pub struct QueryPool {
    governor: Arc<MemoryGovernor>,
    role: Role,
    /// The pool that the task came with.
    given: Arc<dyn MemoryPool>,
    home: Arc<Home>,
    /// Whether the governor's counters and limits apply. Not to a query inside a query, whose memory the outer one holds.
    governed: bool,
    /// `slipstream.memory.query_limit` when the query started; 0 for none.
    limit: usize,
    /// Whether the pool below has a limit of its own.
    limited_below: bool,
    /// What the query holds.
    account: Account,
    /// What each of its consumers holds.
    ledger: Ledger,
    refused_grows: AtomicU64,
    reclaimed_bytes: AtomicU64,
}

/// For whom memory is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// A query; its number where it is recorded.
    Query(Option<u64>),
    /// Those who use the runtime's pool without being a query of the layer.
    Outside,
    /// A cache of this name.
    Cache(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(Some(id)) => write!(f, "query {id}"),
            Self::Query(None) => f.write_str("a query without a record"),
            Self::Outside => f.write_str("others than queries"),
            Self::Cache(name) => write!(f, "cache {name}"),
        }
    }
}

impl QueryPool {
    /// A view of `pool` that has nothing reserved yet, and no limit but that of `pool`.
    pub fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Self::inside(&Arc::default(), pool)
    }

    /// The view of `pool` that counts for `role`, under the governor's limits and one of its own.
    pub(super) fn governed(
        governor: &Arc<MemoryGovernor>,
        role: Role,
        pool: &Arc<dyn MemoryPool>,
        limit: usize,
    ) -> Self {
        // A runtime pool of the governor's own counts for those outside of queries: others stand beside it, not on it.
        let home = match pool.downcast_ref::<Self>() {
            Some(outside) if Self::is_outside(pool, governor) => Arc::clone(&outside.home),
            _ => governor.home(pool),
        };
        Self::over(governor, role, Arc::clone(pool), home, limit)
    }

    /// Whether `pool` is a runtime's pool of this governor already.
    pub(super) fn is_outside(pool: &Arc<dyn MemoryPool>, governor: &Arc<MemoryGovernor>) -> bool {
        let own = pool.downcast_ref::<Self>();
        own.is_some_and(|own| own.role == Role::Outside && Arc::ptr_eq(&own.governor, governor))
    }

    /// The view for those who reserve from `pool` outside of queries.
    pub(super) fn outside(governor: &Arc<MemoryGovernor>, pool: Arc<dyn MemoryPool>) -> Self {
        let home = governor.home(&pool);
        Self::over(governor, Role::Outside, pool, home, 0)
    }

    /// The view of a query that runs inside another one, on the memory of that one: it counts, and decides nothing.
    pub(crate) fn inside(governor: &Arc<MemoryGovernor>, pool: &Arc<dyn MemoryPool>) -> Self {
        let home = Arc::new(Home { pool: Arc::clone(pool), account: Account::default() });
        let own = Self::over(governor, Role::Query(None), Arc::clone(pool), home, 0);
        Self { governed: false, ..own }
    }

    fn over(
        governor: &Arc<MemoryGovernor>,
        role: Role,
        given: Arc<dyn MemoryPool>,
        home: Arc<Home>,
        limit: usize,
    ) -> Self {
        Self {
            governor: Arc::clone(governor),
            role,
            given,
            limited_below: home.limit().is_some(),
            home,
            governed: true,
            limit,
            account: Account::default(),
            ledger: Ledger::default(),
            refused_grows: AtomicU64::new(0),
            reclaimed_bytes: AtomicU64::new(0),
        }
    }

    /// Whether this is a view of `pool`.
    pub fn views(&self, pool: &Arc<dyn MemoryPool>) -> bool {
        addr_eq(Arc::as_ptr(&self.given), Arc::as_ptr(pool))
    }

    /// The most bytes the query had reserved at one time.
    pub fn peak_bytes(&self) -> usize {
        self.account.peak()
    }

    /// The bytes the query has reserved now.
    pub fn reserved_bytes(&self) -> usize {
        self.account.reserved()
    }

    /// Requests that were refused: after each an operator spilled, emitted early, or failed.
    pub fn refused_grows(&self) -> u64 {
        self.refused_grows.load(Ordering::Relaxed)
    }

    /// Bytes that caches gave back for this query.
    pub fn reclaimed_bytes(&self) -> u64 {
        self.reclaimed_bytes.load(Ordering::Relaxed)
    }

    /// The smallest limit that holds for the query; `None` where there is none.
    pub(crate) fn smallest_limit(&self) -> Option<usize> {
        self.governor.smallest_limit(&self.home, self.limit)
    }

    /// The query's own limit; 0 for none.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// For whom memory is reserved.
    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    /// What each of its consumers holds.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        self.ledger.holdings()
    }

    /// The pool that has the memory.
    fn below(&self) -> &Arc<dyn MemoryPool> {
        &self.home.pool
    }

    fn is_cache(&self) -> bool {
        matches!(self.role, Role::Cache(_))
    }

    /// How a consumer goes on when it is refused. The same for as long as it is registered: what it holds is counted by it.
    fn kind(&self, consumer: &MemoryConsumer) -> Kind {
        if self.is_cache() { Kind::Cache } else { Kind::of(consumer) }
    }

    /// The same, with regard to what it does at the moment.
    fn kind_now(&self, consumer: &MemoryConsumer) -> Kind {
        match (self.kind(consumer), Kind::sorter_of(consumer)) {
            (Kind::Elastic, Some(sorter)) if self.ledger.holds(&sorter) => Kind::Fixed,
            (kind, _) => kind,
        }
    }

    /// Whether somebody limits what this view may hold.
    fn is_limited(&self) -> bool {
        self.governed && (self.limited_below || self.limit > 0 || self.governor.settings().memory_limit() > 0)
    }

    /// Counts bytes on all levels.
    fn charge(&self, consumer: &MemoryConsumer, bytes: usize) {
        if let Some(entry) = self.ledger.entry(consumer) {
            entry.grow(bytes);
        }
        let spillable = self.kind(consumer).yields();
        if self.account.grow(bytes, spillable) && !self.is_cache() {
            self.home.account.query_begins();
        }
        self.home.account.grow(bytes, spillable);
    }

    /// What was charged last is there to stay: the high-water marks follow.
    fn keep(&self, consumer: &MemoryConsumer) {
        if let Some(entry) = self.ledger.entry(consumer) {
            entry.keep();
        }
        self.account.keep();
        self.home.account.keep();
    }

    /// The reverse of [`charge`](Self::charge).
    fn discharge(&self, consumer: &MemoryConsumer, bytes: usize) {
        if let Some(entry) = self.ledger.entry(consumer) {
            entry.shrink(bytes);
        }
        let spillable = self.kind(consumer).yields();
        if self.account.shrink(bytes, spillable) && !self.is_cache() {
            self.home.account.query_ends();
        }
        self.home.account.shrink(bytes, spillable);
    }

    /// Asks the governor, then the pool below.
    fn ask(&self, reservation: &MemoryReservation, bytes: usize) -> Result<(), No> {
        let consumer = reservation.consumer();
        let asking = Asking {
            bytes,
            held: self.ledger.entry(consumer).map_or(0, |entry| entry.held()),
            query_held: self.account.reserved(),
            kind: self.kind_now(consumer),
        };
        let grant = || self.charge(consumer, bytes);
        self.governor.decide(&self.home, (&self.account, self.limit), &asking, grant).map_err(No::Refused)?;
        self.below().try_grow(reservation, bytes).map_err(|error| {
            self.discharge(consumer, bytes);
            No::Below(error)
        })?;
        self.keep(consumer);
        Ok(())
    }

    /// Caches give back what is missing, and more than that where they say so; whether that was anything.
    fn reclaim(&self, missing: usize) -> bool {
        let given = self.governor.reclaim(missing);
        self.reclaimed_bytes.fetch_add(given as u64, Ordering::Relaxed);
        given > 0
    }

    /// Counts a refusal, and says it.
    fn refuse(&self, reservation: &MemoryReservation, bytes: usize, no: No) -> DataFusionError {
        self.refused_grows.fetch_add(1, Ordering::Relaxed);
        match no {
            No::Refused(refusal) => refusal::error(
                &self.governor,
                &self.role,
                reservation.consumer(),
                bytes,
                &refusal,
                self.limit,
            ),
            No::Below(error) => error,
        }
    }
}

/// Why there is no memory.
enum No {
    /// A limit is in the way, or what it leaves to others.
    Refused(Refusal),
    /// The pool below has none.
    Below(DataFusionError),
}

impl fmt::Debug for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryPool")
            .field("role", &self.role)
            .field("reserved", &self.reserved_bytes())
            .field("peak", &self.peak_bytes())
            .field("below", self.below())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for QueryPool {
    /// Prints the pool below, so that messages read as they do without the layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.below(), f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        self.below().name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.ledger.register(consumer);
        self.below().register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.below().unregister(consumer);
        self.ledger.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.below().grow(reservation, additional);
        self.charge(reservation.consumer(), additional);
        self.keep(reservation.consumer());
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.below().shrink(reservation, shrink);
        self.discharge(reservation.consumer(), shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if additional == 0 {
            return self.below().try_grow(reservation, additional);
        }
        if !self.is_limited() {
            let grown = self.below().try_grow(reservation, additional);
            return match grown {
                Ok(()) => {
                    self.charge(reservation.consumer(), additional);
                    self.keep(reservation.consumer());
                    Ok(())
                }
                Err(error) => Err(self.refuse(reservation, additional, No::Below(error))),
            };
        }
        let no = match self.ask(reservation, additional) {
            Ok(()) => return Ok(()),
            Err(no) => no,
        };
        let missing = match &no {
            No::Refused(refusal) => refusal.refused.missing,
            No::Below(_) => additional,
        };
        if self.is_cache() || !self.reclaim(missing) {
            return Err(self.refuse(reservation, additional, no));
        }
        self.ask(reservation, additional).map_err(|no| self.refuse(reservation, additional, no))
    }

    fn reserved(&self) -> usize {
        self.below().reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        match (self.governed, self.smallest_limit()) {
            (true, Some(bytes)) => MemoryLimit::Finite(bytes),
            _ => self.below().memory_limit(),
        }
    }
}
