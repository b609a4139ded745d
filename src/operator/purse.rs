//! A reservation that may be larger than what is used of it.

use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;

/// Memory that was reserved beforehand, and is reserved anew where it does not suffice.
#[derive(Debug)]
pub(super) struct Purse {
    reservation: MemoryReservation,
    used: usize,
    /// What stays reserved although it is not used yet.
    kept: usize,
}

impl Purse {
    /// Pays out of `reservation`, of which nothing is used, and keeps all of it.
    pub(super) fn new(reservation: MemoryReservation) -> Self {
        let kept = reservation.size();
        Self { reservation, used: 0, kept }
    }

    /// Bytes that are used.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes that are reserved.
    pub(super) fn reserved(&self) -> usize {
        self.reservation.size()
    }

    /// Reserves `bytes` to be kept, in the place of what is kept now and not used; whether they were granted.
    pub(super) fn keep(&mut self, bytes: usize) -> bool {
        let granted = self.reservation.try_resize(bytes.max(self.used)).is_ok();
        if granted {
            self.kept = bytes;
        }
        granted
    }

    /// Gives back what is kept and not used.
    pub(super) fn keep_nothing(&mut self) {
        self.kept = 0;
        self.reservation.resize(self.used);
    }

    /// Pays `bytes`.
    ///
    /// # Errors
    /// They are not in the purse, and the pool does not grant them.
    pub(super) fn try_grow(&mut self, bytes: usize) -> Result<()> {
        let used = self.used + bytes;
        if used > self.reservation.size() {
            self.reservation.try_resize(used)?;
        }
        self.used = used;
        Ok(())
    }

    /// Pays `bytes`, beyond the limit if need be.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.try_grow(bytes).is_err() {
            self.used += bytes;
            self.reservation.resize(self.used);
        }
    }

    /// Takes `bytes` back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let size = self.used.max(self.kept);
        if size < self.reservation.size() {
            self.reservation.resize(size);
        }
    }
}
