//! Identical queries at one time compute once: one leads, the others wait for its answer, or take over.
//!
//! ```text
//!   leader ──── computes ────► publishes ─► followers take the entry
//!      └─ error, cancel, panic, drop ─► one of the followers leads
//!      ├─ the answer may not be kept ─► followers compute, each for itself
//!      └─ nobody polls it any more  ─► likewise
//! ```
//!
//! A leader's rows move only when its own caller asks for them. One that was woken, or has handed out a batch, and is not
//! asked again for [`PATIENCE`] may never be: nobody waits for it any longer.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::entry::CachedResult;
use super::sync::{Mutex, timeout};
use crate::clock::Clock;
use crate::fingerprint::Key;

/// How long a leader may be left unasked. A follower that gives up computes the same once more: that costs time, no answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often a follower looks.
const LOOK: Duration = Duration::from_millis(50);

/// What became of a computation.
#[derive(Debug, Clone, Default)]
enum Landed {
    /// It goes on.
    #[default]
    Flying,
    /// There is an answer.
    Answer(Arc<CachedResult>),
    /// It failed, or was dropped.
    Nothing,
    /// There is one that may not be kept, for its size or because the data has changed.
    Alone,
}

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The answer.
    Answer(Arc<CachedResult>),
    /// Somebody else should lead.
    Again,
    /// Everybody for himself: to wait for each other would be to wait in a row.
    Alone,
}

/// A computation that goes on.
#[derive(Debug)]
pub(crate) struct Flight {
    clock: Arc<dyn Clock>,
    landed: watch::Sender<Landed>,
    /// Since when its caller should have asked for more; `None` while it computes.
    unasked: Mutex<Option<Instant>>,
    /// Who is to be woken.
    caller: Mutex<Option<Waker>>,
}

impl Wake for Flight {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unasked.lock().get_or_insert_with(|| self.clock.now());
        let caller = self.caller.lock().take();
        if let Some(caller) = caller {
            caller.wake();
        }
    }
}

impl Flight {
    fn new(clock: &Arc<dyn Clock>) -> Self {
        Self {
            clock: Arc::clone(clock),
            landed: watch::Sender::default(),
            unasked: Mutex::default(),
            caller: Mutex::default(),
        }
    }

    /// The leader's caller asks; `caller` is woken when there is more.
    pub(crate) fn asked(&self, caller: &Waker) {
        *self.unasked.lock() = None;
        let mut known = self.caller.lock();
        match known.as_mut() {
            Some(known) => known.clone_from(caller),
            None => *known = Some(caller.clone()),
        }
    }

    /// The leader has given its caller something: it is the caller's turn.
    pub(crate) fn gave(&self) {
        *self.unasked.lock() = Some(self.clock.now());
    }

    fn is_left_alone(&self) -> bool {
        let unasked = *self.unasked.lock();
        unasked.is_some_and(|since| self.clock.now().saturating_duration_since(since) > PATIENCE)
    }

    /// Waits for what becomes of it.
    pub(crate) async fn wait(&self) -> Waited {
        let mut landed = self.landed.subscribe();
        loop {
            // Cloned first: what is matched on would be locked while the arms look further.
            let now = landed.borrow_and_update().clone();
            match now {
                Landed::Answer(result) => return Waited::Answer(result),
                Landed::Nothing => return Waited::Again,
                Landed::Alone => return Waited::Alone,
                Landed::Flying if self.is_left_alone() => return Waited::Again,
                Landed::Flying => {}
            }
            // Time is up or it landed: in both cases it looks again.
            let _ = timeout(LOOK, landed.changed()).await;
        }
    }
}

/// All computations that go on.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Arc<Key>, Arc<Flight>>>);

/// What a query is in a computation.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It computes, and others may wait for it.
    Leader(Leader),
    /// Another one computes.
    Follower(Arc<Flight>),
}

impl Flights {
    /// Leads the computation of `key`, or finds who does.
    pub(super) fn join(self: &Arc<Self>, key: &Arc<Key>, clock: &Arc<dyn Clock>) -> Joined {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(key).filter(|flight| !flight.is_left_alone()) {
            return Joined::Follower(Arc::clone(flight));
        }
        let flight = Arc::new(Flight::new(clock));
        flights.insert(Arc::clone(key), Arc::clone(&flight));
        Joined::Leader(Leader { flights: Arc::downgrade(self), key: Arc::clone(key), flight, landed: false })
    }

    /// How many go on.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Leads a computation. Dropped in whatever way, it lets the others know.
#[derive(Debug)]
pub(crate) struct Leader {
    flights: Weak<Flights>,
    key: Arc<Key>,
    flight: Arc<Flight>,
    landed: bool,
}

impl Leader {
    /// The computation.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// There is an answer; or one that may not be given to others.
    pub(crate) fn land(mut self, answer: Option<Arc<CachedResult>>) {
        self.leave(answer.map_or(Landed::Alone, Landed::Answer));
    }

    /// First out of the map, so that who comes from now on finds the answer, or leads; then the others are told.
    fn leave(&mut self, landed: Landed) {
        if std::mem::replace(&mut self.landed, true) {
            return;
        }
        if let Some(flights) = self.flights.upgrade() {
            let mut flights = flights.0.lock();
            // Another one may lead by now, where this one was given up.
            if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&self.key);
            }
        }
        self.flight.landed.send_replace(landed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.leave(Landed::Nothing);
    }
}
