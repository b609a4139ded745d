//! Harness (temporary main).
use clap::Parser;
mod corpus;
#[derive(Debug, Parser)]
enum Cmd {
    Corpus(corpus::CorpusArgs),
    #[command(hide = true)]
    CorpusWorker(corpus::CorpusWorkerArgs),
}
fn main() {
    let r = match Cmd::parse() {
        Cmd::Corpus(a) => corpus::run_corpus(&a),
        Cmd::CorpusWorker(a) => corpus::run_worker(a),
    };
    if let Err(e) = r {
        eprintln!("Error: {e}");
        std::process::exit(1)
    }
}
