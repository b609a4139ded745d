//! Answers on their way: from the cache to a caller, and from a query into the cache.
//!
//! ```text
//!   hit      CachedResultExec ──────────────────────────────► batches, nothing copied
//!   miss     Passthrough { Recorder, the query's plan } ────► batches, and a copy of their references aside; at the end the
//!                                                             versions are looked at once more, then the answer is kept
//!   on disk  CachedResultExec, once it is in memory; else DiskResultExec, batch by batch
//!   waiting  the same node, while another one computes ─────► that one's batches
//! ```

mod cached;
mod compaction;
mod from_disk;
mod recorder;
mod stream;

pub(crate) use cached::CachedResultExec;
pub(super) use cached::renamed;
pub(super) use compaction::Kept;
pub(crate) use from_disk::{DiskResultExec, NotPromoted, Promotion};
pub(crate) use recorder::{DiskCopy, Recorder, recorded};
