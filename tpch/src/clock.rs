//! The one place where the harness reads the clock.

use datafusion::common::instant::Instant;

/// The time, for measuring durations.
#[expect(
    clippy::disallowed_methods,
    reason = "a harness measures real time; nothing in it is tested with a set clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
