//! The root of a recorded query: counts rows and memory, and says how the query ended.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use super::context::derived;
use super::passthrough::{Passthrough, Wrap};
use crate::memory::QueryPool;
use crate::monitor::RunningQuery;

/// Wraps the root of a plan so that `query` learns what happens to it.
///
/// The nodes below run in a context of their own, whose memory pool is a [`QueryPool`]: what they reserve is
/// counted for this query, by the session's pool and under its limit.
pub(crate) fn monitored(plan: Arc<dyn ExecutionPlan>, query: Arc<RunningQuery>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Monitored { execution: Mutex::new(Execution::new(query)) })
}

/// The partitions of one execution share one pool view, so they share one derived context too.
#[derive(Debug)]
struct Monitored {
    execution: Mutex<Execution>,
}

#[derive(Debug)]
struct Execution {
    query: Arc<RunningQuery>,
    pool: Option<Arc<QueryPool>>,
    /// The context the execution was given and the one derived from it. Weak: a plan that is kept for later must
    /// not keep a runtime alive.
    contexts: (Weak<TaskContext>, Weak<TaskContext>),
}

impl Execution {
    fn new(query: Arc<RunningQuery>) -> Self {
        Self { query, pool: None, contexts: (Weak::new(), Weak::new()) }
    }

    /// The context with this query's view of the memory pool, and that view.
    fn context(&mut self, given: &Arc<TaskContext>) -> (Arc<TaskContext>, Arc<QueryPool>) {
        let pool = match &self.pool {
            Some(pool) if pool.views(given.memory_pool()) => Arc::clone(pool),
            _ => Arc::new(QueryPool::new(Arc::clone(given.memory_pool()))),
        };
        if Weak::ptr_eq(&self.contexts.0, &Arc::downgrade(given))
            && let Some(own) = self.contexts.1.upgrade()
        {
            return (own, pool);
        }
        let memory_pool: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let runtime = RuntimeEnv { memory_pool, ..given.runtime_env().as_ref().clone() };
        let own = derived(given, given.session_config().clone(), Arc::new(runtime));
        self.contexts = (Arc::downgrade(given), Arc::downgrade(&own));
        self.pool = Some(Arc::clone(&pool));
        (own, pool)
    }
}

impl Wrap for Monitored {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (query, context, pool) = {
            let mut execution = self.execution.lock();
            if execution.query.is_over() {
                *execution = Execution::new(execution.query.again());
            }
            let (context, pool) = execution.context(&context);
            (Arc::clone(&execution.query), context, pool)
        };
        query.partition_started(&pool);
        let stream = inner
            .execute(partition, Arc::clone(&context))
            .inspect_err(|error| query.partition_failed(inner.as_ref(), error))?;
        Ok(Box::pin(MonitoredStream {
            stream,
            plan: Arc::clone(inner),
            query,
            open: true,
            _context: context,
        }))
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        let query = self.execution.lock().query.again();
        Arc::new(Self { execution: Mutex::new(Execution::new(query)) })
    }
}

/// One partition's rows on their way to the caller.
///
/// It holds back nothing and copies nothing: a batch costs one atomic addition.
struct MonitoredStream {
    stream: SendableRecordBatchStream,
    plan: Arc<dyn ExecutionPlan>,
    query: Arc<RunningQuery>,
    open: bool,
    /// Keeps the derived context alive for partitions that are executed later.
    _context: Arc<TaskContext>,
}

impl Stream for MonitoredStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.stream.poll_next_unpin(cx));
        match &item {
            Some(Ok(batch)) => self.query.produced(batch.num_rows()),
            Some(Err(error)) if self.open => {
                self.open = false;
                self.query.partition_failed(self.plan.as_ref(), error);
            }
            None if self.open => {
                self.open = false;
                self.query.partition_ended(self.plan.as_ref());
            }
            _ => {}
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl RecordBatchStream for MonitoredStream {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if self.open {
            self.query.partition_dropped(self.plan.as_ref());
        }
    }
}
