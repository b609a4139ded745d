//! A query's turn to run, which its partitions wait for together and have together.

use std::fmt;
use std::sync::{Arc, Weak};

use datafusion::common::{DataFusionError, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::memory::{Admission, Turn};

type WaitForTurn = BoxFuture<'static, Result<Arc<Turn>, Arc<DataFusionError>>>;

/// The wait of one query, polled by whichever of its partitions is polled.
pub(super) type SharedTurn = Shared<WaitForTurn>;

/// The turn of one execution. Its partitions own it, and this knows it: it ends with the last open one.
#[derive(Default)]
pub(super) struct Turns {
    waiting: Option<WeakShared<WaitForTurn>>,
    running: Arc<Mutex<Weak<Turn>>>,
}

/// What a partition that is executed now has to do.
pub(super) enum Next {
    /// Nothing: the query runs.
    Runs(Arc<Turn>),
    /// Wait, before the plan is executed: many operators begin to work when they are.
    Waits(SharedTurn),
}

impl Turns {
    /// For another partition.
    pub(super) fn next(&mut self, admission: &Arc<Admission>) -> Next {
        if let Some(turn) = self.running.lock().upgrade() {
            return Next::Runs(turn);
        }
        if let Some(waiting) = self.waiting.as_ref().and_then(WeakShared::upgrade) {
            return Next::Waits(waiting);
        }
        if let Some(turn) = admission.at_once() {
            let turn = Arc::new(turn);
            *self.running.lock() = Arc::downgrade(&turn);
            return Next::Runs(turn);
        }
        let (admission, running) = (Arc::clone(admission), Arc::clone(&self.running));
        let wait = async move {
            let turn = Arc::new(admission.turn().await.map_err(Arc::new)?);
            *running.lock() = Arc::downgrade(&turn);
            Ok(turn)
        };
        let waiting = wait.boxed().shared();
        self.waiting = waiting.downgrade();
        Next::Waits(waiting)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("running", &*self.running.lock()).finish_non_exhaustive()
    }
}
