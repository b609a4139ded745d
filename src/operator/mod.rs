//! Plan nodes of the layer, each a wrapper around a DataFusion node or a node of its own.

mod compact;
mod context;
mod explained;
mod late_fetch;
mod monitored;
mod nested_loop_spill;
mod no_spill;
mod passthrough;
mod rerun;

pub(crate) use compact::{compact_views, has_views};
pub(crate) use explained::explained;
pub(crate) use late_fetch::{Fetch, LateFile, late_fetch};
pub(crate) use monitored::monitored;
pub(crate) use nested_loop_spill::nested_loop_spill;
pub(crate) use no_spill::{no_spill, outer_context};
pub(crate) use rerun::rerunnable;
