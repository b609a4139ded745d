//! ANALYZE: reads a table once and keeps what was learned of it.
//!
//! | file | what it is |
//! |---|---|
//! | `exec.rs` | the plan node: one task for each partition, and the result |
//! | `sketch.rs` | what is gathered of each column: counts, widths, and DataFusion's accumulators |
//! | `sample.rs` | a random sample of whole rows, in bounded memory; no DataFusion in it |
//!
//! The histograms are made from the sample when all rows have passed (`store::Distribution`).

mod exec;
mod sample;
mod sketch;

pub(crate) use exec::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
