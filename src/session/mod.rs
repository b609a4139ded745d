//! The front door: installs the layer, and takes one statement from text to stream.
//!
//! A statement goes through these rooms:
//!
//! 1. `query`: reads the text, finds hints (`text`, `hints`) and the layer's own statements (`statement`).
//! 2. `planner`: opens the query's scope, and hands the optimized logical plan to the planner that the session had.
//!    An answer that is kept goes straight from there to step 5 (`cache`); parts that are kept take their places in the plan
//!    (`reuse`).
//! 3. `scoped_session`: what that planner sees: the session, with the scope in its configuration.
//! 4. `rule_order`, `layer_rule`: the physical rules, DataFusion's and the layer's, each of ours in its wrapper.
//! 5. `planner` again: wraps the root for EXPLAIN and for the query log.

mod analyze;
mod cache;
mod cache_functions;
mod disk;
mod functions;
mod hints;
mod install;
mod layer_rule;
mod plan_cache;
mod planner;
mod query;
mod reuse;
mod rule_order;
mod scoped_session;
mod slipstream;
mod small_query;
mod statement;
mod text;

pub use install::SlipstreamBuilderExt;
pub use query::{QueryStream, SlipstreamContextExt};
pub use slipstream::Slipstream;
pub use statement::{ParsedQuery, PlannedQuery};
