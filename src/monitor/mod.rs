//! What happened: the phases of a query, and a bounded log of them.

mod query_log;
mod record;
mod tracker;

pub use query_log::QueryLog;
pub use record::{QueryRecord, QueryStatus};
pub(crate) use tracker::{ReceivedQuery, RunningQuery};
