//! ANALYZE: reads a table once and keeps what was learned of it.

mod exec;
mod sample;
mod sketch;

pub(crate) use exec::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
