//! The command line: one variant a subcommand, whose arguments and code live in the module of its name.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use datafusion::error::Result;

/// TPC-H and a star schema with Slipstream and with plain DataFusion, side by side
#[derive(Debug, Parser)]
#[command(name = "slipstream-tpch", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands; each is run by the module of its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the tables of a workload
    Generate(crate::generate::Args),
    /// Run the queries on both engines, compare rows, times and memory
    Run(crate::run::Args),
    /// Compare the answers of both engines with published ones or DuckDB's
    Verify(crate::verify::Args),
    /// Count the queries a second of many clients, and how late the slow ones are, on both engines
    Clients(crate::clients::Args),
    /// One engine of `clients`, in a process of its own
    #[command(hide = true)]
    ClientsWorker(crate::clients::worker::Args),
    /// Run the same queries on the same files with DuckDB and Polars
    Peers(crate::peers::Args),
    /// Print a query
    Query(crate::queries::Args),
    /// One engine and one query in a process of its own; started by `run`
    #[command(hide = true)]
    Worker(crate::run::worker::Args),
    /// Run DataFusion's own sqllogictest corpus on both engines and compare every record
    Corpus(crate::corpus::Args),
    /// One engine of `corpus`, in a process of its own
    #[command(hide = true)]
    CorpusWorker(crate::corpus::WorkerArgs),
}

impl Command {
    /// Runs the subcommand; an error is printed by `main` and means exit code 1.
    pub(crate) async fn run(self) -> Result<ExitCode> {
        match self {
            Self::Generate(args) => crate::generate::run(args).await,
            Self::Run(args) => crate::run::run(args).await,
            Self::Verify(args) => crate::verify::run(args).await,
            Self::Worker(args) => crate::run::worker::run(args).await,
            Self::Clients(args) => crate::clients::run(args).await,
            Self::ClientsWorker(args) => crate::clients::worker::run(args).await,
            Self::Peers(args) => crate::peers::run(args).await,
            Self::Query(args) => crate::queries::run(&args),
            Self::Corpus(args) => crate::corpus::run(args).await,
            Self::CorpusWorker(args) => crate::corpus::run_worker(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// What clap checks when a debug build parses: names that clash, defaults that do not parse.
    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
