//! Who may take memory under a limit: the rule itself, without locks or pools.
//!
//! ```text
//!   0                                                                    limit
//!   │ held by all │ free for those that can spill │ free, kept as reserve │
//! ```
//!
//! A consumer that cannot spill fails its query when it is refused, so it may take whatever is free. One that can spill
//! leaves the reserve (apache/datafusion 17334), and something for those that come after it. How much is said by the
//! dynamic thresholds of shared-memory switches (Choudhury and Hahne, 1998): it may hold at most [`ALPHA`] times what is
//! still free beside it. One consumer comes to 3/4 of the memory, two that go on asking come to 3/7 each, `k` to 3/(3k+1)
//! each, and something is left for another. Nothing is divided by the number of those that are registered, or active: who
//! holds nothing counts for nothing, and who needs little leaves the rest to those who need more.

use datafusion::execution::memory_pool::MemoryConsumer;

/// What a consumer that can spill may hold, as a multiple of what is still free beside it. More of it wastes less memory
/// where one operator runs, and leaves less to the next.
const ALPHA: usize = 3;

/// A query that holds more than half of the limit leaves this part of it free, so that other queries can begin. It is not
/// asked to leave more: what cannot spill fails its query, for the sake of others that may never come.
const HEADROOM_PART: usize = 16;

/// How the name of an aggregate's consumer begins while it merges what it has spilled; the name of the aggregate's own
/// consumer follows.
pub(crate) const AGGREGATE_MERGE: &str = "AggregateMerge of ";

/// What is known of one limit at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Level {
    /// Bytes; never 0.
    pub(super) limit: usize,
    /// Bytes of it that are kept for consumers that cannot spill.
    pub(super) reserve: usize,
    /// Held by all consumers, caches included.
    pub(super) reserved: usize,
    /// Held by those that can do with less: consumers that can spill, merges, caches.
    pub(super) spillable: usize,
    /// Queries that hold something; 0 where the limit is one query's own.
    pub(super) queries: usize,
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asking {
    /// Bytes asked for.
    pub(super) bytes: usize,
    /// Held by this consumer already.
    pub(super) held: usize,
    /// Held by its query already.
    pub(super) query_held: usize,
    /// How it goes on when it is refused.
    pub(super) kind: Kind,
}

/// How a consumer goes on when it is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not at all: its query fails.
    #[default]
    Fixed,
    /// It writes what it holds to disk.
    Spills,
    /// With less. It asks for more while it gets more, and would take all there is: a merge of sorted runs opens another
    /// run for as long as there is memory, and merges in several passes where there is little.
    Elastic,
    /// It does without: a cache, which is a guest.
    Cache,
}

impl Kind {
    /// The consumer of a sort that merges. It says that it cannot spill, and can go on with less.
    const SORT_MERGE: &str = "ExternalSorterMerge[";

    /// That of an operator's consumer.
    pub(super) fn of(consumer: &MemoryConsumer) -> Self {
        if consumer.can_spill() {
            Self::Spills
        } else if [Self::SORT_MERGE, AGGREGATE_MERGE].iter().any(|merge| consumer.name().starts_with(merge)) {
            Self::Elastic
        } else {
            Self::Fixed
        }
    }

    /// The consumer whose runs a merge merges, if `consumer` is a merge: while that one holds memory, the runs are in memory
    /// and not in files, and the merge needs what it asks for.
    pub(super) fn sorter_of(consumer: &MemoryConsumer) -> Option<String> {
        consumer.name().strip_prefix(Self::SORT_MERGE).map(|partition| format!("ExternalSorter[{partition}"))
    }

    /// Whether it can do with less, so that the reserve is not for it.
    pub(super) fn yields(self) -> bool {
        self != Self::Fixed
    }
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is not that much.
    Full,
    /// There is, but it is kept for consumers that cannot spill.
    Reserve,
    /// There is, but the consumer has so much already that the rest is left to others.
    Share,
    /// There is, but the query has so much already that the rest is left to other queries.
    QueryShare,
}

/// A refusal: why, what was free, and how much more would have had to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// The plainest reason, where there are several.
    pub(super) reason: Reason,
    /// Bytes of the limit that nobody holds.
    pub(super) free: usize,
    /// Bytes that would have to be free beyond those, for the request to be granted.
    pub(super) missing: usize,
}

impl Level {
    /// What nobody holds; nothing, where the limit was lowered below what is held.
    fn free(&self) -> usize {
        self.limit.saturating_sub(self.reserved)
    }

    /// What of the reserve is not in use by those that it is for.
    fn reserve_left(&self) -> usize {
        self.reserve.saturating_sub(self.reserved.saturating_sub(self.spillable))
    }

    /// Whether `asking` may have what it asks for.
    pub(super) fn admit(&self, asking: &Asking) -> Result<(), Refused> {
        let free = self.free();
        let needed = self.needed(asking);
        let missing = needed.iter().map(|(_, bytes)| bytes.saturating_sub(free)).max().unwrap_or(0);
        match needed.into_iter().find(|(_, bytes)| *bytes > free) {
            None => Ok(()),
            Some((reason, _)) => Err(Refused { reason, free, missing }),
        }
    }

    /// What has to be free, for each reason to refuse, the plainest first.
    fn needed(&self, asking: &Asking) -> [(Reason, usize); 4] {
        let Asking { bytes, held, query_held, kind } = *asking;
        let and_leave = |left: usize| bytes.saturating_add(left);
        let reserve = match (kind, held) {
            (Kind::Cache, _) | (Kind::Spills, 1..) => self.reserve_left(),
            // It has nothing to spill: refused, it would fail its query, as one that cannot spill does.
            (Kind::Spills, 0) => self.reserve_left() / 2,
            // So would a merge that does not get its first two runs, and who knows how many it has.
            (Kind::Elastic, 1..) => self.reserve_left() / 2,
            // What a sort sets aside for its merge in advance it has to get.
            (Kind::Elastic, 0) | (Kind::Fixed, _) => 0,
        };
        // What `total` may be left beside, by the rule of dynamic thresholds.
        let beside = |total: usize| and_leave(total.saturating_add(bytes).div_ceil(ALPHA) + reserve);
        let begun = kind == Kind::Spills && held > 0;
        let share = if kind == Kind::Cache {
            and_leave(bytes.saturating_add(reserve))
        } else if begun {
            beside(held)
        } else {
            0
        };
        let query_holds = query_held.saturating_add(bytes);
        let query_share = match kind {
            _ if self.queries < 2 => 0,
            Kind::Spills if begun && query_holds > self.limit / self.queries => beside(query_held),
            Kind::Fixed if query_holds > self.limit / 2 => and_leave(self.limit / HEADROOM_PART),
            _ => 0,
        };
        [
            (Reason::Full, bytes),
            (Reason::Reserve, and_leave(reserve)),
            (Reason::Share, share),
            (Reason::QueryShare, query_share),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    /// Consumers under one limit, driven by the rule alone.
    struct Pool {
        level: Level,
        /// Bytes, and whether it can spill.
        consumers: Vec<(usize, bool)>,
    }

    impl Pool {
        fn new(limit: usize, reserve_percent: usize, consumers: &[bool]) -> Self {
            let level = Level { limit, reserve: limit / 100 * reserve_percent, ..Level::default() };
            Self { level, consumers: consumers.iter().map(|can_spill| (0, *can_spill)).collect() }
        }

        fn level(&self) -> Level {
            let spillable =
                self.consumers.iter().filter(|(_, can_spill)| *can_spill).map(|(held, _)| held).sum();
            Level { reserved: self.consumers.iter().map(|(held, _)| held).sum(), spillable, ..self.level }
        }

        fn grow(&mut self, consumer: usize, bytes: usize) -> Result<(), Refused> {
            let (held, can_spill) = self.consumers[consumer];
            self.level().admit(&Asking {
                bytes,
                held,
                query_held: held,
                kind: if can_spill { Kind::Spills } else { Kind::Fixed },
            })?;
            self.consumers[consumer].0 += bytes;
            Ok(())
        }

        /// Grows `consumer` by steps until it is refused, and says what it holds then.
        fn fill(&mut self, consumer: usize, step: usize) -> usize {
            while self.grow(consumer, step).is_ok() {}
            self.consumers[consumer].0
        }
    }

    #[test]
    fn one_that_can_spill_gets_most_and_leaves_some() {
        let mut pool = Pool::new(100 * MB, 0, &[true, true]);
        let held = pool.fill(0, MB);
        assert!((73 * MB..=75 * MB).contains(&held), "{held}");
        assert_eq!(pool.grow(0, MB).unwrap_err().reason, Reason::Share);
        // A second takes of what was left; the first, refused, spills; then both come to more.
        assert!(pool.fill(1, MB) >= 18 * MB);
        pool.consumers[0].0 = 0;
        for _ in 0..100 {
            let _ = (pool.grow(0, MB), pool.grow(1, MB));
        }
        let held = (pool.consumers[0].0, pool.consumers[1].0);
        assert!(held.0 >= 30 * MB && held.1 >= 30 * MB, "{held:?}");
    }

    #[test]
    fn idle_consumers_count_for_nothing() {
        let mut alone = Pool::new(100 * MB, 15, &[true]);
        let mut crowd = Pool::new(100 * MB, 15, &[true; 500]);
        assert_eq!(alone.fill(0, MB), crowd.fill(0, MB));
        assert!(crowd.consumers[0].0 >= 60 * MB);
    }

    #[test]
    fn a_crowd_that_spills_when_it_is_refused_never_fails() {
        for consumers in [2, 5, 17, 65] {
            let mut pool = Pool::new(128 * MB, 15, &vec![true; consumers]);
            let mut spilled = 0;
            for step in 0..20_000_usize {
                // Some ask often, some seldom, and the last ones come late.
                let consumer = (step * step / 7) % (1 + consumers * step / 20_000);
                if pool.grow(consumer, 256 << 10).is_err() {
                    assert!(pool.consumers[consumer].0 > 0, "{consumer} of {consumers} has nothing to spill");
                    pool.consumers[consumer].0 = 0;
                    spilled += 1;
                    assert_eq!(
                        pool.grow(consumer, 256 << 10),
                        Ok(()),
                        "{consumer} of {consumers} has spilled all"
                    );
                }
            }
            assert!(spilled > 0, "{consumers}");
        }
    }

    #[test]
    fn the_reserve_is_for_those_that_cannot_spill() {
        let mut pool = Pool::new(100 * MB, 20, &[true, true, true, false]);
        for consumer in 0..3 {
            pool.fill(consumer, MB);
        }
        let spillable: usize = pool.consumers.iter().map(|(held, _)| held).sum();
        assert!((76 * MB..=80 * MB).contains(&spillable), "{spillable}");
        let (free, held) = (100 * MB - spillable, pool.fill(3, MB));
        assert_eq!(held, free, "all that is free");
        assert_eq!(pool.grow(3, MB), Err(Refused { reason: Reason::Full, free: 0, missing: MB }));
        // Beyond the reserve, its memory comes from what the others could have.
        pool.consumers = vec![(0, true), (30 * MB, false)];
        assert!(pool.fill(0, MB) >= 51 * MB, "the reserve is in use, and not kept twice");
    }

    #[test]
    fn without_anything_to_spill_half_of_the_reserve_may_be_used() {
        let mut pool = Pool::new(100 * MB, 20, &[true, true]);
        pool.consumers[0].0 = 80 * MB;
        assert_eq!(pool.grow(1, 11 * MB).unwrap_err().reason, Reason::Reserve);
        assert_eq!(pool.grow(1, 10 * MB), Ok(()));
        assert_eq!(pool.grow(1, MB).unwrap_err().reason, Reason::Reserve);
    }

    #[test]
    fn a_merge_leaves_half_of_the_reserve() {
        let level = |reserved| Level {
            limit: 100 * MB,
            reserve: 20 * MB,
            reserved,
            spillable: reserved,
            ..Level::default()
        };
        let merge = Kind::of(&MemoryConsumer::new("ExternalSorterMerge[0]"));
        let asking = Asking { bytes: MB, held: 50 * MB, kind: merge, ..Asking::default() };
        assert_eq!(level(89 * MB).admit(&asking), Ok(()), "more than its share, but no more than that");
        assert_eq!(level(90 * MB).admit(&asking).unwrap_err().reason, Reason::Reserve);
        assert_eq!(
            level(90 * MB).admit(&Asking { held: 0, ..asking }),
            Ok(()),
            "what is set aside in advance"
        );
        let table = Kind::of(&MemoryConsumer::new("SortPreservingMergeExec[0]"));
        assert_eq!(level(90 * MB).admit(&Asking { kind: table, ..asking }), Ok(()));
    }

    #[test]
    fn a_lowered_limit_refuses_until_it_fits() {
        let mut pool = Pool::new(100 * MB, 0, &[false]);
        pool.fill(0, MB);
        pool.level.limit = 10 * MB;
        assert_eq!(pool.grow(0, 1), Err(Refused { reason: Reason::Full, free: 0, missing: 1 }));
        pool.consumers[0].0 = 5 * MB;
        assert_eq!(pool.grow(0, MB), Ok(()));
    }

    #[test]
    fn one_query_leaves_room_for_another() {
        let level = Level { limit: 80 * MB, reserved: 60 * MB, queries: 1, ..Level::default() };
        let asking = Asking { bytes: 16 * MB, query_held: 60 * MB, ..Asking::default() };
        assert_eq!(level.admit(&asking), Ok(()), "alone it may have all");
        let two = Level { queries: 2, ..level };
        assert_eq!(two.admit(&asking).unwrap_err().reason, Reason::QueryShare);
        assert_eq!(two.admit(&Asking { bytes: 15 * MB, ..asking }), Ok(()), "a sixteenth stays free");
        assert_eq!(two.admit(&Asking { query_held: 0, ..asking }), Ok(()), "the other may take what is free");
        let sort = Asking { bytes: MB, held: MB, kind: Kind::Spills, ..asking };
        assert_eq!(two.admit(&Asking { query_held: 50 * MB, ..sort }), Ok(()), "19 beside 51");
        let refused = two.admit(&Asking { query_held: 60 * MB, ..sort }).unwrap_err();
        assert_eq!(refused.reason, Reason::QueryShare, "19 beside 61");
        assert_eq!(
            level.admit(&Asking { query_held: 60 * MB, ..sort }),
            Ok(()),
            "of one query it is no matter"
        );
    }

    #[test]
    fn a_cache_takes_half_of_what_is_free() {
        let level = Level { limit: 100 * MB, reserve: 20 * MB, ..Level::default() };
        let cache = |bytes| level.admit(&Asking { bytes, kind: Kind::Cache, ..Asking::default() });
        assert_eq!(cache(40 * MB), Ok(()));
        assert_eq!(cache(41 * MB).unwrap_err().reason, Reason::Share);
    }
}
