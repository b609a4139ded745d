//! Optimized logical plans of statements that are asked again: kept by their text, and used while nothing that they were
//! planned from has changed.
//!
//! ```text
//!   text, who asks ─► CachedPlan { plan without its tables, Environment, tables by name } ─► the plan, with its tables again
//!                                        │                        │
//!              settings, functions, rules are the same       each name is still the same object with the same columns
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `environment.rs` | everything of a session that a plan is made with, but for its tables |
//! | `admission.rs` | which plans may be used again; an allow-list |
//! | `tables.rs` | the tables that a text names, by identity; and plans without and with their tables |
//! | `entry.rs` | one plan, and what it takes |
//! | `cache.rs` | the map, and its bounds |
//!
//! Nobody invalidates a plan. Its names are looked up in the catalogs at each use, as planning itself would do, and must give
//! the very objects that they gave when it was planned. That is what a plan depends on: data that has changed needs another
//! answer, and not another plan, since logical rules read no rows, files or statistics.
//!
//! A plan holds its tables weakly: a table that is dropped gives its memory back at once, whatever is kept of it.

mod admission;
mod cache;
mod entry;
mod environment;
mod tables;

pub(crate) use admission::admit;
pub(crate) use cache::PlanCache;
pub(crate) use entry::{CachedPlan, PlannedStatement};
pub(crate) use environment::Environment;
pub(crate) use tables::{NamedTable, resolve};
