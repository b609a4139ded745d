//! A map that forgets what was used least recently, by number of entries and by bytes.

use std::hash::Hash;

use lru::LruCache;

/// Entries with the bytes that each was said to take.
///
/// Two bounds, since neither says enough: entries are of very different sizes, and a store of few large ones is searched
/// as fast as one of many small ones. The bytes are those of the values as their makers count them; the map's own links,
/// some 50 bytes an entry, come on top.
pub(super) struct Bounded<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
}

impl<K: Hash + Eq, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// Looks up `key`, which makes it the one that is forgotten last.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Puts an entry of `bytes` in, and drops others until there are at most `max_entries` of `max_bytes` in all.
    /// An entry that is too large on its own is not kept.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize, max_entries: usize, max_bytes: usize) {
        drop(self.put_and_take(key, value, bytes, max_entries, max_bytes));
    }

    /// The same, and hands over what was replaced or dropped, so that a caller who holds a lock can drop it later.
    pub(super) fn put_and_take(
        &mut self,
        key: K,
        value: V,
        bytes: usize,
        max_entries: usize,
        max_bytes: usize,
    ) -> Vec<V> {
        let mut gone = Vec::new();
        if let Some((_, (replaced, its_bytes))) = self.entries.push(key, (value, bytes)) {
            self.bytes -= its_bytes;
            gone.push(replaced);
        }
        self.bytes += bytes;
        while self.entries.len() > max_entries || self.bytes > max_bytes {
            let Some((_, (dropped, its_bytes))) = self.entries.pop_lru() else { break };
            self.bytes -= its_bytes;
            gone.push(dropped);
        }
        gone
    }

    /// Takes the entry of `key` out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, bytes) = self.entries.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// The value that was used longest ago.
    pub(super) fn oldest(&self) -> Option<&V> {
        self.entries.peek_lru().map(|(_, (value, _))| value)
    }

    /// Drops the entries for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool)
    where
        K: Clone,
    {
        let gone: Vec<K> = self
            .entries
            .iter()
            .filter(|(key, (value, _))| !keep(key, value))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.bytes -= self.entries.pop(&key).map_or(0, |(_, bytes)| bytes);
        }
    }

    /// All values, the one used last first.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, (value, _))| value)
    }

    /// Entries and bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_by_number_and_by_bytes() {
        let mut map = Bounded::default();
        for key in ["a", "b", "c"] {
            map.put(key, key, 10, 3, 100);
        }
        assert!(map.get(&"a").is_some());
        map.put("d", "d", 10, 3, 100);
        assert!(map.get(&"b").is_none() && map.get(&"a").is_some());
        map.put("e", "e", 85, 3, 100);
        assert_eq!(map.values().copied().collect::<Vec<_>>(), ["e", "a"]);
        assert_eq!(map.size(), (2, 95));
        map.put("e", "e again", 1, 3, 100);
        assert_eq!(map.size(), (2, 11));
        map.put("too large", "f", 101, 3, 100);
        assert_eq!(map.size(), (0, 0), "what is larger than the whole store leaves it empty");
        map.put("g", "g", 0, 0, 100);
        assert_eq!(map.size(), (0, 0));
    }

    #[test]
    fn what_is_not_retained_gives_its_bytes_back() {
        let mut map = Bounded::default();
        map.put(1, "one", 10, 3, 100);
        map.put(2, "two", 10, 3, 100);
        map.retain(|key, _| *key == 2);
        assert_eq!(map.size(), (1, 10));
    }
}
