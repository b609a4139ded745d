//! `peers`: where DuckDB and Polars stand on the same 22 queries and the same Parquet files.
//!
//! Each engine and query has a Python process of its own, which runs `tpch/peers/run.py` and answers by the line
//! protocol of `run`'s workers. Our own times come from a file that `run --json` wrote, since they take a release
//! build and a machine at rest, as the peers' do.

mod ours;
mod python;
mod report;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use datafusion::error::Result;

use crate::error::cannot_write;
use crate::generate::{default_dir, ensure, parse_scale_factor};
use crate::queries::{QUERIES, Query};
use crate::run::machine::Machine;
use crate::run::{QueryList, SCRATCH_PREFIX, parse_queries, write_json};
use crate::sizes::parse_bytes;
use crate::tpch::Tpch;
use ours::Ours;
use python::{Job, Python};
use report::{Peer, QueryReport, Report, Settings};

/// Arguments of `peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the data: 1 is about 1 GB as text; fractions such as 0.01 are fine
    #[arg(short, long, value_name = "N", value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder of the data, generated when absent [default: tpch/data/sf{N}]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Queries to run, as in 1,18 or 1-5 [default: all 22]
    #[arg(long, value_name = "LIST", value_parser = parse_queries)]
    queries: Option<QueryList>,
    /// Timed runs of each query on each engine, after one to warm up
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    iterations: u16,
    /// Threads of each engine
    #[arg(long, value_name = "T", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Memory limit of DuckDB, such as 128MB; Polars has none [default: DuckDB's own]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
    /// Our own figures, a file written by `run --json`
    #[arg(long, value_name = "FILE")]
    ours: Option<PathBuf>,
    /// Python interpreter that has the packages of tpch/peers/requirements.txt
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Seconds after which one run of a query is given up
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// File for all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs `peers`; a peer that fails is a figure like any other, and no failure of this program.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let data = args.data.clone().unwrap_or_else(|| default_dir(args.scale_factor));
    let queries: Vec<&Query> = args.queries.clone().map_or_else(|| QUERIES.iter().collect(), |list| list.0);
    // What can be wrong is found before any data is generated.
    let ours = args.ours.as_deref().map(|path| Ours::load(path, args.scale_factor)).transpose()?;
    let python = Python::find(&args.python)?;
    if let Some(path) = &args.json {
        std::fs::File::create(path).map_err(|e| cannot_write(path, &e))?;
    }
    ensure(&Tpch, &data, args.scale_factor).await?;
    // The processes are dropped, and so ended, before this folder is removed.
    let scratch = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir()?;
    let mut report = Report {
        machine: Machine::current(),
        versions: python.versions.clone(),
        settings: Settings {
            scale_factor: args.scale_factor,
            iterations: usize::from(args.iterations),
            threads: args.threads,
            duckdb_memory_limit_bytes: args.memory_limit,
        },
        queries: vec![],
        ratios: vec![],
    };

    println!("{}\n{}", table::title(&report, ours.as_ref()), table::header(ours.is_some()));
    for query in queries {
        let mut result = QueryReport::new(query.number, ours.as_ref());
        for peer in Peer::value_variants() {
            let job = Job {
                peer: *peer,
                query,
                data: &data,
                threads: args.threads,
                memory_limit_bytes: args.memory_limit,
                scratch: scratch.path(),
                iterations: args.iterations,
                timeout: Duration::from_secs(args.timeout),
            };
            result.set(*peer, python.measure(&job).await?);
        }
        println!("{}", table::line(&result, ours.is_some()));
        report.queries.push(result);
    }
    report.summarize();
    println!("\n{}", table::footer(&report, ours.is_some()));
    if let Some(path) = &args.json {
        write_json(&report, path)?;
    }
    Ok(ExitCode::SUCCESS)
}
