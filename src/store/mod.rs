//! What outlives a query: statistics of tables, and row counts that were observed.
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
//! all sessions into which clones of one `Slipstream` are installed. None of it decides about rows: it is read by
//! estimates alone.

mod bounded;
mod distribution;
mod identity;
mod knowledge;
mod observation;
mod profile;
mod rows;
mod sorted;
mod statistics;
mod table;

pub(crate) use distribution::{Bound, Distribution, Value};
pub(crate) use identity::Identity;
pub(crate) use knowledge::Knowledge;
pub(crate) use profile::{ColumnProfile, TableProfile};
pub(crate) use rows::{profile_columns, profile_fields};
pub(crate) use statistics::StatisticsStore;
pub(crate) use table::{find_table, is_current};
