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
