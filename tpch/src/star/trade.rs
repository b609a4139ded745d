//! What is sold and advertised: `concert`, `voucher`, `campaign`, `price_band`, and `service` with its one row.

use super::calendar::{FIRST_DAY, LAST_DAY};
use super::columns::{Columns, Date, Decimal};
use super::draw::{Draw, Seed, entry, key32};
use super::music::artist_id;
use super::sizes::{CAMPAIGNS, Sizes, VENUES, VOUCHERS};
use super::words;

/// Price bands: name, and where it begins in cents; each ends where the next one begins.
const BANDS: [(&str, i64); 8] = [
    ("bargain", 0),
    ("cheap", 2_000),
    ("low", 3_500),
    ("middle", 5_000),
    ("upper", 6_500),
    ("high", 8_000),
    ("premium", 9_500),
    ("top", 11_500),
];

/// Where campaigns are seen and heard.
const MEDIA: [&str; 3] = ["web", "tv", "radio"];

/// Rows of `price_band`.
pub(super) const BAND_ROWS: u64 = BANDS.len() as u64;

/// More than anything costs, in cents.
const END_OF_BANDS: i64 = 100_000;

/// The longest time before a concert at which its tickets are sold, in days.
pub(super) const PRESALE_DAYS: i32 = 200;

const CONCERT_VENUE: Seed = Seed::new("concert.venue");
const HELD_ON: Seed = Seed::new("concert.held_on");

/// The venue of a concert by its row, from 0.
pub(super) fn concert_venue(concert: u64) -> u64 {
    CONCERT_VENUE.at(concert).skewed(VENUES, 8)
}

/// The day of a concert by its row: late enough for its presale to be in the calendar.
pub(super) fn held_on(concert: u64) -> Date {
    Date(HELD_ON.at(concert).int(FIRST_DAY + PRESALE_DAYS..=LAST_DAY))
}

/// The code of a voucher by its row.
pub(super) fn voucher_code(row: u64) -> String {
    let word = entry(&["ENCORE", "SPRING", "THANKS", "WELCOME"], row);
    format!("{word}-{row:05}")
}

/// A voucher that a buyer has; a few are known to everyone.
pub(super) fn any_voucher(draw: &mut Draw) -> String {
    voucher_code(draw.skewed(VOUCHERS, 8))
}

/// The code of a campaign by its row.
fn campaign_code(row: u64) -> String {
    format!("C{:03}/{}", row + 1, entry(&MEDIA, row))
}

/// The campaign that brought a listener; some bring many more than others.
pub(super) fn any_campaign(draw: &mut Draw) -> String {
    campaign_code(draw.skewed(CAMPAIGNS, 4))
}

/// The table `concert`.
pub(super) fn concert(columns: &mut Columns, sizes: &Sizes) {
    columns.add("concert_id", |d| key32(d.row()) + 1);
    columns.add("artist_id", |d| artist_id(d, sizes));
    columns.nullable("support_artist_id", |d| d.percent(40).then(|| artist_id(d, sizes)));
    columns.add("venue_id", |d| key32(concert_venue(d.row())) + 1);
    columns.add("held_on", |d| held_on(d.row()));
    columns.add("title", |d| format!("{} Tour", words::title(d)));
}

/// The table `voucher`, a CSV file; its terms have commas and quotes.
pub(super) fn voucher(columns: &mut Columns, _: &Sizes) {
    columns.add("voucher_code", |d| voucher_code(d.row()));
    columns.add("kind", |d| d.pick(&["birthday", "partner", "press", "student"]));
    columns.add("percent_off", |d| d.int(1..=10) * 5);
    columns.add("min_price", |d| Decimal::<8, 2>(i64::from(d.int(0..=12)) * 500));
    columns.add("valid_from", |d| Date(FIRST_DAY + key32(d.row())));
    columns.nullable("valid_to", |d| {
        let from = FIRST_DAY + key32(d.row());
        (!d.percent(10)).then(|| Date(from + d.int(14..=400)))
    });
    columns.add("terms", |d| format!("\"{}\", {}", words::title(d), words::text(d, 12)));
}

/// The table `campaign`, whose key is a string.
pub(super) fn campaign(columns: &mut Columns, _: &Sizes) {
    let starts_on = |row: u64| FIRST_DAY + key32(row) * 9;
    columns.add("campaign_code", |d| campaign_code(d.row()));
    columns.add("medium", |d| entry(&MEDIA, d.row()));
    columns.add("starts_on", |d| Date(starts_on(d.row())));
    columns.add("ends_on", |d| Date(starts_on(d.row()) + d.int(7..=60)));
    columns.add("budget", |d| Decimal::<12, 2>(i64::from(d.int(10..=900)) * 100_000));
    columns.add("landing_url", words::url);
}

/// The table `price_band`: ranges that touch each other.
pub(super) fn price_band(columns: &mut Columns, _: &Sizes) {
    let at = |row: u64| BANDS.get(usize::try_from(row).unwrap_or(usize::MAX)).copied();
    columns.add("band", |d| at(d.row()).map_or("", |band| band.0));
    columns.add("low", |d| Decimal::<8, 2>(at(d.row()).map_or(0, |band| band.1)));
    columns.add("high", |d| Decimal::<8, 2>(at(d.row() + 1).map_or(END_OF_BANDS, |band| band.1)));
}

/// The table `service`: the figures of the whole house.
pub(super) fn service(columns: &mut Columns, _: &Sizes) {
    columns.add("name", |_| "Encore");
    columns.add("reporting_day", |_| Date(LAST_DAY - 184));
    columns.add("vat", |_| Decimal::<4, 3>(190));
    columns.add("royalty_per_play", |_| Decimal::<9, 6>(3_500));
    columns.add("min_play_ms", |_| 30_000);
}
