//! What one operator has used: memory and temporary files, over all its partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::physical_plan::metrics::{
    Count, Gauge, Metric, MetricCategory, MetricValue, MetricsSet, Time,
};

/// The metric that holds an operator's peak.
const PEAK: &str = "peak_mem_used";

/// Counters of one node in one execution.
///
/// They are shared by its partitions, so that the peak is that of the operator at one moment. DataFusion's metrics of the
/// same name add up the peaks of partitions, which are reached at different times. Each counter has to be exact only at the
/// moment it is changed, hence relaxed atomics.
#[derive(Debug, Default)]
pub(super) struct Usage {
    reserved: AtomicUsize,
    peak: Gauge,
    pub(super) files: Count,
    pub(super) written: Count,
    pub(super) write_time: Time,
    pub(super) read_time: Time,
}

impl Usage {
    /// Memory was reserved.
    pub(super) fn grown(&self, additional: usize) {
        let reserved = self.reserved.fetch_add(additional, Ordering::Relaxed) + additional;
        self.peak.set_max(reserved);
    }

    /// Memory was given back.
    pub(super) fn shrunk(&self, by: usize) {
        self.reserved.fetch_sub(by, Ordering::Relaxed);
    }

    /// `own`, the metrics that the operator keeps itself, with what it does not say.
    ///
    /// | metric | unit | shown |
    /// |---|---|---|
    /// | `peak_mem_used` | bytes | always, in the place of the operator's own |
    /// | `spill_count`, `spilled_bytes` | files, bytes | once it has spilled, where the operator does not count them itself |
    /// | `spill_write_time`, `spill_read_time` | time spent in, or waiting for, temporary files | once it has spilled |
    pub(super) fn added_to(&self, own: &MetricsSet) -> MetricsSet {
        let spilled = self.files.value() > 0;
        let counts_spills = own.spill_count().is_some_and(|files| files > 0);
        let mut all = MetricsSet::new();
        for metric in own.iter() {
            let replaced = match metric.value() {
                MetricValue::SpillCount(_) | MetricValue::SpilledBytes(_) => spilled && !counts_spills,
                value => value.name() == PEAK,
            };
            if !replaced {
                all.push(Arc::clone(metric));
            }
        }
        let peak = MetricValue::PeakMemoryUsage { name: PEAK.into(), gauge: self.peak.clone() };
        all.push(metric(peak, MetricCategory::Bytes));
        if spilled {
            if !counts_spills {
                all.push(metric(MetricValue::SpillCount(self.files.clone()), MetricCategory::Rows));
                all.push(metric(MetricValue::SpilledBytes(self.written.clone()), MetricCategory::Bytes));
            }
            for (name, time) in [("spill_write_time", &self.write_time), ("spill_read_time", &self.read_time)]
            {
                let time = MetricValue::Time { name: name.into(), time: time.clone() };
                all.push(metric(time, MetricCategory::Timing));
            }
        }
        all
    }
}

/// A metric of the whole operator, not of one of its partitions.
fn metric(value: MetricValue, category: MetricCategory) -> Arc<Metric> {
    Arc::new(Metric::new(value, None).with_category(category))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};

    #[test]
    fn peaks_of_partitions_are_replaced_by_the_peak_of_the_operator() {
        let own = ExecutionPlanMetricsSet::new();
        for partition in 0..2 {
            MetricBuilder::new(&own).peak_memory_usage(PEAK, partition).set(60);
        }
        let usage = Usage::default();
        usage.grown(60);
        usage.shrunk(60);
        usage.grown(70);
        assert_eq!((usage.reserved.load(Ordering::Relaxed), usage.peak.value()), (70, 70));
        let all = usage.added_to(&own.clone_inner());
        assert_eq!(all.sum_by_name(PEAK).map(|sum| sum.as_usize()), Some(70));
        assert_eq!(all.spill_count(), None, "an operator that has not spilled shows no files");
    }

    #[test]
    fn spills_are_counted_once() {
        let own = ExecutionPlanMetricsSet::new();
        let files = MetricBuilder::new(&own).spill_count(0);
        MetricBuilder::new(&own).spilled_bytes(0).add(0);
        let usage = Usage::default();
        usage.files.add(2);
        usage.written.add(500);
        let all = usage.added_to(&own.clone_inner());
        assert_eq!(
            (all.spill_count(), all.spilled_bytes()),
            (Some(2), Some(500)),
            "the operator said nothing"
        );
        files.add(3);
        let all = usage.added_to(&own.clone_inner());
        assert_eq!(
            (all.spill_count(), all.spilled_bytes()),
            (Some(3), Some(0)),
            "the operator counts itself"
        );
    }
}
