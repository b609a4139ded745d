//! A `TaskContext` for a subtree that runs with another pool or other services than its surroundings.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use parking_lot::Mutex;

use super::result_cache::CachedResultExec;

/// The context that `plan` runs in, by `state`. An answer that is there looks up no function: copying the maps of them takes as
/// long as finding it.
pub(crate) fn context_for(plan: &dyn ExecutionPlan, state: &SessionState) -> Arc<TaskContext> {
    if !plan.is::<CachedResultExec>() {
        return state.task_ctx();
    }
    let (config, runtime) = (state.config().clone(), Arc::clone(state.runtime_env()));
    without_functions(None, state.session_id().to_owned(), config, runtime)
}

/// The same context with another configuration and runtime.
///
/// `TaskContext` is not `Clone`, so the function maps are copied: tens of microseconds, which is why callers
/// derive a context once for an execution and not once for a partition where they can.
pub(super) fn derived(
    context: &TaskContext,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        runtime,
    ))
}

/// The same, without the functions: some 300 entries that plans of DataFusion's own nodes never look up.
pub(super) fn derived_without_functions(
    context: &TaskContext,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Arc<TaskContext> {
    without_functions(context.task_id(), context.session_id(), config, runtime)
}

fn without_functions(
    task_id: Option<String>,
    session_id: String,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        task_id,
        session_id,
        config,
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        runtime,
    ))
}

/// The context that the last partition of a node was given and the one derived from it.
///
/// Weak: a plan that is kept for later must not keep a runtime alive.
#[derive(Debug, Default)]
pub(super) struct Derived(Mutex<(Weak<TaskContext>, Weak<TaskContext>)>);

impl Derived {
    /// The context derived from `given` before, where it is still in use and `fits`; else a new one.
    ///
    /// # Errors
    /// Those of `derive`.
    pub(super) fn get_or_derive(
        &self,
        given: &Arc<TaskContext>,
        fits: impl FnOnce(&TaskContext) -> bool,
        derive: impl FnOnce(&TaskContext) -> Result<Arc<TaskContext>>,
    ) -> Result<Arc<TaskContext>> {
        let mut last = self.0.lock();
        if Weak::ptr_eq(&last.0, &Arc::downgrade(given))
            && let Some(own) = last.1.upgrade()
            && fits(&own)
        {
            return Ok(own);
        }
        let own = derive(given)?;
        *last = (Arc::downgrade(given), Arc::downgrade(&own));
        Ok(own)
    }
}

/// `rows`, which keep `context` for the partitions that are executed after them.
pub(super) fn holding(
    rows: SendableRecordBatchStream,
    context: Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows = rows.map(move |item| {
        let _ = &context;
        item
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}
