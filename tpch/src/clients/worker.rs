//! `clients-worker` (hidden): one engine under load in a process of its own, driven by lines on standard input.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use serde::{Deserialize, Serialize};

use super::caches::Contender;
use super::load::{Load, Target, Writer};
use super::report::EngineReport;
use crate::engine::{self, Engine, EngineOptions};
use crate::queries::{self, Query};
use crate::run::protocol::{Reply, from_line};
use crate::run::worker::{failed, read_requests, reply};
use crate::run::{QueryList, parse_queries};

/// Arguments of `clients-worker`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    engine: Engine,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, value_parser = parse_queries)]
    queries: QueryList,
    #[arg(long)]
    clients: u16,
    /// Seconds for one query
    #[arg(long)]
    timeout: u32,
    /// Each query gets a text that was never asked
    #[arg(long)]
    new_texts: bool,
    /// The setting that is off in slices of the baseline
    #[arg(long)]
    switch: Option<String>,
    /// Queries after which a file changes; 0 for never
    #[arg(long, default_value_t = 0)]
    queries_per_write: u32,
    /// Folder of the harness for spill files
    #[arg(long)]
    scratch: PathBuf,
    #[command(flatten)]
    options: engine::EngineArgs,
}

impl Args {
    /// The command line that [`clap`] reads back as these arguments.
    pub(super) fn to_command_line(
        contender: &Contender,
        args: &super::Args,
        data: &Path,
        queries: &[&Query],
        options: &EngineOptions,
    ) -> Vec<OsString> {
        let numbers: Vec<String> = queries.iter().map(|q| q.number.to_string()).collect();
        let mut line: Vec<OsString> = vec![
            "clients-worker".into(),
            format!("--engine={}", contender.engine).into(),
            format!("--queries-per-write={}", contender.queries_per_write).into(),
            format!("--queries={}", numbers.join(",")).into(),
            format!("--clients={}", args.clients).into(),
            format!("--timeout={}", args.timeout).into(),
            "--data".into(),
            data.into(),
            "--scratch".into(),
            options.spill_dir.clone().unwrap_or_else(std::env::temp_dir).into(),
        ];
        if let Some(cold) = contender.cold {
            line.push(format!("--switch={}", cold.switch).into());
            line.extend(cold.new_texts.then(|| "--new-texts".into()));
        }
        line.extend(options.to_command_line());
        line
    }
}

/// What the harness asks for; each reply has the figures of all slices so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Run one query, untimed.
    WarmUp {
        /// Its number.
        query: u8,
    },
    /// Let all clients run for a while.
    Slice {
        /// How long.
        seconds: f64,
    },
    /// The same without the cache, on figures of its own.
    Baseline {
        /// How long.
        seconds: f64,
    },
}

/// Serves requests until standard input ends.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut requests = read_requests(args.scratch.clone());
    let target = match prepare(&args).await {
        Ok(target) => Arc::new(target),
        Err(e) => {
            reply::<EngineReport>(&failed(&e))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    reply::<EngineReport>(&Reply::Ready)?;
    let load = || Load::new(Arc::clone(&target), usize::from(args.clients));
    let (mut load, mut baseline) = (load(), load());
    while let Some(line) = requests.recv().await {
        let done = match from_line(&line).map_err(DataFusionError::Execution)? {
            Request::WarmUp { query } => match queries::query(query) {
                Some(query) => Ok(load.warm_up(query).await),
                None => Err(DataFusionError::Configuration(format!("there is no query {query}"))),
            },
            Request::Slice { seconds } => load.slice(Duration::from_secs_f64(seconds)).await,
            Request::Baseline { seconds } => {
                switch(&target, &args, "false")?;
                let done = baseline.slice(Duration::from_secs_f64(seconds)).await;
                switch(&target, &args, "true")?;
                done
            }
        };
        match done {
            Ok(report) => reply(&Reply::Done(report))?,
            Err(e) => reply::<EngineReport>(&failed(&e))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the one session and registers the tables.
async fn prepare(args: &Args) -> Result<Target> {
    let mut options = args.options.clone().into_options();
    options.spill_dir = Some(args.scratch.clone());
    let ctx = engine::context(args.engine, &options)?;
    engine::register_tables(&ctx, &args.data).await?;
    let timeout = Duration::from_secs(u64::from(args.timeout));
    let writer = Writer::new(&args.data, args.queries_per_write);
    let texts = args.new_texts.then(AtomicU64::default);
    Ok(Target { engine: args.engine, ctx, queries: args.queries.0.clone(), timeout, texts, writer })
}

/// Switches what the worker compares.
fn switch(target: &Target, args: &Args, value: &str) -> Result<()> {
    args.switch.iter().try_for_each(|setting| engine::set(&target.ctx, setting, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Clients {
        #[command(flatten)]
        args: super::super::Args,
    }

    #[derive(Debug, Parser)]
    struct Worker {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<super::super::Args, clap::Error> {
        Clients::try_parse_from(format!("clients {line}").split(' ')).map(|c| c.args)
    }

    /// A worker gets what the user asked for.
    #[test]
    fn worker_reads_its_command_line() {
        let args = parse("-s 0.01 --clients 3 --seconds 5 --queries 2,5-6 --memory-limit 64MB").unwrap();
        assert_eq!((args.slices, args.timeout), (4, 60));
        let mut options = args.options.clone().into_options();
        options.spill_dir = Some("/tmp/scratch".into());
        let queries = args.queries.clone().unwrap().0;
        let line = Args::to_command_line(
            &super::super::caches::ENGINES[1],
            &args,
            Path::new("a b"),
            &queries,
            &options,
        );
        let worker = Worker::try_parse_from(line).unwrap().args;
        assert_eq!((worker.engine, worker.clients, worker.timeout), (Engine::Slipstream, 3, 60));
        assert_eq!(worker.queries.0.iter().map(|q| q.number).collect::<Vec<_>>(), [2, 5, 6]);
        assert_eq!((worker.data, worker.scratch), ("a b".into(), "/tmp/scratch".into()));
        assert_eq!(worker.options.into_options().memory_limit_bytes, Some(64 << 20));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "-s 0.01 --clients 0 --seconds 1",
            "-s 0.01 --clients 2 --seconds 0",
            "-s 0.01 --clients 2",
            "-s 0.01 --clients 2 --seconds 1 --slices 0",
            "-s 0.01 --clients 2 --seconds 1 --timeout 0",
            "-s 0.01 --clients 2 --seconds 1 --queries 23",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
