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
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::planner::SlipstreamPlanner;
use super::query::QueryStream;
use crate::config::SlipstreamOptions;
use crate::monitor::ReceivedQuery;
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

fn dialect(state: &SessionState) -> Result<Box<dyn SqlDialect>> {
    let name = &state.config_options().sql_parser.dialect;
    dialect_from_str(name).ok_or_else(|| {
        plan_datafusion_err!("unsupported SQL dialect '{name}'. Available: {}.", Dialect::available())
    })
}

fn parse_statements(state: &SessionState, sql: &str) -> Result<Vec<Statement>> {
    let recursion_limit = state.config_options().sql_parser.recursion_limit.into();
    let dialect = dialect(state)?;
    let mut parser = DFParserBuilder::new(sql)
        .with_dialect(dialect.as_ref())
        .with_recursion_limit(recursion_limit)
        .build()?;
    Ok(parser.parse_statements()?.into())
}

/// The text of each statement in `sql`: what stands between semicolons, as the tokenizer sees them.
fn statement_texts<'a>(sql: &'a str, dialect: &dyn SqlDialect) -> Vec<&'a str> {
    let Ok(tokens) = Tokenizer::new(dialect, sql).tokenize_with_location() else {
        return Vec::new();
    };
    let offsets = line_offsets(sql);
    let offset = |at: Location| offset(sql, &offsets, at);
    let mut texts = Vec::new();
    let mut begin = None;
    let mut end = 0;
    for token in &tokens {
        match token.token {
            Token::SemiColon => texts.extend(begin.take().map(|begin| &sql[begin..end])),
            Token::Whitespace(_) | Token::EOF => {}
            _ => {
                begin.get_or_insert_with(|| offset(token.span.start));
                end = offset(token.span.end);
            }
        }
    }
    texts.extend(begin.map(|begin| &sql[begin..end]));
    texts
}

/// The byte at which each line begins.
fn line_offsets(sql: &str) -> Vec<usize> {
    std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The byte of a tokenizer's location, which counts lines and characters from 1.
fn offset(sql: &str, lines: &[usize], at: Location) -> usize {
    let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let begin = lines.get(index(at.line)).copied().unwrap_or(sql.len());
    let line = &sql[begin..];
    begin + line.char_indices().nth(index(at.column)).map_or(line.len(), |(at, _)| at)
}

/// One statement with its logical plan. Nothing has acted yet.
pub struct PlannedQuery {
    context: SessionContext,
    state: SessionState,
    plan: LogicalPlan,
    scope: QueryScope,
    received: Option<ReceivedQuery>,
}

impl PlannedQuery {
    pub(super) async fn plan(context: &SessionContext, query: ParsedQuery) -> Result<Self> {
        let state = context.state();
        let ParsedQuery { statement, text, parse } = query;
        let scope = QueryScope::with_text(&text);
        let received = SlipstreamPlanner::active(&state)
            .filter(|(_, options)| options.query_log_enabled)
            .map(|(planner, options)| planner.slipstream().received(options, &scope, &text, Some(parse)));
        let (plan, received) = recorded(received, state.statement_to_plan(statement).await)?;
        Ok(Self { context: context.clone(), state, plan, scope, received })
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
        let Self { context, mut state, mut plan, scope, mut received } = self;
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) {
            let acted = act(&context, &state, &scope, plan).await;
            ((state, plan), received) = recorded(received, acted)?;
            if is_done(&plan)
                && let Some(received) = received.take()
            {
                received.finished();
            }
        }
        let physical = match SlipstreamPlanner::active(&state) {
            Some((planner, options)) => {
                let (optimized, received) = recorded(received, state.optimize(&plan))?;
                planner.plan(&optimized, &state, options, scope, received).await?
            }
            None => state.create_physical_plan(&plan).await?,
        };
        let rows = execute_stream(Arc::clone(&physical), state.task_ctx())?;
        Ok(QueryStream::new(rows, physical))
    }
}

impl fmt::Debug for PlannedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedQuery")
            .field("scope", &self.scope)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// Passes a result on; an error also ends the query's record.
fn recorded<T>(received: Option<ReceivedQuery>, result: Result<T>) -> Result<(T, Option<ReceivedQuery>)> {
    match result {
        Ok(value) => Ok((value, received)),
        Err(error) => {
            if let Some(received) = received {
                received.failed(&error);
            }
            Err(error)
        }
    }
}

/// Lets a statement act on the session, and returns what remains to be run: nothing, or an EXECUTE's query.
async fn act(
    context: &SessionContext,
    state: &SessionState,
    scope: &QueryScope,
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
    if matches!(plan, LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(_))) {
        let mut state = state.clone();
        state.config_mut().options_mut().extensions.insert(scope.clone());
        let inside = SessionContext::new_with_state(state);
        return Ok(Box::pin(inside.execute_logical_plan(plan)).await?.into_parts());
    }
    Ok(Box::pin(context.execute_logical_plan(plan)).await?.into_parts())
}

/// Whether a statement that has acted leaves nothing to be run.
fn is_done(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row)
}
