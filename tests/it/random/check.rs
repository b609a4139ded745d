//! Runs one case on both engines and compares.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::future::try_join;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::case::Case;
use super::engines::{Engines, Outcome};
use super::tables::Data;

/// Development builds need more than tokio's 2 MiB for deeply nested plans.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Both engines are asked so many times again before a difference is the layer's.
const REPEATS: usize = 3;

/// The same where the engines agree at times.
const MANY_REPEATS: usize = 40;

/// What a case that does not fail says.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The same rows, so many.
    Same(usize),
    /// Both engines refuse, the plain one with this message.
    BothFail(String),
    /// The layer has little memory, and says that it lacks it.
    Exhausted,
    /// The plain engine takes too long, or the layer did once.
    TimedOut,
    /// The plain engine does not answer alike twice.
    Unstable,
    /// The plain engine contradicts itself and not the layer, when no filter is pushed down a physical plan. DataFusion
    /// 55.2 applies pushed filters, dynamic and written ones, to the wrong one of two columns with the same name
    /// (apache/datafusion issues 25244 and 25296), where the shape of the plan is such: in other filters, in scans, and
    /// where those prune.
    PlainWrong,
}

pub(super) struct Checker {
    data: Data,
    runtime: Runtime,
    env: Arc<RuntimeEnv>,
}

impl Checker {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .unwrap();
        Self { data: Data::create(), runtime, env: Arc::new(RuntimeEnv::default()) }
    }

    /// The error is a report.
    pub(super) fn check(&self, case: &Case) -> Result<Verdict, String> {
        self.runtime.block_on(self.run(case))
    }

    async fn run(&self, case: &Case) -> Result<Verdict, String> {
        let sql = case.statement.to_string();
        // What is left behind is that of this query, where it has a pool of its own.
        let spills = TempDir::new().unwrap();
        let env = match case.setup.memory {
            Some(_) => RuntimeEnvBuilder::new().with_temp_file_path(spills.path()).build_arc().unwrap(),
            None => Arc::clone(&self.env),
        };
        let engines =
            Engines::open(&case.setup, &env, &self.data).await.map_err(|error| error.to_string())?;
        let keys = case.keys();
        let plain = async {
            match engines.plain(&sql).await {
                Outcome::TimedOut(_) => Err(Verdict::TimedOut),
                outcome => Ok(outcome),
            }
        };
        // At once: most of the time goes into planning, and each plans in one thread.
        let both = try_join(plain, async { Ok(engines.layered(&sql).await) }).await;
        let (plain, layered) = match both {
            Ok(both) => both,
            Err(verdict) => return Ok(verdict),
        };
        if case.setup.memory.is_some()
            && let Some(left) = engines.left_behind(spills.path()).await
        {
            return Err(format!("{left}\n\n{case}\n\nlayer: {layered}"));
        }
        if matches!(layered, Outcome::Exhausted(_)) {
            return Ok(Verdict::Exhausted);
        }
        let Some(what) = difference(&plain, &layered, &keys) else {
            return Ok(match plain {
                Outcome::Rows(answer) => Verdict::Same(answer.rows.len()),
                Outcome::Failed(message) | Outcome::Exhausted(message) | Outcome::Panicked(message) => {
                    Verdict::BothFail(message)
                }
                Outcome::TimedOut(_) => Verdict::TimedOut,
            });
        };
        self.examine(case, &engines, [&plain, &layered], &what).await
    }

    /// Finds out whose the difference is. The error is a report of one that is the layer's.
    async fn examine(
        &self,
        case: &Case,
        engines: &Engines,
        [plain, layered]: [&Outcome; 2],
        what: &str,
    ) -> Result<Verdict, String> {
        let (sql, keys) = (case.statement.to_string(), case.keys());
        if matches!(layered, Outcome::TimedOut(_)) {
            let mut alike = true;
            for _ in 0..REPEATS {
                alike &= difference(plain, &engines.layered(&sql).await, &keys).is_none();
            }
            // The machine stood still, not the layer.
            if alike {
                return Ok(Verdict::TimedOut);
            }
        }
        let mut agrees = false;
        let mut repeats = REPEATS;
        while repeats > 0 {
            repeats -= 1;
            if difference(plain, &engines.plain(&sql).await, &keys).is_some() {
                return Ok(Verdict::Unstable);
            }
            if !agrees && difference(plain, &engines.layered(&sql).await, &keys).is_none() {
                // Either engine may be the one that wavers.
                agrees = true;
                repeats = MANY_REPEATS;
            }
        }
        let unpushed = Engines::open_unpushed(&case.setup, &self.env, &self.data).await;
        let unpushed = unpushed.map_err(|error| error.to_string())?;
        let expected = unpushed.plain(&sql).await;
        if difference(&expected, layered, &keys).is_none() {
            return Ok(Verdict::PlainWrong);
        }
        let agree = difference(&expected, &unpushed.layered(&sql).await, &keys).is_none();
        let [plain_plan, layered_plan] = engines.plans(&sql).await;
        let plans = if plain_plan == layered_plan {
            format!("both plans:\n{plain_plan}")
        } else {
            format!("plan of the plain engine:\n{plain_plan}\nplan of the layer:\n{layered_plan}")
        };
        Err(format!(
            "{what}\n\n{case}\n\nplain engine: {plain}\n\nlayer, which {}: {layered}\n\n\
             with no filter pushed down a physical plan the engines {}, the plain one with {expected}\n\n{plans}",
            if agrees { "agrees at times" } else { "never agrees" },
            if agree { "agree" } else { "differ" },
        ))
    }
}

/// How the layer's outcome differs from the plain engine's. Errors need not have the same text: which of several
/// fails first is open.
fn difference(plain: &Outcome, layered: &Outcome, keys: &[usize]) -> Option<String> {
    match (plain, layered) {
        (Outcome::Rows(want), Outcome::Rows(have)) => want.difference(have, keys),
        (Outcome::Failed(_) | Outcome::Panicked(_), Outcome::Failed(_))
        | (Outcome::Panicked(_), Outcome::Panicked(_))
        | (_, Outcome::Exhausted(_)) => None,
        _ => Some("the outcomes differ".to_owned()),
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(answer) => answer.fmt(f),
            Self::Failed(message) | Self::Exhausted(message) => write!(f, "error: {message}"),
            Self::Panicked(message) => write!(f, "panic: {message}"),
            Self::TimedOut(limit) => write!(f, "no answer in {limit:?}"),
        }
    }
}
