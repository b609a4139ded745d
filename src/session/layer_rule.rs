//! The one wrapper around every rule of the layer: switched off by name, timed, schema checked, reported.

use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

use crate::clock::Clock;
use crate::config::SlipstreamOptions;
use crate::physical::{PhysicalRule, Rewrite};
use crate::scope::{QueryScope, RuleReport, SmallQuery};

/// A [`PhysicalRule`] as DataFusion's optimizer sees it.
///
/// With the layer switched off it returns the plan untouched and says nothing; with the rule switched off it
/// reports a refusal, so that EXPLAIN tells why a rule is not to be seen.
#[derive(Debug)]
pub(super) struct LayerRule {
    rule: Arc<dyn PhysicalRule>,
    clock: Arc<dyn Clock>,
}

impl LayerRule {
    pub(super) fn new(rule: Arc<dyn PhysicalRule>, clock: Arc<dyn Clock>) -> Self {
        Self { rule, clock }
    }

    fn rewrite(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
        options: &SlipstreamOptions,
    ) -> Result<Rewrite> {
        let name = self.rule.name();
        if options.rule_disabled(name) {
            return Ok(Rewrite::refused(plan, "switched off by slipstream.disabled_rules"));
        }
        if !self.rule.enabled(options) {
            return Ok(Rewrite::refused(plan, format!("switched off by slipstream.{name}.enabled")));
        }
        if self.rule.saves_work() && SmallQuery::is(config) {
            return Ok(Rewrite::refused(plan, "small_query: there is little to save"));
        }
        let schema = plan.schema();
        let rewrite = self.rule.rewrite(plan, config)?;
        if rewrite.plan.schema() != schema {
            return internal_err!(
                "rule {name} changed the schema of the plan from {schema:?} to {:?}; \
                 SET slipstream.disabled_rules = '{name}' runs the query without it",
                rewrite.plan.schema()
            );
        }
        Ok(rewrite)
    }
}

impl PhysicalOptimizerRule for LayerRule {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(options) = SlipstreamOptions::active(config) else {
            return Ok(plan);
        };
        let begun = self.clock.now();
        let Rewrite { plan, verdict } = self.rewrite(plan, config, options)?;
        if let Some(scope) = QueryScope::of(config) {
            let elapsed = self.clock.now().saturating_duration_since(begun);
            scope.report(RuleReport { rule: self.rule.name(), verdict, elapsed });
        }
        Ok(plan)
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    /// DataFusion checks again, behind ours, whose message names the way out.
    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::scope::Verdict;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::empty::EmptyExec;

    #[derive(Debug)]
    struct ChangesTheSchema;

    impl PhysicalRule for ChangesTheSchema {
        fn name(&self) -> &'static str {
            "changes_the_schema"
        }

        fn enabled(&self, options: &SlipstreamOptions) -> bool {
            options.explain_enabled
        }

        fn rewrite(&self, _plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Rewrite> {
            let schema = Schema::new(vec![Field::new("other", DataType::Int32, true)]);
            Ok(Rewrite::applied(Arc::new(EmptyExec::new(Arc::new(schema))), "did harm"))
        }
    }

    fn optimize(options: SlipstreamOptions) -> (Result<Arc<dyn ExecutionPlan>>, Vec<Verdict>) {
        let scope = QueryScope::default();
        let mut config = ConfigOptions::default();
        config.extensions.insert(options);
        config.extensions.insert(scope.clone());
        let rule = LayerRule::new(Arc::new(ChangesTheSchema), Arc::new(SystemClock));
        let plan = rule.optimize(Arc::new(EmptyExec::new(Arc::new(Schema::empty()))), &config);
        (plan, scope.reports().into_iter().map(|report| report.verdict).collect())
    }

    #[test]
    fn a_changed_schema_is_an_error_that_names_the_rule_and_the_way_out() {
        let error = optimize(SlipstreamOptions::default()).0.unwrap_err().to_string();
        assert!(error.contains("rule changes_the_schema changed the schema"), "{error}");
        assert!(error.contains("slipstream.disabled_rules = 'changes_the_schema'"), "{error}");
    }

    #[test]
    fn a_rule_is_switched_off_by_name_by_feature_and_with_the_layer() {
        let by_name =
            SlipstreamOptions { disabled_rules: vec!["changes_the_schema".into()], ..Default::default() };
        let (plan, verdicts) = optimize(by_name);
        assert_eq!(plan.unwrap().schema().fields().len(), 0);
        assert_eq!(verdicts, [Verdict::Refused("switched off by slipstream.disabled_rules".into())]);

        let (plan, verdicts) = optimize(SlipstreamOptions { explain_enabled: false, ..Default::default() });
        assert_eq!(plan.unwrap().schema().fields().len(), 0);
        assert!(matches!(&verdicts[..], [Verdict::Refused(reason)] if reason.contains("enabled")));

        let (plan, verdicts) = optimize(SlipstreamOptions { enabled: false, ..Default::default() });
        assert_eq!(plan.unwrap().schema().fields().len(), 0);
        assert!(verdicts.is_empty());
    }
}
