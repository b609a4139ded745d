//! The keys of a build side, one bit for each value of a dense domain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// Calls `$run` with the array as what it is, for those types whose values are whole numbers within 64 bits.
macro_rules! for_integers {
    ($array:expr, $run:ident, $($argument:expr),*) => {
        match $array.data_type() {
            DataType::Int8 => Some($run($array.as_primitive::<Int8Type>(), $($argument),*)),
            DataType::Int16 => Some($run($array.as_primitive::<Int16Type>(), $($argument),*)),
            DataType::Int32 => Some($run($array.as_primitive::<Int32Type>(), $($argument),*)),
            DataType::Int64 => Some($run($array.as_primitive::<Int64Type>(), $($argument),*)),
            DataType::UInt8 => Some($run($array.as_primitive::<UInt8Type>(), $($argument),*)),
            DataType::UInt16 => Some($run($array.as_primitive::<UInt16Type>(), $($argument),*)),
            DataType::UInt32 => Some($run($array.as_primitive::<UInt32Type>(), $($argument),*)),
            DataType::Date32 => Some($run($array.as_primitive::<Date32Type>(), $($argument),*)),
            _ => None,
        }
    };
}

/// The values that have a bit: `first` and the `count - 1` after it.
///
/// It is a guess from statistics, and no more: a key of the build side outside of it is forgotten, and a row of the
/// scan outside of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyDomain {
    pub(crate) first: i64,
    pub(crate) count: usize,
}

impl KeyDomain {
    /// Whether values of `data_type` can be told apart by bits.
    pub(crate) fn takes(data_type: &DataType) -> bool {
        use DataType::{Date32, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
        matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32)
    }
}

/// The keys of one build side, filled by its partitions and read by those of the scans that are filtered by it.
///
/// The bits are allocated, and asked of the memory pool, by the first partition of the build side that runs; a pool that
/// has no room for them, a partition that is dropped before its end, and a plan that is reset all leave it incomplete for
/// ever, and what is incomplete filters nothing. The bits are given back when the last reader has ended.
#[derive(Debug)]
pub(crate) struct KeySet {
    domain: KeyDomain,
    bits: Mutex<Option<Arc<Bits>>>,
    /// Partitions of the build side that have not come to their end.
    writers: AtomicUsize,
    /// Partitions of filters that have not come to theirs.
    readers: AtomicUsize,
    complete: AtomicBool,
}

impl KeySet {
    /// An empty set that `writers` partitions fill.
    pub(crate) fn new(domain: KeyDomain, writers: usize) -> Self {
        Self {
            domain,
            bits: Mutex::default(),
            writers: AtomicUsize::new(writers),
            readers: AtomicUsize::new(0),
            complete: AtomicBool::new(false),
        }
    }

    /// `partitions` of one more filter will read it.
    pub(crate) fn expect_readers(&self, partitions: usize) {
        self.readers.fetch_add(partitions, Ordering::Relaxed);
    }

    /// The bits to write to; `None` where the pool has no memory for them.
    pub(super) fn writable(&self, pool: &Arc<dyn MemoryPool>) -> Option<Arc<Bits>> {
        let mut bits = self.bits.lock();
        if bits.is_none() {
            let reservation = MemoryConsumer::new("KeyFilter").register(pool);
            let words = self.domain.count.div_ceil(64);
            reservation.try_grow(words * size_of::<AtomicU64>()).ok()?;
            let words = std::iter::repeat_with(AtomicU64::default).take(words).collect();
            *bits = Some(Arc::new(Bits { domain: self.domain, words, _reservation: reservation }));
        }
        bits.clone()
    }

    /// One partition of the build side came to its end, with all its keys in the set.
    pub(super) fn written(&self) {
        // The last one has seen what the others wrote, and readers see what it has.
        if self.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.store(true, Ordering::Release);
        }
    }

    /// From now on it filters nothing: it is not known whose keys will come.
    pub(super) fn retire(&self) {
        // No number of partitions that end brings this to one.
        self.writers.store(usize::MAX / 2, Ordering::Release);
        self.complete.store(false, Ordering::Release);
        *self.bits.lock() = None;
    }

    /// The keys, once they are complete.
    pub(super) fn complete(&self) -> Option<Arc<Bits>> {
        if !self.complete.load(Ordering::Acquire) {
            return None;
        }
        self.bits.lock().clone()
    }

    /// One partition of a filter came to its end, or was dropped.
    pub(super) fn read(&self) {
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.bits.lock() = None;
        }
    }
}

/// The bits, and the memory that is reserved for them.
#[derive(Debug)]
pub(super) struct Bits {
    domain: KeyDomain,
    words: Box<[AtomicU64]>,
    _reservation: MemoryReservation,
}

impl Bits {
    /// Sets the bits of the keys that are not NULL; false for a type that has none.
    pub(super) fn insert(&self, keys: &ArrayRef) -> bool {
        for_integers!(keys, insert, self).is_some()
    }

    /// The rows whose keys may be in the set; NULL is not. `None` for a type that has no bits.
    pub(super) fn may_contain(&self, keys: &ArrayRef) -> Option<BooleanBuffer> {
        let found = for_integers!(keys, test, self)?;
        Some(match keys.nulls() {
            Some(nulls) if nulls.null_count() > 0 => &found & nulls.inner(),
            _ => found,
        })
    }

    #[inline]
    fn place(&self, key: i64) -> Option<usize> {
        let place = usize::try_from(key.wrapping_sub(self.domain.first) as u64).ok()?;
        (place < self.domain.count).then_some(place)
    }
}

fn insert<T: ArrowPrimitiveType<Native: Into<i64>>>(keys: &PrimitiveArray<T>, bits: &Bits) {
    let set = |key: T::Native| {
        let Some(place) = bits.place(key.into()) else { return };
        let (word, bit) = (&bits.words[place / 64], 1 << (place % 64));
        // Keys repeat, and looking is cheaper than writing.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    };
    match keys.null_count() {
        0 => keys.values().iter().copied().for_each(set),
        _ => keys.iter().flatten().for_each(set),
    }
}

fn test<T: ArrowPrimitiveType<Native: Into<i64>>>(keys: &PrimitiveArray<T>, bits: &Bits) -> BooleanBuffer {
    let values = keys.values();
    BooleanBuffer::collect_bool(values.len(), |row| match bits.place(values[row].into()) {
        Some(place) => bits.words[place / 64].load(Ordering::Relaxed) >> (place % 64) & 1 == 1,
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Date32Array, Int64Array, StringArray};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    fn unbounded() -> Arc<dyn MemoryPool> {
        Arc::new(UnboundedMemoryPool::default())
    }

    fn array(keys: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from_iter(keys))
    }

    #[test]
    fn keys_are_found_null_is_not_and_what_has_no_bit_is_kept() {
        let set = KeySet::new(KeyDomain { first: -5, count: 70 }, 1);
        set.expect_readers(1);
        let pool = unbounded();
        let bits = set.writable(&pool).unwrap();
        assert!(bits.insert(&array([Some(-5), None, Some(64), Some(65), Some(i64::MIN), Some(i64::MAX)])));
        assert!(set.complete().is_none(), "the build side goes on");
        set.written();

        let found = set.complete().unwrap();
        let keys = [Some(-5), Some(-4), None, Some(64), Some(63), Some(65), Some(i64::MIN), Some(-6)];
        let expected = [true, false, false, true, false, true, true, true];
        assert_eq!(found.may_contain(&array(keys)).unwrap(), BooleanBuffer::from_iter(expected));
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![-5, 3]));
        assert_eq!(found.may_contain(&dates).unwrap(), BooleanBuffer::from_iter([true, false]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["-5"]));
        assert!(found.may_contain(&texts).is_none());
        assert_eq!(pool.reserved(), 16, "two words for 70 values");
    }

    #[test]
    fn memory_is_asked_for_and_given_back_by_the_last_reader() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let set = KeySet::new(KeyDomain { first: 0, count: 1600 }, 2);
        set.expect_readers(2);
        drop(set.writable(&pool).unwrap());
        assert_eq!(pool.reserved(), 200);
        set.written();
        assert!(set.complete().is_none(), "one of two partitions has ended");
        set.written();
        assert!(set.complete().is_some());
        set.read();
        assert_eq!(pool.reserved(), 200);
        set.read();
        assert_eq!(pool.reserved(), 0);
        assert!(set.complete().is_none());

        let large = KeySet::new(KeyDomain { first: 0, count: 80_000 }, 1);
        assert!(large.writable(&pool).is_none());
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn a_retired_set_filters_nothing() {
        let set = KeySet::new(KeyDomain { first: 0, count: 64 }, 1);
        set.expect_readers(1);
        drop(set.writable(&unbounded()));
        set.written();
        set.retire();
        assert!(set.complete().is_none());
        drop(set.writable(&unbounded()));
        set.written();
        assert!(set.complete().is_none());
    }
}
