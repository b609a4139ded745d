//! A node whose memory and temporary files are counted for it alone.
//!
//! ```text
//!   query's pool ◄─┬─ OperatorPool (sort) ◄─ the sort's reservations          disk manager ◄─┬─ counted files (sort)
//!                  └─ OperatorPool (join) ◄─ the join's reservations                         └─ counted files (join)
//! ```
//!
//! DataFusion gives every operator the same `TaskContext`. Here an operator is executed in one of its own, whose pool and
//! disk manager forward to those around it and count.

mod files;
mod kind;
mod pool;
mod usage;

use std::any::Any;
use std::sync::{Arc, Weak};

use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use parking_lot::Mutex;

pub(crate) use self::kind::ContextUse;

use self::files::counted;
use self::pool::{OperatorPool, around};
use self::usage::Usage;
use super::context::{derived, derived_without_functions};
use super::passthrough::{Passthrough, Wrap};

/// Counts what `plan` reserves and spills, and adds it to its metrics.
///
/// `functions` says whether `plan` or something below it may look up functions in its context. DataFusion's nodes do not,
/// and a context without the function maps is derived a hundred times faster.
pub(crate) fn accounted(plan: Arc<dyn ExecutionPlan>, functions: bool) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Accounted::new(functions))
}

/// Whether `plan` is the wrapper that [`accounted`] puts around a node.
pub(crate) fn is_accounted(plan: &dyn ExecutionPlan) -> bool {
    (plan as &dyn Any).is::<Passthrough<Accounted>>()
}

#[derive(Debug)]
struct Accounted {
    usage: Arc<Usage>,
    functions: bool,
    /// The context that the last partition was given and the one derived from it. Weak: a plan that is kept for later must
    /// not keep a runtime alive.
    contexts: Mutex<(Weak<TaskContext>, Weak<TaskContext>)>,
}

impl Accounted {
    fn new(functions: bool) -> Self {
        Self { usage: Arc::default(), functions, contexts: Mutex::default() }
    }

    fn context(&self, given: &Arc<TaskContext>) -> Result<Arc<TaskContext>> {
        let mut contexts = self.contexts.lock();
        if Weak::ptr_eq(&contexts.0, &Arc::downgrade(given))
            && let Some(own) = contexts.1.upgrade()
        {
            return Ok(own);
        }
        let own = self.derive(given)?;
        *contexts = (Arc::downgrade(given), Arc::downgrade(&own));
        Ok(own)
    }

    fn derive(&self, given: &TaskContext) -> Result<Arc<TaskContext>> {
        let (pool, disk) = around(given);
        let disk_manager = counted(&disk, &self.usage)?;
        let disks = (disk, Arc::clone(&disk_manager));
        let memory_pool: Arc<dyn MemoryPool> =
            Arc::new(OperatorPool::new(pool, Arc::clone(&self.usage), disks));
        let runtime = RuntimeEnv { memory_pool, disk_manager, ..given.runtime_env().as_ref().clone() };
        let derive = if self.functions { derived } else { derived_without_functions };
        Ok(derive(given, given.session_config().clone(), Arc::new(runtime)))
    }
}

impl Wrap for Accounted {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let context = self.context(&context)?;
        let rows = inner.execute(partition, Arc::clone(&context))?;
        if !self.functions {
            return Ok(rows);
        }
        // Kept for the partitions that are executed later: this one is dear.
        let kept = move |item| {
            let _ = &context;
            item
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(rows.schema(), rows.map(kept))))
    }

    fn metrics(&self, inner: &Arc<dyn ExecutionPlan>) -> Option<MetricsSet> {
        Some(self.usage.added_to(&inner.metrics().unwrap_or_default()))
    }

    /// A copy that was reset starts from zero, as DataFusion's own metrics do.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self::new(self.functions))
    }
}
