//! A memory limit that is lowered, while a query runs, to less than the query holds.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use datafusion_slipstream::SlipstreamContextExt;
use futures::{FutureExt, StreamExt};

use super::tables::{Act, Deed, Script};
use super::{LIMIT, Outcome, Session, WORK, Work, expected, is_exhausted, small_batches};
use crate::support::{query, sql};

/// Sets the limit of all sessions, as an administrator does in another one.
fn lower(session: &Session, limit: &'static str) -> Deed {
    let administrator = SessionContext::new();
    administrator.install_slipstream(session.slipstream.clone()).unwrap();
    Arc::new(move || {
        let ctx = administrator.clone();
        async move { drop(ctx.sql(&format!("SET slipstream.memory.limit = '{limit}'")).await.unwrap()) }
            .boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_ends_with_its_rows_or_one_error() {
    for work in WORK {
        let expected = expected(&work).await;
        let mut answers = 0;
        for (before, after) in [(64 << 20, "300kB"), (64 << 20, "1kB"), (LIMIT, "100kB")] {
            for (side, percent) in [(0, 0), (0, 60), (0, 100), (1, 0), (1, 60), (1, 100)] {
                if side == 1 && !work.query.contains(" r") {
                    continue;
                }
                let session = Session::new(before, small_batches(256));
                let mut scripts = [Script::NONE, Script::NONE];
                scripts[side] = Script { percent, act: Act::Do(lower(&session, after)) };
                let session = session.with_tables(scripts);
                let what =
                    format!("{}, from {before} to {after} after {percent} % of input {side}", work.name);
                // Every error for want of memory will do.
                let work = Work { may_fail: true, ..work };
                let outcome = session.run(&work).await;
                let answered = matches!(outcome, Outcome::Rows(_));
                let error = outcome.error(&what, &work, &expected);
                assert!(error.is_none(), "{what}: {error:?}");
                if answered {
                    answers += 1;
                    let shown = query(&session.ctx, "SHOW slipstream.memory.limit").await.unwrap();
                    assert!(!format!("{shown:?}").contains(&before.to_string()), "{what}: was not lowered");
                }
            }
        }
        assert!(answers > 0 || work.may_fail, "{}: no answer", work.name);
    }
}

/// The join holds its table, and gives rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_gives_rows_keeps_what_it_has() {
    for work in &WORK[..2] {
        for before in [64 << 20, LIMIT] {
            let session = Session::new(before, small_batches(256)).with_tables([Script::NONE, Script::NONE]);
            let expected = expected(work).await.len();
            let mut rows = session.ctx.query(work.query).await.unwrap();
            let mut count = rows.next().await.unwrap().unwrap().num_rows();
            let held = session.ctx.runtime_env().memory_pool.reserved();
            assert!(held > 10 << 10, "{}: {held}", work.name);
            sql(&session.ctx, "SET slipstream.memory.limit = '10kB'").await.unwrap();
            while let Some(batch) = tokio::time::timeout(super::TIME_LIMIT, rows.next()).await.unwrap() {
                match batch {
                    Ok(batch) => count += batch.num_rows(),
                    Err(error) => {
                        assert!(is_exhausted(&error), "{}: {error}", work.name);
                        count = expected;
                        break;
                    }
                }
            }
            assert_eq!(count, expected, "{}", work.name);
            drop(rows);
            session.assert_all_given_back(work.name).await;
        }
    }
}
