//! Where things are: `continent` ◄ `country` ◄ `city` ◄ `venue` ◄ `seat_block`.

use super::calendar::{FIRST_DAY, LAST_DAY};
use super::columns::{Columns, Date, Decimal};
use super::draw::{Draw, Seed, entry, key32};
use super::sizes::{BLOCKS, CITIES, Sizes, VENUES};
use super::words;

/// Continents; the last one has no country.
const CONTINENTS: [&str; 7] =
    ["Africa", "Asia", "Europe", "North America", "Oceania", "South America", "Antarctica"];

/// Countries: code, name, continent; the last five have no city.
const COUNTRIES: [(&str, &str, i32); 48] = [
    ("US", "United States", 4),
    ("DE", "Germany", 3),
    ("GB", "United Kingdom", 3),
    ("JP", "Japan", 2),
    ("BR", "Brazil", 6),
    ("FR", "France", 3),
    ("IN", "India", 2),
    ("KR", "South Korea", 2),
    ("SE", "Sweden", 3),
    ("CA", "Canada", 4),
    ("AU", "Australia", 5),
    ("NL", "Netherlands", 3),
    ("MX", "Mexico", 4),
    ("ES", "Spain", 3),
    ("IT", "Italy", 3),
    ("NG", "Nigeria", 1),
    ("PL", "Poland", 3),
    ("NO", "Norway", 3),
    ("AR", "Argentina", 6),
    ("ZA", "South Africa", 1),
    ("DK", "Denmark", 3),
    ("FI", "Finland", 3),
    ("AT", "Austria", 3),
    ("CH", "Switzerland", 3),
    ("IE", "Ireland", 3),
    ("PT", "Portugal", 3),
    ("CZ", "Czechia", 3),
    ("CL", "Chile", 6),
    ("CO", "Colombia", 6),
    ("EG", "Egypt", 1),
    ("GH", "Ghana", 1),
    ("GR", "Greece", 3),
    ("HU", "Hungary", 3),
    ("ID", "Indonesia", 2),
    ("IS", "Iceland", 3),
    ("JM", "Jamaica", 4),
    ("KE", "Kenya", 1),
    ("MA", "Morocco", 1),
    ("NZ", "New Zealand", 5),
    ("PE", "Peru", 6),
    ("PH", "Philippines", 2),
    ("SN", "Senegal", 1),
    ("TH", "Thailand", 2),
    ("TR", "Turkey", 2),
    ("UY", "Uruguay", 6),
    ("VN", "Vietnam", 2),
    ("BW", "Botswana", 1),
    ("FJ", "Fiji", 5),
];

/// Rows of `continent` and of `country`.
pub(super) const SIZES: (u64, u64) = (CONTINENTS.len() as u64, COUNTRIES.len() as u64);

/// Countries that have cities.
const SETTLED: u64 = 43;

/// Names of the blocks in a venue.
const LETTERS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "G", "H"];

/// What the blocks in a venue are.
const TIERS: [&str; 8] = ["gold", "gold", "silver", "silver", "silver", "bronze", "bronze", "standing"];

const BASE_PRICE: Seed = Seed::new("seat_block.base_price");

/// The code of a country, the first ones more often than the last.
pub(super) fn country_code(draw: &mut Draw) -> &'static str {
    let octave = draw.below(4);
    let below = entry(&[6, 14, 28, SIZES.1], octave);
    entry(&COUNTRIES, draw.below(below)).0
}

/// The city of something, some cities much more often than others.
pub(super) fn city_id(draw: &mut Draw) -> i32 {
    key32(draw.skewed(CITIES, 10)) + 1
}

/// The name of a block of seats, by its place in the venue.
pub(super) fn block_name(block: u64) -> &'static str {
    entry(&LETTERS, block)
}

/// What a seat costs before the concert makes it dearer or cheaper, in cents.
pub(super) fn base_price(venue: u64, block: u64) -> i64 {
    let mut draw = BASE_PRICE.at(venue);
    let in_venue = i64::from(draw.int(12..=45)) * 100;
    in_venue + i64::from(key32(BLOCKS - block % BLOCKS)) * 650
}

/// The table `continent`.
pub(super) fn continent(columns: &mut Columns, _: &Sizes) {
    columns.add("continent_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| entry(&CONTINENTS, d.row()));
}

/// The table `country`, whose key is a string.
pub(super) fn country(columns: &mut Columns, _: &Sizes) {
    let of = |d: &Draw| entry(&COUNTRIES, d.row());
    columns.add("country_code", |d| of(d).0);
    columns.add("name", |d| of(d).1);
    columns.add("continent_id", |d| of(d).2);
    columns.add("currency", |d| d.pick(&["EUR", "EUR", "USD", "GBP", "JPY", "local"]));
    columns.add("vat", |d| Decimal::<4, 3>(i64::from(d.int(5..=25)) * 10));
}

/// The table `city`.
pub(super) fn city(columns: &mut Columns, _: &Sizes) {
    columns.add("city_id", |d| key32(d.row()) + 1);
    columns.add("name", words::name);
    columns.add("country_code", |d| {
        // Every country that has cities at all has its first one early.
        let row = d.row();
        let country = if row < SETTLED { row } else { d.below(SETTLED) };
        entry(&COUNTRIES, country).0
    });
    columns.add("population", |d| i64::from(d.int(4..=900)) * i64::from(d.int(1_000..=9_999)));
    columns.add("latitude", |d| f64::from(d.int(-5_500_000..=6_900_000)) / 100_000.0);
    columns.add("longitude", |d| f64::from(d.int(-17_900_000..=17_900_000)) / 100_000.0);
    columns.add("is_capital", |d| d.row() < SETTLED);
}

/// The table `venue`.
pub(super) fn venue(columns: &mut Columns, _: &Sizes) {
    columns.add("venue_id", |d| key32(d.row()) + 1);
    columns.add("name", |d| format!("The {} Hall", words::title(d)));
    columns.add("city_id", city_id);
    columns.add("kind", |d| d.pick(&["arena", "church", "club", "club", "open air", "theatre"]));
    columns.add("capacity", |d| d.int(2..=400) * 50);
    columns.add("opened_on", |d| Date(d.int(FIRST_DAY - 20_000..=FIRST_DAY)));
    columns.nullable("closed_on", |d| d.percent(15).then(|| Date(d.int(FIRST_DAY..=LAST_DAY))));
}

/// The table `seat_block`, whose key is of two columns.
pub(super) fn seat_block(columns: &mut Columns, _: &Sizes) {
    columns.add("venue_id", |d| key32(d.row() / BLOCKS) + 1);
    columns.add("block", |d| block_name(d.row()));
    columns.add("tier", |d| entry(&TIERS, d.row()));
    columns.add("seats", |d| d.int(10..=400));
    columns.add("base_price", |d| Decimal::<8, 2>(base_price(d.row() / BLOCKS, d.row())));
}

/// Rows of `seat_block`.
pub(super) fn seat_blocks(_: &Sizes) -> u64 {
    VENUES * BLOCKS
}
