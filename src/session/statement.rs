//! The stations of one statement: parsed, planned, running.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{DFSchema, Result, plan_datafusion_err};
use datafusion::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, EmptyRelation, LogicalPlan, Statement as StatementPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, dialect_from_str};

use super::analyze::{analyze_of, plan_analyze};
use super::hints::{apply_hints, without_hints};
use super::plan_cache::{self, KnownPlan, PlanKeeper, Sought};
use super::planner::SlipstreamPlanner;
use super::query::QueryStream;
use super::text::statement_texts;
use crate::config::SlipstreamOptions;
use crate::hint::hints_in;
use crate::monitor::ReceivedQuery;
use crate::operator::context_for;
use crate::scope::QueryScope;

/// One parsed statement and its text.
#[derive(Debug, Clone)]
pub struct ParsedQuery {
    statement: Statement,
    text: String,
    parse: Duration,
}

impl ParsedQuery {
    /// The statement.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The statement's text, without the semicolon.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn parse(state: &SessionState, sql: &str) -> Result<Vec<Self>> {
        let layer = SlipstreamPlanner::active(state);
        let now = || layer.map(|(planner, _)| planner.slipstream().clock().now());
        let begun = now();
        let statements = parse_statements(state, sql);
        let parse =
            begun.zip(now()).map(|(begun, now)| now.saturating_duration_since(begun)).unwrap_or_default();
        let statements = statements.inspect_err(|error| {
            if let Some((planner, options)) = layer.filter(|(_, options)| options.query_log_enabled) {
                let scope = QueryScope::with_text(sql);
                planner.slipstream().received(options, &scope, sql.trim(), Some(parse)).failed(error);
            }
        })?;
        let texts = statement_texts(sql, dialect(state)?.as_ref());
        let known = texts.len() == statements.len();
        let texts = texts.into_iter().map(Some).filter(|_| known).chain(std::iter::repeat(None));
        Ok(statements
            .into_iter()
            .zip(texts)
            .map(|(statement, text)| {
                let text = text.map_or_else(|| statement.to_string(), str::to_owned);
                Self { statement, text, parse }
            })
            .collect())
    }
}

/// The SQL dialect that the session is set to.
fn dialect(state: &SessionState) -> Result<Box<dyn SqlDialect>> {
    let name = &state.config_options().sql_parser.dialect;
    dialect_from_str(name).ok_or_else(|| {
        plan_datafusion_err!("unsupported SQL dialect '{name}'. Available: {}.", Dialect::available())
    })
}

/// The statements of `sql`, with the parser and the limits that the session would use.
fn parse_statements(state: &SessionState, sql: &str) -> Result<Vec<Statement>> {
    let recursion_limit = state.config_options().sql_parser.recursion_limit.into();
    let dialect = dialect(state)?;
    let mut parser = DFParserBuilder::new(sql)
        .with_dialect(dialect.as_ref())
        .with_recursion_limit(recursion_limit)
        .build()?;
    Ok(parser.parse_statements()?.into())
}

/// One statement with its logical plan. Nothing has acted yet.
pub struct PlannedQuery {
    context: SessionContext,
    /// The session as this query sees it: changed by its hints, and by nothing that happens to the session later.
    state: SessionState,
    plan: LogicalPlan,
    layer: Option<Layer>,
    cached: Cached,
}

/// What the cache of plans has to do with a statement.
enum Cached {
    /// Nothing.
    Nothing,
    /// The plan comes from there, and is optimized already.
    Known,
    /// It keeps the plan.
    Keeps { keeper: Box<PlanKeeper>, text: String },
}

/// What the layer keeps of a query until its stream begins. Absent where the layer is not installed, or off.
struct Layer {
    options: SlipstreamOptions,
    scope: QueryScope,
    received: Option<ReceivedQuery>,
}

impl Layer {
    /// Opens the scope of the query `text` and applies its hints to its own copy of the session's state.
    fn open(state: &mut SessionState, text: &str, parse: Option<Duration>) -> Result<Option<Self>> {
        if SlipstreamPlanner::active(state).is_none() {
            return Ok(None);
        }
        let scope = QueryScope::with_text(text);
        let hints = hints_in(text, dialect(state)?.as_ref());
        if !hints.is_empty() {
            apply_hints(state, &hints, &scope);
        }
        let Some((planner, options)) = SlipstreamPlanner::of(state) else {
            return Ok(None);
        };
        let received =
            options.query_log_enabled.then(|| planner.slipstream().received(options, &scope, text, parse));
        Ok(Some(Self { options: options.clone(), scope, received }))
    }

    /// Passes a result on; an error also ends the query's record.
    fn recorded<T>(layer: &mut Option<Self>, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if let Some(received) = layer.as_mut().and_then(|layer| layer.received.take()) {
                received.failed(error);
            }
        })
    }
}

impl Cached {
    /// What is to be done with the plan of `query`, which is about to be made.
    async fn of(sought: Sought, layer: &Option<Layer>, state: &SessionState, query: &ParsedQuery) -> Self {
        let Some((layer, slipstream)) =
            layer.as_ref().zip(SlipstreamPlanner::of(state).map(|(p, _)| p.slipstream()))
        else {
            return Self::Nothing;
        };
        if let Statement::Explain(_) = query.statement {
            plan_cache::foresee(state, &query.text, &layer.scope).await;
            return Self::Nothing;
        }
        let refusal = match sought {
            Sought::Nothing | Sought::Known(_) => return Self::Nothing,
            Sought::Unknown(mut keeper) => match keeper.note_tables(state, &query.statement).await {
                Ok(()) => return Self::Keeps { keeper, text: query.text.clone() },
                Err(refusal) => refusal,
            },
            Sought::Refused(refusal) => refusal,
        };
        plan_cache::refused(slipstream, &layer.scope, refusal);
        Self::Nothing
    }

    /// Keeps `optimized`, where it may be used again, and says what came of it.
    async fn keep(
        self,
        layer: &Option<Layer>,
        state: &SessionState,
        plan: &LogicalPlan,
        optimized: &LogicalPlan,
    ) {
        let (Self::Keeps { keeper, text }, Some(layer), Some((planner, _))) =
            (self, layer, SlipstreamPlanner::of(state))
        else {
            return;
        };
        let slipstream = planner.slipstream();
        match Box::pin(keeper.keep(slipstream, state, &layer.options, &text, plan, optimized)).await {
            Ok(()) => plan_cache::stored(&layer.scope),
            Err(refusal) => plan_cache::refused(slipstream, &layer.scope, refusal),
        }
    }
}

impl PlannedQuery {
    pub(super) async fn plan(
        context: &SessionContext,
        mut state: SessionState,
        mut query: ParsedQuery,
        sought: Sought,
    ) -> Result<Self> {
        let mut layer = Layer::open(&mut state, &query.text, Some(query.parse))?;
        if layer.is_some() {
            without_hints(&mut query.statement);
        }
        let cached = Cached::of(sought, &layer, &state, &query).await;
        let plan = match (&layer, SlipstreamPlanner::of(&state), analyze_of(&query.statement)) {
            (Some(_), Some((planner, _)), Some(analyze)) => {
                plan_analyze(planner.slipstream(), &state, analyze)
            }
            _ => state.statement_to_plan(query.statement).await,
        };
        let plan = Layer::recorded(&mut layer, plan)?;
        Ok(Self { context: context.clone(), state, plan, layer, cached })
    }

    /// A statement whose plan is there.
    pub(super) fn known(context: &SessionContext, mut state: SessionState, known: KnownPlan) -> Result<Self> {
        let layer = Layer::open(&mut state, known.text(), None)?;
        if let Some(layer) = &layer {
            known.report(&layer.scope);
        }
        Ok(Self { context: context.clone(), state, plan: known.plan, layer, cached: Cached::Known })
    }

    /// The logical plan, before DataFusion's optimizer.
    pub fn logical_plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The same, to be changed before it runs: the shell resolves locations there.
    pub fn logical_plan_mut(&mut self) -> &mut LogicalPlan {
        &mut self.plan
    }

    /// Runs the statement: DDL, `SET` and `RESET` act now, a query's rows come from the stream.
    ///
    /// # Errors
    /// Whatever DDL, optimization and physical planning fail with; errors of execution come from the stream.
    pub async fn execute(self) -> Result<QueryStream> {
        let Self { context, mut state, mut plan, mut layer, mut cached } = self;
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) {
            // What remains to be run is not the text's own: a prepared statement's, which may be prepared anew.
            cached = Cached::Nothing;
            let acted = act(&context, &state, &layer, plan).await;
            (state, plan) = Layer::recorded(&mut layer, acted)?;
            if is_done(&plan)
                && let Some(received) = layer.as_mut().and_then(|layer| layer.received.take())
            {
                received.finished();
            }
        }
        let optimized = match cached {
            Cached::Known => plan,
            cached => {
                let optimized = Layer::recorded(&mut layer, state.optimize(&plan))?;
                cached.keep(&layer, &state, &plan, &optimized).await;
                optimized
            }
        };
        let physical = match (SlipstreamPlanner::of(&state), layer) {
            (Some((planner, _)), Some(Layer { options, scope, received })) => {
                planner.plan(&optimized, &state, &options, scope, received).await?
            }
            _ => state.query_planner().create_physical_plan(&optimized, &state).await?,
        };
        let rows = execute_stream(Arc::clone(&physical), context_for(physical.as_ref(), &state))?;
        Ok(QueryStream::new(rows, physical))
    }
}

impl fmt::Debug for PlannedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedQuery").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Lets a statement act on the session, and returns what remains to be run: nothing, or an EXECUTE's query.
async fn act(
    context: &SessionContext,
    state: &SessionState,
    layer: &Option<Layer>,
    plan: LogicalPlan,
) -> Result<(SessionState, LogicalPlan)> {
    // DataFusion's RESET knows its own settings alone.
    if let LogicalPlan::Statement(StatementPlan::ResetVariable(reset)) = &plan
        && let Some(name) = reset.variable.strip_prefix("slipstream.")
    {
        let session = context.state_ref();
        let mut session = session.write();
        if let Some(options) = session.config_mut().options_mut().extensions.get_mut::<SlipstreamOptions>() {
            options.reset(name)?;
            let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
            return Ok((session.clone(), LogicalPlan::EmptyRelation(nothing)));
        }
    }
    // CREATE TABLE AS runs a query of its own, which is part of this one: not to be recorded as another. It
    // changes catalogs, which are shared, and nothing in the session's state.
    if let (Some(layer), LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(_))) = (layer, &plan) {
        let mut state = state.clone();
        state.config_mut().options_mut().extensions.insert(layer.scope.clone());
        let inside = SessionContext::new_with_state(state);
        return Ok(Box::pin(inside.execute_logical_plan(plan)).await?.into_parts());
    }
    Ok(Box::pin(context.execute_logical_plan(plan)).await?.into_parts())
}

/// Whether a statement that has acted leaves nothing to be run.
fn is_done(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row)
}
