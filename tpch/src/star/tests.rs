//! The rows of all tables: the same on any machine, and such as the schema promises.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::{Date32Type, Int64Type};
use datafusion::arrow::util::display::array_value_to_string;

use super::queries::QUERIES;
use super::sizes::Sizes;
use super::tables::{TABLES, Table};
use super::*;
use crate::compare::ResultOrder;

fn rows(name: &str, sizes: &Sizes) -> RecordBatch {
    let table = table(name).unwrap();
    table.draw(sizes, 0..table.rows(sizes)).unwrap()
}

/// A hash of all values as text, so that it does not depend on how files are encoded.
fn checksum(table: &Table, sizes: &Sizes) -> u64 {
    let mut writer = WriterBuilder::new().build(vec![]);
    writer.write(&table.draw(sizes, 0..table.rows(sizes)).unwrap()).unwrap();
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    writer.into_inner().iter().fold(0xcbf2_9ce4_8422_2325, fnv)
}

/// Other rows need another version in [`GENERATOR`]: folders of the old ones must be refused.
#[test]
fn rows_are_those_of_this_version() {
    let sizes = Sizes::at(0.002);
    let sums: BTreeMap<_, _> =
        TABLES.iter().map(|table| (table.name, format!("{:016x}", checksum(table, &sizes)))).collect();
    let all = sums.values().fold(0, |all, sum| all ^ u64::from_str_radix(sum, 16).unwrap());
    assert_eq!((GENERATOR, format!("{all:016x}").as_str()), ("star 1", "3ff3fb89253fa704"), "{sums:#?}");
}

/// What a column without NULLs holds, as text.
fn keys(table: &RecordBatch, columns: &[&str]) -> Vec<String> {
    let columns: Vec<_> = columns.iter().map(|name| table.column_by_name(name).unwrap()).collect();
    let text = |row| {
        let cell =
            |array: &&ArrayRef| (!array.is_null(row)).then(|| array_value_to_string(array, row).unwrap());
        let cells: Option<Vec<String>> = columns.iter().map(cell).collect();
        cells.map(|cells| cells.join("|"))
    };
    // A key with a NULL in it refers to nothing.
    (0..table.num_rows()).filter_map(text).collect()
}

/// Every foreign key that is not NULL has its row, and every primary key is there once.
#[test]
fn keys_refer_to_rows() {
    let sizes = Sizes::at(0.01);
    for (from, foreign, to, primary) in [
        ("play", &["track_code"][..], "track", &["track_code"][..]),
        ("play", &["listener_id"], "listener", &["listener_id"]),
        ("play", &["playlist_id"], "playlist", &["playlist_id"]),
        ("play", &["device_id"], "device", &["device_id"]),
        ("play", &["city_id"], "city", &["city_id"]),
        ("play", &["campaign_code"], "campaign", &["campaign_code"]),
        ("play", &["play_day"], "calendar", &["day"]),
        ("ticket", &["concert_id"], "concert", &["concert_id"]),
        ("ticket", &["venue_id", "block"], "seat_block", &["venue_id", "block"]),
        ("ticket", &["listener_id"], "listener", &["listener_id"]),
        ("ticket", &["voucher_code"], "voucher", &["voucher_code"]),
        ("ticket", &["sold_on"], "calendar", &["day"]),
        ("refund", &["order_no", "line_no"], "ticket", &["order_no", "line_no"]),
        ("concert", &["artist_id"], "artist", &["artist_id"]),
        ("concert", &["support_artist_id"], "artist", &["artist_id"]),
        ("concert", &["venue_id"], "venue", &["venue_id"]),
        ("seat_block", &["venue_id"], "venue", &["venue_id"]),
        ("venue", &["city_id"], "city", &["city_id"]),
        ("city", &["country_code"], "country", &["country_code"]),
        ("country", &["continent_id"], "continent", &["continent_id"]),
        ("track", &["album_id"], "album", &["album_id"]),
        ("track", &["genre_id"], "genre", &["genre_id"]),
        ("album", &["artist_id"], "artist", &["artist_id"]),
        ("artist", &["label_id"], "label", &["label_id"]),
        ("artist", &["country_code"], "country", &["country_code"]),
        ("label", &["parent_label_id"], "label", &["label_id"]),
        ("listener", &["city_id"], "city", &["city_id"]),
        ("listener", &["plan_id"], "plan", &["plan_id"]),
        ("listener", &["invited_by"], "listener", &["listener_id"]),
        ("playlist", &["owner_id"], "listener", &["listener_id"]),
    ] {
        let all = keys(&rows(to, &sizes), primary);
        let unique: HashSet<&String> = all.iter().collect();
        assert_eq!(unique.len(), all.len(), "{to} has a key twice");
        let used = keys(&rows(from, &sizes), foreign);
        assert!(used.iter().all(|key| unique.contains(key)), "{from} {foreign:?}");
        assert!(used.len() > 10, "{from} {foreign:?} is NULL almost everywhere");
    }
}

/// The properties that queries are there to meet: NULLs, skew, and dates with and without the load order.
#[test]
fn facts_are_as_the_schema_says() {
    let sizes = Sizes::at(0.02);
    let (play, ticket) = (rows("play", &sizes), rows("ticket", &sizes));
    let column = |table: &RecordBatch, name: &str| Arc::clone(table.column_by_name(name).unwrap());
    let nulls = |table: &RecordBatch, name: &str| 100 * column(table, name).null_count() / table.num_rows();
    for (table, name, percent) in [
        (&play, "listener_id", 5..12),
        (&play, "playlist_id", 45..65),
        (&play, "campaign_code", 90..97),
        (&ticket, "block", 1..6),
        (&ticket, "voucher_code", 75..85),
    ] {
        assert!(percent.contains(&nulls(table, name)), "{name}: {} %", nulls(table, name));
    }
    let most = |table: &RecordBatch, name: &str| {
        let mut counts = std::collections::HashMap::new();
        keys(table, &[name]).into_iter().for_each(|key| *counts.entry(key).or_insert(0_usize) += 1);
        100 * counts.into_values().max().unwrap() / table.num_rows()
    };
    assert!((4..12).contains(&most(&play, "track_code")), "{} %", most(&play, "track_code"));
    assert!(most(&play, "play_id") == 0);

    let days =
        |table: &RecordBatch, name: &str| column(table, name).as_primitive::<Date32Type>().values().to_vec();
    assert!(days(&play, "play_day").is_sorted());
    let sold = days(&ticket, "sold_on");
    let ascents = sold.windows(2).filter(|pair| pair[0] <= pair[1]).count();
    assert!(ascents < sold.len() * 8 / 10, "{ascents} of {}", sold.len());
    assert!(column(&ticket, "order_no").as_primitive::<Int64Type>().values().is_sorted());
}

/// Tables of no rows and of one row, and catalogues that grow more slowly than facts.
#[test]
fn sizes_differ_widely() {
    let count = |name: &str, scale_factor| table(name).unwrap().rows(&Sizes::at(scale_factor));
    assert_eq!((count("takedown", 10.0), count("service", 10.0), count("plan", 10.0)), (0, 1, 5));
    assert_eq!(count("play", 1.0) + count("ticket", 1.0), 2_000_000);
    assert_eq!((count("listener", 1.0), count("track", 1.0), count("city", 1.0)), (100_000, 40_000, 1_000));
    let names: HashSet<&str> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(names.len(), TABLES.len());
    // Wherever the scale factor is allowed, all tables but one have rows.
    let empty = TABLES.iter().filter(|table| table.rows(&Sizes::at(0.001)) == 0).count();
    assert_eq!(empty, 1);
}

/// Each file is listed under its own number, and has its rows in an order that LIMIT can rely on.
#[test]
fn queries_are_listed_and_ordered() {
    // Asked when it runs: clones of the project may share what was built.
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("queries/star");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), QUERIES.len());
    for Query { number, sql } in &QUERIES {
        assert!(sql.starts_with(&format!("-- Star {number:02}: ")), "{number}: {sql}");
        let order = ResultOrder::of(sql).unwrap();
        assert!(!order.keys.is_empty(), "{number} has no order");
        assert_eq!(order.limit.is_some(), sql.contains("\nlimit "), "{number}");
    }
}
