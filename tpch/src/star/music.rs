//! What is played: `label` ◄ `artist` ◄ `album` ◄ `track` ► `genre`, and `takedown`, which is empty.

use super::calendar::{FIRST_DAY, LAST_DAY};
use super::columns::{Columns, Date, Decimal};
use super::draw::{Draw, Seed, entry, key32};
use super::places::country_code;
use super::sizes::{LABELS, Sizes, TRACKS_PER_ALBUM};
use super::words;

/// Genres and the families that they belong to.
const GENRES: [(&str, &str); 24] = [
    ("ambient", "electronic"),
    ("drum and bass", "electronic"),
    ("house", "electronic"),
    ("techno", "electronic"),
    ("bebop", "jazz"),
    ("fusion", "jazz"),
    ("swing", "jazz"),
    ("ballad", "pop"),
    ("dance pop", "pop"),
    ("indie pop", "pop"),
    ("synth pop", "pop"),
    ("blues rock", "rock"),
    ("garage", "rock"),
    ("hard rock", "rock"),
    ("post rock", "rock"),
    ("punk", "rock"),
    ("baroque", "classical"),
    ("opera", "classical"),
    ("symphony", "classical"),
    ("bluegrass", "folk"),
    ("celtic", "folk"),
    ("fado", "folk"),
    ("boom bap", "hip hop"),
    ("trap", "hip hop"),
];

/// Rows of `genre`.
pub(super) const GENRE_ROWS: u64 = GENRES.len() as u64;

const TRACK_CODE: Seed = Seed::new("track.code");

/// The code of a track, as facts have it, by its row: a country, a registrant and a number.
pub(super) fn track_code(row: u64) -> String {
    let mut draw = TRACK_CODE.at(row / TRACKS_PER_ALBUM);
    let registrant = draw.pick(&["A1X", "B7Q", "K4F", "M0Z", "S3L", "T9R"]);
    format!("{}-{registrant}-{row:08}", country_code(&mut draw))
}

/// The artist of something, some artists much more often than others.
pub(super) fn artist_id(draw: &mut Draw, sizes: &Sizes) -> i32 {
    key32(draw.skewed(sizes.artists, 8)) + 1
}

/// The table `label`, a few of which belong to an earlier one.
pub(super) fn label(columns: &mut Columns, _: &Sizes) {
    columns.add("label_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| format!("{} Records", words::title(d)));
    columns.nullable("parent_label_id", |d| {
        let earlier = d.row();
        (earlier > 0 && d.percent(40)).then(|| key32(d.below(earlier)) + 1)
    });
    columns.add("country_code", country_code);
    columns.add("founded_year", |d| d.int(1950..=2020));
}

/// The table `genre`.
pub(super) fn genre(columns: &mut Columns, _: &Sizes) {
    let of = |d: &Draw| entry(&GENRES, d.row());
    columns.add("genre_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| of(d).0);
    columns.add("family", |d| of(d).1);
}

/// The table `artist`; those without a label are independent.
pub(super) fn artist(columns: &mut Columns, _: &Sizes) {
    columns.add("artist_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| match d.below(3) {
        0 => format!("The {}s", words::title(d)),
        1 => words::title(d),
        _ => format!("{} {}", d.pick(&words::FIRST_NAMES), words::name(d)),
    });
    columns.nullable("label_id", |d| (!d.percent(30)).then(|| key32(d.skewed(LABELS, 4)) + 1));
    columns.add("country_code", country_code);
    columns.add("kind", |d| d.pick(&["band", "band", "duo", "orchestra", "solo", "solo"]));
    columns.add("debut", |d| Date(d.int(FIRST_DAY - 18_000..=LAST_DAY - 400)));
    columns.add("website", |d| {
        format!("https://{}/", words::title(d).to_lowercase().replace(' ', "-") + ".example")
    });
    columns.add("biography", |d| {
        let length = d.int(40..=90);
        words::text(d, length)
    });
}

/// The table `album`.
pub(super) fn album(columns: &mut Columns, sizes: &Sizes) {
    columns.add("album_id", |d| key32(d.row()) + 1);
    columns.add("artist_id", |d| artist_id(d, sizes));
    columns.add("title", words::title);
    columns.add("released", |d| Date(d.int(FIRST_DAY - 12_000..=LAST_DAY)));
    columns.add("format", |d| d.pick(&["album", "album", "EP", "live", "single"]));
    columns.add("list_price", |d| Decimal::<6, 2>(i64::from(d.int(4..=39)) * 100 + 99));
}

/// The table `track`, whose key is a string; the tracks of an album follow each other.
pub(super) fn track(columns: &mut Columns, _: &Sizes) {
    columns.add("track_code", |d| track_code(d.row()));
    columns.add("album_id", |d| key32(d.row() / TRACKS_PER_ALBUM) + 1);
    columns.add("track_no", |d| key32(d.row() % TRACKS_PER_ALBUM) + 1);
    columns.add("genre_id", |d| key32(d.skewed(GENRE_ROWS, 4)) + 1);
    columns.add("title", words::title);
    columns.add("length_ms", |d| d.int(90..=420) * 1_000);
    columns.add("is_explicit", |d| d.percent(12));
    columns.nullable("bpm", |d| (!d.percent(20)).then(|| f64::from(d.int(600..=1_900)) / 10.0));
    columns.nullable("lyrics", |d| {
        let words = d.int(30..=60);
        (!d.percent(35)).then(|| words::text(d, words))
    });
}

/// The table `takedown`: tracks that must not be played, of which there are none.
pub(super) fn takedown(columns: &mut Columns, _: &Sizes) {
    columns.add("track_code", |d| track_code(d.row()));
    columns.add("ordered_on", |d| Date(FIRST_DAY + key32(d.row())));
    columns.nullable("reason", |d| Some(words::title(d)));
}
