//! The pool as operators see it: real reservations over DataFusion's pools, several queries, caches.

use std::sync::{Arc, Weak};

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
    UnboundedMemoryPool,
};
use parking_lot::Mutex;

use super::{MemoryGovernor, QueryPool, Reclaim};

/// A mebibyte.
const MB: usize = 1 << 20;

/// A governor with a limit and a reserve of a fifth of it.
fn governor(limit: usize) -> Arc<MemoryGovernor> {
    let governor = Arc::new(MemoryGovernor::default());
    governor.settings().set_memory_limit(limit);
    governor.settings().set_unspillable_reserve(20);
    governor
}

fn unbounded() -> Arc<dyn MemoryPool> {
    Arc::new(UnboundedMemoryPool::default())
}

/// An operator's consumer.
fn consumer(pool: &Arc<QueryPool>, name: &str, can_spill: bool) -> MemoryReservation {
    let pool: Arc<dyn MemoryPool> = Arc::clone(pool) as _;
    MemoryConsumer::new(name).with_can_spill(can_spill).register(&pool)
}

/// Grows until it is refused, and says what it holds then.
fn fill(reservation: &MemoryReservation) -> usize {
    while reservation.try_grow(MB / 4).is_ok() {}
    reservation.size()
}

/// What the one who was refused is told.
fn text(refused: Result<(), DataFusionError>) -> String {
    match refused {
        Err(DataFusionError::ResourcesExhausted(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_limit_it_only_counts() {
    let below: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
    let first = Arc::new(QueryPool::new(&below));
    let second = Arc::new(QueryPool::new(&below));
    let (mine, theirs) = (consumer(&first, "mine", false), consumer(&second, "theirs", false));
    mine.try_grow(600).unwrap();
    theirs.try_grow(300).unwrap();
    assert!(mine.try_grow(200).is_err(), "the pool below has 100 left");
    mine.shrink(500);
    mine.try_grow(50).unwrap();

    assert_eq!((first.reserved_bytes(), first.peak_bytes()), (150, 600));
    assert_eq!((second.reserved_bytes(), second.peak_bytes()), (300, 300));
    assert_eq!((first.refused_grows(), second.refused_grows()), (1, 0));
    assert_eq!(first.reserved(), 450);
    drop((mine, theirs));
    assert_eq!((below.reserved(), first.reserved_bytes(), second.reserved_bytes()), (0, 0, 0));
}

#[test]
fn all_levels_count_and_come_back_to_zero() {
    let (governor, below) = (governor(0), unbounded());
    let queries = [1, 2].map(|id| governor.query_pool(Some(id), &below, 0));
    let sort = consumer(&queries[0], "sort", true);
    let (one, other) = (sort.new_empty(), consumer(&queries[1], "join", false));
    sort.try_grow(10).unwrap();
    one.grow(5);
    other.try_grow(7).unwrap();
    let home = governor.home(&below);
    assert_eq!((home.account.reserved(), home.account.spillable()), (22, 15));
    assert_eq!(home.account.queries(), 2);
    sort.free();
    assert_eq!(home.account.queries(), 2, "the consumer's other reservation holds something");
    drop(one);
    assert_eq!(home.account.queries(), 1);
    drop(other);
    assert_eq!((home.account.reserved(), home.account.spillable(), home.account.queries()), (0, 0, 0));
    assert_eq!((below.reserved(), governor.totals()), (0, (0, 22)));
}

#[test]
fn a_limit_that_is_set_later_knows_what_was_taken_before() {
    let (governor, below) = (governor(0), unbounded());
    let query = governor.query_pool(Some(1), &below, 0);
    let join = consumer(&query, "join", false);
    join.try_grow(8 * MB).unwrap();
    governor.settings().set_memory_limit(4 * MB);
    assert!(text(join.try_grow(1)).contains("of the process limit of 4.0 MB, 0.0 B are free"));
    join.shrink(5 * MB);
    join.try_grow(MB).unwrap();
    assert!(join.try_grow(1).is_err());
    governor.settings().set_memory_limit(0);
    join.try_grow(100 * MB).unwrap();
}

#[test]
fn a_query_keeps_to_its_own_limit_and_the_pools() {
    let governor = governor(0);
    let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(10 * MB));
    let query = governor.query_pool(Some(7), &below, 4 * MB);
    assert!(matches!(query.memory_limit(), MemoryLimit::Finite(bytes) if bytes == 4 * MB));
    let join = consumer(&query, "join", false);
    join.try_grow(4 * MB).unwrap();
    let refused = text(join.try_grow(1));
    assert!(refused.contains("of the query limit of 4.0 MB"), "{refused}");
    assert!(refused.contains("SET slipstream.memory.query_limit"), "{refused}");

    let other = governor.query_pool(Some(8), &below, 0);
    let refused = text(consumer(&other, "join", false).try_grow(7 * MB));
    assert!(refused.contains("limit of the session's memory pool of 10.0 MB, 6.0 MB are free"), "{refused}");
    assert!(refused.contains("datafusion.runtime.memory_limit"), "{refused}");
    assert_eq!(below.reserved(), 4 * MB, "what was refused is not counted");
}

#[test]
fn who_reserves_past_the_governor_counts_too() {
    let (governor, below) = (governor(10 * MB), unbounded());
    let past = MemoryConsumer::new("past").register(&below);
    past.try_grow(9 * MB).unwrap();
    let query = governor.query_pool(Some(1), &below, 0);
    assert!(consumer(&query, "join", false).try_grow(2 * MB).is_err());
    // A runtime whose pool is the governor's keeps them to the limit.
    let runtime = governor.runtime_pool(&below);
    assert!(Arc::ptr_eq(&governor.runtime_pool(&runtime), &runtime), "it is not wrapped twice");
    let refused = text(MemoryConsumer::new("outside").register(&runtime).try_grow(2 * MB));
    assert!(refused.contains("outside of others than queries"), "{refused}");
    drop(past);
    let query = governor.query_pool(Some(2), &runtime, 0);
    let join = consumer(&query, "join", false);
    join.try_grow(10 * MB).unwrap();
    assert_eq!(governor.totals().0, 10 * MB, "a query over the governor's own pool is counted once");
}

#[test]
fn a_refusal_names_who_asked_who_holds_and_what_to_change() {
    let (governor, below) = (governor(100 * MB), unbounded());
    let pools: Vec<_> = (1..=8).map(|id| governor.query_pool(Some(id), &below, 0)).collect();
    let holders: Vec<_> = pools.iter().map(|pool| consumer(pool, "Sort[0]", true)).collect();
    for (i, holder) in holders.iter().enumerate() {
        holder.try_grow((i + 1) * MB).unwrap();
    }
    let refused = text(consumer(&pools[0], "HashJoinInput[3]", false).try_grow(90 * MB));
    assert_eq!(
        refused,
        "Failed to allocate additional 90.0 MB for HashJoinInput[3] of query 1: of the process limit of 100.0 MB, \
         64.0 MB are free. Most is held by Sort[0] (can spill) of query 8: 8.0 MB, Sort[0] (can spill) of query 7: \
         7.0 MB, Sort[0] (can spill) of query 6: 6.0 MB, Sort[0] (can spill) of query 5: 5.0 MB, Sort[0] (can spill) \
         of query 4: 4.0 MB, and 3 others: 6.0 MB. To give all queries more: SET slipstream.memory.limit, or \
         --memory-limit"
    );
    assert_eq!((pools[0].refused_grows(), pools[1].refused_grows()), (1, 0));
}

#[test]
fn spillable_consumers_leave_the_reserve_and_idle_ones_take_nothing() {
    let (governor, below) = (governor(100 * MB), unbounded());
    let query = governor.query_pool(Some(1), &below, 0);
    let idle: Vec<_> = (0..300).map(|i| consumer(&query, &format!("idle {i}"), true)).collect();
    let sorts = [0, 1].map(|i| consumer(&query, &format!("sort {i}"), true));
    let first = fill(&sorts[0]);
    assert!(first >= 59 * MB, "{first}: 300 idle consumers do not count");
    assert!(fill(&sorts[1]) > 10 * MB);
    let held = query.reserved_bytes();
    assert!(held <= 80 * MB, "{held}");
    let join = consumer(&query, "join", false);
    assert_eq!(fill(&join), 100 * MB - held, "one that cannot spill takes all that is free");
    let refused = text(sorts[0].try_grow(MB));
    assert!(refused.contains("0.0 B are free"), "{refused}");
    drop(idle);
}

#[test]
fn one_query_does_not_starve_another() {
    let (governor, below) = (governor(64 * MB), unbounded());
    let (greedy, late) = (governor.query_pool(Some(1), &below, 0), governor.query_pool(Some(2), &below, 0));
    let many: Vec<_> = (0..16).map(|i| consumer(&greedy, &format!("sort {i}"), true)).collect();
    for sort in &many {
        fill(sort);
    }
    let sort = consumer(&late, "late sort", true);
    sort.try_grow(MB).expect("a first batch always finds room");
    // The other is above its share now: refused, it spills, and what it gives back goes to the late one.
    assert!(many[0].try_grow(MB).is_err());
    for sort in &many {
        sort.free();
    }
    let held = fill(&sort);
    for sort in &many {
        fill(sort);
    }
    assert!(held > 30 * MB && greedy.reserved_bytes() > MB, "{held} and {}", greedy.reserved_bytes());
    sort.free();
    assert!(fill(&sort) > MB, "and it comes to memory again");
}

/// A cache that holds its memory in the governor's books.
#[derive(Debug)]
struct FakeCache {
    memory: MemoryReservation,
    asked: Mutex<Vec<usize>>,
}

impl Reclaim for FakeCache {
    fn name(&self) -> &str {
        "fake"
    }

    fn held(&self) -> usize {
        self.memory.size()
    }

    fn reclaim(&self, bytes: usize) -> usize {
        self.asked.lock().push(bytes);
        let given = bytes.min(self.held());
        self.memory.shrink(given);
        given
    }
}

#[test]
fn caches_give_back_before_a_query_is_refused() {
    let (governor, below) = (governor(100 * MB), unbounded());
    let pool = governor.cache_pool("fake", &below);
    let cache = Arc::new(FakeCache { memory: consumer(&pool, "results", false), asked: Mutex::default() });
    let registered: Arc<dyn Reclaim> = Arc::clone(&cache) as _;
    let registered: Weak<dyn Reclaim> = Arc::downgrade(&registered);
    governor.on_shortage(registered);
    cache.memory.try_grow(40 * MB).unwrap();
    assert!(cache.memory.try_grow(30 * MB).is_err(), "a cache leaves half of what is free");

    let query = governor.query_pool(Some(1), &below, 0);
    let join = consumer(&query, "join", false);
    join.try_grow(60 * MB).unwrap();
    assert!(cache.asked.lock().is_empty(), "there was room");
    join.try_grow(10 * MB).unwrap();
    assert_eq!((cache.memory.size(), query.reclaimed_bytes()), (30 * MB, 10 * MB as u64));
    assert_eq!(query.refused_grows(), 0);
    join.try_grow(30 * MB).unwrap();
    assert!(join.try_grow(1).is_err());
    assert_eq!((cache.memory.size(), query.refused_grows()), (0, 1));
    assert!(cache.memory.try_grow(1).is_err(), "a cache does not make others give back");
    assert_eq!(*cache.asked.lock(), [10 * MB, 30 * MB]);

    join.free();
    drop(cache);
    consumer(&query, "sort", true).try_grow(50 * MB).expect("a cache that is gone is not asked");
}

#[test]
fn many_threads_never_pass_the_limit_and_leave_nothing_behind() {
    let (governor, below) = (governor(16 * MB), unbounded());
    let over = std::thread::scope(|scope| {
        let work = |id: u64| {
            let query = governor.query_pool(Some(id), &below, 0);
            let mut over = 0;
            for round in 0..300_usize {
                let spills = consumer(&query, "spills", true);
                let fixed = consumer(&query, "fixed", false);
                for step in 0..8 {
                    let _ = spills.try_grow((round * 31 + step * 7919) % MB);
                    let _ = fixed.try_grow((round * 17 + step * 104_729) % (2 * MB));
                }
                over = over.max(below.reserved().saturating_sub(16 * MB));
            }
            over
        };
        let threads: Vec<_> = (0..4).map(|id| scope.spawn(move || work(id))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    assert_eq!(over, 0);
    let account = &governor.home(&below).account;
    assert_eq!((below.reserved(), account.reserved(), account.spillable()), (0, 0, 0));
    assert_eq!(account.queries(), 0);
}
