//! A star schema of a music service as a workload, so that the layer is not made for TPC-H alone.
//!
//! ```text
//!  continent ◄─ country ◄─┬─ city ◄── venue ◄── seat_block        calendar   price_band   service (1 row)
//!                         │   ▲  ▲      ▲            ▲
//!            label ◄── artist │  │      └─ concert ◄─┤ (venue_id, block)
//!              ▲         ▲    │  │            ▲      │
//!            (parent)  album  │  └─ listener ◄┼── TICKET ──► voucher (CSV)
//!                        ▲    │       ▲  ▲    │      ▲ (order_no, line_no)
//!   takedown ──► genre ◄─ track ◄─── PLAY └── playlist └── REFUND (no statistics)
//!   (0 rows)                         │ └► device
//!        plan (memory) ◄─ listener   └──► campaign
//! ```
//! What TPC-H lacks is here: NULLs in foreign keys, skew, strings as keys, keys of two columns, wide strings, dates
//! that follow the load order (`play`) and dates that do not (`ticket`), and tables that are not one Parquet file
//! with statistics. The rows depend on nothing but the scale factor; see [`draw`].

mod calendar;
mod columns;
mod draw;
mod music;
mod people;
mod places;
mod play;
mod queries;
mod register;
mod sizes;
mod tables;
#[cfg(test)]
mod tests;
mod ticket;
mod trade;
mod words;
mod write;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use crate::error::cannot_write;
use crate::generate::manifest::{TableEntry, invalid, stored_bytes};
use crate::queries::Query;
use crate::workload::Workload;
use sizes::Sizes;
use tables::{Storage, TABLES, Table};

/// Version of the generator; a test tells when it must be raised.
const GENERATOR: &str = "star 1";

/// The workload `star`.
#[derive(Debug)]
pub(crate) struct Star;

/// Finds a table by the name that [`Workload::tables`] gave it.
fn table(name: &str) -> Result<&'static Table> {
    let found = TABLES.iter().find(|table| table.name == name);
    found.ok_or_else(|| DataFusionError::Internal(format!("the star schema has no table {name}")))
}

#[async_trait]
impl Workload for Star {
    fn name(&self) -> &'static str {
        "star"
    }

    fn title(&self) -> &'static str {
        "Star schema"
    }

    fn queries(&self) -> &'static [Query] {
        &queries::QUERIES
    }

    fn generator(&self) -> &'static str {
        GENERATOR
    }

    fn default_dir(&self, scale_factor: f64) -> PathBuf {
        PathBuf::from(format!("tpch/data/star-sf{scale_factor}"))
    }

    fn tables(&self) -> Vec<&'static str> {
        TABLES.iter().map(|table| table.name).collect()
    }

    fn path(&self, name: &str, dir: &Path) -> PathBuf {
        table(name).map_or_else(|_| dir.join(name), |table| table.path(dir))
    }

    fn parts(&self, name: &str, _: f64) -> u64 {
        table(name).map_or(0, Table::files)
    }

    /// One file after the other: the generator is there to be simple.
    async fn write(
        &self,
        name: &str,
        scale_factor: f64,
        path: &Path,
        _: usize,
        written: &mut (dyn FnMut() + Send),
    ) -> Result<TableEntry> {
        let table = table(name)?;
        let sizes = Sizes::at(scale_factor);
        if let Storage::ParquetFiles(_) = table.storage {
            std::fs::create_dir(path).map_err(|e| cannot_write(path, &e))?;
        }
        let (mut rows, mut row_groups) = (0, 0);
        for file in 0..table.files() {
            let path = match table.storage {
                Storage::ParquetFiles(_) => path.join(format!("{name}-{file}.parquet")),
                _ => path.to_owned(),
            };
            let task = SpawnedTask::spawn_blocking(move || write::write_file(table, &sizes, file, &path));
            let (more_rows, groups) =
                task.join_unwind().await.map_err(|e| DataFusionError::External(Box::new(e)))??;
            rows += draw::key64(more_rows);
            row_groups += i32::try_from(groups).unwrap_or(i32::MAX);
            written();
        }
        Ok(TableEntry { rows, row_groups, bytes: stored_bytes(path)? })
    }

    /// Nobody else makes such data: without a manifest, nothing says which scale factor it is.
    fn adopt(&self, dir: &Path, _: f64) -> Result<()> {
        Err(invalid(format!(
            "{} has no manifest.json: its scale factor is not known; name another folder",
            dir.display()
        )))
    }

    async fn register(&self, ctx: &SessionContext, dir: &Path) -> Result<()> {
        register::register(ctx, dir).await
    }
}
