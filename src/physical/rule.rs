//! What a physical rule of the layer is: a plan in; a plan and a verdict out.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::ExecutionPlan;

use crate::config::SlipstreamOptions;
use crate::scope::Verdict;

/// A rule that leaves an executable plan with the same schema and the same rows, or refuses.
///
/// It is a pure function: whether it is switched off, how long it takes, whether it kept the schema and who
/// hears of its verdict is the business of the one wrapper that `session::rule_order` puts around it.
pub(crate) trait PhysicalRule: Debug + Send + Sync + 'static {
    /// The name, as `slipstream.disabled_rules` takes it.
    fn name(&self) -> &'static str;

    /// Whether the feature that the rule belongs to is switched on.
    fn enabled(&self, options: &SlipstreamOptions) -> bool;

    /// Whether all it does is to save work: it is left out of small queries, which are over before it could pay.
    fn saves_work(&self) -> bool {
        false
    }

    /// Rewrites the plan, or says why it does not.
    ///
    /// # Errors
    /// Where the plan could not be rebuilt; the query fails, since half a rewrite is no plan.
    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite>;
}

/// A plan, and what was done to it.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// The plan to go on with.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// What was done, or why nothing was.
    pub(crate) verdict: Verdict,
}

impl Rewrite {
    /// A changed plan.
    pub(crate) fn applied(plan: Arc<dyn ExecutionPlan>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { plan, verdict: Verdict::Applied(detail.into()) }
    }

    /// The plan as it came.
    pub(crate) fn refused(plan: Arc<dyn ExecutionPlan>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { plan, verdict: Verdict::Refused(reason.into()) }
    }
}
