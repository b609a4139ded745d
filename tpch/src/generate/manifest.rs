//! What a data folder holds: its scale factor, its generator, and the tables that are complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use datafusion::error::{DataFusionError, Result};
use serde::{Deserialize, Serialize};

use crate::error::cannot_write;
use crate::workload::Workload;

/// The content of `DIR/manifest.json`.
///
/// It is there before the first file, and names a table only when the table's file is whole. Hence a folder
/// without it was not written by `generate`, and a file that it does not name is the rest of a broken run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The one scale factor of all tables in the folder.
    pub(crate) scale_factor: f64,
    /// Who wrote them.
    pub(crate) generator: String,
    /// The complete tables, by name.
    pub(crate) tables: BTreeMap<String, TableEntry>,
}

/// One complete table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableEntry {
    /// Rows in its files.
    pub(crate) rows: i64,
    /// Row groups in its files; 0 when they are not Parquet, or have no rows.
    pub(crate) row_groups: i32,
    /// Size of its files.
    pub(crate) bytes: u64,
}

impl Manifest {
    /// A folder's manifest before its first table.
    pub(super) fn new(workload: &dyn Workload, scale_factor: f64) -> Self {
        Self { scale_factor, generator: workload.generator().to_owned(), tables: BTreeMap::new() }
    }

    /// Where a folder's manifest is.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("manifest.json")
    }

    /// Reads a folder's manifest; `None` when there is none.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(invalid(format!("cannot read {}: {e}", path.display()))),
        };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            invalid(format!(
                "{} is not a manifest of this program ({e}); remove the folder to generate it anew",
                path.display()
            ))
        })
    }

    /// Writes the manifest in one step: a reader sees the old one or the new one.
    pub(super) fn store(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir);
        let failed = |e: std::io::Error| cannot_write(&path, &e);
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.into()))?;
        let temporary = dir.join("manifest.json.tmp");
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&temporary, &path).map_err(failed)
    }

    /// Refuses a folder of another scale factor or generator: a mix of them would join to nonsense.
    pub(super) fn check(&self, workload: &dyn Workload, dir: &Path, scale_factor: f64) -> Result<()> {
        let dir = dir.display();
        let generator = workload.generator();
        if self.generator != generator {
            return Err(invalid(format!(
                "{dir} was written by {}, this program writes {} with {generator}; name another folder, or \
                 remove this one to generate it anew",
                self.generator,
                workload.title()
            )));
        }
        if self.scale_factor.total_cmp(&scale_factor).is_ne() {
            return Err(invalid(format!(
                "{dir} holds scale factor {}, not {scale_factor}: scale factors are not mixed in a folder; \
                 name another folder, or remove this one",
                self.scale_factor
            )));
        }
        Ok(())
    }

    /// The tables which `dir` lacks: not named here, or with files that are absent or of another size.
    pub(super) fn missing(&self, workload: &dyn Workload, dir: &Path) -> Vec<&'static str> {
        let complete = |table: &str| {
            let size = stored_bytes(&workload.path(table, dir)).ok();
            self.tables.get(table).is_some_and(|entry| Some(entry.bytes) == size)
        };
        workload.tables().into_iter().filter(|table| !complete(table)).collect()
    }
}

/// Size of a file, or of the files in a folder.
pub(crate) fn stored_bytes(path: &Path) -> std::io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    std::fs::read_dir(path)?.map(|file| Ok(file?.metadata()?.len())).sum()
}

/// A fault of the data folder.
pub(crate) fn invalid(message: String) -> DataFusionError {
    DataFusionError::Configuration(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::star::Star;
    use crate::tables::Table;
    use crate::tpch::Tpch;

    #[test]
    fn another_scale_factor_or_generator_is_refused() {
        let mut manifest = Manifest::new(&Tpch, 0.1);
        let dir = Path::new("data");
        manifest.check(&Tpch, dir, 0.1).unwrap();
        let error = manifest.check(&Tpch, dir, 1.0).unwrap_err().to_string();
        assert!(error.contains("data holds scale factor 0.1, not 1"), "{error}");
        let error = manifest.check(&Star, dir, 0.1).unwrap_err().to_string();
        assert!(error.contains("data was written by tpchgen"), "{error}");
        manifest.generator = "tpchgen 3.0.0".to_owned();
        let error = manifest.check(&Tpch, dir, 0.1).unwrap_err().to_string();
        assert!(error.contains("was written by tpchgen 3.0.0"), "{error}");
    }

    #[test]
    fn what_is_stored_is_loaded_and_garbage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), None);
        let mut manifest = Manifest::new(&Tpch, 0.01);
        manifest.tables.insert("region".to_owned(), TableEntry { rows: 5, row_groups: 1, bytes: 3 });
        manifest.store(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), Some(manifest.clone()));

        assert_eq!(manifest.missing(&Tpch, dir.path()).len(), 8, "the file of region is absent");
        std::fs::write(Table::Region.path(dir.path()), "PA").unwrap();
        assert_eq!(manifest.missing(&Tpch, dir.path()).len(), 8, "the file of region is too short");
        std::fs::write(Table::Region.path(dir.path()), "PAR").unwrap();
        assert_eq!(manifest.missing(&Tpch, dir.path()).len(), 7);

        std::fs::write(Manifest::path(dir.path()), "{").unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not a manifest of this program"), "{error}");
    }
}
