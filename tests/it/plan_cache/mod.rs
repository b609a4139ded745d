//! The cache of plans: a plan is used again only while planning would give the same one.
//!
//! | file | cases |
//! |---|---|
//! | `identity` | whatever a plan was made from changes: it is made anew, and the rows are the plain engine's |
//! | `refusals` | what is not kept: values that a plan would freeze, tables that are made while it is planned, foreign rules |
//! | `sight` | EXPLAIN, system tables, modes and hints, bounds, memory |

mod identity;
mod refusals;
mod sight;

use datafusion::prelude::SessionContext;
use datafusion_slipstream::Slipstream;

use crate::support::{layered, query, sorted_rows, sql};

const FIRST: &str = "not stored: it is asked for the first time";

/// A session with the cache of plans on, that of answers off, and tables in memory.
async fn planned() -> (SessionContext, Slipstream) {
    let (ctx, slipstream) = layered();
    for statement in [
        "CREATE TABLE t (a BIGINT, b BIGINT) AS VALUES (1, 10), (2, 20), (3, 30)",
        "CREATE TABLE u (a BIGINT) AS VALUES (2), (3)",
        "SET slipstream.cache.plans = true",
    ] {
        sql(&ctx, statement).await.unwrap();
    }
    (ctx, slipstream)
}

/// Runs `text` and says what the cache of plans did, with the rows.
async fn ask(ctx: &SessionContext, slipstream: &Slipstream, text: &str) -> (String, Vec<String>) {
    let rows = sorted_rows(&query(ctx, text).await.unwrap());
    let record = slipstream.query_log().queries().pop().unwrap();
    (record.cached_plan.clone().unwrap_or_else(|| "-".to_owned()), rows)
}

/// The answer of the plain engine to `text`.
async fn plain(ctx: &SessionContext, text: &str) -> Vec<String> {
    sorted_rows(&query(ctx, &format!("/*+ PLAIN */ {text}")).await.unwrap())
}

/// Asks until the plan is used again; all answers are the plain engine's.
async fn warm(ctx: &SessionContext, slipstream: &Slipstream, text: &str) {
    let expected = plain(ctx, text).await;
    for outcome in [FIRST, "stored", "hit", "hit"] {
        let (was, rows) = ask(ctx, slipstream, text).await;
        assert_eq!(rows, expected, "{text}");
        assert_eq!(was, outcome, "{text}");
    }
}

/// The plan is used again, and the rows are the plain engine's.
async fn again(ctx: &SessionContext, slipstream: &Slipstream, text: &str) {
    let expected = plain(ctx, text).await;
    assert_eq!(ask(ctx, slipstream, text).await, ("hit".to_owned(), expected), "{text}");
}

/// The plan is not used again, and the rows are the plain engine's.
async fn anew(ctx: &SessionContext, slipstream: &Slipstream, text: &str) {
    let expected = plain(ctx, text).await;
    let (outcome, rows) = ask(ctx, slipstream, text).await;
    assert_eq!(rows, expected, "{text}");
    assert_ne!(outcome, "hit", "{text}");
}

/// The plan is never kept, for this reason.
async fn never(ctx: &SessionContext, slipstream: &Slipstream, text: &str, why: &str) {
    for time in 0..4 {
        let record = {
            query(ctx, text).await.unwrap();
            slipstream.query_log().queries().pop().unwrap()
        };
        let outcome = record.cached_plan.clone().unwrap_or_default();
        match time {
            0 => assert_eq!(outcome, FIRST, "{text}"),
            _ => assert!(outcome.starts_with("not stored: ") && outcome.contains(why), "{text}: {outcome}"),
        }
    }
}
