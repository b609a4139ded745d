//! A scratch copy of the checkout that the corpus expects around itself, one for each engine process.
//!
//! The files read `../../testing/data` and `../core/tests/data`, and write below `test_files/scratch`, all relative
//! to the current folder. Two engines in one folder would read each other's files, so each gets
//! ```text
//! ROOT/testing ─► corpus data        ROOT/tmp                     spill files
//! ROOT/parquet-testing ─► …          ROOT/datafusion/core ─► …
//!                                    ROOT/datafusion/sqllogictest current folder
//!                                      test_files/* ─► corpus    test_files/scratch real
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;

use super::locate::Corpus;

/// The folder of one engine; its parent, a temporary folder, removes it.
#[derive(Debug)]
pub(super) struct Tree {
    /// What stands for the root of DataFusion's checkout.
    pub(super) root: PathBuf,
}

impl Tree {
    /// Lays the folder out below `root`, which must not exist.
    pub(super) fn create(root: PathBuf, corpus: &Corpus) -> Result<Self> {
        let tree = Self { root };
        let tests = tree.current_folder().join("test_files");
        make(&tests.join("scratch"))?;
        make(&tree.temporary_folder())?;
        link_entries(&corpus.folder, &tree.current_folder(), "test_files")?;
        link_entries(&corpus.folder.join("test_files"), &tests, "scratch")?;
        if let Some(data) = &corpus.data {
            link_entries(data, &tree.root, "core")?;
            if data.join("core").is_dir() {
                link(&data.join("core"), &tree.root.join("datafusion/core"))?;
            }
        }
        Ok(tree)
    }

    /// Where the engine's process stands.
    pub(super) fn current_folder(&self) -> PathBuf {
        self.root.join("datafusion/sqllogictest")
    }

    /// Where the engine's process spills.
    pub(super) fn temporary_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| exec_datafusion_err!("cannot create {}: {e}", folder.display()))
}

/// Links every entry of `from` into `to`, except the one named `except`.
fn link_entries(from: &Path, to: &Path, except: &str) -> Result<()> {
    let entries =
        fs::read_dir(from).map_err(|e| exec_datafusion_err!("cannot list {}: {e}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != except {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> Result<()> {
    std::os::unix::fs::symlink(from, to)
        .map_err(|e| exec_datafusion_err!("cannot link {} to {}: {e}", to.display(), from.display()))
}

/// Elsewhere links need rights that a user rarely has; the corpus is small enough to copy.
#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        make(to)?;
        return link_entries(from, to, "");
    }
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|e| exec_datafusion_err!("cannot copy {} to {}: {e}", from.display(), to.display()))
}
