//! What each consumer of one query holds: counted without a lock, since it is counted for every batch.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::MemoryConsumer;
use parking_lot::Mutex;

/// Entries of the first block; each further block has twice as many as the one before.
const FIRST: usize = 32;

/// Places of a block that a consumer may have. Ids count up, so consumers of one query seldom want the same place.
const WINDOW: usize = 8;

/// The consumers of one pool by their ids: a hash table that grows by another block and never moves an entry.
///
/// A consumer registers, grows and shrinks, and unregisters. Its id says where its entry can be; the entry's own id says
/// whether it is. Whoever uses a reservation got it from the one who registered it, so what that one wrote is seen, and
/// the counters themselves need no order.
#[derive(Default)]
pub(super) struct Ledger {
    first: OnceLock<Box<Block>>,
}

/// A power of two of entries, and the next block where one was full.
struct Block {
    entries: Box<[Entry]>,
    next: OnceLock<Box<Self>>,
}

/// One consumer.
#[derive(Default)]
pub(super) struct Entry {
    /// The consumer's id and 1; 0 where nobody is.
    key: AtomicUsize,
    /// Bytes of all its reservations.
    held: AtomicUsize,
    /// The most of them at one time.
    peak: AtomicUsize,
    /// Read when somebody looks, and not when it grows.
    about: Mutex<Option<About>>,
}

/// What a consumer says of itself.
#[derive(Clone)]
struct About {
    name: String,
    can_spill: bool,
}

/// What one consumer holds, at one moment.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    /// The consumer's name, as its operator chose it.
    pub(super) name: String,
    /// Whether it says that it can spill.
    pub(super) can_spill: bool,
    /// Bytes of all its reservations.
    pub(super) held: usize,
    /// The most of them at one time.
    pub(super) peak: usize,
}

impl Block {
    /// A block where nobody is.
    fn new(entries: usize) -> Box<Self> {
        Box::new(Self { entries: (0..entries).map(|_| Entry::default()).collect(), next: OnceLock::new() })
    }

    /// Where the entry of `id` can be.
    fn window(&self, id: usize) -> [&Entry; WINDOW] {
        array::from_fn(|step| &self.entries[(id + step) % self.entries.len()])
    }
}

impl Ledger {
    /// The blocks, the first one first.
    fn blocks(&self) -> impl Iterator<Item = &Block> {
        std::iter::successors(self.first.get(), |block| block.next.get()).map(Box::as_ref)
    }

    /// A consumer comes.
    pub(super) fn register(&self, consumer: &MemoryConsumer) {
        let key = consumer.id() + 1;
        let mut block = self.first.get_or_init(|| Block::new(FIRST));
        loop {
            let free = |entry: &&Entry| {
                entry.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            };
            if let Some(entry) = block.window(consumer.id()).into_iter().find(free) {
                entry.peak.store(0, Ordering::Relaxed);
                let about = About { name: consumer.name().to_owned(), can_spill: consumer.can_spill() };
                *entry.about.lock() = Some(about);
                return;
            }
            block = block.next.get_or_init(|| Block::new(2 * block.entries.len()));
        }
    }

    /// A consumer goes. It holds nothing any more: reservations give back before they let go of their consumer.
    pub(super) fn unregister(&self, consumer: &MemoryConsumer) {
        if let Some(entry) = self.entry(consumer) {
            *entry.about.lock() = None;
            entry.held.store(0, Ordering::Relaxed);
            entry.key.store(0, Ordering::Relaxed);
        }
    }

    /// The entry of a consumer that is registered.
    pub(super) fn entry(&self, consumer: &MemoryConsumer) -> Option<&Entry> {
        let key = consumer.id() + 1;
        let mut entries = self.blocks().flat_map(|block| block.window(consumer.id()));
        entries.find(|entry| entry.key.load(Ordering::Relaxed) == key)
    }

    /// Whether a consumer of this name holds something.
    pub(super) fn holds(&self, name: &str) -> bool {
        let mut entries = self.blocks().flat_map(|block| block.entries.iter());
        let named = |entry: &Entry| entry.about.lock().as_ref().is_some_and(|about| about.name == name);
        entries.any(|entry| entry.held() > 0 && named(entry))
    }

    /// All consumers that hold something or did.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        let entries = self.blocks().flat_map(|block| block.entries.iter());
        let holding = |entry: &Entry| {
            let about = entry.about.lock().clone()?;
            let (held, peak) = (entry.held(), entry.peak.load(Ordering::Relaxed));
            (peak > 0).then_some(Holding { name: about.name, can_spill: about.can_spill, held, peak })
        };
        entries.filter_map(holding).collect()
    }
}

impl Entry {
    /// Bytes of all its reservations.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Adds to what it holds.
    pub(super) fn grow(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What it holds now is there to stay.
    pub(super) fn keep(&self) {
        raise(&self.peak, self.held());
    }

    /// Takes from what it holds.
    pub(super) fn shrink(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Raises a high-water mark. Most of the time it is not reached, and then nothing is written: other cores keep their copy.
pub(super) fn raise(peak: &AtomicUsize, value: usize) {
    if peak.load(Ordering::Relaxed) < value {
        peak.fetch_max(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_every_block_and_used_again() {
        let ledger = Ledger::default();
        let consumers: Vec<_> = (0..500).map(|i| MemoryConsumer::new(format!("consumer {i}"))).collect();
        for (i, consumer) in consumers.iter().enumerate() {
            ledger.register(consumer);
            ledger.entry(consumer).unwrap().grow(i + 1);
            ledger.entry(consumer).unwrap().keep();
        }
        for (i, consumer) in consumers.iter().enumerate() {
            assert_eq!(ledger.entry(consumer).unwrap().held(), i + 1);
        }
        assert_eq!(ledger.holdings().len(), 500);
        let blocks = ledger.blocks().count();
        for consumer in &consumers {
            let entry = ledger.entry(consumer).unwrap();
            entry.shrink(entry.held());
            assert_eq!(entry.held(), 0);
            ledger.unregister(consumer);
            assert!(ledger.entry(consumer).is_none());
        }
        for consumer in &consumers {
            ledger.register(consumer);
            assert_eq!(ledger.entry(consumer).unwrap().held(), 0);
        }
        assert_eq!(ledger.blocks().count(), blocks, "places are used again");
    }

    #[test]
    fn the_peak_stays_when_memory_is_given_back() {
        let (ledger, consumer) = (Ledger::default(), MemoryConsumer::new("sort").with_can_spill(true));
        ledger.register(&consumer);
        let entry = ledger.entry(&consumer).unwrap();
        entry.grow(10);
        entry.grow(5);
        entry.keep();
        entry.shrink(3);
        entry.shrink(12);
        let [holding] = &ledger.holdings()[..] else { panic!("one consumer") };
        assert_eq!((holding.held, holding.peak, holding.can_spill), (0, 15, true));
    }
}
