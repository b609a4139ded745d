//! `clients`: many clients at once on one session, queries a second and latency, both engines in turns.
//!
//! ```text
//! harness ─┬─ worker plain       warm-up ░░░░       ▓▓▓▓       ▓▓▓▓          each ▓: C clients, one session,
//!          └─ worker slipstream      ░░░░     ▓▓▓▓       ▓▓▓▓       …        one query after the other each
//! ```
//! Each engine lives in a process of its own, as in `run`: neither the allocator, nor a cache of the process, nor a
//! query that outlives its slice is shared, and an engine that dies or hangs does not take the other with it. While
//! one engine has its slice the other one waits for a line and costs nothing; turns give both the same machine. With
//! `--caches` the layer comes several times, with one cache or another (`caches.rs`).

mod caches;
mod load;
mod report;
mod samples;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use datafusion::error::Result;

use crate::engine::{self, Engine, EngineOptions};
use crate::error::cannot_write;
use crate::generate::{default_dir, ensure, parse_scale_factor};
use crate::queries::{QUERIES, Query};
use crate::run::machine::{Machine, Versions};
use crate::run::process::WorkerProcess;
use crate::run::{QueryList, SCRATCH_PREFIX, parse_queries, write_json};
use crate::tables::Table;
use crate::tpch::Tpch;
use caches::{CACHES, Contender, ENGINES};
use report::{CacheReport, EngineReport, Report, Settings};
use worker::Request;

/// Arguments of `clients`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the data: 1 is about 1 GB as text; fractions such as 0.01 are fine
    #[arg(short, long, value_name = "N", value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder of the data, generated when absent [default: tpch/data/sf{N}]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Clients at once; each sends its next query when the last one has ended
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Seconds of load on each engine
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Turns of each engine, among which its seconds are divided
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    slices: u16,
    /// Queries to run, as in 1,18 or 1-5 [default: all 22]
    #[arg(long, value_name = "LIST", value_parser = parse_queries)]
    queries: Option<QueryList>,
    #[command(flatten)]
    options: engine::EngineArgs,
    /// Seconds after which a query is given up and counted as a failure
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Also measure the layer with its caches: of plans, of answers, where they never hit, and while files change
    #[arg(long)]
    caches: bool,
    /// File for all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a worker may take beyond a slice and the deadline of its last queries: registering tables, sorting samples.
const GRACE: Duration = Duration::from_secs(60);

/// Runs `clients`.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let data = args.data.clone().unwrap_or_else(|| default_dir(args.scale_factor));
    let queries: Vec<&Query> = args.queries.clone().map_or_else(|| QUERIES.iter().collect(), |list| list.0);
    let mut options = args.options.clone().into_options();
    let mut report = prepare(&args, &queries, &options)?;
    ensure(&Tpch, &data, args.scale_factor).await?;
    // The workers are dropped, and so ended, before this folder is removed.
    let scratch = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir()?;
    options.spill_dir = Some(scratch.path().to_owned());

    println!("{}\n{}", report.title(), Report::header());
    let mut sides = vec![];
    let caches = CACHES.iter().filter(|_| args.caches);
    for contender in ENGINES.iter().chain(caches) {
        let mut command = Command::new(std::env::current_exe()?);
        let options = contender.options(&options);
        let data = match contender.queries_per_write {
            0 => data.clone(),
            // Files that change would change for the others, too.
            _ => copied(&data, scratch.path())?,
        };
        command.args(worker::Args::to_command_line(contender, &args, &data, &queries, &options));
        command.envs(options.allocator_environment());
        sides.push(Side::start(contender, command, &report.settings).await?);
    }
    for query in &queries {
        for side in &mut sides {
            side.ask(&Request::WarmUp { query: query.number }).await;
        }
    }
    let seconds = f64::from(args.seconds) / f64::from(args.slices);
    for slice in 0..args.slices {
        for side in &mut sides {
            side.run(seconds, slice).await;
        }
    }
    for (place, side) in sides.into_iter().enumerate() {
        println!("{}", Report::line(side.name, &side.report));
        match place {
            0 => report.plain = side.report,
            1 => report.slipstream = side.report,
            _ => {
                let Side { name, report: figures, baseline, .. } = side;
                report.caches.push(CacheReport { name, figures, ratio: None, baseline });
            }
        }
    }
    report.summarize();
    println!("\n{}", report.footer());
    if let Some(path) = &args.json {
        write_json(&report, path)?;
    }
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A copy of the tables in `data`, below `scratch`.
fn copied(data: &Path, scratch: &Path) -> Result<PathBuf> {
    let copy = scratch.join("data");
    std::fs::create_dir(&copy)?;
    for table in Table::ALL {
        std::fs::copy(table.path(data), table.path(&copy))?;
    }
    Ok(copy)
}

/// Checks the options before any work is done, and begins the report.
fn prepare(args: &Args, queries: &[&Query], options: &EngineOptions) -> Result<Report> {
    let mut target_partitions = 0;
    for engine in [Engine::Plain, Engine::Slipstream] {
        target_partitions = engine::context(engine, options)?.copied_config().target_partitions();
    }
    if let Some(path) = &args.json {
        std::fs::File::create(path).map_err(|e| cannot_write(path, &e))?;
    }
    Ok(Report {
        machine: Machine::current(),
        versions: Versions::current(&Tpch),
        settings: Settings {
            scale_factor: args.scale_factor,
            clients: args.clients,
            seconds: args.seconds,
            slices: args.slices,
            timeout_seconds: args.timeout,
            queries: queries.iter().map(|q| q.number).collect(),
            memory_limit_bytes: options.memory_limit_bytes,
            target_partitions,
            set: options.settings.clone(),
        },
        plain: EngineReport::default(),
        slipstream: EngineReport::default(),
        ratio: None,
        caches: Vec::new(),
    })
}

/// One engine's worker and its figures so far.
struct Side {
    name: &'static str,
    /// Gone once it has died or hung.
    worker: Option<WorkerProcess<EngineReport>>,
    report: EngineReport,
    /// The same worker without its cache, where that is compared.
    baseline: Option<EngineReport>,
}

impl Side {
    /// Starts the engine's worker.
    async fn start(contender: &Contender, mut command: Command, settings: &Settings) -> Result<Self> {
        let slice = Duration::from_secs(u64::from(settings.seconds / u32::from(settings.slices)) + 1);
        let timeout = slice + Duration::from_secs(u64::from(settings.timeout_seconds)) + GRACE;
        let baseline = contender.cold.map(|_| EngineReport::default());
        let mut side = Self { name: contender.name, worker: None, report: EngineReport::default(), baseline };
        match WorkerProcess::spawn(&mut command, timeout).await? {
            Ok(worker) => side.worker = Some(worker),
            Err(message) => side.report.count_failure(message),
        }
        Ok(side)
    }

    /// One slice, or two where there is a baseline, which goes first every other time.
    async fn run(&mut self, seconds: f64, slice: u16) {
        let mut requests = vec![Request::Slice { seconds }];
        if self.baseline.is_some() {
            requests.insert(usize::from(slice % 2), Request::Baseline { seconds });
        }
        for request in requests {
            self.ask(&request).await;
        }
    }

    /// Sends a request; the reply has the figures of all slices so far. A lost worker is a failure, and final.
    async fn ask(&mut self, request: &Request) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        match worker.run(request).await {
            Ok(report) => match request {
                Request::Baseline { .. } => self.baseline = Some(report),
                Request::WarmUp { .. } | Request::Slice { .. } => self.report = report,
            },
            Err(message) => {
                self.report.count_failure(message);
                self.worker = None;
            }
        }
    }
}
