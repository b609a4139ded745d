//! A join's keys as a bitmap, tested on the rows of a scan long before they meet the join.
//!
//! ```text
//!   HashJoinExec: on=[(part, item.part)]
//!     ├─ build side ──► Collect: sets the bit of each key ──┐
//!     └─ … joins, exchanges …                               ▼
//!          KeyFilterExec: keeps the rows whose bit is set  [KeySet]
//!            DataSourceExec: item
//! ```
//!
//! A test is one memory access where the join's table takes a hash, several accesses and a comparison, and the rows that
//! it drops pass no exchange and no other join. DataFusion's own dynamic filters say the same, but prune row groups
//! only, or cost a look-up in the join's table for each row.
//!
//! | file | what it holds |
//! |---|---|
//! | `keys` | the bitmap, its memory, and when it is complete |
//! | `collect` | the wrapper of a build side that fills it |
//! | `exec` | the filter above a scan |
//! | `expr`, `reader` | the same test for a reader that evaluates filters itself |
//!
//! Semi-join reduction is due to Bernstein and Chiu (*Using Semi-Joins to Solve Relational Queries*, J. ACM 1981), its
//! use within one engine to bitvector filters (Graefe, *Query Evaluation Techniques for Large Databases*, 1993).

mod collect;
mod exec;
mod expr;
mod keys;
mod reader;

pub(crate) use collect::collect_keys;
pub(crate) use exec::{KeyFilterExec, KeyTest};
pub(crate) use expr::key_test;
pub(crate) use keys::{KeyDomain, KeySet};
pub(crate) use reader::reads_keys;
