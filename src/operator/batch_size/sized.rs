//! A node that is executed with a batch size of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{Count, Gauge, Metric, MetricCategory, MetricValue, MetricsSet};

use super::policy::BatchPolicy;
use crate::operator::context::{Derived, derived, holding};
use crate::operator::passthrough::{Passthrough, Wrap};

/// Executes `plan`, whose rows take about `width` bytes, with a batch size that `policy` finds for the memory pool.
///
/// An operator hands its context down, so each node of a plan in which one is wrapped has to be: otherwise the narrow
/// inputs of a wide operator would run with its small batches.
pub(crate) fn sized(
    plan: Arc<dyn ExecutionPlan>,
    width: usize,
    policy: BatchPolicy,
) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Sized::new(width, policy))
}

/// The batch size that the session has configured, where a context has another.
struct ConfiguredRows(usize);

fn configured_rows(context: &TaskContext) -> usize {
    let config = context.session_config();
    config.get_extension::<ConfiguredRows>().map_or_else(|| config.batch_size(), |rows| rows.0)
}

#[derive(Debug)]
struct Sized {
    width: usize,
    policy: BatchPolicy,
    contexts: Derived,
    /// How many partitions were executed with less than the configured batch size.
    shrunk: Count,
    /// The smallest batch size of these.
    rows: AtomicUsize,
}

impl Sized {
    fn new(width: usize, policy: BatchPolicy) -> Self {
        let rows = AtomicUsize::new(usize::MAX);
        Self { width, policy, contexts: Derived::default(), shrunk: Count::new(), rows }
    }
}

impl Wrap for Sized {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let configured = configured_rows(&context);
        let rows = self.policy.rows(self.width, configured, context.memory_pool().as_ref());
        if rows < configured {
            self.shrunk.add(1);
            self.rows.fetch_min(rows, Ordering::Relaxed);
        }
        let fits = |context: &TaskContext| context.session_config().batch_size() == rows;
        if fits(&context) {
            return inner.execute(partition, context);
        }
        let own = self.contexts.get_or_derive(&context, fits, |given| {
            let config = given.session_config().clone().with_batch_size(rows);
            let config = config.with_extension(Arc::new(ConfiguredRows(configured)));
            Ok(derived(given, config, given.runtime_env()))
        })?;
        Ok(holding(inner.execute(partition, Arc::clone(&own))?, own))
    }

    fn metrics(&self, inner: &Arc<dyn ExecutionPlan>) -> Option<MetricsSet> {
        let own = inner.metrics();
        if self.shrunk.value() == 0 {
            return own;
        }
        let mut all = own.unwrap_or_default();
        let rows = Gauge::new();
        rows.set(self.rows.load(Ordering::Relaxed));
        let metrics = [
            MetricValue::Gauge { name: "batch_rows".into(), gauge: rows },
            MetricValue::Count { name: "batch_size_shrunk".into(), count: self.shrunk.clone() },
        ];
        for value in metrics {
            all.push(Arc::new(Metric::new(value, None).with_category(MetricCategory::Rows)));
        }
        Some(all)
    }

    fn reset(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self::new(self.width, self.policy))
    }
}
