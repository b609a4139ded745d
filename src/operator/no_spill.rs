//! A node that must not spill, between inputs that may.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use super::context::derived;
use super::passthrough::{Passthrough, Wrap};

/// Runs `plan` without temporary files; when its memory consumer, named `consumer…`, then lacks memory, `advice` is
/// added to the error.
///
/// Its inputs must be wrapped by [`outer_context`] before it is built, so that they keep theirs:
///
/// ```text
///   no_spill(NestedLoopJoinExec)         no temporary files
///     ├─ outer_context(left)             as above the join
///     └─ outer_context(right)
/// ```
pub(crate) fn no_spill(
    plan: Arc<dyn ExecutionPlan>,
    consumer: &'static str,
    advice: &'static str,
) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, NoSpill { consumer, advice })
}

/// Runs `plan`, an input of a node that runs in a context of its own, in the context that the node was given.
pub(crate) fn outer_context(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Outer)
}

/// The context around a node that runs in one of its own, carried to its inputs.
pub(super) struct OuterContext(pub(super) Arc<TaskContext>);

/// Derives a context without temporary files. Where there are none anyway, nothing is changed.
#[derive(Debug)]
struct NoSpill {
    consumer: &'static str,
    advice: &'static str,
}

impl Wrap for NoSpill {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if !context.runtime_env().disk_manager.tmp_files_enabled() {
            return inner.execute(partition, context);
        }
        let disk_manager =
            Arc::new(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled).build()?);
        let runtime = RuntimeEnv { disk_manager, ..context.runtime_env().as_ref().clone() };
        let outer = Arc::new(OuterContext(Arc::clone(&context)));
        let config = context.session_config().clone().with_extension(outer);
        let stream = inner.execute(partition, derived(&context, config, Arc::new(runtime)))?;
        let Self { consumer, advice } = **self;
        // Who asked, as all pools say it; the consumer may also be among those who hold the memory that another lacked.
        let asking = format!(" for {consumer}");
        let stream_schema = stream.schema();
        let advised = stream.map_err(move |error| match error.find_root() {
            // Inputs run out of memory too, and raise errors of their own through here.
            DataFusionError::ResourcesExhausted(message) if message.contains(&asking) => {
                error.context(advice)
            }
            _ => error,
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(stream_schema, advised)))
    }
}

/// Puts the context back that the nearest node above took away.
#[derive(Debug)]
struct Outer;

impl Wrap for Outer {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let outer = context.session_config().get_extension::<OuterContext>();
        inner.execute(partition, outer.map_or(context, |outer| Arc::clone(&outer.0)))
    }
}
