//! A subplan that runs once and feeds several places of a plan.
//!
//! ```text
//!        join                               join
//!       ╱    ╲                             ╱    ╲
//!   filter  aggregate            SharedSubplan  SharedSubplan        consumers, one a place
//!     │         │         ─►      1 of 2  ╲     ╱  2 of 2
//!  subplan   subplan                       Slot                      what they have in common
//!                                           │  a Run an execution
//!                                        subplan
//! ```
//!
//! | file | what |
//! |---|---|
//! | `exec.rs` | the plan node: one a consumer |
//! | `slot.rs` | which consumers belong together, and which execution each of them takes part in |
//! | `partition.rs` | one partition of one execution: who polls the subplan, who waits |
//! | `log.rs` | the batches that some consumer has still to take, in memory or in files |
//! | `stream.rs` | what one consumer reads |

mod budget;
mod exec;
mod log;
mod partition;
mod slot;
mod stream;
#[cfg(test)]
mod tests;
mod wakers;

pub(super) use budget::batch_bytes;
pub(crate) use exec::{SharedSubplanExec, share};
