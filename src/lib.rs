//! Slipstream: a performance layer that is installed into an unmodified DataFusion `SessionContext`.

mod session;

pub use session::{PlannedQuery, ParsedQuery, QueryStream, Slipstream, SlipstreamBuilderExt, SlipstreamContextExt};
