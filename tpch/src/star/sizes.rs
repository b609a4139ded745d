//! How many rows the tables have: facts grow with the scale factor, catalogues with its root, the rest does not.

/// Rows at scale factor 1 of the tables that grow.
const PLAYS: f64 = 1_500_000.0;
const TICKETS: f64 = 500_000.0;
const LISTENERS: f64 = 100_000.0;
const ALBUMS: f64 = 4_000.0;
const ARTISTS: f64 = 1_000.0;
const CONCERTS: f64 = 5_000.0;
const PLAYLISTS: f64 = 20_000.0;

/// Rows of tables that do not grow.
pub(super) const CITIES: u64 = 1_000;
pub(super) const LABELS: u64 = 80;
pub(super) const DEVICES: u64 = 40;
pub(super) const CAMPAIGNS: u64 = 120;
pub(super) const VENUES: u64 = 300;
pub(super) const VOUCHERS: u64 = 1_000;

/// Blocks of seats in each venue.
pub(super) const BLOCKS: u64 = 8;

/// Tracks on each album.
pub(super) const TRACKS_PER_ALBUM: u64 = 10;

/// One ticket of so many is refunded.
pub(super) const TICKETS_PER_REFUND: u64 = 25;

/// Rows of the tables that grow with the scale factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) plays: u64,
    pub(super) tickets: u64,
    pub(super) listeners: u64,
    pub(super) albums: u64,
    pub(super) artists: u64,
    pub(super) concerts: u64,
    pub(super) playlists: u64,
}

impl Sizes {
    /// The sizes at a scale factor.
    pub(super) fn at(scale_factor: f64) -> Self {
        // The square root is exact to the last bit on any machine, as no other power is.
        let root = scale_factor.sqrt();
        Self {
            plays: whole(PLAYS * scale_factor),
            tickets: whole(TICKETS * scale_factor),
            listeners: whole(LISTENERS * scale_factor),
            albums: whole(ALBUMS * root),
            artists: whole(ARTISTS * root),
            concerts: whole(CONCERTS * root),
            playlists: whole(PLAYLISTS * root),
        }
    }

    /// Rows of `track`.
    pub(super) fn tracks(&self) -> u64 {
        self.albums * TRACKS_PER_ALBUM
    }

    /// Rows of `refund`.
    pub(super) fn refunds(&self) -> u64 {
        self.tickets / TICKETS_PER_REFUND
    }
}

/// The nearest whole number, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and below 2^53 at the largest scale factor"
)]
fn whole(rows: f64) -> u64 {
    (rows.round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_grow_faster_than_catalogues() {
        let (small, one) = (Sizes::at(0.01), Sizes::at(1.0));
        assert_eq!(
            (one.plays, one.tickets, one.refunds(), one.tracks()),
            (1_500_000, 500_000, 20_000, 40_000)
        );
        assert_eq!(
            (small.plays, small.tickets, small.refunds(), small.tracks()),
            (15_000, 5_000, 200, 4_000)
        );
        assert_eq!(
            (small.listeners, small.artists, small.concerts, small.playlists),
            (1_000, 100, 500, 2_000)
        );
    }
}
