//! TPC-H as a workload: eight tables laid out as `tpchgen-cli` does it, 22 queries.

mod layout;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion::prelude::SessionContext;

use crate::generate::manifest::{TableEntry, invalid};
use crate::queries::{QUERIES, Query};
use crate::tables::Table;
use crate::workload::Workload;

/// Name and version of the generator.
pub(crate) const GENERATOR: &str = "tpchgen 4.0.0";

/// The workload `tpch`.
#[derive(Debug)]
pub(crate) struct Tpch;

/// Finds a table by the name that [`Workload::tables`] gave it.
fn table(name: &str) -> Result<Table> {
    let found = Table::ALL.into_iter().find(|table| table.name() == name);
    found.ok_or_else(|| DataFusionError::Internal(format!("TPC-H has no table {name}")))
}

#[async_trait]
impl Workload for Tpch {
    fn name(&self) -> &'static str {
        "tpch"
    }

    fn title(&self) -> &'static str {
        "TPC-H"
    }

    fn queries(&self) -> &'static [Query] {
        &QUERIES
    }

    fn generator(&self) -> &'static str {
        GENERATOR
    }

    fn default_dir(&self, scale_factor: f64) -> PathBuf {
        crate::generate::default_dir(scale_factor)
    }

    fn tables(&self) -> Vec<&'static str> {
        Table::ALL.map(Table::name).to_vec()
    }

    fn path(&self, table: &str, dir: &Path) -> PathBuf {
        dir.join(format!("{table}.parquet"))
    }

    fn parts(&self, name: &str, scale_factor: f64) -> u64 {
        let groups = table(name).map(|table| layout::row_groups(table, scale_factor));
        groups.ok().and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
    }

    async fn write(
        &self,
        name: &str,
        scale_factor: f64,
        path: &Path,
        jobs: usize,
        written: &mut (dyn FnMut() + Send),
    ) -> Result<TableEntry> {
        write::write_table(table(name)?, scale_factor, path, jobs, written).await
    }

    /// Compares the rows in the files' footers with those of the scale factor.
    fn adopt(&self, dir: &Path, scale_factor: f64) -> Result<()> {
        for table in Table::ALL {
            let path = table.path(dir);
            // A table may be a folder of files; the engines will read it, we cannot count it here.
            if !path.is_file() {
                continue;
            }
            let rows = SerializedFileReader::new(File::open(&path)?)?.metadata().file_metadata().num_rows();
            if table.rows(scale_factor).is_some_and(|expected| expected != rows) {
                return Err(invalid(format!(
                    "{} has {rows} rows, which is not scale factor {scale_factor}",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    async fn register(&self, ctx: &SessionContext, dir: &Path) -> Result<()> {
        crate::engine::register_tables(ctx, dir).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version in [`GENERATOR`] is the one that is compiled in.
    #[test]
    fn generator_is_the_locked_version() {
        let lock = include_str!("../../../Cargo.lock");
        let (name, version) = GENERATOR.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")));
    }

    #[test]
    fn every_table_is_found_by_its_name() {
        for name in Tpch.tables() {
            let found = table(name).unwrap();
            assert_eq!(Tpch.path(name, Path::new("dir")), found.path(Path::new("dir")));
            assert!(Tpch.parts(name, 0.01) > 0, "{name}");
        }
        assert!(table("sales").is_err());
    }
}
