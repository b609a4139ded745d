//! `run`: the queries on both engines, interleaved, each engine in a process of its own for each query.
//!
//! ```text
//! harness ─┬─ worker plain       Q1:  warm-up    1    2    3
//!          └─ worker slipstream  Q1:       warm-up  1    2    3      rows compared after each pair
//! ```
//! A process for each query and engine makes the peak of resident memory a figure of that query alone; running in
//! turns gives both engines the same weather.

pub(crate) mod machine;
mod measure;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod report;
mod table;
pub(crate) mod worker;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use serde::Serialize;

use crate::engine::{self, Engine};
use crate::error::{cannot_write, message};
use crate::generate::{ensure, parse_scale_factor};
use crate::queries::Query;
use crate::tpch::Tpch;
use crate::workload::{AnyWorkload, Workload, find_query, parse_workload};
use machine::{Machine, Versions};
use measure::Measurement;
use report::{Report, Settings};
use table::Table;

/// First part of the name of a query's folder for rows and spill files.
pub(crate) const SCRATCH_PREFIX: &str = "slipstream-tpch-";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose queries to run: tpch or star
    #[arg(long, value_name = "NAME", default_value = "tpch", value_parser = parse_workload)]
    workload: AnyWorkload,
    /// Size of the data: 1 is about 1 GB as text, or two million sales and plays; fractions such as 0.01 are fine
    #[arg(short, long, value_name = "N", value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder of the data, generated when absent [default: tpch/data/sf{N}, tpch/data/star-sf{N}]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Queries to run, as in 1,18 or 1-5 [default: all]
    #[arg(long, value_name = "LIST", value_parser = parse_numbers)]
    queries: Option<Numbers>,
    /// Timed runs of each query on each engine
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    iterations: u16,
    /// Engines to run
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "plain,slipstream")]
    engines: Vec<Engine>,
    #[command(flatten)]
    options: engine::EngineArgs,
    /// Seconds after which one run of a query is given up
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// File for all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Numbers of queries as the command line has them: ranges in any order.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(Vec<RangeInclusive<u8>>);

/// Parses `1,3-5`.
fn parse_numbers(text: &str) -> Result<Numbers, String> {
    let number = |text: &str| -> Result<u8, String> {
        text.trim().parse().map_err(|_| format!("\"{text}\" is not the number of a query"))
    };
    let mut ranges = vec![];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first)?..=number(last)?;
        if range.is_empty() {
            return Err(format!("\"{part}\" ends before it begins"));
        }
        ranges.push(range);
    }
    Ok(Numbers(ranges))
}

impl Numbers {
    /// The queries of a workload that have these numbers, in its order.
    fn of(&self, workload: &dyn Workload) -> Result<Vec<&'static Query>> {
        for range in &self.0 {
            find_query(workload, *range.start())?;
            find_query(workload, *range.end())?;
        }
        let wanted = |query: &&Query| self.0.iter().any(|range| range.contains(&query.number));
        Ok(workload.queries().iter().filter(wanted).collect())
    }
}

/// The TPC-H queries of a run, in their order.
#[derive(Debug, Clone)]
pub(crate) struct QueryList(pub(crate) Vec<&'static Query>);

/// Parses `1,3-5`, numbers of TPC-H queries.
pub(crate) fn parse_queries(text: &str) -> Result<QueryList, String> {
    parse_numbers(text)?.of(&Tpch).map(QueryList).map_err(|e| message(&e))
}

/// Runs `run`.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let workload = args.workload;
    let data = args.data.clone().unwrap_or_else(|| workload.default_dir(args.scale_factor));
    let queries = match &args.queries {
        Some(numbers) => numbers.of(workload)?,
        None => workload.queries().iter().collect(),
    };
    let mut report = prepare(&args)?;
    ensure(workload, &data, args.scale_factor).await?;
    let measurement = Measurement {
        workload,
        engines: report.settings.engines.clone(),
        iterations: report.settings.iterations,
        timeout: Duration::from_secs(args.timeout),
        data,
        options: args.options.into_options(),
    };

    let table = Table::new(&measurement.engines);
    println!("{}\n{}", Table::title(workload, &report), table.header());
    for query in queries {
        let result = measurement.query(query).await?;
        println!("{}", table.line(&result));
        report.queries.push(result);
    }
    report.summarize();
    println!("\n{}", table.footer(&report));
    if let Some(path) = &args.json {
        write_json(&report, path)?;
    }
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Checks the options before any work is done, and begins the report.
fn prepare(args: &Args) -> Result<Report> {
    let mut engines = args.engines.clone();
    engines.sort();
    engines.dedup();
    let options = args.options.clone().into_options();
    let mut target_partitions = 0;
    for engine in &engines {
        // A wrong setting is found here, and not by each of the workers.
        target_partitions = engine::context(*engine, &options)?.copied_config().target_partitions();
    }
    if let Some(path) = &args.json {
        // The same for a file that cannot be written.
        std::fs::File::create(path).map_err(|e| cannot_write(path, &e))?;
    }
    Ok(Report {
        machine: Machine::current(),
        versions: Versions::current(args.workload),
        settings: Settings {
            workload: args.workload.name(),
            scale_factor: args.scale_factor,
            iterations: usize::from(args.iterations),
            engines,
            memory_limit_bytes: options.memory_limit_bytes,
            target_partitions,
            set: options.settings,
        },
        queries: vec![],
        total_ratio: None,
        geomean_ratio: None,
        worst_ratio: None,
    })
}

/// Writes the report for other programs.
pub(crate) fn write_json(report: &impl Serialize, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|e| DataFusionError::External(Box::new(e)))?;
    std::fs::write(path, text + "\n").map_err(|e| cannot_write(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_lists() {
        let numbers = |text| parse_queries(text).map(|l| l.0.iter().map(|q| q.number).collect::<Vec<_>>());
        assert_eq!(numbers("18,1"), Ok(vec![1, 18]));
        assert_eq!(numbers("3-5, 22,4"), Ok(vec![3, 4, 5, 22]));
        for bad in ["", "0", "23", "1,", "a", "1-", "-1", "5-3"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
    }
}
