//! The store of answers and the single flight under a scheduler that tries orders of their steps (the crate `shuttle`).
//!
//! The files are the production ones, compiled once more with `sync.rs` of this folder: nothing in them knows of the model. A
//! failure prints a schedule that `shuttle::replay` runs again.

#[path = "../budget.rs"]
mod budget;
#[path = "../entry.rs"]
mod entry;
#[path = "../flight.rs"]
mod flight;
#[path = "../shards.rs"]
mod shards;
#[path = "../sources.rs"]
mod sources;
#[path = "../stats.rs"]
mod stats;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counter, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use datafusion::arrow::datatypes::Schema;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner, future, thread};

use crate::clock::{Clock, SystemClock};
use crate::fingerprint::{Key, Shape, Shaped, Token};
use crate::memory::{MemoryGovernor, Reclaim};
use entry::Answer;
use flight::{Joined, Waited};
use shards::{Limits, ResultStore};
use stats::Evicted;

/// Orders that are tried.
const ORDERS: usize = 2000;

/// Runs `model` under so many random schedules.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // A task of a development build needs more than the default of 32 KiB.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(ORDERS), config).run(model);
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
struct Hand(Instant, Counter);

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self(SystemClock.now(), Counter::new(0)))
    }

    fn goes_on(&self, time: Duration) {
        self.1.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        self.0 + Duration::from_millis(self.1.load(Ordering::SeqCst))
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// A store, its pool, and its clock.
struct World {
    store: Arc<ResultStore>,
    pool: Arc<dyn MemoryPool>,
    clock: Arc<dyn Clock>,
    hand: Arc<Hand>,
    governor: Arc<MemoryGovernor>,
}

const LIMITS: Limits = Limits { bytes: 1 << 20, rows: 100, min_cost: Duration::ZERO };

impl World {
    fn new() -> Arc<Self> {
        let governor: Arc<MemoryGovernor> = Arc::default();
        let hand = Hand::new();
        let clock = Arc::clone(&hand) as Arc<dyn Clock>;
        let pool = Arc::new(UnboundedMemoryPool::default());
        Arc::new(Self { store: ResultStore::new(&governor), pool, clock, hand, governor })
    }

    fn key(&self, number: usize) -> Arc<Key> {
        self.store.key(vec![Token::Number(number)])
    }

    /// An answer of `bytes` to the question `number`.
    fn answer(&self, number: usize, bytes: usize) -> Answer {
        Answer {
            key: self.key(number),
            schema: Arc::new(Schema::empty()),
            batches: Vec::new(),
            bytes,
            cost: Duration::from_millis(1),
            tables: Vec::new(),
            versions: Vec::new(),
            aging: false,
            pins: Vec::new(),
            tag: String::new(),
            ttl: None,
            files: Vec::new(),
            on_disk: None,
            aged: Duration::ZERO,
            // Some answers have a source, all of them the same.
            shape: (number % 2 == 1).then(|| {
                let shape = Shape::default();
                Arc::new(Shaped { source: self.key(100), shape })
            }),
            tier: entry::Tier::Result,
        }
    }

    fn put(&self, number: usize, bytes: usize) -> Option<Arc<entry::CachedResult>> {
        self.store.put(self.answer(number, bytes), LIMITS, &self.pool, self.clock.as_ref()).ok()
    }

    /// How many answers there are at one moment. One look sees each shard at a moment of its own; what two looks see was there
    /// between them.
    fn present(&self) -> usize {
        let before = self.store.results();
        let after = self.store.results();
        before.iter().filter(|result| after.iter().any(|other| Arc::ptr_eq(result, other))).count()
    }

    /// What is counted is what is there.
    fn is_consistent(&self) {
        let results = self.store.results();
        let bytes: usize = results.iter().map(|result| result.bytes).sum();
        assert_eq!(self.store.size(), (results.len(), bytes, 0));
        assert_eq!(self.pool.reserved(), bytes);
        // An answer that is gone is named no more, and one that is there is found.
        let ids = |results: &[Arc<entry::CachedResult>]| {
            let with_source = results.iter().filter(|result| result.shape().is_some());
            let mut ids: Vec<u64> = with_source.map(|result| result.id).collect();
            ids.sort_unstable();
            ids
        };
        let there = ids(&results);
        assert_eq!(self.store.named(), there.len());
        assert_eq!(ids(&self.store.of_source(&self.key(100))), there);
    }
}

/// What one who asks came to.
#[derive(Debug, PartialEq)]
enum End {
    Answered,
    Failed,
}

/// Asks as `AnswerStream` does; one who computes ends in one of all the ways there are.
async fn ask(world: &World, leads: &Counter) -> End {
    let key = world.key(1);
    loop {
        if world.store.get(&key).is_some() {
            return End::Answered;
        }
        match world.store.join(&key, &world.clock) {
            Joined::Follower(flight) => match flight.wait().await {
                Waited::Answer(_) | Waited::Alone => return End::Answered,
                Waited::Again => {}
            },
            Joined::Leader(leader) => {
                assert_eq!(leads.fetch_add(1, Ordering::SeqCst), 0, "two compute at one time");
                leader.flight().asked(Waker::noop());
                thread::yield_now();
                leads.fetch_sub(1, Ordering::SeqCst);
                match thread_rng().gen_range(0..3) {
                    0 => leader.land(world.put(1, 10)),
                    // Too large to be kept.
                    1 => leader.land(None),
                    // An error, a panic, a caller who went away.
                    _ => {
                        drop(leader);
                        return End::Failed;
                    }
                }
                return End::Answered;
            }
        }
    }
}

#[test]
fn one_computes_and_nobody_waits_for_ever() {
    check(|| {
        let world = World::new();
        let leads = Arc::new(Counter::new(0));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let (world, leads) = (Arc::clone(&world), Arc::clone(&leads));
                thread::spawn(move || future::block_on(async move { ask(&world, &leads).await }))
            })
            .collect();
        // Each comes to an end of his own: a failure of another is not his.
        for asker in askers {
            let end = asker.join().unwrap();
            assert!(matches!(end, End::Answered | End::Failed));
        }
        world.is_consistent();
    });
}

/// A leader that nobody asks any more is left alone; when it lands after all, it does not end the flight of the one who took over.
#[test]
fn a_leader_that_comes_back_late_takes_nobody_off() {
    check(|| {
        let world = World::new();
        let key = world.key(1);
        let Joined::Leader(first) = world.store.join(&key, &world.clock) else { panic!("nobody leads") };
        first.flight().gave();
        let follower = {
            let (world, key) = (Arc::clone(&world), Arc::clone(&key));
            thread::spawn(move || {
                let Joined::Follower(flight) = world.store.join(&key, &world.clock) else { return true };
                matches!(future::block_on(flight.wait()), Waited::Again | Waited::Answer(_))
            })
        };
        world.hand.goes_on(Duration::from_secs(1));
        // The other thread may have taken over, and given up, before.
        let second = loop {
            match world.store.join(&key, &world.clock) {
                Joined::Leader(second) => break second,
                Joined::Follower(_) => thread::yield_now(),
            }
        };
        let late = {
            let world = Arc::clone(&world);
            thread::spawn(move || first.land(world.put(1, 10)))
        };
        // Whatever the first one does: who comes now finds the second one.
        assert!(matches!(world.store.join(&key, &world.clock), Joined::Follower(_)));
        late.join().unwrap();
        assert!(matches!(world.store.join(&key, &world.clock), Joined::Follower(_)));
        drop(second);
        assert!(follower.join().unwrap(), "a follower is told, or gives up");
        world.is_consistent();
    });
}

#[test]
fn what_is_counted_is_what_is_there() {
    check(|| {
        let world = World::new();
        world.governor.settings().set_cache_max_entries(2);
        world.governor.settings().set_cache_max_bytes(4000);
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    for step in 0..3 {
                        let number = thread_rng().gen_range(0..3);
                        match thread_rng().gen_range(0..6) {
                            0..=2 => drop(world.put(number, 100 * (worker + step))),
                            3 => {
                                // Found to be stale: this one goes, and not one that has come in its place.
                                let found = world.store.get(&world.key(number));
                                found.iter().for_each(|found| {
                                    world.store.remove(found, Evicted::Stale);
                                });
                            }
                            4 => drop(world.store.drop_where(|result| result.bytes % 2 == 0)),
                            _ => drop(world.store.reclaim(500)),
                        }
                        assert!(world.present() <= 2, "more than may be");
                        let found = world.store.get(&world.key(number));
                        found.iter().for_each(|found| world.store.used(found));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        world.is_consistent();
        world.store.drop_where(|_| true);
        assert_eq!((world.store.size(), world.pool.reserved()), ((0, 0, 0), 0));
    });
}

/// One who found an answer to be stale takes out that answer, and not the newer one that was put in meanwhile.
#[test]
fn invalidation_takes_the_answer_that_it_found() {
    check(|| {
        let world = World::new();
        let old = world.put(1, 10).unwrap();
        let invalidation = {
            let (world, old) = (Arc::clone(&world), Arc::clone(&old));
            thread::spawn(move || world.store.remove(&old, Evicted::Stale))
        };
        let new = world.put(1, 20).unwrap();
        invalidation.join().unwrap();
        let found = world.store.get(&world.key(1)).unwrap();
        assert!(Arc::ptr_eq(&found, &new) && !Arc::ptr_eq(&found, &old));
        drop((old, new, found));
        world.is_consistent();
    });
}
