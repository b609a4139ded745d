//! The child process: runs corpus files on one engine in the current folder, one JSON line for each event.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use datafusion_sqllogictest::{
    DFColumnType, TestContext, df_value_validator, is_spark_path, setup_scratch_dir, value_normalizer,
};
use futures::{FutureExt, StreamExt};
use sqllogictest::{Control, QueryExpect, Record, Runner, SortMode, parse_file, strict_column_validator};

use super::outcome::{Event, RecordRun, Sort};
use super::recorder::{Recorder, Slot, panic_text};
use super::{Entry, WorkerEngine};

/// Development builds overflow tokio's default of 2 MiB on the deeply nested statements of the corpus.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// The label under which the corpus knows DataFusion in `onlyif` and `skipif`.
const LABEL: &str = "Datafusion";

/// What the parent asks of one worker; the files come over standard input, one on each line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WorkerArgs {
    /// The engine to run
    #[arg(long, value_enum)]
    pub(super) engine: WorkerEngine,
    /// The door by which statements enter
    #[arg(long, value_enum)]
    pub(super) entry: Entry,
    /// The folder that holds `test_files`
    #[arg(long)]
    pub(super) corpus: PathBuf,
    /// The scratch tree whose path is taken out of every outcome
    #[arg(long)]
    pub(super) root: String,
    /// How many files run at once
    #[arg(long)]
    pub(super) jobs: usize,
    /// How long one statement may take
    #[arg(long)]
    pub(super) limit_seconds: u64,
    /// Whether what the caches keep is asked until it comes from there
    #[arg(long)]
    pub(super) warm: bool,
    /// A setting, made in each session before the file runs
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
}

/// Runs the files named on standard input.
pub(crate) async fn run_worker(args: WorkerArgs) -> Result<ExitCode> {
    // Panics of statements are outcomes, and reported as such; their default print would only repeat them.
    std::panic::set_hook(Box::new(|_| {}));
    // A runtime of its own for its stack, hence on a thread that is not the caller's runtime's.
    let worker = SpawnedTask::spawn_blocking(move || {
        let files = std::io::stdin()
            .lock()
            .lines()
            .map(|line| Ok(PathBuf::from(line?)))
            .collect::<Result<Vec<_>>>()?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_stack_size(STACK_BYTES)
            .build()?
            .block_on(run_files(Arc::new(args), files))
    });
    worker.join().await.map_err(|e| exec_datafusion_err!("the worker failed: {e}"))??;
    Ok(ExitCode::SUCCESS)
}

async fn run_files(args: Arc<WorkerArgs>, files: Vec<PathBuf>) -> Result<()> {
    // Scratch folders are named by the stem alone, so two files of one stem must not run at once.
    let mut groups: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
    let mut group_of_stem = HashMap::new();
    for (position, file) in files.into_iter().enumerate() {
        let group = *group_of_stem.entry(file.file_stem().map(ToOwned::to_owned)).or_insert(position);
        groups.entry(group).or_default().push(file);
    }
    let jobs = args.jobs.max(1);
    let mut done = futures::stream::iter(groups.into_values())
        .map(|group| {
            let args = Arc::clone(&args);
            SpawnedTask::spawn(async move {
                for file in group {
                    run_one(&args, &file).await?;
                }
                Result::<()>::Ok(())
            })
            .join()
        })
        .buffer_unordered(jobs);
    while let Some(joined) = done.next().await {
        joined.map_err(|e| exec_datafusion_err!("a corpus file's task failed: {e}"))??;
    }
    Ok(())
}

async fn run_one(args: &WorkerArgs, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    emit(&Event::Started { file: name.clone() })?;
    let run = AssertUnwindSafe(run_records(args, file)).catch_unwind().await;
    let (not_run, as_expected) = match run {
        Ok(Ok(as_expected)) => (None, as_expected),
        Ok(Err(error)) => (Some(error.to_string()), false),
        // The context for the file's tables panics when their data is missing.
        Err(payload) => (Some(format!("the file's context panicked: {}", panic_text(&*payload))), false),
    };
    let records_not_run = match &not_run {
        Some(_) => parse_file::<DFColumnType>(args.corpus.join("test_files").join(file))
            .map_or(0, |records| records.iter().filter(|record| is_counted(record)).count()),
        None => 0,
    };
    emit(&Event::Finished { file: name, not_run, records_not_run, as_expected })
}

/// Runs all records of one file; tells whether everything was as the file expects.
async fn run_records(args: &WorkerArgs, file: &Path) -> Result<bool> {
    let Some(test) = TestContext::try_new_for_test_file(file).await else {
        return exec_err!("needs a cargo feature that is not enabled here");
    };
    let ctx = test.session_ctx();
    let slipstream = Slipstream::default();
    if args.engine == WorkerEngine::Slipstream {
        ctx.install_slipstream(slipstream.clone())?;
    }
    for setting in &args.settings {
        apply(ctx, setting).await?;
    }
    setup_scratch_dir(file)?;
    let records = parse_file::<DFColumnType>(args.corpus.join("test_files").join(file))
        .map_err(|e| exec_datafusion_err!("{e}"))?;
    let slot = Slot::default();
    let mut runner = Runner::new(|| {
        let recorder = Recorder {
            ctx: ctx.clone(),
            entry: args.entry,
            spark: is_spark_path(file),
            root: args.root.clone(),
            limit: Duration::from_secs(args.limit_seconds),
            warm: args.warm.then(|| slipstream.clone()),
            slot: Arc::clone(&slot),
        };
        async move { Ok(recorder) }
    });
    runner.add_label(LABEL);
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(value_normalizer);
    runner.with_validator(df_value_validator);

    let settings_before = settings(ctx);
    let prefix = format!("{}/", args.corpus.join("test_files").display());
    let mut sort_mode = None;
    let mut all_as_expected = true;
    for (index, record) in records.into_iter().enumerate() {
        match &record {
            Record::Halt { .. } => break,
            Record::Control(Control::SortMode(mode)) => sort_mode = Some(*mode),
            _ => {}
        }
        let described = describe(&record, sort_mode, &prefix);
        let as_expected = runner.run_async(record).await.is_ok();
        all_as_expected &= as_expected;
        if let Some((location, sql, sort)) = described {
            let observed = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (outcome, picture, ordered, from_cache) = match observed {
                Some(seen) => (Some(seen.outcome), seen.picture, seen.ordered, seen.from_cache),
                None => (None, None, true, false),
            };
            emit(&Event::Record(RecordRun {
                file: file.display().to_string(),
                index,
                location,
                sql,
                sort,
                ordered,
                picture,
                outcome,
                as_expected,
                from_cache,
            }))?;
        }
    }
    // The corpus asks each file to leave the settings as it found them.
    Ok(all_as_expected && settings(ctx) == settings_before)
}

async fn apply(ctx: &SessionContext, setting: &str) -> Result<()> {
    let (key, value) =
        setting.split_once('=').ok_or_else(|| exec_datafusion_err!("--set {setting}: expected KEY=VALUE"))?;
    ctx.sql(&format!("SET {key} = '{}'", value.replace('\'', "''"))).await?.collect().await?;
    Ok(())
}

fn settings(ctx: &SessionContext) -> BTreeMap<String, Option<String>> {
    let state = ctx.state();
    state.config().options().entries().into_iter().map(|entry| (entry.key, entry.value)).collect()
}

fn is_counted(record: &Record<DFColumnType>) -> bool {
    matches!(record, Record::Statement { .. } | Record::Query { .. } | Record::Let { .. })
}

/// Where a statement stands, its text, and how the file compares its rows.
fn describe(
    record: &Record<DFColumnType>,
    control: Option<SortMode>,
    prefix: &str,
) -> Option<(String, String, Sort)> {
    let (loc, sql, mode) = match record {
        Record::Statement { loc, sql, .. } | Record::Let { loc, sql, .. } => (loc, sql, None),
        Record::Query { loc, sql, expected: QueryExpect::Results { sort_mode, .. }, .. } => {
            (loc, sql, sort_mode.or(control))
        }
        Record::Query { loc, sql, .. } => (loc, sql, None),
        _ => return None,
    };
    let sort = match mode {
        None | Some(SortMode::NoSort) => Sort::None,
        Some(SortMode::RowSort) => Sort::Rows,
        Some(SortMode::ValueSort) => Sort::Values,
    };
    let location = loc.to_string().replace(prefix, "").replace("\nat ", " included at ");
    Some((location, sql.clone(), sort))
}

/// Writes one event; the stream's lock keeps the lines of files that run at once apart.
fn emit(event: &Event) -> Result<()> {
    let line =
        serde_json::to_string(event).map_err(|e| exec_datafusion_err!("cannot write an event: {e}"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
