//! `slipstream-tpch`: TPC-H, a star schema and conformance, the layer always beside the plain engine.

#![forbid(unsafe_code)]

mod cargo;
mod cli;
mod clients;
mod clock;
mod compare;
mod corpus;
mod engine;
mod error;
mod generate;
mod peers;
mod queries;
mod run;
mod sizes;
mod star;
mod tables;
mod tpch;
mod verify;
mod workload;

use std::process::ExitCode;

use clap::Parser;

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    let result = tokio::select! {
        result = command.run() => Some(result),
        _ = tokio::signal::ctrl_c() => None,
    };
    match result {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            eprintln!("Error: {}", error::message(&error));
            ExitCode::FAILURE
        }
        None => {
            // The command is dropped: workers are ended, temporary files removed. Returning would wait for threads.
            eprintln!("interrupted");
            std::process::exit(INTERRUPTED)
        }
    }
}
