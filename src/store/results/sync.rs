//! What the store of answers waits and counts with. Its model (`model/`) is of the same files, with its own in this place.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) use parking_lot::Mutex;
pub(super) use tokio::time::timeout;
