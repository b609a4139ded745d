//! Answers of whole queries: kept in memory, by what was asked, with the versions of the data that they were made from.
//!
//! ```text
//!   Key ─► shard ─► lru ─► CachedResult { batches, versions, cost, bytes }     bytes are reserved of the memory pool
//!    │
//!    └──► Flights: who computes it at this moment, and who waits
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `entry.rs` | one answer |
//! | `shards.rs` | the map, its bounds, and which answer goes first |
//! | `budget.rs` | what answers, or plans, hold of the memory pools |
//! | `flight.rs` | identical queries at one time compute once |
//! | `sync.rs`, `model/` | locks and atomics, and the same files under a scheduler that tries their orders |
//! | `sources.rs` | from what is read to the answers that were made of it |
//! | `stats.rs` | what happened, for the system tables |
//!
//! An answer goes first that saved the fewest seconds for each byte lately: an answer's weight is its cost, times how often it
//! was asked for, over its bytes, on top of the weight of what was dropped last, so that old merits fade. (This is the
//! GreedyDual-Size-Frequency policy of web caches: Cherkasova, HP Laboratories, 1998.) A new answer is never the one to go:
//! a full cache still takes in what is asked now.

mod budget;
mod entry;
mod flight;
mod shards;
mod sources;
mod stats;
mod sync;

#[cfg(test)]
#[expect(
    clippy::duplicate_mod,
    dead_code,
    reason = "the model is of the same files, and uses a part of them"
)]
mod model;

pub(super) use budget::Budget;
pub(crate) use entry::{Answer, CachedResult, FilePart, Tier};
pub(crate) use flight::{Joined, Leader, Waited};
pub(crate) use shards::{Limits, ResultStore};
pub(crate) use stats::{CacheStats, Evicted};
