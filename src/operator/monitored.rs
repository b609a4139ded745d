//! The root of a query: gives it a memory pool of its own, counts its rows, and says how it ended.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;

use super::passthrough::{Passthrough, Wrap};
use super::query_context::{is_inside_query, pool_for, query_context};
use super::result_cache::CachedResultExec;
use super::turns::{Next, SharedTurn, Turns};
use crate::memory::{MemoryGovernor, QueryPool, Turn};
use crate::monitor::RunningQuery;

/// Wraps the root of a plan so that `query`, where it is recorded, learns what happens to it.
///
/// The nodes below run in a context of their own, whose memory pool is a [`QueryPool`]: what they reserve is
/// counted for this query, granted by `governor`, and reserved of the session's pool under its limit.
pub(crate) fn monitored(
    plan: Arc<dyn ExecutionPlan>,
    query: Option<Arc<RunningQuery>>,
    governor: &Arc<MemoryGovernor>,
) -> Arc<dyn ExecutionPlan> {
    let execution = Mutex::new(Execution::new(query));
    Passthrough::around(plan, Monitored { governor: Arc::clone(governor), execution })
}

/// The partitions of one execution share one pool view, so they share one derived context too.
#[derive(Debug)]
pub(super) struct Monitored {
    governor: Arc<MemoryGovernor>,
    execution: Mutex<Execution>,
}

#[derive(Debug)]
struct Execution {
    query: Option<Arc<RunningQuery>>,
    pool: Option<Arc<QueryPool>>,
    turns: Turns,
    /// The context the execution was given and the one derived from it. Weak: a plan that is kept for later must
    /// not keep a runtime alive.
    contexts: (Weak<TaskContext>, Weak<TaskContext>),
}

impl Execution {
    fn new(query: Option<Arc<RunningQuery>>) -> Self {
        Self { query, pool: None, turns: Turns::default(), contexts: (Weak::new(), Weak::new()) }
    }

    /// Another execution of the same plan.
    fn again(&self) -> Self {
        Self::new(self.query.as_ref().map(|query| query.again()))
    }

    /// This query's view of the memory pool of `given`.
    fn pool(&self, given: &TaskContext, governor: &Arc<MemoryGovernor>) -> Arc<QueryPool> {
        match &self.pool {
            Some(pool) if pool.views(given.memory_pool()) => Arc::clone(pool),
            _ => pool_for(given, governor, self.query.as_ref().map(|query| query.id())),
        }
    }

    /// The context with this query's view of the memory pool, and that view.
    fn context(
        &mut self,
        given: &Arc<TaskContext>,
        governor: &Arc<MemoryGovernor>,
    ) -> Result<(Arc<TaskContext>, Arc<QueryPool>)> {
        let pool = self.pool(given, governor);
        if Weak::ptr_eq(&self.contexts.0, &Arc::downgrade(given))
            && let Some(own) = self.contexts.1.upgrade()
        {
            return Ok((own, pool));
        }
        let own = query_context(given, governor, &pool)?;
        self.contexts = (Arc::downgrade(given), Arc::downgrade(&own));
        self.pool = Some(Arc::clone(&pool));
        Ok((own, pool))
    }
}

impl Monitored {
    /// The bytes that the query has reserved now.
    pub(super) fn reserved_bytes(&self) -> usize {
        self.execution.lock().pool.as_ref().map_or(0, |pool| pool.reserved_bytes())
    }
}

impl Wrap for Monitored {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        // A query inside a query has the turn of that one: to wait for another could be to wait for itself. What is left of
        // a statement that has acted (SET, DDL) has nothing to wait for, nor has an answer that is there.
        let is_answer = inner.is::<CachedResultExec>();
        let exempt = is_answer || is_inside_query(&context) || inner.is::<EmptyExec>();
        let (query, context, pool, turn) = {
            let mut execution = self.execution.lock();
            if execution.query.as_ref().is_some_and(|query| query.is_over()) {
                *execution = execution.again();
            }
            let (context, pool) = match is_answer {
                // It reserves nothing, and to derive a context takes half of the time that a hit takes.
                true => (Arc::clone(&context), execution.pool(&context, &self.governor)),
                false => execution.context(&context, &self.governor)?,
            };
            let turn = if exempt { None } else { Some(execution.turns.next(self.governor.admission())) };
            (execution.query.clone(), context, pool, turn)
        };
        if let Some(query) = &query {
            query.partition_started(&pool);
        }
        let part = Part { plan: Arc::clone(inner), query, context, partition };
        let schema = inner.schema();
        let state = match turn {
            Some(Next::Waits(turn)) => State::Waiting(turn, part),
            Some(Next::Runs(turn)) => State::Running { stream: part.execute()?, part, _turn: Some(turn) },
            None => State::Running { stream: part.execute()?, part, _turn: None },
        };
        Ok(Box::pin(MonitoredStream { schema, state }))
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        let execution = Mutex::new(self.execution.lock().again());
        Arc::new(Self { governor: Arc::clone(&self.governor), execution })
    }
}

/// One partition of one execution.
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    query: Option<Arc<RunningQuery>>,
    /// Kept alive for partitions that are executed later, too.
    context: Arc<TaskContext>,
    partition: usize,
}

impl Part {
    /// Begins its work.
    fn execute(&self) -> Result<SendableRecordBatchStream> {
        self.plan.execute(self.partition, Arc::clone(&self.context)).inspect_err(|error| self.failed(error))
    }

    /// Says that it failed.
    fn failed(&self, error: &DataFusionError) {
        if let Some(query) = &self.query {
            query.partition_failed(self.plan.as_ref(), error);
        }
    }

    /// Says what it produced: a batch, an error, or its end.
    fn produced(&self, item: Option<&Result<RecordBatch>>) {
        match (&self.query, item) {
            (None, _) => {}
            (Some(query), Some(Ok(batch))) => query.produced(batch.num_rows()),
            (_, Some(Err(error))) => self.failed(error),
            (Some(query), None) => query.partition_ended(self.plan.as_ref()),
        }
    }
}

/// One partition's rows on their way to the caller.
///
/// It holds back nothing and copies nothing: a batch costs one atomic addition. At the end it lets go of the partition's
/// stream and of the plan, since many operators hold their memory until then, and callers keep streams that have ended.
struct MonitoredStream {
    schema: SchemaRef,
    state: State,
}

enum State {
    /// The query waits for its turn; the plan is not executed yet.
    Waiting(SharedTurn, Part),
    Running {
        stream: SendableRecordBatchStream,
        part: Part,
        _turn: Option<Arc<Turn>>,
    },
    /// After the last row, or the first error.
    Over,
}

impl MonitoredStream {
    /// Waits for the query's turn, then executes the plan.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let State::Waiting(turn, part) = &mut self.state else { return Poll::Ready(Ok(())) };
        let turn = match turn.poll_unpin(cx) {
            Poll::Pending => {
                part.query.iter().for_each(|query| query.waits());
                return Poll::Pending;
            }
            Poll::Ready(turn) => {
                turn.map_err(DataFusionError::Shared).inspect_err(|error| part.failed(error))
            }
        };
        part.query.iter().for_each(|query| query.admitted());
        let started = turn.and_then(|turn| Ok((turn, part.execute()?)));
        Poll::Ready(match (std::mem::replace(&mut self.state, State::Over), started) {
            (State::Waiting(_, part), Ok((turn, stream))) => {
                self.state = State::Running { stream, part, _turn: Some(turn) };
                Ok(())
            }
            (_, started) => started.map(|_| ()),
        })
    }
}

impl Stream for MonitoredStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(error) = ready!(self.poll_turn(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let State::Running { stream, part, .. } = &mut self.state else { return Poll::Ready(None) };
        let item = ready!(stream.poll_next_unpin(cx));
        part.produced(item.as_ref());
        if !matches!(item, Some(Ok(_))) {
            self.state = State::Over;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.state {
            State::Waiting(..) => (0, None),
            State::Running { stream, .. } => stream.size_hint(),
            State::Over => (0, Some(0)),
        }
    }
}

impl RecordBatchStream for MonitoredStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if let State::Waiting(_, part) | State::Running { part, .. } = &self.state
            && let Some(query) = &part.query
        {
            query.partition_dropped(part.plan.as_ref());
        }
    }
}
