//! What outlives a query: statistics of tables, row counts that were observed, answers, and plans.
//!
//! ```text
//!   ANALYZE TABLE t ─► operator::AnalyzeTableExec ─► StatisticsStore   Identity of the data ─► TableProfile
//!                                                          │                                   └ ColumnProfile
//!                                                          ▼                                     └ Distribution
//!   planning ─► physical::estimate::Known ─► Knowledge ────┤
//!                                                          ▲
//!   a query ends ─► physical::observe ─► ObservationStore ─┘           fingerprint ─► rows
//! ```
//!
//! Everything here is bounded in entries and bytes, keyed by the version of the data that it speaks of, and shared by
//! all sessions into which clones of one `Slipstream` are installed. Statistics and row counts decide about no rows: they are
//! read by estimates alone. Answers (`results/`) are given to queries, by exact versions of their tables (`version/`); plans
//! (`plans/`), by the identity of what they were made from. Answers may be files, too (`disk/`), which outlive the process.

mod bounded;
mod disk;
mod distribution;
mod identity;
mod knowledge;
mod observation;
mod plans;
mod profile;
mod results;
mod rows;
mod sorted;
mod statistics;
mod table;
mod version;

pub(crate) use disk::{DiskAnswer, DiskEntry, DiskKey, DiskTier, Sought};
pub(crate) use distribution::{Bound, Distribution, Value};
pub(crate) use identity::Identity;
pub(crate) use knowledge::Knowledge;
pub(crate) use plans::{CachedPlan, Environment, NamedTable, PlanCache, PlannedStatement, admit, resolve};
pub(crate) use profile::{ColumnProfile, TableProfile};
pub(crate) use results::{
    Answer, CachedResult, Evicted, FilePart, Joined, Leader, Limits, ResultStore, Tier, Waited,
};
pub(crate) use rows::{profile_columns, profile_fields};
pub(crate) use statistics::StatisticsStore;
pub(crate) use table::{find_table, is_current};
pub use version::TableVersions;
pub(crate) use version::{FileIdentity, Version, VersionedTable, are_current, reads_these, versions_of};
