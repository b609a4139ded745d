//! Plan nodes of the layer, each a wrapper around a DataFusion node or a node of its own.

mod analyze;
mod context;
mod explained;
mod monitored;
mod nested_loop_spill;
mod no_spill;
mod observed;
mod passthrough;
mod rerun;

pub(crate) use analyze::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
pub(crate) use explained::explained;
pub(crate) use monitored::monitored;
pub(crate) use nested_loop_spill::nested_loop_spill;
pub(crate) use no_spill::{no_spill, outer_context};
pub(crate) use observed::observed;
pub(crate) use rerun::rerunnable;
