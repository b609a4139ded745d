//! One waker that wakes all who wait.

use std::sync::Arc;
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// The tasks that wait for the next batch of one partition.
///
/// The subplan is polled by whichever consumer comes first, and may wake it when that consumer is long gone. So it is
/// given this waker: all wake up, one of them polls on, and the others wait again.
#[derive(Debug)]
pub(super) struct Wakers(Mutex<Vec<Option<Waker>>>);

impl Wakers {
    /// Room for `places` tasks.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![None; places])))
    }

    /// The task at `place` waits.
    pub(super) fn register(&self, place: usize, waker: &Waker) {
        let mut wakers = self.0.lock();
        if let Some(own) = wakers.get_mut(place)
            && !own.as_ref().is_some_and(|own| own.will_wake(waker))
        {
            *own = Some(waker.clone());
        }
    }

    /// Wakes all; each has to register anew.
    pub(super) fn wake_all(&self) {
        let woken: Vec<Waker> = self.0.lock().iter_mut().filter_map(Option::take).collect();
        // Outside the lock: a waker may run its task at once.
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}
