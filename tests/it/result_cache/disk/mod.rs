//! Answers as files: real directories, real files, and real processes.
//!
//! | file | cases |
//! |---|---|
//! | `processes` | what one process leaves for the next; killed while it writes; several at one time |
//! | `identity` | what makes another question of the same text, and what never leaves its process |
//! | `control` | modes, functions, system tables, EXPLAIN |
//! | `trouble` | files that are corrupt, directories that cannot be used, bounds, memory that is not there |

mod control;
mod identity;
mod processes;
mod trouble;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use tempfile::TempDir;

use super::{ask, counter, outcome, plain, recomputed, write_aged};
use crate::support::{config, query, single, sql};

/// A folder with files of a table `f (a BIGINT)`, and a directory of answers.
struct Ground {
    folder: PathBuf,
    /// Of the process that made it.
    _own: Option<TempDir>,
}

impl Ground {
    /// With one file of the numbers 1 and 2.
    fn new() -> Self {
        let own = TempDir::new().unwrap();
        let ground = Self { folder: own.path().to_owned(), _own: Some(own) };
        std::fs::create_dir(ground.data()).unwrap();
        ground.write("1.csv", "1\n2\n", 100);
        ground
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Writes a file of the table, which was last changed so many seconds ago.
    fn write(&self, name: &str, text: &str, seconds: u64) {
        write_aged(&self.data().join(name), text, seconds);
    }

    fn answers(&self) -> PathBuf {
        self.folder.join("answers")
    }

    /// The names of the files in the directory of answers that end so.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let Ok(files) = std::fs::read_dir(self.answers()) else { return Vec::new() };
        let files = files.filter_map(|file| Some(file.ok()?.path()));
        files.filter(|file| file.to_str().unwrap().ends_with(ending)).collect()
    }

    /// A session that knows nothing of what others kept in memory.
    async fn session(&self) -> (SessionContext, Slipstream) {
        let ctx = SessionContext::new_with_config(config());
        let slipstream = Slipstream::default();
        ctx.install_slipstream(slipstream.clone()).unwrap();
        for statement in self.setup() {
            sql(&ctx, &statement).await.unwrap();
        }
        (ctx, slipstream)
    }

    fn setup(&self) -> Vec<String> {
        vec![
            "SET slipstream.cache.enabled = true".to_owned(),
            format!("SET slipstream.cache.disk.directory = '{}'", self.answers().display()),
            table(&self.data(), ""),
        ]
    }

    /// Asks in a session of its own, which ends behind it: what is to be written is.
    async fn asked(&self, text: &str) -> (String, Vec<String>) {
        let (ctx, slipstream) = self.session().await;
        ask(&ctx, &slipstream, text).await
    }

    /// The outcome of each of `statements` in a process of its own, and its rows.
    fn process(&self, statements: &[&str]) -> Vec<(String, Vec<String>)> {
        let output = self.command(statements).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let answers = text.lines().filter_map(|line| line.split_once("answer: ").map(|(_, answer)| answer));
        let answers: Vec<_> = answers
            .map(|answer| {
                let mut parts = answer.split('\t').map(str::to_owned);
                (parts.next().unwrap(), parts.collect())
            })
            .collect();
        assert_eq!(answers.len(), statements.len(), "{text}");
        answers
    }

    /// A process that asks `statements`.
    fn command(&self, statements: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "result_cache::disk::alone", "--ignored", "--nocapture"]);
        command.env(FOLDER, &self.folder).env(SCRIPT, statements.join("\n"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Declares the table `f` over the files in `data`.
fn table(data: &Path, options: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE f (a BIGINT) STORED AS CSV LOCATION '{}/' OPTIONS ('format.has_header' 'false'{options})",
        data.display()
    )
}

/// What `ask` says of an answer that was computed, from disk, and from memory.
fn stored(rows: &[&str]) -> (String, Vec<String>) {
    ("stored".to_owned(), rows.iter().map(|row| (*row).to_owned()).collect())
}

fn from_disk(rows: &[&str]) -> (String, Vec<String>) {
    ("hit on disk".to_owned(), rows.iter().map(|row| (*row).to_owned()).collect())
}

fn from_memory(rows: &[&str]) -> (String, Vec<String>) {
    ("hit".to_owned(), rows.iter().map(|row| (*row).to_owned()).collect())
}

/// One counter of the disk tier.
async fn on_disk(ctx: &SessionContext, name: &str, reason: &str) -> f64 {
    let text = format!(
        "SELECT coalesce(sum(value), 0) FROM slipstream.cache_stats \
         WHERE tier = 'disk' AND name = '{name}' AND coalesce(reason, '') = '{reason}'"
    );
    single(&query(ctx, &text).await.unwrap()).parse().unwrap()
}

const FOLDER: &str = "SLIPTEST_DISK_FOLDER";
const SCRIPT: &str = "SLIPTEST_DISK_SCRIPT";

/// One process: asks the statements of its environment, and says what the cache did and which rows there were.
#[tokio::test]
#[ignore = "is run by the others, in a process of its own"]
async fn alone() {
    let (Ok(folder), Ok(script)) = (std::env::var(FOLDER), std::env::var(SCRIPT)) else { return };
    let ground = Ground { folder: folder.into(), _own: None };
    let (ctx, slipstream) = ground.session().await;
    for statement in script.lines() {
        if let Some(pause) = statement.strip_prefix("-- wait ") {
            tokio::time::sleep(std::time::Duration::from_millis(pause.parse().unwrap())).await;
            println!("answer: waited");
            continue;
        }
        if let Some(large) = statement.strip_prefix("-- count ") {
            let rows: usize = query(&ctx, large).await.unwrap().iter().map(|batch| batch.num_rows()).sum();
            println!("answer: {}\t{rows}", outcome(&slipstream));
            continue;
        }
        let (outcome, rows) = ask(&ctx, &slipstream, statement).await;
        println!("answer: {}", [vec![outcome], rows].concat().join("\t"));
    }
}
