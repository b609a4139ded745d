//! The one source of time, so that tests can set it.

use std::fmt::Debug;
use std::time::{Instant, SystemTime};

/// Where the layer reads the time.
pub trait Clock: Debug + Send + Sync {
    /// A point on the monotonic clock, for durations.
    fn now(&self) -> Instant;

    /// The wall clock, for time stamps that a person reads.
    fn system_time(&self) -> SystemTime;
}

/// The operating system's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "this is the place that the ban sends everybody to")]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }
}
