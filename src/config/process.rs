//! Settings that belong to the process: one value for all sessions that share a `Slipstream`, read at each use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// Names of the settings whose value is one for all sessions; a hint for one query cannot change them.
const NAMES: &[&str] = &[
    "memory.limit",
    "memory.unspillable_reserve",
    "disk.limit",
    "admission.max_queries",
    "admission.max_queued",
    "admission.timeout_ms",
    "cache.max_bytes",
    "cache.max_entries",
    "cache.disk.directory",
    "cache.disk.max_bytes",
];

/// Whether `slipstream.<name>` belongs to the process and not to a session.
pub(crate) fn belongs_to_process(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Declares atomics with a getter and a setter for each.
macro_rules! process_options {
    ($($(#[$doc:meta])* $name:ident / $set:ident = $default:expr;)*) => {
        /// The values of the settings that belong to the process.
        ///
        /// Every copy of a session's configuration holds the same ones, and so does every session of one
        /// [`Slipstream`](crate::Slipstream): `SET` in one of them acts in all, and on queries that run already. The
        /// values are single numbers that are read where they are used, so relaxed atomics are enough; the one text is shared.
        #[derive(Debug)]
        pub struct ProcessOptions {
            $($name: AtomicUsize,)*
            cache_disk_directory: RwLock<Arc<str>>,
        }

        impl Default for ProcessOptions {
            fn default() -> Self {
                Self { $($name: AtomicUsize::new($default),)* cache_disk_directory: RwLock::new("".into()) }
            }
        }

        impl ProcessOptions {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> usize {
                    self.$name.load(Ordering::Relaxed)
                }

                /// Changes it, for queries that run too.
                pub fn $set(&self, value: usize) {
                    self.$name.store(value, Ordering::Relaxed);
                }
            )*

            /// `slipstream.cache.disk.directory`; empty for none.
            pub fn cache_disk_directory(&self) -> Arc<str> {
                Arc::clone(&self.cache_disk_directory.read())
            }

            /// Changes it. Set once more to what it was, a directory that could not be used is tried again.
            pub fn set_cache_disk_directory(&self, directory: Arc<str>) {
                *self.cache_disk_directory.write() = directory;
            }

            /// Takes over what `other` has that is not the default.
            pub(crate) fn adopt(&self, other: &Self) {
                let default = Self::default();
                $(
                    if other.$name() != default.$name() {
                        self.$set(other.$name());
                    }
                )*
                if !other.cache_disk_directory().is_empty() {
                    self.set_cache_disk_directory(other.cache_disk_directory());
                }
            }
        }

        impl PartialEq for ProcessOptions {
            fn eq(&self, other: &Self) -> bool {
                self.cache_disk_directory() == other.cache_disk_directory()
                    $(&& self.$name() == other.$name())*
            }
        }
    };
}

process_options! {
    /// `slipstream.memory.limit`, in bytes; 0 for none.
    memory_limit / set_memory_limit = 0;
    /// `slipstream.memory.unspillable_reserve`, in percent of the limit.
    unspillable_reserve / set_unspillable_reserve = 15;
    /// `slipstream.disk.limit`, in bytes; 0 for none.
    disk_limit / set_disk_limit = 0;
    /// `slipstream.admission.max_queries`; 0 for any number.
    max_queries / set_max_queries = 0;
    /// `slipstream.admission.max_queued`
    max_queued / set_max_queued = 100;
    /// `slipstream.admission.timeout_ms`; 0 for no end.
    admission_timeout_ms / set_admission_timeout_ms = 60_000;
    /// `slipstream.cache.max_bytes`
    cache_max_bytes / set_cache_max_bytes = 256 << 20;
    /// `slipstream.cache.max_entries`
    cache_max_entries / set_cache_max_entries = 1000;
    /// `slipstream.cache.disk.max_bytes`
    cache_disk_max_bytes / set_cache_disk_max_bytes = 10 << 30;
}

impl Eq for ProcessOptions {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn only_what_was_set_is_adopted() {
        let (process, session) = (ProcessOptions::default(), ProcessOptions::default());
        process.set_memory_limit(7);
        session.set_max_queries(3);
        process.adopt(&session);
        assert_eq!((process.memory_limit(), process.max_queries()), (7, 3));
        assert_ne!(process, session);
    }

    #[test]
    fn the_names_are_names_of_settings() {
        for name in NAMES {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{name}");
        }
        assert!(!belongs_to_process("memory.query_limit"));
    }
}
