//! `generate`: the eight tables as Parquet files, resumable, one scale factor a folder.
//!
//! A file is written under a temporary name, renamed when it is whole, and then entered in the manifest; what
//! the manifest names is not written again.

mod layout;
mod manifest;
mod write;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datafusion::error::Result;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion::prelude::SessionConfig;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use manifest::GENERATOR;
use manifest::{Manifest, invalid};

use crate::error::cannot_write;
use crate::tables::Table;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the data: 1 is about 1 GB as text; fractions such as 0.01 are fine
    #[arg(short, long, value_name = "N", value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder for the files [default: tpch/data/sf{N}]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Smallest scale factor: below it tables would be empty.
const MIN_SCALE_FACTOR: f64 = 0.001;

/// Largest scale factor of the specification.
const MAX_SCALE_FACTOR: f64 = 100_000.0;

/// Parses a scale factor of the command line.
pub(crate) fn parse_scale_factor(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|n| (MIN_SCALE_FACTOR..=MAX_SCALE_FACTOR).contains(n))
        .ok_or_else(|| format!("expected a number from {MIN_SCALE_FACTOR} to {MAX_SCALE_FACTOR}"))
}

/// Where the data of a scale factor is unless the user says otherwise.
pub(crate) fn default_dir(scale_factor: f64) -> PathBuf {
    PathBuf::from(format!("tpch/data/sf{scale_factor}"))
}

/// Runs `generate`.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let dir = args.out.unwrap_or_else(|| default_dir(args.scale_factor));
    let manifest = generate(&dir, args.scale_factor).await?;
    let rows: i64 = manifest.tables.values().map(|t| t.rows).sum();
    let bytes: u64 = manifest.tables.values().map(|t| t.bytes).sum();
    println!(
        "{}: scale factor {}, {} tables, {rows} rows, {}",
        dir.display(),
        manifest.scale_factor,
        manifest.tables.len(),
        indicatif::HumanBytes(bytes)
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that `dir` holds all tables of the scale factor, and generates what is missing.
///
/// A folder which somebody else filled is taken as it is, when all tables are there and have as many rows as
/// the scale factor demands.
pub(crate) async fn ensure(dir: &Path, scale_factor: f64) -> Result<()> {
    match Manifest::load(dir)? {
        Some(manifest) => {
            manifest.check(dir, scale_factor)?;
            if manifest.missing(dir).is_empty() {
                return Ok(());
            }
        }
        None if Table::ALL.iter().all(|table| table.path(dir).exists()) => {
            return check_rows(dir, scale_factor);
        }
        None => {}
    }
    eprintln!("Generating scale factor {scale_factor} in {}", dir.display());
    generate(dir, scale_factor).await.map(drop)
}

/// Compares the rows in the files' footers with those of the scale factor.
fn check_rows(dir: &Path, scale_factor: f64) -> Result<()> {
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

/// Generates the missing tables of `dir`.
async fn generate(dir: &Path, scale_factor: f64) -> Result<Manifest> {
    std::fs::create_dir_all(dir).map_err(|e| invalid(format!("cannot create {}: {e}", dir.display())))?;
    let _lock = lock(dir)?;
    let mut manifest = match Manifest::load(dir)? {
        Some(manifest) => manifest,
        None => {
            refuse_foreign_files(dir)?;
            let manifest = Manifest::new(scale_factor);
            manifest.store(dir)?;
            manifest
        }
    };
    manifest.check(dir, scale_factor)?;

    let missing = manifest.missing(dir);
    let groups: i32 = missing.iter().map(|table| layout::row_groups(*table, scale_factor)).sum();
    let bar = progress_bar(u64::try_from(groups).unwrap_or_default());
    let jobs = SessionConfig::new().target_partitions();
    for table in missing {
        let start = crate::clock::now();
        bar.set_message(table.name());
        let temporary = dir.join(format!("{table}.parquet.tmp"));
        let entry = write::write_table(table, scale_factor, &temporary, jobs, || bar.inc(1)).await?;
        std::fs::rename(&temporary, table.path(dir))?;
        bar.suspend(|| {
            eprintln!(
                "{table}: {} rows in {}, {} in {:.1} s",
                entry.rows,
                if entry.row_groups == 1 {
                    "1 row group".to_owned()
                } else {
                    format!("{} row groups", entry.row_groups)
                },
                indicatif::HumanBytes(entry.bytes),
                start.elapsed().as_secs_f64()
            );
        });
        manifest.tables.insert(table.name().to_owned(), entry);
        manifest.store(dir)?;
    }
    bar.finish_and_clear();
    Ok(manifest)
}

/// Keeps a second `generate` out of the folder until the returned file is dropped.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".generate.lock");
    let file = File::create(&path).map_err(|e| cannot_write(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(invalid(format!("another process is generating into {}", dir.display())))
        }
        Err(TryLockError::Error(e)) => Err(invalid(format!("cannot lock {}: {e}", path.display()))),
    }
}

/// Refuses files of which nobody knows the scale factor.
fn refuse_foreign_files(dir: &Path) -> Result<()> {
    match Table::ALL.into_iter().find(|table| table.path(dir).exists()) {
        Some(table) => Err(invalid(format!(
            "{} exists, but the folder has no manifest.json: its scale factor is not known; name another folder",
            table.path(dir).display()
        ))),
        None => Ok(()),
    }
}

/// What the progress line shows.
const PROGRESS: &str = "{bar:40} {pos}/{len} row groups, {msg}, {elapsed} (eta {eta})";

/// A bar of row groups on standard error; it draws on a terminal only.
fn progress_bar(row_groups: u64) -> ProgressBar {
    // The template is constant, and checked by a test.
    let style = ProgressStyle::with_template(PROGRESS).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(row_groups).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_factors() {
        assert_eq!(parse_scale_factor("0.01"), Ok(0.01));
        assert_eq!(parse_scale_factor("10"), Ok(10.0));
        for bad in ["0", "-1", "NaN", "inf", "", "ten", "0.0001", "100001"] {
            assert!(parse_scale_factor(bad).is_err(), "{bad}");
        }
        assert_eq!(default_dir(1.0), Path::new("tpch/data/sf1"));
        assert_eq!(default_dir(0.01), Path::new("tpch/data/sf0.01"));
    }

    /// A key that indicatif does not know is shown as nothing, without an error.
    #[test]
    fn progress_line_is_understood() {
        ProgressStyle::with_template(PROGRESS).unwrap();
        let keys = PROGRESS.split('{').skip(1).map(|key| key.split([':', '}']).next().unwrap());
        for key in keys {
            assert!(["bar", "pos", "len", "msg", "elapsed", "eta"].contains(&key), "{key}");
        }
    }

    #[test]
    fn second_generator_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process is generating"), "{error}");
        drop(first);
        lock(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn foreign_folder_is_used_but_not_filled() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), 0.001).await.unwrap();
        std::fs::remove_file(Manifest::path(dir.path())).unwrap();
        ensure(dir.path(), 0.001).await.unwrap();
        let error = ensure(dir.path(), 0.01).await.unwrap_err().to_string();
        assert!(error.contains("orders.parquet has 1500 rows, which is not scale factor 0.01"), "{error}");
        std::fs::remove_file(Table::Region.path(dir.path())).unwrap();
        let error = ensure(dir.path(), 0.001).await.unwrap_err().to_string();
        assert!(error.contains("no manifest.json"), "{error}");
    }
}
