//! How many rows a batch has: fewer where rows are wide, and while memory is short.
//!
//! | wrapper | around | what it does |
//! |---|---|---|
//! | [`sized`] | any node of a plan with wide rows | the node is executed with a batch size that follows the width of its rows |
//! | [`cut`] | an input of a node that reserves memory | batches that are large in bytes arrive in pieces, while there is a limit |
//!
//! The batch size of a node is decided when it is executed, since a reader or a join keeps the one it starts with; what
//! happens to the pool later is seen by the cutter, batch by batch.

mod bytes;
mod cutter;
mod policy;
mod sized;

pub(crate) use self::bytes::used_bytes;
pub(crate) use self::cutter::cut;
pub(crate) use self::policy::BatchPolicy;
pub(crate) use self::sized::sized;
