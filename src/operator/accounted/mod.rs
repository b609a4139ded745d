//! A node whose memory and temporary files are counted for it alone.
//!
//! ```text
//!   query's pool ◄─┬─ counting view (sort) ◄─ the sort's reservations          disk manager ◄─┬─ counted files (sort)
//!                  └─ counting view (join) ◄─ the join's reservations                         └─ counted files (join)
//! ```
//!
//! DataFusion gives every operator the same `TaskContext`. Here an operator is executed in one of its own, whose pool and
//! disk manager forward to those around it and count.

mod files;
mod kind;
mod pool;
mod sort;
mod usage;

use std::any::Any;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;

pub(crate) use self::kind::ContextUse;

use self::files::counted;
use self::pool::{around, counting};
use self::sort::OneColumnSorts;
use self::usage::Usage;
use super::context::{Derived, derived, derived_without_functions, holding};
use super::own_context::below_outer_context;
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
    (below_outer_context(plan) as &dyn Any).is::<Passthrough<Accounted>>()
}

#[derive(Debug)]
struct Accounted {
    usage: Arc<Usage>,
    functions: bool,
    contexts: Derived,
}

impl Accounted {
    fn new(functions: bool) -> Self {
        Self { usage: Arc::default(), functions, contexts: Derived::default() }
    }

    fn derive(&self, node: &dyn ExecutionPlan, given: &TaskContext) -> Result<Arc<TaskContext>> {
        let (pool, disk) = around(given);
        let disk_manager = counted(&disk, &self.usage)?;
        let disks = (disk, Arc::clone(&disk_manager));
        let sorts = OneColumnSorts::of(node, &given.session_config().options().execution);
        let memory_pool = counting(&pool, &self.usage, disks, sorts);
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
        let own =
            self.contexts.get_or_derive(&context, |_| true, |given| self.derive(inner.as_ref(), given))?;
        let rows = inner.execute(partition, Arc::clone(&own))?;
        // A full copy is dear.
        Ok(if self.functions { holding(rows, own) } else { rows })
    }

    fn metrics(&self, inner: &Arc<dyn ExecutionPlan>) -> Option<MetricsSet> {
        Some(self.usage.added_to(&inner.metrics().unwrap_or_default()))
    }

    /// A copy that was reset starts from zero, as DataFusion's own metrics do.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self::new(self.functions))
    }
}
