//! Strings that hold no more memory than they need, for an operator that keeps its input.
//!
//! A view array (`Utf8View`, `BinaryView`) is a list of 16-byte views into a list of shared buffers. `filter` and `take`
//! copy the views and hand on *all* buffers, so rows that survived a filter inside the reader keep whole pages alive, and
//! rows that came out of a hash join keep the join's whole build side. Each further build side concatenates those lists:
//!
//! ```text
//!   build side A: 180 batches ─► 180 buffers ─► each of 1,800 output batches lists 180
//!   build side B: 1,800 batches ─► 324,000 buffers in one list ─► cloned for each batch that B's probe side matches
//! ```
//!
//! DataFusion's coalescers (behind filters, joins and exchanges) copy strings out of sparse arrays, but let batches of
//! more than half the batch size pass as they are, and those are the ones that a join without losses produces. Upstream:
//! apache/datafusion 16206, apache/arrow-rs 10692 and 10708.

mod arrays;
mod exec;
mod ledger;
mod stream;

pub(super) use arrays::compacted_whole;
pub(crate) use arrays::has_views;
pub(crate) use exec::compact_views;
