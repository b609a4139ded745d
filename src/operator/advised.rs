//! A node whose errors for want of memory say what to do.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use super::passthrough::{Passthrough, Wrap};

/// Runs `plan`; where its memory consumer, named `consumer…`, lacks memory, `advice` is added to the error.
pub(crate) fn advised(
    plan: Arc<dyn ExecutionPlan>,
    consumer: &'static str,
    advice: &'static str,
) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Advised { consumer, advice })
}

#[derive(Debug)]
struct Advised {
    consumer: &'static str,
    advice: &'static str,
}

impl Wrap for Advised {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        Ok(with_advice(inner.execute(partition, context)?, self.consumer, self.advice))
    }
}

/// `rows`, with `advice` added to the errors of `consumer`.
pub(super) fn with_advice(
    rows: SendableRecordBatchStream,
    consumer: &'static str,
    advice: &'static str,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let advised = rows.map_err(move |error| match error.find_root() {
        // Inputs run out of memory too, and raise errors of their own through here.
        DataFusionError::ResourcesExhausted(message) if message.contains(&format!("for {consumer}")) => {
            error.context(advice)
        }
        _ => error,
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, advised))
}
