//! A partial aggregate file by file: what a file contributes is given where it is kept, else computed, and kept.
//!
//! ```text
//!   AggregateExec: FinalPartitioned                 AggregateExec: FinalPartitioned
//!     AggregateExec: Partial             ─►           FileAggregateExec
//!       filters, projections                            file 1: kept ──────────────────────────────► its states
//!         DataSourceExec: files 1 … n                   …
//!                                                       file n: Partial ◄─ filters ◄─ DataSourceExec: file n
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `one_file.rs` | the plan below the exchange, for any one file |
//! | `exec.rs` | the node, and who computes which file |
//! | `stream.rs` | the states of some files, one after the other |
//! | `recorder.rs` | what is put into the cache when all files are read |
//!
//! Partial aggregates of single tablets are what `StarRocks` keeps in its query cache, under the tablet's version; here a file
//! is the tablet, and what its store says of it the version.

mod exec;
mod one_file;
mod recorder;
mod stream;

pub(crate) use exec::{FileAggregateExec, FileTask, GivenFile};
pub(crate) use one_file::{OneFilePlan, files_of};
pub(crate) use recorder::{FileRecorder, same_types};
