//! The front door: installs the layer, and takes one statement from text to stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use futures::Stream;

/// The layer's swappable components (STUB, being written).
#[derive(Debug, Default, Clone)]
pub struct Slipstream {}

/// Installs the layer into a builder; call it last, before `build()`.
pub trait SlipstreamBuilderExt: Sized {
    /// Installs the layer.
    fn with_slipstream(self, slipstream: Slipstream) -> Result<Self>;
}

impl SlipstreamBuilderExt for SessionStateBuilder {
    fn with_slipstream(self, _slipstream: Slipstream) -> Result<Self> {
        Ok(self)
    }
}

/// The layer's verbs on a `SessionContext`.
#[async_trait]
pub trait SlipstreamContextExt {
    /// Installs the layer into this context, in place; all clones of the context see it.
    fn install_slipstream(&self, slipstream: Slipstream) -> Result<()>;
    /// Runs one SQL statement, hints and query log included.
    async fn query(&self, sql: &str) -> Result<QueryStream>;
    /// Splits SQL text into its statements.
    fn parse_query(&self, sql: &str) -> Result<Vec<ParsedQuery>>;
    /// Plans one statement (logically).
    async fn plan_query(&self, query: ParsedQuery) -> Result<PlannedQuery>;
}

#[async_trait]
impl SlipstreamContextExt for SessionContext {
    fn install_slipstream(&self, _slipstream: Slipstream) -> Result<()> {
        Ok(())
    }

    async fn query(&self, sql: &str) -> Result<QueryStream> {
        let mut queries = self.parse_query(sql)?;
        self.plan_query(queries.remove(0)).await?.execute().await
    }

    fn parse_query(&self, sql: &str) -> Result<Vec<ParsedQuery>> {
        let dialect = self.state().config().options().sql_parser.dialect;
        Ok(vec![ParsedQuery { statement: self.state().sql_to_statement(sql, &dialect)?, text: sql.to_owned() }])
    }

    async fn plan_query(&self, query: ParsedQuery) -> Result<PlannedQuery> {
        let plan = self.state().statement_to_plan(query.statement).await?;
        Ok(PlannedQuery { context: self.clone(), plan })
    }
}

/// One parsed statement and its text.
#[derive(Debug, Clone)]
pub struct ParsedQuery {
    statement: Statement,
    text: String,
}

impl ParsedQuery {
    /// The statement, hints removed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The statement's text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// One statement, planned.
pub struct PlannedQuery {
    context: SessionContext,
    plan: LogicalPlan,
}

impl PlannedQuery {
    /// The logical plan, before optimization.
    pub fn logical_plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The same, to be changed before it runs (as the shell does with locations).
    pub fn logical_plan_mut(&mut self) -> &mut LogicalPlan {
        &mut self.plan
    }

    /// Starts the statement: DDL and SET act here, queries return their stream.
    pub async fn execute(self) -> Result<QueryStream> {
        let df = self.context.execute_logical_plan(self.plan).await?;
        let task_ctx = Arc::new(df.task_ctx());
        let plan = df.create_physical_plan().await?;
        let inner = execute_stream(Arc::clone(&plan), task_ctx)?;
        Ok(QueryStream { inner, plan })
    }
}

/// The rows of a running statement.
pub struct QueryStream {
    inner: SendableRecordBatchStream,
    plan: Arc<dyn ExecutionPlan>,
}

impl QueryStream {
    /// The physical plan that produces the rows.
    pub fn physical_plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl RecordBatchStream for QueryStream {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}
