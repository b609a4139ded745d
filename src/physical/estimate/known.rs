//! What estimates may look up beside the plan itself.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::physical_plan::ExecutionPlan;

use crate::config::SlipstreamOptions;
use crate::physical::feedback::is_observed;
use crate::physical::fingerprint::fingerprint;
use crate::store::{Identity, Knowledge, TableProfile};

/// One value that all rules hand down to their estimates, so that what may be used is decided in one place:
///
/// | | looked up by | switched off by |
/// |---|---|---|
/// | statistics | the identity of a scan's data | `slipstream.statistics.enabled` |
/// | observed rows | the fingerprint of a subtree | `slipstream.feedback.enabled` |
///
/// Neither is looked up while nothing is stored: writing an identity down takes time for every file, which queries
/// of sessions that never analyze should not pay.
///
/// Statistics of analyzed tables, and rows that finished queries have observed; nothing where neither is switched on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known<'a> {
    statistics: Option<&'a Knowledge>,
    observations: Option<&'a Knowledge>,
}

impl<'a> Known<'a> {
    /// What the query with this configuration may know.
    pub(crate) fn of(config: &'a ConfigOptions) -> Self {
        match SlipstreamOptions::active(config).zip(Knowledge::of(config)) {
            Some((options, knowledge)) => Self::with(knowledge, options),
            None => Self::default(),
        }
    }

    /// What a query with these options may know.
    pub(crate) fn with(knowledge: &'a Knowledge, options: &SlipstreamOptions) -> Self {
        let observed = options.feedback_enabled && !knowledge.observations().is_empty();
        Self {
            statistics: options.statistics_enabled.then_some(knowledge),
            observations: observed.then_some(knowledge),
        }
    }

    /// Nothing beside the plan.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// What ANALYZE has found out about the data that the leaf `node` reads.
    pub(super) fn profile(self, node: &dyn ExecutionPlan) -> Option<Arc<TableProfile>> {
        self.statistics?.profile(node)
    }

    /// What ANALYZE has found out about the files of a scan.
    pub(super) fn profile_of_files(self, scan: &FileScanConfig) -> Option<Arc<TableProfile>> {
        let knowledge = self.statistics.filter(|knowledge| !knowledge.statistics().is_empty())?;
        knowledge.profile_of(&Identity::of_files(scan).ok()?)
    }

    /// The rows that an equal subtree gave.
    pub(super) fn observed(self, plan: &Arc<dyn ExecutionPlan>) -> Option<f64> {
        let knowledge = self.observations.filter(|_| is_observed(plan.as_ref()))?;
        Some(knowledge.observed(&fingerprint(plan.as_ref()).ok()?)? as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::arrow::datatypes::DataType;
    use datafusion::common::TableReference;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};
    use datafusion::physical_plan::filter::FilterExec;

    use crate::physical::estimate::estimate;
    use crate::store::{ColumnProfile, Distribution};

    /// Nine rows of ten are 7; the others are spread up to 1,000.
    #[test]
    fn an_analyzed_column_is_estimated_within_a_tenth_where_the_plan_alone_is_wrong_by_orders() {
        let value = |row: i64| if row % 10 < 9 { 7 } else { row % 1000 };
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..10_000).map(value)));
        let batch = RecordBatch::try_from_iter([("brand", Arc::clone(&column))]).unwrap();
        let scan: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[vec![batch.clone()]], batch.schema(), None).unwrap();
        let schema = batch.schema();
        let brand = col("brand", &schema).unwrap();
        let common = binary(brand, Operator::Eq, lit(7_i64), &schema).unwrap();
        let filter: Arc<dyn ExecutionPlan> =
            Arc::new(FilterExec::try_new(common, Arc::clone(&scan)).unwrap());
        let actual = 9_000.0;
        let error = |known| {
            let rows = estimate(&filter, known).unwrap().rows;
            (rows / actual).max(actual / rows)
        };
        assert!(error(Known::nothing()) > 1000.0);

        let knowledge = Knowledge::default();
        let spread = Distribution::of(&column, None).unwrap().unwrap();
        let profile = ColumnProfile {
            index: 0,
            name: "brand".to_owned(),
            data_type: DataType::Int64,
            distinct: 101,
            nulls: 0,
            min: None,
            max: None,
            widths: None,
            sampled: 10_000,
            distribution: Some(Arc::new(spread)),
        };
        let table = TableProfile {
            table: TableReference::bare("t").resolve("c", "s"),
            identity: Identity::of(scan.as_ref()).unwrap(),
            rows: 10_000,
            columns: vec![Arc::new(profile)],
            analyzed: std::time::SystemTime::UNIX_EPOCH,
        };
        knowledge.statistics().put(table, 10, 1 << 20);
        let known = Known { statistics: Some(&knowledge), observations: None };
        assert!(error(known) < 1.1, "{}", error(known));

        let filtered = fingerprint(filter.as_ref()).unwrap();
        knowledge.observations().put(filtered, 9_000, 10, 1 << 20);
        let known = Known { statistics: None, observations: Some(&knowledge) };
        assert_eq!(error(known), 1.0);
        assert_eq!(knowledge.used(), (vec!["c.s.t".to_owned()], vec![9_000]));
    }
}
