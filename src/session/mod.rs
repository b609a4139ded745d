//! The front door: installs the layer, and takes one statement from text to stream.

mod analyze;
mod functions;
mod hints;
mod install;
mod layer_rule;
mod planner;
mod query;
mod rule_order;
mod scoped_session;
mod slipstream;
mod statement;
mod text;

pub use install::SlipstreamBuilderExt;
pub use query::{QueryStream, SlipstreamContextExt};
pub use slipstream::Slipstream;
pub use statement::{ParsedQuery, PlannedQuery};
