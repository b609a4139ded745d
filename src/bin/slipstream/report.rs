//! What the user is told when something goes wrong, and how the process ends.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::split::Position;

/// Why a statement did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is wrong, or its data, or there was not enough of something.
    Query(DataFusionError),
    /// A `\\` command is wrong: what to do instead.
    Command(String),
    /// Ctrl-C.
    Cancelled,
    /// Nobody reads the output any more.
    StdoutClosed,
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::IoError(io) if io.kind() == io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::Query(error),
        }
    }
}

/// Writes a line to stderr. That nobody reads it is no reason to fail.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Writes an error to stderr, marked as one.
pub(crate) fn error(message: &str) {
    if message.starts_with("Error") { note(message) } else { note(&format!("Error: {message}")) }
}

/// An error in words: DataFusion's, without the debugging form that some have.
pub(crate) fn describe(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SQL(parser, _) => format!("SQL error: {}", parser_message(parser)),
        // The layer's own says what to change.
        DataFusionError::ResourcesExhausted(own) if own.contains("--memory-limit") => {
            in_one_line(&error.strip_backtrace())
        }
        DataFusionError::ResourcesExhausted(_) => format!(
            "{}\nThe limit is set by --memory-limit, or SET datafusion.runtime.memory_limit = '2G'; \
             --disk-limit bounds what is spilled.",
            error.strip_backtrace().trim_end()
        ),
        _ => in_one_line(&error.strip_backtrace()),
    }
}

/// Says a chain of errors in a line, and each of their kinds once.
fn in_one_line(message: &str) -> String {
    let mut said: Vec<&str> = vec![];
    for cause in message.trim_end().split("\ncaused by\n") {
        let kinds = ["Invalid or Unsupported Configuration: ", "External error: "];
        let cause = kinds.iter().fold(cause, |cause, kind| cause.strip_prefix(kind).unwrap_or(cause));
        let cause = cause
            .strip_prefix("Parquet error: ")
            .filter(|it| it.starts_with("Parquet error: "))
            .unwrap_or(cause);
        if !said.contains(&cause) {
            said.push(cause);
        }
    }
    said.join(": ")
}

fn parser_message(error: &ParserError) -> Cow<'_, str> {
    match error {
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message.into(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
    }
}

/// An error of a statement that begins at `start` of a script: its line and column are translated into the
/// script's, and the line is shown with a mark below the place.
pub(crate) fn describe_in(error: &DataFusionError, statement: &str, start: Position) -> String {
    let message = describe(error);
    if !matches!(error.find_root(), DataFusionError::SQL(..)) {
        return message;
    }
    let (before, place, after) = match find_place(&message) {
        Some(found) => found,
        // The parser names no place when the statement ends too early: it is its end.
        None => (format!("{message} at "), end_of(statement), ""),
    };
    let line = start.line + place.line - 1;
    let column = if place.line == 1 { start.column + place.column - 1 } else { place.column };
    let marked = mark(statement, place).unwrap_or_default();
    format!("{before}Line: {line}, Column: {column}{after}{marked}")
}

/// Finds `Line: 1, Column: 2` in a message: what is before it, the place, what is after it.
fn find_place(message: &str) -> Option<(String, Position, &str)> {
    let (before, rest) = message.rsplit_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (column, after) = rest.split_at(digits);
    let place = Position { line: line.parse().ok()?, column: column.parse().ok()? };
    (place.line > 0 && place.column > 0).then(|| (before.to_owned(), place, after))
}

fn end_of(statement: &str) -> Position {
    let lines = statement.lines().count().max(1);
    let last = statement.lines().next_back().unwrap_or_default();
    Position { line: lines as u64, column: last.chars().count() as u64 + 1 }
}

/// The statement's line, and a caret below the place.
fn mark(statement: &str, place: Position) -> Option<String> {
    /// Of a longer line, only the part around the place is shown.
    const WIDTH: usize = 100;
    let line = statement.lines().nth(usize::try_from(place.line - 1).ok()?)?;
    let column = usize::try_from(place.column - 1).ok()?;
    let skipped = column.saturating_sub(WIDTH / 2);
    let shown: String = line.chars().skip(skipped).take(WIDTH).collect();
    // A tab stays one, so that the caret is below its character whatever the tab's width is.
    let indent: String =
        shown.chars().take(column - skipped).map(|c| if c == '\t' { c } else { ' ' }).collect();
    Some(format!("\n  {shown}\n  {indent}^"))
}

/// Ends the process, as a signal would, when something prints to a stdout that nobody reads: the parts of
/// datafusion-cli that print by themselves panic then.
pub(crate) fn end_quietly_when_stdout_closes() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") {
            process::exit(0);
        }
        default(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_error(message: &str) -> DataFusionError {
        DataFusionError::SQL(Box::new(ParserError::ParserError(message.to_owned())), None)
    }

    #[test]
    fn a_syntax_error_has_the_scripts_line_and_column() {
        let error = parse_error("Expected: x, found: y at Line: 2, Column: 3");
        let start = Position { line: 10, column: 5 };
        let text = describe_in(&error, "select\n\ta y", start);
        assert_eq!(text, "SQL error: Expected: x, found: y at Line: 11, Column: 3\n  \ta y\n  \t ^");
        let error = parse_error("Expected: x, found: y at Line: 1, Column: 8");
        let text = describe_in(&error, "select y", start);
        assert!(text.contains("Line: 10, Column: 12\n"), "{text}");
    }

    #[test]
    fn a_statement_that_ends_too_early_fails_at_its_end() {
        let text = describe_in(&parse_error("Expected: x, found: EOF"), "select", Position::START);
        assert_eq!(text, "SQL error: Expected: x, found: EOF at Line: 1, Column: 7\n  select\n        ^");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let statement = "x".repeat(500);
        let text = describe_in(&parse_error("y at Line: 1, Column: 300"), &statement, Position::START);
        let caret = text.lines().last().unwrap();
        assert_eq!(caret.len(), 2 + 50 + 1);
    }
}
