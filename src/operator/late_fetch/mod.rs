//! The columns of the few rows that a top-k sort has picked, read from their files at last.
//!
//! ```text
//!   LateFetchExec                     reads all columns of k rows, by file and row number
//!     SortPreservingMergeExec: fetch=k
//!       SortExec: TopK(fetch=k)       picks k rows by sort keys and filters alone
//!         …
//!           DataSourceExec            keys, columns of filters, file name, row number
//! ```
//!
//! A wide row costs nothing until it is known to be among the first k. Abadi, Myers, DeWitt, Madden: "Materialization
//! Strategies in a Column-Oriented DBMS" (ICDE 2007); top-k is the case where it always pays on wide tables.

mod exec;
mod fetch;
mod read;

pub(crate) use exec::late_fetch;
pub(crate) use fetch::Fetch;
pub(crate) use read::LateFile;
