//! What the partitions of one execution know of each other: who reads which row group, and the groups between them.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::{Result, internal_datafusion_err, internal_err};
use parking_lot::Mutex;

use super::groups::States;

/// The state that the partitions of one execution share.
pub(super) struct Shared {
    claimed: Vec<AtomicBool>,
    between: Mutex<Between>,
}

/// The groups whose keys two row groups share.
struct Between {
    /// The partitions that have not ended.
    running: usize,
    states: Vec<States>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("intervals", &self.claimed.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The state of an execution in which no interval has begun and all partitions run.
    pub(super) fn new(intervals: usize, partitions: usize) -> Self {
        Self {
            claimed: (0..intervals).map(|_| AtomicBool::new(false)).collect(),
            between: Mutex::new(Between { running: partitions, states: Vec::new() }),
        }
    }

    /// Notes that a partition begins interval `index`.
    ///
    /// Groups are put out when their interval ends. If its rows came twice, or to two partitions, the same group would
    /// be put out twice: that must be an error and never a row.
    pub(super) fn claim(&self, index: usize) -> Result<()> {
        let claimed = self
            .claimed
            .get(index)
            .ok_or_else(|| internal_datafusion_err!("there is no interval {index}"))?;
        if claimed.swap(true, Ordering::Relaxed) {
            return internal_err!(
                "the rows of a row group did not come in one piece; \
                 SET slipstream.clustered_aggregate.enabled = false avoids the operator"
            );
        }
        Ok(())
    }

    /// Hands in what a partition that has ended knows of the groups between row groups; the last one gets all of it.
    ///
    /// A partition that is dropped before its end never comes here, and then nobody gets them. Whoever drops a
    /// partition has enough rows, and would be given sums that miss a part.
    pub(super) fn end(&self, states: Option<States>) -> Option<Vec<States>> {
        let mut between = self.between.lock();
        between.states.extend(states);
        between.running = between.running.saturating_sub(1);
        (between.running == 0).then(|| std::mem::take(&mut between.states))
    }
}
