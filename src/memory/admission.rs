//! How many queries run at once: the others wait in a bounded queue, in order, before they do any work.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{DataFusionError, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::ProcessOptions;

/// How often a waiting query looks by itself: `SET` changes the limits without telling the queue.
const LOOK: Duration = Duration::from_millis(100);

/// The queries that run, and the queue of those that wait for their turn.
///
/// Its lock is held for a few instructions, and never over an await.
#[derive(Default)]
pub(crate) struct Admission {
    settings: Arc<ProcessOptions>,
    state: Mutex<State>,
}

/// Who runs and who waits.
#[derive(Default)]
struct State {
    /// Queries that have their turn, those that nobody had to admit included: a limit may be set while they run.
    running: usize,
    /// The others, the first one first. Each is called by its own bell.
    waiting: VecDeque<Arc<Notify>>,
}

impl Admission {
    /// A queue that nobody is in, under limits that are read whenever they matter.
    pub(super) fn new(settings: &Arc<ProcessOptions>) -> Self {
        Self { settings: Arc::clone(settings), state: Mutex::default() }
    }

    /// Lets a query run where nobody has to wait; `None` where it has to ask by [`turn`](Self::turn).
    pub(crate) fn at_once(self: &Arc<Self>) -> Option<Turn> {
        (self.settings.max_queries() == 0).then(|| self.begin(&mut self.state.lock()))
    }

    /// Waits for the query's turn. Dropped while it waits, it leaves the queue.
    ///
    /// It needs a tokio runtime with its timer on, when it has to wait.
    ///
    /// # Errors
    /// The queue is full; the time is up.
    pub(crate) async fn turn(self: Arc<Self>) -> Result<Turn> {
        let place = match self.enter()? {
            Entered::Runs(turn) => return Ok(turn),
            Entered::Waits(place) => place,
        };
        let limit = self.settings.admission_timeout_ms() as u64;
        let wait = place.wait();
        if limit == 0 {
            return Ok(wait.await);
        }
        timeout(Duration::from_millis(limit), wait).await.map_err(|_elapsed| self.too_late(limit))
    }

    /// Runs, or queues up behind the others.
    fn enter(self: &Arc<Self>) -> Result<Entered> {
        let mut state = self.state.lock();
        let (max_queries, max_queued) = (self.settings.max_queries(), self.settings.max_queued());
        if state.waiting.is_empty() && (max_queries == 0 || state.running < max_queries) {
            return Ok(Entered::Runs(self.begin(&mut state)));
        }
        if state.waiting.len() >= max_queued {
            let (running, waiting) = (state.running, state.waiting.len());
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{running} queries run (slipstream.admission.max_queries is {max_queries}) and {waiting} wait for their \
                 turn, which is as many as may (SET slipstream.admission.max_queued). Try again later"
            )));
        }
        let called = Arc::new(Notify::new());
        state.waiting.push_back(Arc::clone(&called));
        Ok(Entered::Waits(Place { admission: Arc::clone(self), called }))
    }

    /// Counts a query as running.
    fn begin(self: &Arc<Self>, state: &mut State) -> Turn {
        state.running += 1;
        Turn(Arc::clone(self))
    }

    /// Calls those whose turn it is.
    fn call(&self, state: &State) {
        let free = match self.settings.max_queries() {
            0 => usize::MAX,
            max_queries => max_queries.saturating_sub(state.running),
        };
        for waiting in state.waiting.iter().take(free) {
            waiting.notify_one();
        }
    }

    /// What a query is told whose time is up.
    fn too_late(&self, limit: u64) -> DataFusionError {
        let (running, max_queries) = (self.state.lock().running, self.settings.max_queries());
        DataFusionError::ResourcesExhausted(format!(
            "the query waited {limit} ms for its turn (SET slipstream.admission.timeout_ms); {running} queries run, and \
             {max_queries} may (SET slipstream.admission.max_queries)"
        ))
    }
}

/// What came of a query that asked.
enum Entered {
    Runs(Turn),
    Waits(Place),
}

/// A place in the queue, which is left when this is dropped.
struct Place {
    admission: Arc<Admission>,
    called: Arc<Notify>,
}

impl Place {
    /// Waits without end.
    async fn wait(&self) -> Turn {
        loop {
            if let Some(turn) = self.take_turn() {
                return turn;
            }
            // Time is up or it was called: in both cases it looks again.
            let _ = timeout(LOOK, self.called.notified()).await;
        }
    }

    /// Runs, if it is among the first that may.
    fn take_turn(&self) -> Option<Turn> {
        let mut state = self.admission.state.lock();
        let place = self.position(&state)?;
        let max_queries = self.admission.settings.max_queries();
        if max_queries > 0 && state.running + place >= max_queries {
            return None;
        }
        state.waiting.remove(place);
        Some(self.admission.begin(&mut state))
    }

    /// How many are in front of it; `None` after it left.
    fn position(&self, state: &State) -> Option<usize> {
        state.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, &self.called))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if let Some(place) = self.position(&state) {
            state.waiting.remove(place);
            // It may have been called and not have heard it: the next one is.
            self.admission.call(&state);
        }
    }
}

/// A query that runs. Dropped, it lets the next one run.
pub(crate) struct Turn(Arc<Admission>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running -= 1;
        self.0.call(&state);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Admission")
            .field("running", &state.running)
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;

    fn admission(max_queries: usize, max_queued: usize, timeout_ms: usize) -> Arc<Admission> {
        let settings = Arc::new(ProcessOptions::default());
        settings.set_max_queries(max_queries);
        settings.set_max_queued(max_queued);
        settings.set_admission_timeout_ms(timeout_ms);
        Arc::new(Admission::new(&settings))
    }

    fn turn(admission: &Arc<Admission>) -> BoxFuture<'static, Result<Turn>> {
        Arc::clone(admission).turn().boxed()
    }

    #[tokio::test]
    async fn queries_take_turns_in_order() {
        let admission = admission(2, 10, 0);
        assert!(admission.at_once().is_none());
        let (one, two) = (turn(&admission).await.unwrap(), turn(&admission).await.unwrap());
        let (mut three, mut four) = (turn(&admission), turn(&admission));
        assert!((&mut three).now_or_never().is_none() && (&mut four).now_or_never().is_none());
        drop(one);
        assert!((&mut four).now_or_never().is_none(), "the fourth does not pass the third");
        let three = three.await.unwrap();
        drop((two, three));
        four.await.unwrap();
        assert_eq!(admission.state.lock().running, 0);
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_errors() {
        let admission = admission(1, 1, 50);
        let running = turn(&admission).await.unwrap();
        let mut waiting = turn(&admission);
        assert!((&mut waiting).now_or_never().is_none());
        let error = turn(&admission).await.unwrap_err().to_string();
        assert!(error.contains("1 queries run") && error.contains("max_queued"), "{error}");
        let error = waiting.await.unwrap_err().to_string();
        assert!(error.contains("waited 50 ms") && error.contains("admission.timeout_ms"), "{error}");
        assert!(admission.state.lock().waiting.is_empty(), "it left the queue");
        drop(running);
        turn(&admission).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_leaves_the_queue_does_not_take_the_turn_with_it() {
        let admission = admission(1, 10, 0);
        let running = turn(&admission).await.unwrap();
        let (mut leaves, mut next) = (turn(&admission), turn(&admission));
        assert!((&mut leaves).now_or_never().is_none() && (&mut next).now_or_never().is_none());
        drop(running);
        // Called, and gone before it ran.
        drop(leaves);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn a_raised_limit_lets_those_run_that_wait() {
        let admission = admission(1, 10, 0);
        let _running = turn(&admission).await.unwrap();
        let mut waiting = turn(&admission);
        assert!((&mut waiting).now_or_never().is_none());
        admission.settings.set_max_queries(2);
        let _second = timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        admission.settings.set_max_queries(0);
        let _third = admission.at_once().unwrap();
        assert_eq!(admission.state.lock().running, 3);
    }
}
