//! `slipstream-tpch`: TPC-H and conformance, the layer always beside the plain engine.

mod cli;
mod clock;
mod compare;
mod corpus;
mod engine;
mod generate;
mod queries;
mod tables;

use std::process::ExitCode;

use clap::Parser;

/// Both engines run in this binary, hence with the same allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().command.run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {}", error.strip_backtrace());
            ExitCode::FAILURE
        }
    }
}
