//! A node that must not spill, between inputs that may.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;

use super::advised::with_advice;
use super::own_context::execute_in;
use super::passthrough::{Passthrough, Wrap};

/// Runs `plan` without temporary files; when its memory consumer, named `consumer…`, then lacks memory, `advice` is
/// added to the error.
///
/// Its inputs must be wrapped by [`outer_context`](super::outer_context) before it is built, so that they keep theirs.
pub(crate) fn no_spill(
    plan: Arc<dyn ExecutionPlan>,
    consumer: &'static str,
    advice: &'static str,
) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, NoSpill { consumer, advice })
}

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
        let config = context.session_config().clone();
        let stream = execute_in(inner, partition, &context, config, runtime)?;
        let Self { consumer, advice } = **self;
        Ok(with_advice(stream, consumer, advice))
    }
}
