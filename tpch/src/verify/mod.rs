//! `verify`: the answers of both engines against somebody else's.
//!
//! At scale factor 0.1 these are the answers that DataFusion publishes, at any other one those of DuckDB. Without
//! DuckDB both engines are compared with each other.

mod duckdb;
mod matching;
mod published;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use datafusion::arrow::array::{RecordBatch, RecordBatchIterator};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_plan::common;
use datafusion::prelude::SessionContext;

use crate::compare::{ResultOrder, Verdict, compare};
use crate::engine::{self, Engine};
use crate::generate::{default_dir, ensure, parse_scale_factor};
use crate::queries::{QUERIES, Query};
use crate::tpch::Tpch;
use published::Published;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the data; 0.1 is compared with the published answers, any other with DuckDB's
    #[arg(short, long, value_name = "N", default_value_t = published::SCALE_FACTOR, value_parser = parse_scale_factor)]
    scale_factor: f64,
    /// Folder of the data, generated when absent [default: tpch/data/sf{N}]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the published answers [default: asks cargo for the crate datafusion-sqllogictest]
    #[arg(long, value_name = "DIR")]
    answers: Option<PathBuf>,
    /// Python interpreter that has the package duckdb
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    #[command(flatten)]
    options: engine::EngineArgs,
}

/// An engine's answer to a query.
#[derive(Debug)]
struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// Whose answers are right.
enum Reference {
    /// DataFusion's published ones, in this folder.
    Published(PathBuf),
    /// DuckDB's.
    Duckdb(duckdb::Answers),
    /// Nobody's: the layer's must be those of the plain engine.
    Plain,
}

/// Runs `verify`.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let data = args.data.clone().unwrap_or_else(|| default_dir(args.scale_factor));
    ensure(&Tpch, &data, args.scale_factor).await?;
    let reference = reference(&args, &data)?;
    println!("{}", reference.title(args.scale_factor));
    let options = args.options.into_options();
    let mut engines = vec![];
    for engine in [Engine::Plain, Engine::Slipstream] {
        let ctx = engine::context(engine, &options)?;
        engine::register_tables(&ctx, &data).await?;
        engines.push((engine, ctx));
    }
    let mut right = 0;
    for query in &QUERIES {
        let mut faults = vec![];
        let mut plain = None;
        for (engine, ctx) in &engines {
            let fault = match answer(*engine, ctx, query).await {
                Ok(answer) => {
                    let fault = reference.fault(query, &answer, plain.as_ref())?;
                    plain.get_or_insert(answer);
                    fault
                }
                Err(e) => Some(format!("failed: {}", e.strip_backtrace())),
            };
            faults.extend(fault.map(|fault| format!("{engine}: {fault}")));
        }
        right += usize::from(faults.is_empty());
        let verdict = if faults.is_empty() {
            "ok".to_owned()
        } else {
            format!("WRONG\n     {}", faults.join("\n     "))
        };
        println!("{:<4} {verdict}", format!("Q{}", query.number));
    }
    println!("\n{right} of {} on both engines", QUERIES.len());
    Ok(if right == QUERIES.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Chooses the reference, and says so when it is not there.
fn reference(args: &Args, data: &Path) -> Result<Reference> {
    if args.scale_factor.total_cmp(&published::SCALE_FACTOR).is_eq() {
        let folder = args.answers.clone().map_or_else(published::find_answers, Ok)?;
        return Ok(Reference::Published(folder));
    }
    Ok(match duckdb::ask(&args.python, data)? {
        Ok(answers) => Reference::Duckdb(answers),
        Err(reason) => {
            eprintln!("No answers of DuckDB: {reason}.");
            eprintln!("The engines are only compared with each other.");
            Reference::Plain
        }
    })
}

impl Reference {
    /// What the lines below it are about.
    fn title(&self, scale_factor: f64) -> String {
        let whose = match self {
            Self::Published(folder) => format!("the published answers in {}", folder.display()),
            Self::Duckdb(answers) => format!("the answers of DuckDB {}", answers.version),
            Self::Plain => "each other".to_owned(),
        };
        format!("TPC-H scale factor {scale_factor}, both engines against {whose}")
    }

    /// Compares an answer with the reference; the text shows the first difference.
    fn fault(&self, query: &Query, answer: &Answer, plain: Option<&Answer>) -> Result<Option<String>> {
        match self {
            Self::Published(folder) => Published::load(folder, query)?.difference(query, answer),
            Self::Duckdb(answers) => answers.difference(query, answer),
            // The first answer is the plain engine's own.
            Self::Plain => Ok(match plain {
                None => None,
                Some(plain) => {
                    match compare(plain.reader(), answer.reader(), &ResultOrder::of(query.sql)?)? {
                        Verdict::Same => None,
                        verdict @ Verdict::Different(_) => Some(verdict.to_string()),
                    }
                }
            }),
        }
    }
}

impl Answer {
    /// The answer as a stream of batches.
    fn reader(&self) -> RecordBatchIterator<impl Iterator<Item = crate::compare::BatchResult> + '_> {
        RecordBatchIterator::new(self.batches.iter().cloned().map(Ok), SchemaRef::clone(&self.schema))
    }
}

/// Runs a query to its end.
async fn answer(engine: Engine, ctx: &SessionContext, query: &Query) -> Result<Answer> {
    let running = engine::start(engine, ctx, query.sql).await?;
    let schema = running.stream.schema();
    Ok(Answer { schema, batches: common::collect(running.stream).await? })
}
