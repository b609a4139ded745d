//! Finds the published corpus in cargo's registry, its files, and the data folder beside the project.

use std::path::{Path, PathBuf};

use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use datafusion_sqllogictest::{TestFile, read_dir_recursive};
use serde_json::Value;

use crate::cargo::metadata;

/// The crate whose `test_files` are the corpus.
const CORPUS_PACKAGE: &str = "datafusion-sqllogictest";

/// Where a checkout may keep the data files that the crate does not ship, seen from the project's root.
const DATA_BESIDE_PROJECT: &str = "../shared/corpus-data";

/// The corpus and its data on this machine.
#[derive(Debug)]
pub(super) struct Corpus {
    /// The package's own folder, which holds `test_files`.
    pub(super) folder: PathBuf,
    /// The published version, where cargo knows it.
    pub(super) version: String,
    /// The folder with the data files that the crate lacks.
    pub(super) data: Option<PathBuf>,
}

/// Finds the corpus: in the folder that was named, or as cargo resolved the dependency.
pub(super) fn locate(folder: Option<&Path>, data: Option<&Path>) -> Result<Corpus> {
    let data = data.map(|data| existing_folder(data, "--data")).transpose()?;
    if let Some(folder) = folder {
        let folder = existing_folder(folder, "--corpus")?;
        // Both the package and its `test_files` are reasonable things to point at.
        let folder = match (folder.file_name(), folder.parent()) {
            (Some(name), Some(parent)) if name == "test_files" => parent.to_path_buf(),
            _ => folder,
        };
        return Ok(Corpus { folder, version: "from --corpus".to_owned(), data });
    }
    let metadata = cargo_metadata()?;
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == CORPUS_PACKAGE)
        .ok_or_else(|| {
            exec_datafusion_err!(
                "cargo metadata lists no package {CORPUS_PACKAGE}: name its folder with --corpus"
            )
        })?;
    let manifest = text(package, "manifest_path")?;
    let folder = Path::new(manifest).parent().map(Path::to_path_buf).unwrap_or_default();
    let beside = Path::new(text(&metadata, "workspace_root")?).join(DATA_BESIDE_PROJECT);
    Ok(Corpus {
        folder: existing_folder(&folder, CORPUS_PACKAGE)?,
        version: text(package, "version")?.to_owned(),
        data: data.or_else(|| beside.canonicalize().ok()),
    })
}

/// Lists the `.slt` files whose path contains one of `filters` (all of them without a filter), the longest-running first.
pub(super) fn files(corpus: &Corpus, filters: &[String]) -> Result<Vec<PathBuf>> {
    let tests = corpus.folder.join("test_files");
    let prefix = format!("{}/", tests.display());
    let mut files: Vec<TestFile> = read_dir_recursive(&tests)?
        .into_iter()
        .map(|path| TestFile::new(path, &[&prefix]))
        .filter(TestFile::is_slt_file)
        .filter(|file| {
            let path = file.relative_path.to_string_lossy();
            filters.is_empty() || filters.iter().any(|filter| path.contains(filter.as_str()))
        })
        .collect();
    if files.is_empty() {
        return exec_err!("no file of {} contains any of {filters:?}", tests.display());
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|file| file.relative_path).collect())
}

fn cargo_metadata() -> Result<Value> {
    // Where `cargo run` says the package is: clones of the project may share what was built.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    metadata(Some(&Path::new(&package).join("Cargo.toml")))
        .map_err(|why| exec_datafusion_err!("{why}; name the corpus with --corpus"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().ok_or_else(|| exec_datafusion_err!("cargo metadata has no field {key}"))
}

fn existing_folder(folder: &Path, what: &str) -> Result<PathBuf> {
    folder
        .canonicalize()
        .map_err(|e| exec_datafusion_err!("{what}: cannot open the folder {}: {e}", folder.display()))
}
