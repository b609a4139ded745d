//! What the prompt knows while a statement is typed: whether it is whole, how it looks, and how words go on.
//!
//! Colours, hints and file names after LOCATION are datafusion-cli's; on top come the names of this session.

use std::borrow::Cow;
use std::collections::BTreeSet;

use datafusion::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use datafusion_cli::helper::CliHelper;
use futures::FutureExt;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Result};

use crate::command::COMMANDS;
use crate::split::Script;

/// The words of SQL that are offered: those that begin or join clauses, not all that are reserved.
const KEYWORDS: &[&str] = &[
    "analyze",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "copy",
    "create",
    "cross",
    "delete",
    "desc",
    "describe",
    "distinct",
    "drop",
    "else",
    "end",
    "except",
    "exists",
    "explain",
    "external",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "lateral",
    "left",
    "like",
    "limit",
    "location",
    "not",
    "null",
    "offset",
    "on",
    "options",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "partitioned",
    "qualify",
    "reset",
    "right",
    "select",
    "set",
    "show",
    "stored",
    "table",
    "tables",
    "then",
    "to",
    "union",
    "unnest",
    "update",
    "using",
    "values",
    "verbose",
    "view",
    "when",
    "where",
    "with",
];

/// DataFusion's views on the session, which no catalog lists.
const INFORMATION_SCHEMA: &[&str] =
    &["columns", "df_settings", "parameters", "routines", "schemata", "tables", "views"];

/// The prompt's helper.
pub(crate) struct ShellHelper {
    ctx: SessionContext,
    color: bool,
    dialect: Dialect,
    inner: CliHelper,
    files: FilenameCompleter,
}

impl ShellHelper {
    /// A helper for the statements of a session.
    pub(crate) fn new(ctx: SessionContext, color: bool) -> Self {
        let dialect = dialect_of(&ctx);
        Self { ctx, color, dialect, inner: CliHelper::new(&dialect, color), files: FilenameCompleter::new() }
    }

    /// Reads the next statement in the dialect that the last one may have set.
    pub(crate) fn follow_dialect(&mut self) {
        let dialect = dialect_of(&self.ctx);
        if dialect != self.dialect {
            self.dialect = dialect;
            self.inner = CliHelper::new(&dialect, self.color);
        }
    }
}

fn dialect_of(ctx: &SessionContext) -> Dialect {
    ctx.copied_config().options().sql_parser.dialect
}

impl Helper for ShellHelper {}

/// Enter runs what ends with a semicolon, and begins a new line otherwise. A wrong statement is run too: its
/// error says where, and the arrow keys bring it back.
impl Validator for ShellHelper {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        self.inner.reset_hint();
        let mut script = Script::new();
        script.push(ctx.input());
        script.push("\n");
        while script.next(self.dialect).is_some() {}
        Ok(if script.is_waiting(self.dialect) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Highlighter for ShellHelper {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> Cow<'l, str> {
        self.inner.highlight(line, pos)
    }

    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        self.inner.highlight_char(line, pos, kind)
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        self.inner.highlight_hint(hint)
    }
}

impl Hinter for ShellHelper {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, ctx: &Context<'_>) -> Option<String> {
        self.inner.hint(line, pos, ctx)
    }
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, ctx: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let (start, files) = self.inner.complete(line, pos, ctx)?;
        if !files.is_empty() {
            return Ok((start, files));
        }
        let typed = &line[..pos];
        if typed.matches('\'').count() % 2 == 1 || typed.starts_with("\\i ") {
            return self.files.complete_path(line, pos);
        }
        if let Some(name) = typed.strip_prefix('\\').filter(|name| !name.contains(' ')) {
            return Ok((1, pairs(COMMANDS.iter().map(|usage| usage.name.to_owned()), name)));
        }
        let start = typed.rfind(|c: char| !is_part_of_a_name(c)).map_or(0, |end| end + last_len(typed, end));
        Ok((start, words(&self.ctx, typed, start)))
    }
}

fn is_part_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn last_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(0, char::len_utf8)
}

/// How the word that begins at `start` may go on.
fn words(ctx: &SessionContext, typed: &str, start: usize) -> Vec<Pair> {
    let word = &typed[start..];
    let before = typed[..start].split_whitespace().next_back().unwrap_or_default().to_ascii_lowercase();
    match before.as_str() {
        "set" | "show" | "reset" => pairs(settings(ctx), word),
        "from" | "join" | "into" | "update" | "describe" | "\\d" | "table" => pairs(tables(ctx), word),
        // All there is would help nobody.
        _ if word.is_empty() => vec![],
        _ => {
            let state = ctx.state();
            let names = functions(&state).into_iter().chain(columns(ctx, typed)).chain(tables(ctx));
            let upper = word.chars().all(|c| !c.is_lowercase());
            let keywords =
                KEYWORDS.iter().map(|key| if upper { key.to_uppercase() } else { (*key).to_owned() });
            pairs(keywords.chain(names), word)
        }
    }
}

/// The names that begin as typed, once each, in order; letters match in both cases.
fn pairs(names: impl IntoIterator<Item = String>, typed: &str) -> Vec<Pair> {
    let typed = typed.to_lowercase();
    let matching: BTreeSet<_> =
        names.into_iter().filter(|name| name.to_lowercase().starts_with(&typed)).collect();
    matching.into_iter().map(|name| Pair { display: name.clone(), replacement: name }).collect()
}

fn settings(ctx: &SessionContext) -> Vec<String> {
    let entries = ctx.copied_config().options().entries();
    entries.into_iter().chain(ctx.runtime_env().config_entries()).map(|entry| entry.key).collect()
}

/// The functions of the session, of all kinds.
pub(crate) fn functions(state: &SessionState) -> Vec<String> {
    let mut names: Vec<String> = state.scalar_functions().keys().cloned().collect();
    names.extend(state.aggregate_functions().keys().cloned());
    names.extend(state.window_functions().keys().cloned());
    names.extend(state.table_functions().keys().cloned());
    names
}

/// The tables: of the default schema by name, of others with their schema's.
fn tables(ctx: &SessionContext) -> Vec<String> {
    let config = ctx.copied_config();
    let default = &config.options().catalog;
    let mut names: Vec<_> =
        INFORMATION_SCHEMA.iter().map(|view| format!("information_schema.{view}")).collect();
    let Some(catalog) = ctx.catalog(&default.default_catalog) else { return names };
    for schema_name in catalog.schema_names() {
        let Some(schema) = catalog.schema(&schema_name) else { continue };
        if schema_name == default.default_schema {
            names.extend(schema.table_names());
        } else {
            names.extend(schema.table_names().into_iter().map(|table| format!("{schema_name}.{table}")));
        }
    }
    names
}

/// The columns of the default schema's tables that the statement names.
fn columns(ctx: &SessionContext, typed: &str) -> Vec<String> {
    let config = ctx.copied_config();
    let default = &config.options().catalog;
    let catalog = ctx.catalog(&default.default_catalog);
    let Some(schema) = catalog.and_then(|catalog| catalog.schema(&default.default_schema)) else {
        return vec![];
    };
    let mut names = vec![];
    for table in schema.table_names().into_iter().filter(|table| typed.contains(table.as_str())) {
        // A catalog that has to ask somebody else is not waited for while the user types.
        if let Some(Ok(Some(table))) = schema.table(&table).now_or_never() {
            names.extend(table.schema().fields().iter().map(|field| field.name().clone()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn session() -> SessionContext {
        let ctx = SessionContext::new();
        ctx.sql("CREATE TABLE orders AS SELECT 1 AS o_key, 'x' AS o_comment")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        ctx
    }

    fn offered(ctx: &SessionContext, typed: &str) -> Vec<String> {
        let start = typed.rfind(|c: char| !is_part_of_a_name(c)).map_or(0, |end| end + last_len(typed, end));
        words(ctx, typed, start).into_iter().map(|pair| pair.replacement).collect()
    }

    #[tokio::test]
    async fn names_of_the_session_are_offered() {
        let ctx = session().await;
        assert_eq!(offered(&ctx, "select * from ord"), ["orders"]);
        assert_eq!(offered(&ctx, "select * from orders where o_k"), ["o_key"]);
        assert_eq!(offered(&ctx, "select date_tr"), ["date_trunc"]);
        assert_eq!(offered(&ctx, "SEL"), ["SELECT"]);
        assert_eq!(offered(&ctx, "set datafusion.execution.batch"), ["datafusion.execution.batch_size"]);
        assert_eq!(offered(&ctx, "select (€ordér"), [""; 0]);
    }

    #[tokio::test]
    async fn nothing_is_offered_for_nothing() {
        let ctx = session().await;
        assert!(offered(&ctx, "").is_empty());
        assert!(offered(&ctx, "select * from ").contains(&"orders".to_owned()));
    }
}
