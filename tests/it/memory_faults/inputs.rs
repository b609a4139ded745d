//! Inputs that fail or panic at their beginning, half way, and with their last batch.

use super::tables::{Act, Script};
use super::{LIMIT, Outcome, Session, WORK, Work, is_exhausted, small_batches};

async fn each_input(act: &Act, check: impl Fn(&str, &Work, Outcome) + Send + Sync) {
    for work in WORK {
        for side in 0..2 {
            if side == 1 && !work.query.contains(" r") {
                continue;
            }
            for percent in [0, 50, 100] {
                let mut scripts = [Script::NONE, Script::NONE];
                scripts[side] = Script { percent, act: act.clone() };
                let session = Session::new(LIMIT, small_batches(256)).with_tables(scripts);
                let what = format!("{}, input {side} after {percent} %", work.name);
                check(&what, &work, session.run(&work).await);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_fails_is_the_error_of_the_query() {
    each_input(&Act::Fail, |what, work, outcome| match outcome {
        Outcome::Failed(error) => {
            let first = work.may_fail && is_exhausted(&error);
            assert!(first || error.to_string().contains("the input broke"), "{what}: {error}");
        }
        other => panic!("{what}: {other:?}"),
    })
    .await;
}

/// A task of the engine's may make an error of a panic, or hand it on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_panics_is_no_answer() {
    each_input(&Act::Panic, |what, _, outcome| {
        assert!(!matches!(outcome, Outcome::Rows(_)), "{what}: a panic is not an answer");
    })
    .await;
}
