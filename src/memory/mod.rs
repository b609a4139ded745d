//! Memory: what the process, its queries and their operators hold, and who may have more.
//!
//! | file | what it is |
//! |---|---|
//! | `governor.rs` | the process level: limits, decisions, caches that give back |
//! | `query_pool.rs` | the query level: DataFusion's `MemoryPool`, as the operators of one query see it |
//! | `policy.rs` | the rule by which a request is granted, without locks |
//! | `account.rs`, `ledger.rs` | the counters of a level, and of a query's operators |
//! | `refusal.rs` | what a refused request is told |
//! | `reclaim.rs` | what a cache has to be able to do |
//! | `usage.rs` | who holds memory at this moment, for the system table |
//! | `admission.rs` | how many queries run at once, and the queue of the others |
//! | `disk.rs` | how large spill files may be, and where they are |

mod account;
mod admission;
mod disk;
mod governor;
mod ledger;
mod policy;
mod query_pool;
mod reclaim;
mod refusal;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use admission::{Admission, Turn};
pub(crate) use governor::MemoryGovernor;
pub(crate) use policy::AGGREGATE_MERGE;
pub use query_pool::QueryPool;
pub(crate) use reclaim::Reclaim;
pub(crate) use usage::Usage;
