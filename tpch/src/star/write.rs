//! A table as files on disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use datafusion::arrow::csv::WriterBuilder;
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::sizes::Sizes;
use super::tables::{Storage, Table};
use crate::error::cannot_write;

/// Rows that are drawn at once.
const BATCH_ROWS: u64 = 8_192;

/// Rows of a row group: an eighth of the file, as far as that is a size in use.
const GROUP_ROWS: Range<u64> = 1_000..131_072;

/// Writes file `file` (from 0) of a table, and returns the number of its rows and row groups.
///
/// The file is on disk when this returns.
pub(super) fn write_file(table: &Table, sizes: &Sizes, file: u64, path: &Path) -> Result<(u64, usize)> {
    let (all, files) = (table.rows(sizes), table.files());
    let rows = all * file / files..all * (file + 1) / files;
    let out = BufWriter::new(File::create(path).map_err(|e| cannot_write(path, &e))?);
    let (out, groups) = match table.storage {
        Storage::Csv => (write_csv(table, sizes, rows.clone(), out)?, 0),
        _ => write_parquet(table, sizes, rows.clone(), out)?,
    };
    let file = out.into_inner().map_err(|e| cannot_write(path, e.error()))?;
    file.sync_all().map_err(|e| cannot_write(path, &e))?;
    Ok((rows.end - rows.start, groups))
}

/// The rows in batches.
fn batches(rows: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut from = rows.start;
    std::iter::from_fn(move || {
        let batch = from..rows.end.min(from + BATCH_ROWS);
        from = batch.end;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Writes rows as CSV with a header; NULL is empty.
fn write_csv<W: Write>(table: &Table, sizes: &Sizes, rows: Range<u64>, out: W) -> Result<W> {
    let mut writer = WriterBuilder::new().with_header(true).build(out);
    for batch in batches(rows) {
        writer.write(&table.draw(sizes, batch)?)?;
    }
    Ok(writer.into_inner())
}

/// Writes rows as Parquet; all that is not said is at the defaults of the crate `parquet`.
fn write_parquet<W: Write + Send>(
    table: &Table,
    sizes: &Sizes,
    rows: Range<u64>,
    mut out: W,
) -> Result<(W, usize)> {
    let group = ((rows.end - rows.start).div_ceil(8)).clamp(GROUP_ROWS.start, GROUP_ROWS.end);
    let statistics = match table.storage {
        Storage::ParquetWithoutStatistics => EnabledStatistics::None,
        _ => EnabledStatistics::Page,
    };
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(statistics)
        .set_max_row_group_row_count(usize::try_from(group).ok())
        .build();
    let mut writer = ArrowWriter::try_new(&mut out, table.schema()?, Some(properties))?;
    for batch in batches(rows) {
        writer.write(&table.draw(sizes, batch)?)?;
    }
    let groups = writer.close()?.num_row_groups();
    Ok((out, groups))
}
