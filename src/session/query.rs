//! One statement from text to stream, on one screen.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, plan_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt};

use super::Slipstream;
use super::install::install_into;
use super::plan_cache::{Sought, seek};
use super::statement::{ParsedQuery, PlannedQuery};
use crate::operator::finished;

/// The layer's verbs on a [`SessionContext`].
///
/// Everything works on a context without the layer too, as the plain engine does it.
#[async_trait]
pub trait SlipstreamContextExt {
    /// Installs the layer into this context, in place: all clones of the context have it from their next query
    /// on. What stays as it is and what can fail: [`SlipstreamBuilderExt`](super::SlipstreamBuilderExt). Prepared
    /// statements are not kept, since DataFusion shows them to nobody: prepare them after installing.
    ///
    /// ```
    /// use datafusion::prelude::SessionContext;
    /// use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
    ///
    /// # fn main() -> datafusion::common::Result<()> {
    /// let ctx = SessionContext::new();
    /// ctx.install_slipstream(Slipstream::default())?;
    /// # Ok(())
    /// # }
    /// ```
    fn install_slipstream(&self, slipstream: Slipstream) -> Result<()>;

    /// Runs one SQL statement and returns its rows as a stream; dropping the stream cancels the query.
    ///
    /// Unlike `ctx.sql()`, which hands the layer a plan, this one knows the text: it is what
    /// `slipstream.queries` shows, and where hints are read from. DDL, `SET` and `RESET` act before the stream
    /// is returned.
    ///
    /// # Errors
    /// Syntax errors with line and column, planning errors, and more than one statement in `sql`.
    async fn query(&self, sql: &str) -> Result<QueryStream>;

    /// Splits SQL text into its statements.
    ///
    /// # Errors
    /// The first syntax error, with line and column in `sql`.
    fn parse_query(&self, sql: &str) -> Result<Vec<ParsedQuery>>;

    /// From statement to logical plan. Nothing has acted yet: a caller that restricts its users can look at the
    /// plan first (DataFusion's `SQLOptions::verify_plan`).
    ///
    /// # Errors
    /// Unknown tables, columns and functions, and whatever else has no plan.
    async fn plan_query(&self, query: ParsedQuery) -> Result<PlannedQuery>;
}

#[async_trait]
impl SlipstreamContextExt for SessionContext {
    fn install_slipstream(&self, slipstream: Slipstream) -> Result<()> {
        install_into(self, slipstream)
    }

    async fn query(&self, sql: &str) -> Result<QueryStream> {
        let state = self.state();
        let sought = match Box::pin(seek(&state, sql)).await {
            Sought::Known(known) => {
                return Box::pin(PlannedQuery::known(self, state, known)?.execute()).await;
            }
            sought => sought,
        };
        let mut statements = ParsedQuery::parse(&state, sql)?;
        match (statements.pop(), statements.len()) {
            (Some(statement), 0) => {
                Box::pin(PlannedQuery::plan(self, state, statement, sought)).await?.execute().await
            }
            (None, _) => plan_err!("there is no SQL statement in the text"),
            (Some(_), others) => plan_err!(
                "query() runs one SQL statement and got {}; parse_query() splits the text",
                others + 1
            ),
        }
    }

    fn parse_query(&self, sql: &str) -> Result<Vec<ParsedQuery>> {
        ParsedQuery::parse(&self.state(), sql)
    }

    async fn plan_query(&self, query: ParsedQuery) -> Result<PlannedQuery> {
        PlannedQuery::plan(self, self.state(), query, Sought::Nothing).await
    }
}

/// The rows of a running statement. Dropping it cancels the query.
pub struct QueryStream {
    schema: SchemaRef,
    /// Until the last row or the first error.
    rows: Option<SendableRecordBatchStream>,
    plan: Arc<dyn ExecutionPlan>,
}

impl QueryStream {
    pub(super) fn new(rows: SendableRecordBatchStream, plan: Arc<dyn ExecutionPlan>) -> Self {
        Self { schema: rows.schema(), rows: Some(rows), plan }
    }

    /// The physical plan that produces the rows; its metrics grow while it runs. It has been executed: it
    /// cannot be executed again.
    ///
    /// After the last row the stream lets go of operators that still hold memory (hash joins hold their tables). In their
    /// place are then nodes with the same names, pictures and metrics. A caller who keeps a copy of the plan from before keeps
    /// that memory too, until it is dropped.
    pub fn physical_plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
        let item = ready!(rows.poll_next_unpin(cx));
        if !matches!(item, Some(Ok(_))) {
            self.rows = None;
            self.plan = finished(&self.plan);
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.as_ref().map_or((0, Some(0)), |rows| rows.size_hint())
    }
}

impl RecordBatchStream for QueryStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream").field("plan", &self.plan.name()).finish_non_exhaustive()
    }
}
