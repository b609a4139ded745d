//! The session's physical rules, as a query sees them that turns out to be small.
//!
//! ```text
//!   plan of DataFusion's planner ─► first rule ─┬─ few rows: one partition, no rules that only save work
//!                                               └─ else: as the session is set
//! ```
//!
//! An exchange, a second partial aggregate, a filter made while the query runs: each costs some ten microseconds, whatever the
//! data. A query over some ten thousand rows is over before they could pay.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use parking_lot::Mutex;

use super::rule_order::Rule;
use crate::config::SlipstreamOptions;
use crate::physical::rows_handled;
use crate::scope::{QueryScope, RuleReport, SmallQuery, Verdict};

/// What reports call it.
const NAME: &str = "small_query";

/// The rules of `session`, for one query.
pub(super) fn fitted(session: &dyn Session) -> Vec<Rule> {
    let decided = Arc::default();
    let rules = session.physical_optimizers().iter().enumerate();
    rules
        .map(|(place, rule)| {
            let (rule, decided) = (Arc::clone(rule), Arc::clone(&decided));
            Arc::new(Fitted { rule, is_first: place == 0, decided }) as Rule
        })
        .collect()
}

/// Whether the query of this configuration may turn out to be small.
pub(super) fn may_be_small(config: &ConfigOptions) -> bool {
    SlipstreamOptions::active(config).is_some_and(|options| options.small_query_max_rows > 0)
}

/// One rule of the session's.
#[derive(Debug)]
struct Fitted {
    rule: Rule,
    is_first: bool,
    /// The configuration of the plan that is on its way through the rules, where it is small.
    decided: Arc<Mutex<Option<Arc<ConfigOptions>>>>,
}

impl Fitted {
    fn decide(&self, plan: &dyn ExecutionPlan, config: &ConfigOptions) -> Option<Arc<ConfigOptions>> {
        let options = SlipstreamOptions::active(config)?;
        let scope = QueryScope::of(config)?;
        let hinted = scope.reports().iter().any(|report| report.rule == "hint");
        let rows = match hinted {
            true => Err("it has hints, which are obeyed".into()),
            false => rows_handled(plan, options.small_query_max_rows, config),
        };
        let (verdict, config) = match rows {
            Ok(rows) => {
                let mut small = config.clone();
                in_one_partition(&mut small);
                small.extensions.insert(SmallQuery);
                (Verdict::Applied(format!("at most {rows:.0} rows, in one partition").into()), Some(small))
            }
            Err(why) => (Verdict::Refused(why), None),
        };
        scope.report(RuleReport { rule: NAME, verdict, elapsed: Duration::ZERO });
        config.map(Arc::new)
    }
}

/// No exchanges, and no filters that are made while the query runs.
pub(super) fn in_one_partition(config: &mut ConfigOptions) {
    config.execution.target_partitions = 1;
    config.optimizer.repartition_file_scans = false;
    config.optimizer.enable_dynamic_filter_pushdown = false;
    config.optimizer.enable_join_dynamic_filter_pushdown = false;
    config.optimizer.enable_topk_dynamic_filter_pushdown = false;
    config.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
}

impl PhysicalOptimizerRule for Fitted {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.rule.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.is_first {
            let decided = self.decide(plan.as_ref(), context.config_options());
            *self.decided.lock() = decided;
        }
        let decided = self.decided.lock().clone();
        match decided {
            Some(config) => {
                let statistics = context.statistics_registry();
                self.rule.optimize_with_context(plan, &Small { config: &config, statistics })
            }
            None => self.rule.optimize_with_context(plan, context),
        }
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

/// What rules see while a small query is planned.
struct Small<'a> {
    config: &'a ConfigOptions,
    statistics: Option<&'a StatisticsRegistry>,
}

impl PhysicalOptimizerContext for Small<'_> {
    fn config_options(&self) -> &ConfigOptions {
        self.config
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.statistics
    }
}
