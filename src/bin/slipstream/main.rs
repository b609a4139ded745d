//! `slipstream`: an SQL shell on DataFusion, with the layer installed.
//!
//! The story of one run: the command line says what is wanted ([`args`]), a session is opened for it
//! ([`session`]), and statements are taken from a file, an argument, a pipe or the prompt ([`script`],
//! [`repl`]), each on the same road from text to printed rows ([`statement`], [`output`]).

#![forbid(unsafe_code)]

mod args;
mod command;
mod complete;
mod culprit;
mod interrupt;
mod location;
mod memory;
mod outcome;
mod output;
mod progress;
mod repl;
mod report;
mod script;
mod session;
mod split;
mod statement;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use datafusion::error::Result;

use crate::args::Args;
use crate::outcome::Outcome;
use crate::session::Shell;

/// The same allocator as datafusion-cli's, so that times and memory compare.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a cancelled query may take to let go of its files before the process ends without it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    report::end_quietly_when_stdout_closes();
    match start(args) {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => {
            report::error(&report::describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the shell on a runtime of its own, which is shut down within bounds: spill files are removed by
/// the tasks that hold them, and a task that does not end must not keep the user waiting.
fn start(args: Args) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(Box::pin(converse(args)));
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}

#[expect(
    clippy::future_not_send,
    reason = "the prompt's editor belongs to the main thread, which polls this"
)]
async fn converse(args: Args) -> Result<Outcome> {
    let mut shell = Shell::open(&args).await?;
    let startup = script::run_startup_files(&mut shell, &args).await;
    if startup.end().is_some() {
        return Ok(startup);
    }
    if args.is_interactive() {
        return repl::converse(&mut shell).await;
    }
    let work = if args.reads_statements_from_stdin() {
        script::run_stdin(&mut shell).await
    } else {
        script::run_arguments(&mut shell, &args).await
    };
    Ok(startup.and(work))
}
