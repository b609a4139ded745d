//! `generate`: the tables of a workload as files, resumable, one scale factor a folder.
//!
//! A table is written under a temporary name, renamed when it is whole, and then entered in the manifest; what
//! the manifest names is not written again.

pub(crate) mod manifest;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datafusion::error::Result;
use datafusion::prelude::SessionConfig;
use indicatif::{ProgressBar, ProgressStyle};

use manifest::{Manifest, invalid};

use crate::error::cannot_write;
use crate::workload::{AnyWorkload, Workload, parse_workload};

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to generate: tpch or star
    #[arg(long, value_name = "NAME", default_value = "tpch", value_parser = parse_workload)]
    workload: AnyWorkload,
    /// Size of the data: 1 is about 1 GB as text, or two million sales and plays; fractions such as 0.01 are fine
    #[arg(short, long, value_name = "N", value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder for the files [default: tpch/data/sf{N}, tpch/data/star-sf{N}]
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

/// Where the TPC-H data of a scale factor is unless the user says otherwise.
pub(crate) fn default_dir(scale_factor: f64) -> PathBuf {
    PathBuf::from(format!("tpch/data/sf{scale_factor}"))
}

/// Runs `generate`.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let dir = args.out.unwrap_or_else(|| args.workload.default_dir(args.scale_factor));
    let manifest = generate(args.workload, &dir, args.scale_factor).await?;
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
pub(crate) async fn ensure(workload: &dyn Workload, dir: &Path, scale_factor: f64) -> Result<()> {
    match Manifest::load(dir)? {
        Some(manifest) => {
            manifest.check(workload, dir, scale_factor)?;
            if manifest.missing(workload, dir).is_empty() {
                return Ok(());
            }
        }
        None if workload.tables().iter().all(|table| workload.path(table, dir).exists()) => {
            return workload.adopt(dir, scale_factor);
        }
        None => {}
    }
    eprintln!("Generating {} scale factor {scale_factor} in {}", workload.title(), dir.display());
    generate(workload, dir, scale_factor).await.map(drop)
}

/// Generates the missing tables of `dir`.
async fn generate(workload: &dyn Workload, dir: &Path, scale_factor: f64) -> Result<Manifest> {
    std::fs::create_dir_all(dir).map_err(|e| invalid(format!("cannot create {}: {e}", dir.display())))?;
    let _lock = lock(dir)?;
    let mut manifest = match Manifest::load(dir)? {
        Some(manifest) => manifest,
        None => {
            refuse_foreign_files(workload, dir)?;
            let manifest = Manifest::new(workload, scale_factor);
            manifest.store(dir)?;
            manifest
        }
    };
    manifest.check(workload, dir, scale_factor)?;

    let missing = manifest.missing(workload, dir);
    let bar = progress_bar(missing.iter().map(|table| workload.parts(table, scale_factor)).sum());
    let jobs = SessionConfig::new().target_partitions();
    for table in missing {
        let start = crate::clock::now();
        bar.set_message(table);
        let path = workload.path(table, dir);
        let temporary = temporary(&path)?;
        let entry = workload.write(table, scale_factor, &temporary, jobs, &mut || bar.inc(1)).await?;
        remove(&path)?;
        std::fs::rename(&temporary, &path).map_err(|e| cannot_write(&path, &e))?;
        bar.suspend(|| {
            eprintln!(
                "{table}: {} rows{}, {} in {:.1} s",
                entry.rows,
                match entry.row_groups {
                    0 => String::new(),
                    1 => " in 1 row group".to_owned(),
                    groups => format!(" in {groups} row groups"),
                },
                indicatif::HumanBytes(entry.bytes),
                start.elapsed().as_secs_f64()
            );
        });
        manifest.tables.insert(table.to_owned(), entry);
        manifest.store(dir)?;
    }
    bar.finish_and_clear();
    Ok(manifest)
}

/// Where a table is written before it is whole; the rest of a broken run is removed.
fn temporary(path: &Path) -> Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    remove(&temporary)?;
    Ok(temporary)
}

/// Removes a file, or a folder of files, if there is one: a folder cannot be renamed to where another one is.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot_write(path, &e)),
        _ => Ok(()),
    }
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
fn refuse_foreign_files(workload: &dyn Workload, dir: &Path) -> Result<()> {
    let mut paths = workload.tables().into_iter().map(|table| workload.path(table, dir));
    match paths.find(|path| path.exists()) {
        Some(path) => Err(invalid(format!(
            "{} exists, but the folder has no manifest.json: its scale factor is not known; name another folder",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// What the progress line shows.
const PROGRESS: &str = "{bar:40} {pos}/{len} parts, {msg}, {elapsed} (eta {eta})";

/// A bar of parts of tables on standard error; it draws on a terminal only.
fn progress_bar(parts: u64) -> ProgressBar {
    // The template is constant, and checked by a test.
    let style = ProgressStyle::with_template(PROGRESS).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(parts).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Table;
    use crate::tpch::Tpch;

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
        generate(&Tpch, dir.path(), 0.001).await.unwrap();
        std::fs::remove_file(Manifest::path(dir.path())).unwrap();
        ensure(&Tpch, dir.path(), 0.001).await.unwrap();
        let error = ensure(&Tpch, dir.path(), 0.01).await.unwrap_err().to_string();
        assert!(error.contains("orders.parquet has 1500 rows, which is not scale factor 0.01"), "{error}");
        std::fs::remove_file(Table::Region.path(dir.path())).unwrap();
        let error = ensure(&Tpch, dir.path(), 0.001).await.unwrap_err().to_string();
        assert!(error.contains("no manifest.json"), "{error}");
    }
}
