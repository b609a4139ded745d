//! The result cache: what it answers, and above all what it does not.
//!
//! | file | cases |
//! |---|---|
//! | `hits` | what is answered, by which road, and how it is seen |
//! | `tables` | writes, DDL, views, functions, settings, users: the answer is always the plain engine's |
//! | `broader`, `broader_refused`, `broader_random` | what is computed from a broader answer, what is not, and pairs that nobody thought of |
//! | `file_aggregates` | what each file contributes to an aggregate: given where it is the same file, and refused where it is not determined |
//! | `files` | overwritten, added and removed files, by whomever; lists that are stale |
//! | `flight` | identical queries at one time; cancelled, failed and panicking leaders |
//! | `bounds` | sizes, eviction, memory that is given back |
//! | `control` | modes, hints, functions, system tables |
//! | `subplans` | parts that several queries have in common: given where they are the same, and never half of them |
//! | `disk` | answers as files: restarts, other processes, corrupt files, what never leaves its process |
//! | `stress` | random writers, readers, evictions and cancels against recomputation |

mod bounds;
mod broader;
mod broader_random;
mod broader_refused;
mod control;
mod disk;
mod file_aggregates;
mod files;
mod flight;
mod hits;
mod stress;
mod subplans;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::Slipstream;

use crate::support::{layered, query, sorted_rows, sql};

/// A session with the cache on, and a table in memory.
async fn cached() -> (SessionContext, Slipstream) {
    let (ctx, slipstream) = layered();
    for statement in [
        "CREATE TABLE t (a BIGINT, b BIGINT) AS VALUES (1, 10), (2, 20), (3, 30)",
        "CREATE TABLE u (a BIGINT) AS VALUES (2), (3)",
        // Afterwards: by ctx.sql() the query of a CREATE TABLE AS is one like any other.
        "SET slipstream.cache.enabled = true",
    ] {
        sql(&ctx, statement).await.unwrap();
    }
    (ctx, slipstream)
}

/// What the cache did for the last query of `slipstream`.
fn outcome(slipstream: &Slipstream) -> String {
    let record = slipstream.query_log().queries().pop().unwrap();
    record.cache.clone().unwrap_or_else(|| "-".to_owned())
}

/// Runs `text` and says what the cache did, with the rows.
async fn ask(ctx: &SessionContext, slipstream: &Slipstream, text: &str) -> (String, Vec<String>) {
    let rows = sorted_rows(&query(ctx, text).await.unwrap());
    (outcome(slipstream), rows)
}

/// The answer of the plain engine to `text`.
async fn plain(ctx: &SessionContext, text: &str) -> Vec<String> {
    sorted_rows(&query(ctx, &format!("/*+ PLAIN */ {text}")).await.unwrap())
}

/// What the plain engine says with lists of files that are not stale: without the cache, told to list anew.
async fn recomputed(ctx: &SessionContext, text: &str) -> Vec<String> {
    if let Some(lists) = ctx.runtime_env().cache_manager.get_list_files_cache() {
        lists.clear();
    }
    if let Some(statistics) = ctx.runtime_env().cache_manager.get_file_statistic_cache() {
        statistics.clear();
    }
    sorted_rows(&query(ctx, &format!("/*+ PLAIN */ {text}")).await.unwrap())
}

/// Asks twice: the first answer is there by then, the second comes from the cache, and both are the plain engine's.
async fn warm(ctx: &SessionContext, slipstream: &Slipstream, text: &str) {
    let first = ask(ctx, slipstream, text).await;
    // Afterwards, since the plain engine lists files from its own memory, of which the cache drops what is stale.
    let expected = plain(ctx, text).await;
    assert_eq!(first.1, expected, "{text}");
    assert!(["stored", "hit"].contains(&first.0.as_str()), "{text}: {}", first.0);
    let second = ask(ctx, slipstream, text).await;
    assert_eq!(second, ("hit".to_owned(), expected), "{text}");
}

/// The answer is not the one that was kept, and is the plain engine's.
async fn anew(ctx: &SessionContext, slipstream: &Slipstream, text: &str) {
    let (outcome, rows) = ask(ctx, slipstream, text).await;
    let expected = plain(ctx, text).await;
    assert_eq!(rows, expected, "{text}");
    assert_ne!(outcome, "hit", "{text}");
}

/// One counter of `slipstream.cache_stats`.
async fn counter(ctx: &SessionContext, name: &str) -> f64 {
    let text = format!("SELECT coalesce(sum(value), 0) FROM slipstream.cache_stats WHERE name = '{name}'");
    crate::support::single(&query(ctx, &text).await.unwrap()).parse().unwrap()
}

/// Writes a file that was last changed `seconds` ago: one that was written this moment is not trusted yet.
fn write_aged(path: &Path, text: &str, seconds: u64) {
    std::fs::write(path, text).unwrap();
    age(path, seconds);
}

/// Sets a file's time of change to `seconds` ago.
fn age(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + now().saturating_sub(Duration::from_secs(seconds))).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "files have the operating system's time")]
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// Runs through `ctx.sql()`, as an embedder does who knows nothing of the layer.
async fn by_sql(ctx: &SessionContext, text: &str) -> Result<Vec<RecordBatch>> {
    sql(ctx, text).await
}

/// A table of files below `folder`.
async fn external(ctx: &SessionContext, name: &str, location: &Path) {
    let location = location.to_str().unwrap();
    let text = format!(
        "CREATE EXTERNAL TABLE {name} (a BIGINT) STORED AS CSV LOCATION '{location}' OPTIONS ('format.has_header' 'false')"
    );
    sql(ctx, &text).await.unwrap();
}

/// What `Arc::ptr_eq` of two batches' columns says: nothing was copied.
fn is_same_memory(one: &RecordBatch, other: &RecordBatch) -> bool {
    one.columns().iter().zip(other.columns()).all(|(one, other)| Arc::ptr_eq(one, other))
}
