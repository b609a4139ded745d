//! Runs DataFusion's published sqllogictest corpus on the plain engine and on the layer, record by record.
//!
//! Each engine is a process of its own in a scratch tree of its own; the parent aligns what they stream back.
//! A record has the same outcome in both, rows or error. Plan pictures may show different plans, so they are
//! compared by the rows of the query that they explain. What differs although it may is listed with its reason
//! in `exceptions.txt`; what the plain engine itself does not answer twice alike is found by running it again.

mod outcome;

mod locate;
mod tree;

mod explain;
mod recorder;
mod worker;

mod process;

mod compare;
mod exceptions;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use datafusion::common::exec_datafusion_err;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::utils::get_available_parallelism;
use datafusion::error::Result;
use serde::{Deserialize, Serialize};

pub(crate) use worker::{WorkerArgs, run_worker};

use compare::{Difference, Verdict, compare, only_adds_own_rows, verdict};
use exceptions::{Exception, Exceptions};
use locate::{files, locate};
use process::{Engine, EngineRun, Pace, start};
use report::Judgement;
use tree::Tree;

/// What `--warm` switches on.
const CACHES: &[&str] = &["enabled", "subplans", "file_aggregates", "broader", "plans"];

/// As many records of a file come from the caches, on average, where they are warm. It is about a quarter of all records.
const LEAST_WARM: usize = 5;

/// How often the plain engine is run again on files that differ, to see whether it agrees with itself.
const RERUNS: usize = 4;

/// The two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum WorkerEngine {
    /// DataFusion as it is.
    Plain,
    /// DataFusion with the layer installed.
    Slipstream,
}

/// The two doors of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Entry {
    /// `SessionContext::sql`, which an embedder already calls.
    Sql,
    /// `SlipstreamContextExt::query`, which also reads hints and writes the query log.
    Query,
}

/// Which doors of the layer a comparison tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EntryChoice {
    /// Only `ctx.sql`.
    Sql,
    /// Only `ctx.query`.
    Query,
    /// Each in a process of its own.
    Both,
}

/// Arguments of `corpus`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only files whose path contains this; may be repeated
    #[arg(long, value_name = "SUBSTR")]
    filter: Vec<String>,
    /// The corpus: the folder of the crate datafusion-sqllogictest (default: where cargo resolved it)
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Data files that the crate does not ship: `testing/`, `parquet-testing/`, `core/`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Files that each engine runs at once (default: the number of cores)
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// By which door statements enter the layer
    #[arg(long, value_enum, default_value = "both")]
    entry: EntryChoice,
    /// A setting made on the layer before each file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Switch all caches on, ask what they keep until it comes from there, and compare that
    #[arg(long)]
    warm: bool,
    /// How long one statement may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit_seconds: u64,
    /// Show every difference in full, and the files that are not as the corpus expects
    #[arg(long)]
    verbose: bool,
}

/// Runs the comparison; fails when any record differs or an exception is stale.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    // Owned here, and not by the task: when the command is interrupted this is dropped, and the folder removed.
    let scratch = tempfile::tempdir()?;
    let trees = scratch.path().to_path_buf();
    // Waiting for processes blocks, and Ctrl-C must still be heard.
    SpawnedTask::spawn_blocking(move || compare_engines(&args, &trees))
        .join()
        .await
        .map_err(|e| exec_datafusion_err!("the comparison did not end: {e}"))?
}

/// Runs the engines one after another, each in a folder of its own below `scratch`, and reports.
fn compare_engines(args: &Args, scratch: &Path) -> Result<ExitCode> {
    let corpus = locate(args.corpus.as_deref(), args.data.as_deref())?;
    let files = files(&corpus, &args.filter)?;
    let exceptions = Exceptions::read()?;
    let pace = Pace {
        jobs: args.jobs.unwrap_or_else(get_available_parallelism),
        limit: Duration::from_secs(args.limit_seconds),
    };
    println!(
        "datafusion-sqllogictest {}: {} files, data files: {}\n",
        corpus.version,
        files.len(),
        corpus.data.as_ref().map_or_else(|| "none".to_owned(), |data| data.display().to_string())
    );
    let mut trees = 0..;
    let mut run_engine = |engine: &Engine, files: &[PathBuf]| -> Result<EngineRun> {
        // Numbers, and not names, keep all roots equally long: some outputs are as wide as their paths.
        let root = scratch.join(format!("{:03}", trees.next().unwrap_or_default()));
        let tree = Tree::create(root, &corpus)?;
        start(engine, &tree, &corpus, files, pace)?.finish()
    };
    let plain_engine = Engine::plain();
    let plain = run_engine(&plain_engine, &files)?;
    let layers =
        Engine::layers(args).iter().map(|engine| run_engine(engine, &files)).collect::<Result<Vec<_>>>()?;
    report::engines(&std::iter::once(&plain).chain(&layers).collect::<Vec<_>>());
    if args.verbose {
        print_unexpected(&plain);
    }

    let mut judgements: Vec<Judgement<'_>> =
        layers.iter().map(|layer| judge(&plain, layer, &exceptions)).collect();
    separate_unstable(&mut judgements, &plain, |files| run_engine(&plain_engine, files))?;
    report::judgements(&judgements, args.verbose);
    let cold = layers.iter().filter(|run| args.warm && run.cached_records() < LEAST_WARM * run.files.len());
    let cold =
        cold.inspect(|run| println!("{}: {} records from the caches", run.engine.name, run.cached_records()));
    // A comparison of answers that are computed anew would say nothing of the caches.
    if cold.count() > 0 {
        println!("that is fewer than {LEAST_WARM} in a file: the caches keep hardly anything");
        return Ok(ExitCode::FAILURE);
    }
    Ok(conclude(&judgements, &exceptions))
}

impl Engine {
    fn plain() -> Self {
        let engine = WorkerEngine::Plain;
        Self { name: "plain".to_owned(), engine, entry: Entry::Sql, settings: vec![], warm: false }
    }

    fn layers(args: &Args) -> Vec<Self> {
        let entries: &[(Entry, &str)] = match args.entry {
            EntryChoice::Sql => &[(Entry::Sql, "slipstream sql")],
            EntryChoice::Query => &[(Entry::Query, "slipstream query")],
            EntryChoice::Both => &[(Entry::Sql, "slipstream sql"), (Entry::Query, "slipstream query")],
        };
        let engine = WorkerEngine::Slipstream;
        let caches =
            CACHES.iter().filter(|_| args.warm).map(|switch| format!("slipstream.cache.{switch}=true"));
        let settings: Vec<String> = caches.chain(args.settings.iter().cloned()).collect();
        entries
            .iter()
            .map(|(entry, name)| Self {
                name: (*name).to_owned(),
                engine,
                entry: *entry,
                settings: settings.clone(),
                warm: args.warm,
            })
            .collect()
    }
}

/// Compares one engine with the plain one and sets aside what the list excepts.
fn judge<'a>(plain: &EngineRun, layer: &'a EngineRun, exceptions: &Exceptions) -> Judgement<'a> {
    let mut comparison = compare(plain, layer);
    let (mut different, mut excepted, mut unstable) = (vec![], vec![], vec![]);
    for difference in std::mem::take(&mut comparison.different) {
        match exceptions.get(&difference.location) {
            Some(Exception::Differs(reason)) => excepted.push((difference.location, reason.clone())),
            Some(Exception::Adds(reason)) if only_adds_own_rows(&difference) => {
                excepted.push((difference.location, reason.clone()));
            }
            Some(Exception::Unstable(_)) => unstable.push(difference),
            Some(Exception::Adds(_)) | None => different.push(difference),
        }
    }
    Judgement { run: layer, comparison, different, excepted, unstable }
}

/// Runs the plain engine again on the files with differences, and sets aside the records on which it varies.
///
/// This finds `random()`, timings and most races without a list of them, and cannot hide a difference in a record that
/// the plain engine answers alike every time. Races too rare to show in a few runs are marked in `exceptions.txt`.
fn separate_unstable(
    judgements: &mut [Judgement<'_>],
    plain: &EngineRun,
    mut rerun: impl FnMut(&[PathBuf]) -> Result<EngineRun>,
) -> Result<()> {
    for _ in 0..RERUNS {
        let suspects: BTreeSet<PathBuf> = judgements
            .iter()
            .flat_map(|judgement| &judgement.different)
            .filter_map(|difference| difference.plain.as_ref().map(|record| PathBuf::from(&record.file)))
            .collect();
        if suspects.is_empty() {
            return Ok(());
        }
        let again = rerun(&suspects.into_iter().collect::<Vec<_>>())?;
        let varies = |difference: &Difference| {
            let Some(record) = &difference.plain else { return false };
            let of = |run: &EngineRun| run.files.get(&record.file)?.records.get(&record.index).cloned();
            match (of(plain), of(&again)) {
                (Some(first), Some(second)) => verdict(&first, &second) == Verdict::Different,
                (first, second) => first != second,
            }
        };
        for judgement in &mut *judgements {
            let (unstable, different) =
                std::mem::take(&mut judgement.different).into_iter().partition(varies);
            judgement.different = different;
            judgement.unstable.extend::<Vec<_>>(unstable);
        }
    }
    Ok(())
}

fn print_unexpected(plain: &EngineRun) {
    println!("files that are not as the corpus expects on the plain engine:");
    for (name, file) in plain.files.iter().filter(|(_, file)| !file.as_expected) {
        let first = file.records.values().find(|record| !record.as_expected);
        match (&file.not_run, first) {
            (Some(reason), _) => println!("  {name}: {}", reason.lines().next().unwrap_or_default()),
            (None, Some(record)) => println!("  {name}: first at {}", record.location),
            (None, None) => println!("  {name}: settings left changed"),
        }
    }
    println!();
}

/// Prints the verdict and turns it into the exit code.
fn conclude(judgements: &[Judgement<'_>], exceptions: &Exceptions) -> ExitCode {
    let differences: usize = judgements.iter().map(|judgement| judgement.different.len()).sum();
    let mut compared = BTreeMap::new();
    for judgement in judgements {
        for location in &judgement.comparison.compared {
            let excepted = judgement.excepted.iter().any(|(excepted, _)| excepted == location);
            // One that differs in another way than the list says is already reported as different.
            let differs = excepted || judgement.different.iter().any(|other| other.location == *location);
            *compared.entry(location.as_str()).or_insert(false) |= differs;
        }
    }
    let stale = exceptions.stale(&compared);
    for location in &stale {
        println!("STALE exception: {location} no longer differs, take it off exceptions.txt");
    }
    if differences > 0 || !stale.is_empty() {
        println!("{differences} records differ from the plain engine, {} exceptions are stale", stale.len());
        return ExitCode::FAILURE;
    }
    println!("every record has the plain engine's outcome");
    ExitCode::SUCCESS
}
