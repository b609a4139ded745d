//! A hash join that finishes in the memory it is given.
//!
//! ```text
//!   build side ─► collected ── fits ──► HashJoinExec, over the collected batches and the probe side
//!                     │
//!                     └ does not fit: divided into parts by a hash of the keys; the largest go to disk (hybrid hash join)
//!
//!   probe side ─► divided by the same hash ─┬─► part in memory: joined at once
//!                                           └─► part on disk: written to disk
//!
//!   each part on disk ─┬─► fits: HashJoinExec over the two files
//!                      ├─► does not fit: divided again, by another hash
//!                      └─► cannot be divided (one key): block by block, the probe file read for each
//! ```
//!
//! Every join that is run is DataFusion's `HashJoinExec`, so that rows match here exactly where they match there. A row is in
//! one part, with all rows that it could match, so the joins of the parts together are the join, for each type.
//!
//! The scheme is that of the hybrid hash join (DeWitt et al., SIGMOD 1984; Shapiro, TODS 1986), with the parts that are
//! spilled chosen while it runs, since sizes are not known beforehand.
//!
//! | file | what is in it |
//! |---|---|
//! | `exec`, `run`, `slots`, `spec` | the node; one partition of it; inputs that are handed to a join; the parts that joins are made of |
//! | `need`, `prepaid` | how much memory a build side takes; the pool that pays for one that was found to fit |
//! | `build`, `probe`, `spilled` | one side, the other, and what the partitions that probe one build side share |
//! | `partition` | dividing rows by the hash of their keys, and gathering them by parts |
//! | `file`, `read`, `checksum` | writing spill files, reading them, and telling whether they are what was written |
//! | `pair`, `block` | joining one part from disk, at once, divided again, or block by block |
//! | `metrics` | what is counted, and how it is shown |
//!
//! *Who waits for whom.* No partition waits for another one to be polled, but for what DataFusion's own join waits for: a
//! partition that fits reads its probe side when all partitions have told their keys to the dynamic filter, or that they
//! will not. Nothing here holds a lock while it waits.
//!
//! *What is deleted when.* A spill file goes with the last reference to it: when it was read, or when the streams and tasks
//! that have it are dropped, on whatever way the query ends. Memory is given back in the same way, by reservations.

mod block;
mod build;
mod checksum;
mod exec;
mod file;
mod metrics;
mod need;
mod pair;
mod partition;
mod prepaid;
mod probe;
mod read;
mod run;
mod slots;
mod spec;
mod spilled;

#[cfg(test)]
mod tests;

pub(crate) use exec::SpillJoinExec;
