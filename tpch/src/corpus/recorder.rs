//! A sqllogictest database that runs each statement on one session and keeps what came of it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::collect;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use datafusion_sqllogictest::{
    DFColumnType, DFOutput, DFSqlLogicTestError, convert_batches, convert_schema_to_types,
};
use futures::FutureExt;
use sqllogictest::{AsyncDB, ColumnType, DBOutput};

use super::Entry;
use super::explain::{Shape, shape};
use super::outcome::{Outcome, Picture};

/// What one statement showed, for the worker to pick up after the runner has judged it.
#[derive(Debug)]
pub(super) struct Observed {
    /// What the statement itself gave.
    pub(super) outcome: Outcome,
    /// What it explains, if it is a plan picture.
    pub(super) picture: Option<Picture>,
    /// Whether it fixes the order of its rows.
    pub(super) ordered: bool,
    /// Whether its answer, or its plan, came from a cache.
    pub(super) from_cache: bool,
}

/// A text is asked, its plan is kept, and used; and its answer is by then, too.
const WARM_RUNS: usize = 2;

/// Where the recorder leaves the latest observation. A plain mutex: it is never held across an await.
pub(super) type Slot = Arc<Mutex<Option<Observed>>>;

/// The connection that the sqllogictest runner drives.
pub(super) struct Recorder {
    /// The session under test.
    pub(super) ctx: SessionContext,
    /// By which door statements come in.
    pub(super) entry: Entry,
    /// Whether the file follows Spark's way of printing floats.
    pub(super) spark: bool,
    /// The root of the engine's scratch tree, which differs between engines.
    pub(super) root: String,
    /// How long one statement may take.
    pub(super) limit: Duration,
    /// The layer, where its caches are to be warm.
    pub(super) warm: Option<Slipstream>,
    /// Where observations go.
    pub(super) slot: Slot,
}

/// The text of an error, exactly as DataFusion's own runner shows it to the corpus.
#[derive(Debug)]
pub(super) struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

#[async_trait]
impl AsyncDB for Recorder {
    type Error = Failure;
    type ColumnType = DFColumnType;

    async fn run(&mut self, sql: &str) -> Result<DFOutput, Failure> {
        let dialect = self.ctx.state().config().options().sql_parser.dialect;
        let shape = shape(sql, &dialect);
        let (outcome, mut from_cache) = self.observe_warm(sql).await;
        let (picture, ordered) = match shape {
            Shape::Results { ordered } => (None, ordered),
            Shape::PictureOfQuery { query, ordered } => {
                let (explained, cached) = self.observe_warm(&query).await;
                from_cache |= cached;
                (Some(Picture::Explained(explained)), ordered)
            }
            Shape::PictureOfEffect { reason } => (Some(Picture::NotRun(reason)), true),
        };
        let output = to_output(&outcome);
        let observed = Observed { outcome, picture, ordered, from_cache };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(observed);
        output
    }

    fn engine_name(&self) -> &str {
        "DataFusion"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn shutdown(&mut self) {}
}

impl Recorder {
    /// Runs one statement; again, where its answer or its plan was kept, until it is what was kept that is seen. Whether it was.
    async fn observe_warm(&self, sql: &str) -> (Outcome, bool) {
        let mut outcome = self.observe(sql).await;
        let Some(slipstream) = &self.warm else { return (outcome, false) };
        let word =
            sql.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).unwrap_or_default();
        if !["SELECT", "WITH", "VALUES"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
            return (outcome, false);
        }
        let mut left = WARM_RUNS;
        loop {
            let last = slipstream.query_log().queries().pop();
            let last = last.map(|last| (last.cache.clone(), last.cached_plan.clone())).unwrap_or_default();
            let (answer, plan) = (last.0.unwrap_or_default(), last.1.unwrap_or_default());
            let keeps = answer == "stored" || plan == "stored" || plan.contains("first time");
            // SELECT … INTO has acted, and has no columns.
            let has_rows = matches!(&outcome, Outcome::Rows { types, .. } if !types.is_empty());
            if left == 0 || !keeps || !has_rows {
                return (outcome, answer == "hit" || answer == "broader" || plan == "hit");
            }
            left -= 1;
            outcome = self.observe(sql).await;
        }
    }

    /// Runs one statement to its end, whatever that is.
    async fn observe(&self, sql: &str) -> Outcome {
        let statement = AssertUnwindSafe(self.execute(sql)).catch_unwind();
        match tokio::time::timeout(self.limit, statement).await {
            Ok(Ok(Ok((types, rows)))) => {
                let rows = rows.into_iter().map(|row| row.iter().map(|cell| self.portable(cell)).collect());
                Outcome::Rows { types, rows: rows.collect() }
            }
            Ok(Ok(Err(error))) => Outcome::Error { message: self.portable(&error.to_string()) },
            Ok(Err(payload)) => Outcome::Panic { message: self.portable(&panic_text(&*payload)) },
            Err(_) => Outcome::TimedOut { seconds: self.limit.as_secs() },
        }
    }

    async fn execute(&self, sql: &str) -> Result<(String, Vec<Vec<String>>), DFSqlLogicTestError> {
        let stream: SendableRecordBatchStream;
        let schema = match self.entry {
            Entry::Sql => {
                let frame = self.ctx.sql(sql).await?;
                let task_ctx = Arc::new(frame.task_ctx());
                let plan = frame.create_physical_plan().await?;
                let schema = plan.schema();
                stream = execute_stream(plan, task_ctx)?;
                schema
            }
            Entry::Query => {
                let query = self.ctx.query(sql).await?;
                let schema = query.physical_plan().schema();
                stream = Box::pin(query);
                schema
            }
        };
        let types =
            convert_schema_to_types(stream.schema().fields()).iter().map(ColumnType::to_char).collect();
        let batches: Vec<RecordBatch> = collect(stream).await?;
        Ok((types, convert_batches(&schema, batches, self.spark)?))
    }

    /// Replaces the scratch tree's own path, the one thing that must differ between two engines.
    ///
    /// The corpus writes the checkout's root in this way too. Object stores print paths without the leading slash.
    fn portable(&self, text: &str) -> String {
        text.replace(self.root.trim_start_matches('/'), "WORKSPACE_ROOT")
    }
}

fn to_output(outcome: &Outcome) -> Result<DFOutput, Failure> {
    match outcome {
        Outcome::Rows { types, rows } if types.is_empty() && rows.is_empty() => {
            Ok(DBOutput::StatementComplete(0))
        }
        Outcome::Rows { types, rows } => Ok(DBOutput::Rows {
            types: types.chars().filter_map(DFColumnType::from_char).collect(),
            rows: rows.clone(),
        }),
        Outcome::Error { message } => Err(Failure(message.clone())),
        Outcome::Panic { message } => Err(Failure(format!("panicked: {message}"))),
        Outcome::TimedOut { seconds } => Err(Failure(format!("stopped after {seconds} s"))),
    }
}

/// The text of a panic's payload.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a payload that is not text")
        .to_owned()
}
