//! The map of answers: its bounds, who goes first, and what is dropped by whom.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use lru::LruCache;

use super::budget::Budget;
use super::entry::{Answer, CachedResult};
use super::flight::{Flights, Joined};
use super::sources::{SLOT, Sources};
use super::stats::{CacheStats, Evicted};
use super::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::clock::Clock;
use crate::config::ProcessOptions;
use crate::fingerprint::{Key, Refusal, SettingsMemo, Token};
use crate::memory::{MemoryGovernor, Reclaim};
use crate::store::bounded::Bounded;

/// What `slipstream.memory` calls the answers.
const NAME: &str = "results";

/// Maps with a lock each.
const SHARDS: usize = 16;

/// Of each map, as many of those that were used longest ago are weighed against each other.
const WEIGHED: usize = 8;

/// Questions whose number of askings is remembered.
const SEEN: usize = 10_000;

/// How often a part of a query is computed apart in order to be kept, before it is given up: its rows may never be read to
/// their end, or its tables change all the time.
const ATTEMPTS: usize = 3;

/// What one answer may be, by the settings of its query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Rows.
    pub(crate) rows: usize,
    /// What it must have cost.
    pub(crate) min_cost: Duration,
}

type Shard = LruCache<Arc<Key>, Arc<CachedResult>>;

/// All answers of the sessions that share a `Slipstream`.
pub(crate) struct ResultStore {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    settings: Arc<ProcessOptions>,
    budget: Budget,
    flights: Arc<Flights>,
    sources: Sources,
    memo: SettingsMemo,
    stats: CacheStats,
    seen: Mutex<Bounded<u64, usize>>,
    /// Parts of queries: in how many different queries, and in which one last.
    shared: Mutex<Bounded<u64, (usize, u64)>>,
    /// Parts that were computed apart and not kept: how often.
    attempts: Mutex<Bounded<u64, usize>>,
    last_id: AtomicU64,
    /// Of all entries, and how many there are. Counted apart, since each is known to one shard only.
    bytes: AtomicUsize,
    entries: AtomicUsize,
    /// What others hold of the same bound of bytes.
    others: AtomicUsize,
    /// The bits of the weight of what was dropped last.
    floor: AtomicU64,
}

impl ResultStore {
    /// An empty store, whose memory `governor` counts and asks for.
    pub(crate) fn new(governor: &Arc<MemoryGovernor>) -> Arc<Self> {
        let store = Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::unbounded())).collect(),
            hasher: RandomState::new(),
            settings: Arc::clone(governor.settings()),
            budget: Budget::new(governor, NAME),
            flights: Arc::default(),
            sources: Sources::default(),
            memo: SettingsMemo::of_answers(),
            stats: CacheStats::default(),
            seen: Mutex::default(),
            shared: Mutex::default(),
            attempts: Mutex::default(),
            last_id: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
        });
        let reclaimer: Arc<dyn Reclaim> = Arc::clone(&store) as _;
        governor.on_shortage(Arc::downgrade(&reclaimer));
        store
    }

    /// Counters.
    pub(crate) fn stats(&self) -> &CacheStats {
        &self.stats
    }

    /// Texts of settings.
    pub(crate) fn memo(&self) -> &SettingsMemo {
        &self.memo
    }

    /// The key of these words.
    pub(crate) fn key(&self, tokens: Vec<Token>) -> Arc<Key> {
        Arc::new(Key::new(tokens, &self.hasher))
    }

    /// Leads the computation of `key`, or finds who does.
    pub(crate) fn join(&self, key: &Arc<Key>, clock: &Arc<dyn Clock>) -> Joined {
        self.flights.join(key, clock)
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        // The lower bits find the place within a shard.
        &self.shards[(key.hash() >> 59) as usize % SHARDS]
    }

    /// The answer to `key`, which is not used yet: whether it is current is for the caller to find out.
    pub(crate) fn get(&self, key: &Arc<Key>) -> Option<Arc<CachedResult>> {
        self.shard(key).lock().peek(key).cloned()
    }

    /// The answer was given.
    pub(crate) fn used(&self, result: &CachedResult) {
        self.shard(result.key()).lock().promote(result.key());
        result.hits.fetch_add(1, Ordering::Relaxed);
        result.weigh(self.floor());
        self.stats.hit(result.cost());
    }

    /// Parts of a query were given, which saved so much.
    pub(crate) fn used_for_part(&self, result: &CachedResult, saved: Duration) {
        self.shard(result.key()).lock().promote(result.key());
        result.hits.fetch_add(1, Ordering::Relaxed);
        result.weigh(self.floor());
        self.stats.part_hit(saved);
    }

    /// The answers that have this source, those with the fewest rows first. None of them is used yet.
    pub(crate) fn of_source(&self, source: &Arc<Key>) -> Vec<Arc<CachedResult>> {
        self.sources.of(source).iter().filter_map(|key| self.get(key)).collect()
    }

    /// Another query was computed from the answer. What that saves nobody knows.
    pub(crate) fn used_for_narrower(&self, result: &CachedResult) {
        self.shard(result.key()).lock().promote(result.key());
        result.hits.fetch_add(1, Ordering::Relaxed);
        result.weigh(self.floor());
        self.stats.broader_hit();
    }

    /// Counts that `key` was asked; how often it was by now, as far as remembered.
    pub(crate) fn asked(&self, key: &Key) -> usize {
        let mut seen = self.seen.lock();
        let times = seen.get(&key.hash()).map_or(1, |times| times + 1);
        seen.put(key.hash(), times, 1, SEEN, SEEN);
        times
    }

    /// Another number each time.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts that `part` occurs in `query`; in how many different queries it did by now, as far as remembered.
    pub(crate) fn occurs(&self, part: &Key, query: u64) -> usize {
        let mut shared = self.shared.lock();
        let (times, last) = shared.get(&part.hash()).copied().unwrap_or((0, query));
        let times = times + usize::from(times == 0 || last != query);
        shared.put(part.hash(), (times, query), 1, SEEN, SEEN);
        times
    }

    /// Whether `part` may be computed apart once more, in order to be kept.
    pub(crate) fn may_attempt(&self, part: &Key) -> bool {
        self.attempts.lock().get(&part.hash()).is_none_or(|times| *times < ATTEMPTS)
    }

    /// `part` is computed apart.
    pub(crate) fn attempt(&self, part: &Key) {
        let mut attempts = self.attempts.lock();
        let times = attempts.get(&part.hash()).map_or(1, |times| times.saturating_add(1));
        attempts.put(part.hash(), times, 1, SEEN, SEEN);
    }

    /// `part` is kept, or it is found that it will never be.
    pub(crate) fn attempted(&self, part: &Key, kept: bool) {
        self.attempts.lock().put(part.hash(), if kept { 0 } else { ATTEMPTS }, 1, SEEN, SEEN);
    }

    /// Puts an answer in, which makes room by dropping others.
    ///
    /// # Errors
    /// It is too large, too cheap, or there is no memory for it.
    pub(crate) fn put(
        &self,
        answer: Answer,
        limits: Limits,
        pool: &Arc<dyn MemoryPool>,
        clock: &dyn Clock,
    ) -> Result<Arc<CachedResult>, Refusal> {
        let files = answer.files.iter().map(|part| size_of_val(part) + part.file.heap_bytes()).sum::<usize>();
        let shape = answer.shape.as_ref().map_or(0, |shape| shape.bytes() + SLOT);
        let bytes = answer.bytes + answer.key.bytes() + size_of::<CachedResult>() + files + shape;
        let rows = answer.batches.iter().map(|batch| batch.num_rows()).sum();
        let (max_bytes, max_entries) = (self.settings.cache_max_bytes(), self.settings.cache_max_entries());
        if bytes > limits.bytes.min(max_bytes) || rows > limits.rows {
            return Err(Refusal::new("size", "the answer is larger than one may be"));
        }
        if answer.cost < limits.min_cost {
            return Err(Refusal::new("cost", "computing it again is cheap"));
        }
        if max_entries == 0 {
            return Err(Refusal::new("size", "slipstream.cache.max_entries is 0"));
        }
        self.claim(bytes, max_bytes, max_entries)?;
        let reservation = self.reserve(pool, bytes).inspect_err(|_| self.unclaim(bytes))?;
        let result = Arc::new(CachedResult {
            rows,
            bytes,
            created: clock.now(),
            created_at: before(clock.system_time(), answer.aged),
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            answer,
            _reservation: reservation,
            hits: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            weight: AtomicU64::new(0),
        });
        result.weigh(self.floor());
        self.sources.add(&result);
        let replaced = self.shard(result.key()).lock().push(Arc::clone(result.key()), Arc::clone(&result));
        if let Some((_, replaced)) = replaced {
            self.gone(&replaced, Evicted::Replaced);
        }
        self.stats.stored();
        Ok(result)
    }

    /// Nothing of `pool` yet, for an answer that is coming in.
    pub(crate) fn reservation(&self, pool: &Arc<dyn MemoryPool>) -> Option<MemoryReservation> {
        self.budget.reserve(pool, 0)
    }

    /// Reserves `bytes`; where the pool has not so many for a cache, older answers give theirs first.
    fn reserve(&self, pool: &Arc<dyn MemoryPool>, bytes: usize) -> Result<MemoryReservation, Refusal> {
        if let Some(reservation) = self.budget.reserve(pool, bytes) {
            return Ok(reservation);
        }
        self.evict(bytes, Evicted::Size);
        let again = self.budget.reserve(pool, bytes);
        again.ok_or_else(|| Refusal::new("memory", "there is no memory for it"))
    }

    /// Counts one more answer of `bytes`, and drops others until all fit. What is counted before it is there keeps several
    /// that come at once within the bounds together.
    fn claim(&self, bytes: usize, max_bytes: usize, max_entries: usize) -> Result<(), Refusal> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        match self.fit(max_bytes, max_entries) {
            true => Ok(()),
            false => {
                self.unclaim(bytes);
                Err(Refusal::new("size", "other answers take the room at this moment"))
            }
        }
    }

    /// Drops answers until the others keep to the bounds; whether they do.
    fn fit(&self, max_bytes: usize, max_entries: usize) -> bool {
        while self.bytes.load(Ordering::Relaxed) + self.others.load(Ordering::Relaxed) > max_bytes
            || self.entries.load(Ordering::Relaxed) > max_entries
        {
            if self.evict_one(Evicted::Size).is_none() {
                return false;
            }
        }
        true
    }

    /// The other tiers hold so many bytes of the bound that all tiers share: answers make room for them.
    pub(in crate::store) fn others_hold(&self, bytes: usize) {
        self.others.store(bytes, Ordering::Relaxed);
        self.fit(self.settings.cache_max_bytes(), self.settings.cache_max_entries());
    }

    fn unclaim(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops answers until `bytes` are free, and says how many are: those of answers that are being read follow later.
    fn evict(&self, bytes: usize, why: Evicted) -> usize {
        let mut free = 0;
        while free < bytes {
            match self.evict_one(why) {
                Some(dropped) => free += dropped,
                None => break,
            }
        }
        free
    }

    /// Drops the answer that is worth least among those that were used longest ago; the bytes that are free now.
    fn evict_one(&self, why: Evicted) -> Option<usize> {
        let mut least: Option<Arc<CachedResult>> = None;
        for shard in &self.shards {
            let shard = shard.lock();
            for (_, result) in shard.iter().rev().take(WEIGHED) {
                if least.as_ref().is_none_or(|least| result.weight() < least.weight()) {
                    least = Some(Arc::clone(result));
                }
            }
        }
        let least = least?;
        self.floor.fetch_max(least.weight().to_bits(), Ordering::Relaxed);
        Some(if self.remove(&least, why) && Arc::strong_count(&least) == 1 { least.bytes } else { 0 })
    }

    fn floor(&self) -> f64 {
        // The bits of numbers that are not negative are in the order of the numbers.
        f64::from_bits(self.floor.load(Ordering::Relaxed))
    }

    /// Takes this very answer out; whether it was there.
    pub(crate) fn remove(&self, result: &Arc<CachedResult>, why: Evicted) -> bool {
        let mut shard = self.shard(result.key()).lock();
        let there = shard.peek(result.key()).is_some_and(|known| Arc::ptr_eq(known, result));
        if there {
            shard.pop(result.key());
            self.gone(result, why);
        }
        there
    }

    /// An answer is out of its shard.
    fn gone(&self, result: &CachedResult, why: Evicted) {
        self.sources.remove(result);
        self.unclaim(result.bytes);
        self.stats.evicted(why, 1);
    }

    /// All answers, the newest first.
    pub(crate) fn results(&self) -> Vec<Arc<CachedResult>> {
        let mut results: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| shard.lock().iter().map(|(_, result)| Arc::clone(result)).collect::<Vec<_>>())
            .collect();
        results.sort_unstable_by_key(|result| std::cmp::Reverse(result.id));
        results
    }

    /// Drops the answers for which `which` is true; how many there were.
    pub(crate) fn drop_where(&self, which: impl Fn(&CachedResult) -> bool) -> u64 {
        let results = self.results();
        let dropped = results.iter().filter(|result| which(result) && self.remove(result, Evicted::Dropped));
        dropped.count() as u64
    }

    /// How many answers are named by their sources.
    pub(crate) fn named(&self) -> usize {
        self.sources.len()
    }

    /// Entries, bytes, and computations that go on.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed), self.flights.len())
    }
}

/// So long before `time`, where there is such a time.
fn before(time: SystemTime, age: Duration) -> SystemTime {
    time.checked_sub(age).unwrap_or(time)
}

impl fmt::Debug for ResultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultStore")
            .field("size", &self.size())
            .field("named", &self.named())
            .finish_non_exhaustive()
    }
}

impl Reclaim for ResultStore {
    fn name(&self) -> &str {
        NAME
    }

    fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reclaim(&self, bytes: usize) -> usize {
        self.evict(bytes, Evicted::Memory)
    }
}
