//! What a spilling join counts, and how the counts of its inner joins are shown with its own.

use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, SpillMetrics,
};
use parking_lot::Mutex;

/// Counted by the node itself for what it gives, and not to be shown once more for the joins in it.
const OF_OUTPUT: &[&str] =
    &["output_rows", "output_bytes", "output_batches", "elapsed_compute", "start_timestamp", "end_timestamp"];

/// The metrics of one node.
#[derive(Debug, Default)]
pub(super) struct JoinMetrics {
    /// Of the node itself.
    set: ExecutionPlanMetricsSet,
    /// Of the joins that were run over parts of the rows, added up by name.
    inner: Mutex<MetricsSet>,
    /// Of the join that was run where the build side fits, once it has ended.
    plain: Mutex<Option<MetricsSet>>,
}

impl JoinMetrics {
    /// Adds what `join`, which has ended, counted.
    pub(super) fn add_inner(&self, join: &dyn ExecutionPlan) {
        let Some(counted) = join.metrics() else { return };
        let mut sum = self.inner.lock();
        for metric in counted.iter().filter(|metric| !OF_OUTPUT.contains(&metric.value().name())) {
            sum.push(std::sync::Arc::clone(metric));
        }
        *sum = sum.aggregate_by_name();
    }

    /// Keeps what the join of a build side that fits has counted.
    pub(super) fn plain_ended(&self, counted: Option<MetricsSet>) {
        *self.plain.lock() = counted;
    }

    /// All of them, with those of `running`, the join of a build side that fits, where it has not ended.
    pub(super) fn with(&self, running: Option<&MetricsSet>) -> MetricsSet {
        let mut all = self.set.clone_inner();
        let (inner, ended) = (self.inner.lock(), self.plain.lock());
        let plain = running.or(ended.as_ref());
        for metric in inner.iter().chain(plain.into_iter().flat_map(MetricsSet::iter)) {
            all.push(std::sync::Arc::clone(metric));
        }
        all
    }

    /// The counters of a partition that spills. Made when it does, so that a join that fits shows none.
    pub(super) fn spilling(&self, partition: usize) -> Counters {
        let count = |name| MetricBuilder::new(&self.set).counter(name, partition);
        let gauge = |name| MetricBuilder::new(&self.set).gauge(name, partition);
        Counters {
            spill: SpillMetrics::new(&self.set, partition),
            spilled_partitions: count("spilled_partitions"),
            block_passes: count("block_passes"),
            recursion_depth: gauge("recursion_depth"),
            peak_mem_used: gauge("peak_mem_used"),
        }
    }

    /// The counters of the rows that a spilling partition gives.
    pub(super) fn output(&self, partition: usize) -> BaselineMetrics {
        BaselineMetrics::new(&self.set, partition)
    }
}

/// What one spilling partition counts.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    /// Files, bytes and rows that were written, under DataFusion's names, so that the query log counts them.
    pub(super) spill: SpillMetrics,
    /// Parts of the build side that were written to disk.
    pub(super) spilled_partitions: Count,
    /// Passes over the probe rows of parts whose build side did not fit and could not be divided.
    pub(super) block_passes: Count,
    /// How often parts were divided again.
    pub(super) recursion_depth: Gauge,
    /// The most that was reserved at one time for a build side, or for a pair.
    pub(super) peak_mem_used: Gauge,
}

impl Counters {
    /// Notes what is reserved now.
    pub(super) fn reserved(&self, reservation: &MemoryReservation) {
        self.peak_mem_used.set_max(reservation.size());
    }
}
