//! The read side: what the layer knows, as SQL tables. Nothing here can change a plan.

mod cache;
mod memory;
mod queries;
mod statistics;
mod system_table;

pub(crate) use cache::Caches;
pub(crate) use queries::{SCHEMA_NAME, system_schema};
