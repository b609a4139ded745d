//! The query planner that opens a query's scope, has it planned, and puts the observers on top.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{ExplainFormat, LogicalPlan};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::Slipstream;
use super::cache::{Looked, UNANSWERED, from_broader, look_up, missed, not_cached, not_from_broader};
use super::reuse::{Broader, Known, Parts};
use super::scoped_session::ScopedSession;
use crate::config::{CacheMode, SlipstreamOptions};
use crate::fingerprint::Refusal;
use crate::monitor::ReceivedQuery;
use crate::operator::{Recorder, explained, monitored, observed, recorded, unfolded};
use crate::physical::observe;
use crate::scope::{QueryScope, RuleReport, Verdict};
use crate::store::Knowledge;

/// The planner that the session had before the layer came.
#[derive(Debug)]
pub(super) struct BasePlanner(pub(super) Option<Arc<dyn QueryPlanner + Send + Sync>>);

impl BasePlanner {
    /// Plans with DataFusion's default planner where the session's owner set none.
    pub(super) async fn plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.0 {
            Some(planner) => planner.create_physical_plan(plan, session).await,
            None => DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await,
        }
    }
}

/// Wraps the session's own planner; does nothing where the layer is switched off.
#[derive(Debug)]
pub(super) struct SlipstreamPlanner {
    base: BasePlanner,
    slipstream: Slipstream,
    has_own_base: bool,
}

impl SlipstreamPlanner {
    pub(super) fn new(base: Option<Arc<dyn QueryPlanner + Send + Sync>>, slipstream: Slipstream) -> Self {
        let has_own_base = base.as_ref().is_some_and(|base| {
            // Its type has no name outside of DataFusion.
            let plain = SessionStateBuilder::new().build();
            let (base, plain): (&dyn Any, &dyn Any) = (base.as_ref(), plain.query_planner().as_ref());
            base.type_id() != plain.type_id()
        });
        Self { base: BasePlanner(base), slipstream, has_own_base }
    }

    /// Whether `planner` is the layer's.
    pub(super) fn is(planner: &(dyn QueryPlanner + Send + Sync)) -> bool {
        (planner as &dyn Any).is::<Self>()
    }

    /// The layer's planner in `state`, where the layer is installed and switched on.
    pub(super) fn active(state: &SessionState) -> Option<(&Self, &SlipstreamOptions)> {
        Self::of(state).filter(|(_, options)| options.enabled)
    }

    /// The layer's planner in `state`, where the layer is installed.
    pub(super) fn of(state: &SessionState) -> Option<(&Self, &SlipstreamOptions)> {
        let options = state.config_options().extensions.get::<SlipstreamOptions>()?;
        let planner: &dyn Any = state.query_planner().as_ref();
        Some((planner.downcast_ref()?, options))
    }

    /// Whether the session's owner has a planner, other than the one that each session has.
    pub(super) fn has_own_base(&self) -> bool {
        self.has_own_base
    }

    /// The components that the layer was installed with.
    pub(super) fn slipstream(&self) -> &Slipstream {
        &self.slipstream
    }

    /// Plans under `scope`, recording the query where the log is on.
    pub(super) async fn plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
        options: &SlipstreamOptions,
        scope: QueryScope,
        received: Option<ReceivedQuery>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planned = Box::pin(self.plan_or_answer(plan, session, options, &scope)).await;
        let physical = match planned {
            Ok(physical) => physical,
            Err(error) => {
                if let Some(received) = received {
                    received.failed(&error);
                }
                return Err(error);
            }
        };
        let physical = if options.explain_enabled && has_room_for_a_row(plan) {
            explained(physical, scope)
        } else {
            physical
        };
        let partitions = physical.output_partitioning().partition_count();
        let query = received.and_then(|received| received.planned(partitions));
        let governor = self.slipstream.governor();
        // Without a record and without a limit there is nothing to observe.
        Ok(match query.is_some() || governor.governs(options) {
            true => monitored(physical, query, governor),
            false => physical,
        })
    }

    /// The plan of an answer that is kept, or the session's own planner's.
    async fn plan_or_answer(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
        options: &SlipstreamOptions,
        scope: &QueryScope,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let recorder = match look_up(&self.slipstream, plan, session, options, scope).await? {
            Looked::Hit(answer) => return Ok(answer),
            Looked::Miss(recorder) => Some(*recorder),
            Looked::Broader(broader, recorder) => {
                match Box::pin(self.plan_over(*broader, *recorder, plan, session, options, scope)).await? {
                    Ok(physical) => return Ok(physical),
                    Err(recorder) => Some(recorder),
                }
            }
            Looked::Nothing => None,
        };
        let knowledge = self.slipstream.knowledge().for_query();
        let scoped = ScopedSession::new(session, &self.base, scope.clone(), &knowledge);
        let known = recorder.as_ref().map_or_else(Known::default, Known::of);
        let parts = Parts::new(&self.slipstream, &self.base, session, options, scope, known);
        let reused = Box::pin(parts.put_into(plan)).await?;
        let physical = self.base.plan(reused.as_ref().unwrap_or(plan), &scoped).await?;
        let physical = if reused.is_some() { unfolded(physical)? } else { physical };
        report_used(&knowledge, scope);
        let physical =
            if options.feedback_enabled { learning(physical, knowledge, options) } else { physical };
        Ok(match recorder {
            Some(recorder) => recorded(physical, recorder),
            None => physical,
        })
    }
}

impl SlipstreamPlanner {
    /// The plan of `plan` over an answer to a broader query; or the recorder, where the two have not the same columns, as far
    /// as types, NULLs and metadata go, or the answer cannot be planned.
    ///
    /// # Errors
    /// There is none, and the mode is `only_if_cached`.
    async fn plan_over(
        &self,
        broader: Broader,
        mut recorder: Recorder,
        plan: &LogicalPlan,
        session: &dyn Session,
        options: &SlipstreamOptions,
        scope: &QueryScope,
    ) -> Result<Result<Arc<dyn ExecutionPlan>, Recorder>> {
        let knowledge = self.slipstream.knowledge().for_query();
        let scoped = ScopedSession::new(session, &self.base, scope.clone(), &knowledge);
        // Exchanges would mix up an order that no column shows.
        let scoped = if broader.in_order { scoped.secluded() } else { scoped };
        let why = match self.base.plan(&broader.plan, &scoped).await {
            Ok(physical) if physical.schema().as_ref() == plan.schema().as_arrow() => {
                from_broader(&self.slipstream, scope, &broader);
                recorder.derive_from(&broader.result);
                return Ok(Ok(recorded(physical, recorder)));
            }
            Ok(_) => "the columns would have other types".into(),
            Err(error) => format!("it has no plan: {}", error.strip_backtrace()),
        };
        not_from_broader(&self.slipstream, scope, Refusal::new("broader schema", why));
        missed(&self.slipstream, scope);
        match options.cache_mode {
            CacheMode::OnlyIfCached => not_cached(UNANSWERED),
            _ => Ok(Err(recorder)),
        }
    }
}

#[async_trait]
impl QueryPlanner for SlipstreamPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let config = session.config_options();
        let Some(options) = SlipstreamOptions::active(config) else {
            return self.base.plan(plan, session).await;
        };
        // A table that plans a query of its own while a query is planned: part of that one.
        if QueryScope::of(config).is_some() {
            return self.base.plan(plan, session).await;
        }
        let scope = QueryScope::default();
        let received = options.query_log_enabled.then(|| {
            let text = beginning(plan, options.query_log_max_text_bytes);
            self.slipstream.received(options, &scope, &text, None)
        });
        self.plan(plan, session, options, scope, received).await
    }
}

/// Observed row counts that EXPLAIN lists.
const SHOWN: usize = 8;

/// Says in the query's scope what its plan was made from, where that was more than the files tell.
fn report_used(knowledge: &Knowledge, scope: &QueryScope) {
    let (tables, observed) = knowledge.used();
    let say = |rule, what: String| {
        scope.report(RuleReport { rule, verdict: Verdict::Applied(what.into()), elapsed: Duration::ZERO });
    };
    if !tables.is_empty() {
        say("statistics", format!("of {}, from ANALYZE", tables.join(", ")));
    }
    if !observed.is_empty() {
        let some: Vec<String> = observed.iter().take(SHOWN).map(u64::to_string).collect();
        let more = if observed.len() > SHOWN { ", …" } else { "" };
        say("feedback", format!("row counts that earlier queries observed: {}{more}", some.join(", ")));
    }
}

/// The same plan, from which the layer learns when it has run to its end.
fn learning(
    plan: Arc<dyn ExecutionPlan>,
    knowledge: Knowledge,
    options: &SlipstreamOptions,
) -> Arc<dyn ExecutionPlan> {
    let options = options.clone();
    observed(plan, Arc::new(move |plan| observe(plan, &knowledge, &options)))
}

/// Whether EXPLAIN's output is for people; the machine-readable formats stay as they are.
fn has_room_for_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Explain(explain) => {
            matches!(explain.explain_format, ExplainFormat::Indent | ExplainFormat::Tree)
        }
        LogicalPlan::Analyze(analyze) => {
            matches!(analyze.format, ExplainFormat::Indent | ExplainFormat::Tree)
        }
        _ => false,
    }
}

/// The beginning of the plan's picture, for queries that came without text.
///
/// The picture is cut off while it is drawn: a wide plan takes longer to print than to plan.
fn beginning(plan: &LogicalPlan, max_bytes: usize) -> String {
    struct Limited {
        text: String,
        max_bytes: usize,
    }

    impl Write for Limited {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            self.text.push_str(part);
            if self.text.len() > self.max_bytes { Err(std::fmt::Error) } else { Ok(()) }
        }
    }

    let mut limited = Limited { text: String::from("plan: "), max_bytes: max_bytes.min(PLAN_TEXT_BYTES) };
    // An error says that the limit was reached.
    let _ = write!(limited, "{}", plan.display_indent());
    limited.text
}

/// Drawing this much of a plan takes about ten microseconds.
const PLAN_TEXT_BYTES: usize = 512;
