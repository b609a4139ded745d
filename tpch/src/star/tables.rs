//! The tables: names, rows, who draws them, and how they are stored and registered.

use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result;

use super::columns::Columns;
use super::sizes::{CAMPAIGNS, CITIES, DEVICES, LABELS, Sizes, VENUES, VOUCHERS};
use super::{calendar, music, people, places, play, ticket, trade};

/// How a table is stored and registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// One Parquet file.
    Parquet,
    /// A folder of so many Parquet files.
    ParquetFiles(u64),
    /// One Parquet file whose columns have no statistics.
    ParquetWithoutStatistics,
    /// One Parquet file, registered as sorted by this column.
    SortedParquet(&'static str),
    /// One Parquet file, which is loaded and registered as a table in memory.
    Memory,
    /// One CSV file.
    Csv,
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name in SQL.
    pub(super) name: &'static str,
    /// How it is stored.
    pub(super) storage: Storage,
    rows: fn(&Sizes) -> u64,
    draw: fn(&mut Columns, &Sizes),
}

impl Table {
    const fn new(
        name: &'static str,
        storage: Storage,
        rows: fn(&Sizes) -> u64,
        draw: fn(&mut Columns, &Sizes),
    ) -> Self {
        Self { name, storage, rows, draw }
    }

    /// Its rows at these sizes.
    pub(super) fn rows(&self, sizes: &Sizes) -> u64 {
        (self.rows)(sizes)
    }

    /// Draws some of its rows.
    pub(super) fn draw(&self, sizes: &Sizes, rows: std::ops::Range<u64>) -> Result<RecordBatch> {
        let mut columns = Columns::new(self.name, rows);
        (self.draw)(&mut columns, sizes);
        columns.finish()
    }

    /// Its columns.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        Ok(self.draw(&Sizes::at(1.0), 0..0)?.schema())
    }

    /// How many files it has.
    pub(super) fn files(&self) -> u64 {
        match self.storage {
            Storage::ParquetFiles(files) => files,
            _ => 1,
        }
    }

    /// Its file in a data folder, or its folder of files.
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        match self.storage {
            Storage::ParquetFiles(_) => dir.join(self.name),
            Storage::Csv => dir.join(format!("{}.csv", self.name)),
            _ => dir.join(format!("{}.parquet", self.name)),
        }
    }
}

/// All tables, the largest first.
#[rustfmt::skip]
pub(super) const TABLES: [Table; 24] = [
    Table::new("play", Storage::ParquetFiles(6), |s| s.plays, play::play),
    Table::new("ticket", Storage::Parquet, |s| s.tickets, ticket::ticket),
    Table::new("listener", Storage::Parquet, |s| s.listeners, people::listener),
    Table::new("track", Storage::Parquet, Sizes::tracks, music::track),
    Table::new("refund", Storage::ParquetWithoutStatistics, Sizes::refunds, ticket::refund),
    Table::new("playlist", Storage::Parquet, |s| s.playlists, people::playlist),
    Table::new("concert", Storage::Parquet, |s| s.concerts, trade::concert),
    Table::new("album", Storage::Parquet, |s| s.albums, music::album),
    Table::new("seat_block", Storage::Parquet, places::seat_blocks, places::seat_block),
    Table::new("calendar", Storage::SortedParquet("day"), |_| calendar::DAYS, calendar::calendar),
    Table::new("artist", Storage::Parquet, |s| s.artists, music::artist),
    Table::new("city", Storage::Parquet, |_| CITIES, places::city),
    Table::new("voucher", Storage::Csv, |_| VOUCHERS, trade::voucher),
    Table::new("venue", Storage::Parquet, |_| VENUES, places::venue),
    Table::new("campaign", Storage::Parquet, |_| CAMPAIGNS, trade::campaign),
    Table::new("label", Storage::Parquet, |_| LABELS, music::label),
    Table::new("country", Storage::Parquet, |_| places::SIZES.1, places::country),
    Table::new("device", Storage::Parquet, |_| DEVICES, people::device),
    Table::new("genre", Storage::Parquet, |_| music::GENRE_ROWS, music::genre),
    Table::new("price_band", Storage::Parquet, |_| trade::BAND_ROWS, trade::price_band),
    Table::new("continent", Storage::Parquet, |_| places::SIZES.0, places::continent),
    Table::new("plan", Storage::Memory, |_| people::PLAN_ROWS, people::plan),
    Table::new("service", Storage::Parquet, |_| 1, trade::service),
    Table::new("takedown", Storage::Parquet, |_| 0, music::takedown),
];
