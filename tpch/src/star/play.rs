//! The fact `play`: a track that was played, in the order of time.

use super::calendar::{DAY, DAYS, FIRST_DAY, day_of, midnight};
use super::columns::{Columns, Date, Decimal, Timestamp};
use super::draw::{Draw, Seed, key32, key64};
use super::music::track_code;
use super::people::listener_id;
use super::places::city_id;
use super::sizes::{DEVICES, Sizes};
use super::trade::any_campaign;
use super::words;

/// Plays of eight sessions which follow each other; it repeats itself.
const SESSIONS: [u64; 8] = [1, 3, 9, 2, 14, 5, 4, 2];

/// Their sum.
const PLAYS: u64 = 40;

/// A play shorter than this was skipped, in milliseconds.
const SKIPPED_BELOW: i32 = 30_000;

const LISTENER: Seed = Seed::new("session.listener");
const PLAYLIST: Seed = Seed::new("session.playlist");
const DEVICE: Seed = Seed::new("session.device");
const CITY: Seed = Seed::new("session.city");
const CAMPAIGN: Seed = Seed::new("session.campaign");
const TIME: Seed = Seed::new("play.time");
const LENGTH: Seed = Seed::new("play.length");

/// The session of a play by its row, from 0.
fn session(row: u64) -> u64 {
    let (mut session, mut end) = (row / PLAYS * SESSIONS.len() as u64, 0);
    for plays in SESSIONS {
        end += plays;
        if row % PLAYS < end {
            break;
        }
        session += 1;
    }
    session
}

/// When a play began: each has its share of the calendar, and begins somewhere in it.
fn started_at(row: u64, plays: u64) -> Timestamp {
    let share = key64(DAYS) * DAY / key64(plays);
    let late = TIME.at(row).below(u64::try_from(share).unwrap_or_default());
    Timestamp(midnight(Date(FIRST_DAY)).0 + key64(row) * share + key64(late))
}

/// How long a play was, in milliseconds: one in three is skipped.
fn played_ms(row: u64) -> i32 {
    let mut draw = LENGTH.at(row);
    if draw.percent(33) { draw.int(500..=SKIPPED_BELOW - 1) } else { draw.int(SKIPPED_BELOW..=420_000) }
}

/// The table `play`.
pub(super) fn play(columns: &mut Columns, sizes: &Sizes) {
    let of = |seed: Seed, d: &Draw| seed.at(session(d.row()));
    columns.add("play_id", |d| key64(d.row()) + 1);
    columns.add("session_no", |d| key64(session(d.row())) + 1);
    columns.add("started_at", |d| started_at(d.row(), sizes.plays));
    columns.add("play_day", |d| day_of(started_at(d.row(), sizes.plays)));
    columns.nullable("listener_id", |d| {
        let mut d = of(LISTENER, d);
        (!d.percent(8)).then(|| listener_id(&mut d, sizes))
    });
    columns.add("track_code", |d| track_code(d.skewed(sizes.tracks(), 1)));
    columns.nullable("playlist_id", |d| {
        let mut d = of(PLAYLIST, d);
        d.percent(45).then(|| key32(d.skewed(sizes.playlists, 2)) + 1)
    });
    columns.add("device_id", |d| key32(of(DEVICE, d).skewed(DEVICES, 4)) + 1);
    columns.nullable("city_id", |d| {
        let mut d = of(CITY, d);
        (!d.percent(4)).then(|| city_id(&mut d))
    });
    columns.nullable("campaign_code", |d| {
        let mut d = of(CAMPAIGN, d);
        d.percent(6).then(|| any_campaign(&mut d))
    });
    columns.add("played_ms", |d| played_ms(d.row()));
    columns.add("was_skipped", |d| played_ms(d.row()) < SKIPPED_BELOW);
    columns.add("volume", |d| f64::from(d.int(0..=1_000)) / 1_000.0);
    columns.add("royalty", |d| {
        let paid = played_ms(d.row()) >= SKIPPED_BELOW;
        Decimal::<9, 6>(if paid { i64::from(d.int(2_000..=6_000)) } else { 0 })
    });
    columns.nullable("referrer", |d| (!d.percent(40)).then(|| words::url(d)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_runs_of_plays() {
        assert_eq!(SESSIONS.iter().sum::<u64>(), PLAYS);
        let sessions: Vec<u64> = (0..2 * PLAYS).map(session).collect();
        assert!(sessions.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{sessions:?}");
        let plays = |of| sessions.iter().filter(|session| **session == of).count();
        assert_eq!((plays(0), plays(4), plays(12), plays(15)), (1, 14, 14, 2));
    }

    /// Load order is time order, and all of the calendar is used.
    #[test]
    fn time_goes_on() {
        let plays = 5_000;
        let times: Vec<i64> = (0..plays).map(|row| started_at(row, plays).0).collect();
        assert!(times.is_sorted());
        assert_eq!(day_of(Timestamp(times[0])), Date(FIRST_DAY));
        let end = midnight(Date(FIRST_DAY)).0 + key64(DAYS) * DAY;
        assert!(end - times[times.len() - 1] < DAY);
    }
}
