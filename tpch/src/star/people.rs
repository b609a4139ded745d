//! Who listens, and with what: `plan` ◄ `listener` ◄ `playlist`, and `device`.

use super::calendar::{FIRST_DAY, LAST_DAY};
use super::columns::{Columns, Date, Decimal};
use super::draw::{Draw, entry, key32, key64};
use super::places::city_id;
use super::sizes::Sizes;
use super::words;

/// Plans: name, monthly fee in cents, devices.
const PLANS: [(&str, i64, i32); 5] =
    [("free", 0, 1), ("student", 499, 2), ("solo", 999, 3), ("duo", 1_299, 4), ("family", 1_599, 6)];

/// Rows of `plan`.
pub(super) const PLAN_ROWS: u64 = PLANS.len() as u64;

/// A listener who plays or buys; some do much more of it than others.
pub(super) fn listener_id(draw: &mut Draw, sizes: &Sizes) -> i64 {
    key64(draw.skewed(sizes.listeners, 64)) + 1
}

/// The table `plan`.
pub(super) fn plan(columns: &mut Columns, _: &Sizes) {
    let of = |d: &Draw| entry(&PLANS, d.row());
    columns.add("plan_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| of(d).0);
    columns.add("monthly_fee", |d| Decimal::<6, 2>(of(d).1));
    columns.add("max_devices", |d| of(d).2);
    columns.add("is_paid", |d| of(d).1 > 0);
}

/// The table `listener`; those who were invited were so by an earlier one.
pub(super) fn listener(columns: &mut Columns, _: &Sizes) {
    columns.add("listener_id", |d| key64(d.row()) + 1);
    columns.add("nickname", |d| format!("{}{}", words::name(d).to_lowercase(), d.int(1..=999)));
    columns.add("email", |d| {
        let (first, last) = (d.pick(&words::FIRST_NAMES), words::name(d));
        format!("{first}.{last}.{}@{}", d.row() + 1, d.pick(&words::HOSTS)).to_lowercase()
    });
    columns.nullable("city_id", |d| (!d.percent(5)).then(|| city_id(d)));
    columns.add("plan_id", |d| {
        // Half of all listeners pay nothing.
        if d.percent(50) { 1 } else { d.int(2..=5) }
    });
    columns.nullable("birth_date", |d| (!d.percent(10)).then(|| Date(d.int(-9_000..=14_000))));
    columns.add("joined_on", |d| Date(d.int(FIRST_DAY - 1_500..=LAST_DAY)));
    columns.nullable("invited_by", |d| {
        let earlier = d.row();
        (earlier > 0 && d.percent(30)).then(|| key64(d.below(earlier)) + 1)
    });
    columns.add("is_verified", |d| d.percent(70));
    columns.nullable("about", |d| {
        let words = d.int(5..=40);
        d.percent(40).then(|| words::text(d, words))
    });
}

/// The table `playlist`; those of the house have no owner.
pub(super) fn playlist(columns: &mut Columns, sizes: &Sizes) {
    columns.add("playlist_id", |d| key32(d.row()) + 1);
    columns.nullable("owner_id", |d| (!d.percent(12)).then(|| listener_id(d, sizes)));
    columns.add("title", words::title);
    columns.add("mood", |d| d.pick(&["calm", "focus", "happy", "party", "sad", "sleep", "workout"]));
    columns.add("created_on", |d| Date(d.int(FIRST_DAY - 1_000..=LAST_DAY)));
    columns.add("is_public", |d| d.percent(35));
}

/// The table `device`.
pub(super) fn device(columns: &mut Columns, _: &Sizes) {
    let family = |row: u64| entry(&["phone", "tablet", "desktop", "speaker", "car"], row);
    columns.add("device_id", |d| key32(d.row()) + 1);
    columns.add("family", |d| family(d.row()));
    columns.add("os", |d| match family(d.row()) {
        // What a device is tells what can run on it.
        "phone" | "tablet" => d.pick(&["android", "ios"]),
        "desktop" => d.pick(&["linux", "macos", "windows"]),
        _ => "embedded",
    });
    columns.add("model", |d| format!("{} {}", words::name(d), d.int(1..=9)));
}
