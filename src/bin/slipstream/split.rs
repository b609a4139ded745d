//! Cuts a script into its statements, where SQL says they end.

use std::collections::VecDeque;

use datafusion::config::Dialect;
use datafusion::sql::sqlparser::dialect::{Dialect as Tokens, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};

/// One thing to do: an SQL statement or a `\` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text: a statement without the semicolon, a command without the `\`.
    pub(crate) text: String,
    /// Where its text begins.
    pub(crate) start: Position,
}

/// What a [`Piece`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One SQL statement, with its comments and hints.
    Statement,
    /// A command to the shell, one line.
    Command,
}

/// A place in a script; both numbers begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: u64,
    /// The column, in characters.
    pub(crate) column: u64,
}

impl Position {
    /// The beginning of a text.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    fn advance(&mut self, passed: char) {
        if passed == '\n' {
            *self = Self { line: self.line + 1, column: 1 };
        } else {
            self.column += 1;
        }
    }
}

/// Text that arrives in parts, and the statements found in it so far.
///
/// A statement is cut by the tokenizer of the session's dialect, so that a semicolon in a string, a quoted name
/// or a comment does not end it. The dialect is asked for with each piece because a statement may change it.
#[derive(Debug)]
pub(crate) struct Script {
    /// What has arrived; what was handed out of it is dropped when more arrives.
    text: String,
    /// Bytes of `text` that were handed out.
    read: usize,
    /// Where the rest begins in the script.
    start: Position,
    /// The pieces of the rest, each with the number of bytes that are read with it.
    found: VecDeque<(Piece, usize)>,
    /// The dialect that `found` was cut with.
    dialect: Dialect,
    /// Whether `text` may hold a piece that is not in `found`.
    unread: bool,
    /// Whether all of the script has arrived, so that a semicolon may be missing.
    complete: bool,
}

impl Script {
    /// A script that has not begun.
    pub(crate) fn new() -> Self {
        Self {
            text: String::new(),
            read: 0,
            start: Position::START,
            found: VecDeque::new(),
            dialect: Dialect::Generic,
            unread: false,
            complete: false,
        }
    }

    /// A whole script; a first line that names an interpreter (`#!`) is not part of it.
    pub(crate) fn whole(text: &str) -> Self {
        let mut script = Self::new();
        script.push(text);
        script.finish();
        script
    }

    /// Appends what has arrived: whole lines.
    pub(crate) fn push(&mut self, text: &str) {
        let mut text = text;
        if self.start == Position::START && self.text.is_empty() {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
            if text.starts_with("#!") {
                let line = text.find('\n').map_or(text.len(), |end| end + 1);
                self.start.line += u64::from(line > 0);
                text = &text[line..];
            }
        }
        // Only these can end a piece, and a long statement must not be read again with each of its lines.
        self.unread |= text.contains([';', '\\']);
        self.text.drain(..std::mem::take(&mut self.read));
        self.text.push_str(text);
    }

    /// Says that nothing more arrives.
    pub(crate) fn finish(&mut self) {
        self.complete = true;
        self.unread = true;
    }

    /// The next statement or command, once all of it has arrived.
    pub(crate) fn next(&mut self, dialect: Dialect) -> Option<Piece> {
        if dialect != self.dialect {
            self.dialect = dialect;
            self.found.clear();
            self.unread = true;
        }
        if self.found.is_empty() && std::mem::take(&mut self.unread) {
            self.found = Cutter::new(&self.text[self.read..], self.start).cut(dialect, self.complete);
        }
        let (piece, bytes) = self.found.pop_front()?;
        let passed = self.read..self.read + bytes;
        self.read = passed.end;
        self.text[passed].chars().for_each(|passed| self.start.advance(passed));
        Some(piece)
    }

    /// Whether part of a statement has arrived, the rest of which is missing; white space and comments are
    /// not part of one.
    pub(crate) fn is_waiting(&self, dialect: Dialect) -> bool {
        let dialect = dialect_from_str(dialect).unwrap_or_else(|| Box::new(GenericDialect {}));
        Tokenizer::new(dialect.as_ref(), &self.text[self.read..]).tokenize().map_or(true, |tokens| {
            tokens.iter().any(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon))
        })
    }
}

/// Walks once through a text, from piece to piece.
struct Cutter<'a> {
    text: &'a str,
    /// Bytes of `text` behind the cursor, and where that is in the script.
    byte: usize,
    position: Position,
    /// Bytes of `text` that the pieces so far cover.
    covered: usize,
    pieces: VecDeque<(Piece, usize)>,
}

impl<'a> Cutter<'a> {
    fn new(text: &'a str, position: Position) -> Self {
        Self { text, byte: 0, position, covered: 0, pieces: VecDeque::new() }
    }

    /// Cuts until the text ends; a command ends with its line, which only this knows, so that tokens begin
    /// anew behind it.
    fn cut(mut self, dialect: Dialect, complete: bool) -> VecDeque<(Piece, usize)> {
        let dialect = dialect_from_str(dialect).unwrap_or_else(|| Box::new(GenericDialect {}));
        while self.cut_until_command(dialect.as_ref(), complete) {}
        self.pieces
    }

    /// Returns whether a command was met and something may follow it.
    fn cut_until_command(&mut self, dialect: &dyn Tokens, complete: bool) -> bool {
        let (origin, at_origin) = (self.byte, self.position);
        let mut tokens = Vec::new();
        // An error is that of an open string or comment: the tokens before it are good, and what is wrong is
        // said by the parser when the statement runs.
        let broken = Tokenizer::new(dialect, &self.text[origin..])
            .tokenize_with_location_into_buf(&mut tokens)
            .is_err();
        let mut begun: Option<(usize, Position)> = None;
        for TokenWithSpan { token, span } in &tokens {
            if matches!(token, Token::Whitespace(space) if !is_hint(space)) {
                continue;
            }
            self.advance_to(absolute(at_origin, span.start));
            match (token, begun) {
                (Token::Backslash, None) => return self.take_command(complete),
                // Tokens of a comment that a dialect reads as SQL carry the comment's place.
                (Token::SemiColon, _) if self.text[self.byte..].starts_with(';') => {
                    let end = self.byte;
                    self.step();
                    if let Some((from, start)) = begun.take() {
                        self.take(Kind::Statement, from, end, start);
                    }
                }
                (_, None) => begun = Some((self.byte, self.position)),
                _ => {}
            }
        }
        if complete && (begun.is_some() || broken) {
            let (from, start) = begun.unwrap_or_else(|| self.behind(&tokens, at_origin));
            self.take(Kind::Statement, from, self.text.trim_end().len().max(from), start);
        }
        false
    }

    /// A command ends with its line.
    fn take_command(&mut self, complete: bool) -> bool {
        let rest = &self.text[self.byte..];
        let end = match rest.find('\n') {
            Some(end) => self.byte + end,
            None if complete => self.text.len(),
            None => return false,
        };
        let (from, start) = (self.byte + 1, self.position);
        while self.byte < end {
            self.step();
        }
        self.take(Kind::Command, from, end, start);
        true
    }

    fn take(&mut self, kind: Kind, from: usize, end: usize, start: Position) {
        let text = self.text[from..end].trim().to_owned();
        let end = self.byte.max(end);
        self.pieces.push_back((Piece { kind, text, start }, end - self.covered));
        self.covered = end;
    }

    /// The place behind the last token.
    fn behind(&mut self, tokens: &[TokenWithSpan], at_origin: Position) -> (usize, Position) {
        if let Some(last) = tokens.last() {
            self.advance_to(absolute(at_origin, last.span.end));
        }
        (self.byte, self.position)
    }

    fn advance_to(&mut self, target: Position) {
        while (self.position.line, self.position.column) < (target.line, target.column) {
            if !self.step() {
                break;
            }
        }
    }

    fn step(&mut self) -> bool {
        let Some(passed) = self.text[self.byte..].chars().next() else { return false };
        self.byte += passed.len_utf8();
        self.position.advance(passed);
        true
    }
}

/// Whether a comment belongs to the statement behind it.
fn is_hint(space: &Whitespace) -> bool {
    match space {
        Whitespace::MultiLineComment(comment) | Whitespace::SingleLineComment { comment, .. } => {
            comment.starts_with('+') || comment.starts_with("slipstream+")
        }
        _ => false,
    }
}

/// Translates a tokenizer's location into a place of the script.
fn absolute(origin: Position, location: Location) -> Position {
    if location.line <= 1 {
        Position { line: origin.line, column: origin.column + location.column.saturating_sub(1) }
    } else {
        Position { line: origin.line + location.line - 1, column: location.column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a whole script, one line each: place, kind, text.
    fn pieces(text: &str) -> Vec<String> {
        drain(&mut Script::whole(text))
    }

    fn drain(script: &mut Script) -> Vec<String> {
        std::iter::from_fn(|| script.next(Dialect::Generic))
            .map(|Piece { kind, text, start: Position { line, column } }| match kind {
                Kind::Statement => format!("{line}:{column} {text}"),
                Kind::Command => format!("{line}:{column} \\{text}"),
            })
            .collect()
    }

    #[test]
    fn statements_end_at_semicolons_of_sql() {
        assert_eq!(
            pieces("select 1; select 2;\nselect 3"),
            ["1:1 select 1", "1:11 select 2", "2:1 select 3"]
        );
        assert_eq!(pieces(";;\n ; select 1 ;;"), ["2:4 select 1"]);
        assert!(pieces("  \n-- nothing\n/* to do; */").is_empty());
    }

    #[test]
    fn semicolons_in_strings_names_and_comments_do_not_end_a_statement() {
        for sql in [
            "select ';' || 'it''s;'",
            r#"select 1 as "a;b""#,
            "select 1 -- one; two\n + 1",
            "select /* it's; fine */ 1",
            "select /*+ HINT(a;b) */ 1",
            "select $$;$$",
        ] {
            assert_eq!(pieces(&format!("{sql};select 2")).first(), Some(&format!("1:1 {sql}")), "{sql}");
        }
    }

    #[test]
    fn comments_before_a_statement_are_not_its_text() {
        assert_eq!(pieces("-- it's one\n/* two; */ select 1; -- three"), ["2:12 select 1"]);
        assert_eq!(pieces("-- one\n/*+ PLAIN */ select 1;"), ["2:1 /*+ PLAIN */ select 1"]);
        assert_eq!(pieces("--+ SET(a = 1)\nselect 1"), ["1:1 --+ SET(a = 1)\nselect 1"]);
    }

    #[test]
    fn an_open_string_is_the_last_statement() {
        assert_eq!(pieces("select 1;\n select 'a;\nb;"), ["1:1 select 1", "2:2 select 'a;\nb;"]);
        assert_eq!(pieces("select 1; /* no end").last().unwrap(), "1:11 /* no end");
    }

    #[test]
    fn commands_end_with_their_line() {
        let script = "\\d it's\nselect '\\d;';\n  \\q  \nselect 1 \\ 2;";
        assert_eq!(pieces(script), ["1:1 \\d it's", "2:1 select '\\d;'", "3:3 \\q", "4:1 select 1 \\ 2"]);
    }

    #[test]
    fn the_interpreters_line_and_a_byte_order_mark_are_skipped() {
        assert_eq!(pieces("#!/usr/bin/env slipstream\nselect 1"), ["2:1 select 1"]);
        assert_eq!(pieces("\u{feff}#!x"), [""; 0]);
        assert_eq!(pieces("\u{feff}select 1"), ["1:1 select 1"]);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(pieces("select 'äß€';select 2;"), ["1:1 select 'äß€'", "1:14 select 2"]);
    }

    #[test]
    fn a_statement_is_handed_out_when_all_of_it_has_arrived() {
        let mut script = Script::new();
        for line in ["select 'a;\n", "b', 1\n"] {
            script.push(line);
            assert!(drain(&mut script).is_empty());
            assert!(script.is_waiting(Dialect::Generic));
        }
        script.push("; \\x\n  select 2; select\n");
        assert_eq!(drain(&mut script), ["1:1 select 'a;\nb', 1", "3:3 \\x", "4:3 select 2"]);
        script.push("3");
        assert!(drain(&mut script).is_empty());
        script.finish();
        assert_eq!(drain(&mut script), ["4:13 select\n3"]);
        assert!(!script.is_waiting(Dialect::Generic));
        script.push("-- a remark; ");
        assert!(!script.is_waiting(Dialect::Generic));
        script.push("\n/* open");
        assert!(script.is_waiting(Dialect::Generic));
    }

    #[test]
    fn a_new_dialect_cuts_the_rest_anew() {
        // MySQL reads # as a comment; the generic dialect does not.
        let mut script = Script::whole("set x = 1; select 1 # ;\n, 2; select 3");
        assert_eq!(script.next(Dialect::Generic).unwrap().text, "set x = 1");
        assert_eq!(script.next(Dialect::MySQL).unwrap().text, "select 1 # ;\n, 2");
        let last = script.next(Dialect::Generic).unwrap();
        assert_eq!((last.text.as_str(), last.start), ("select 3", Position { line: 2, column: 6 }));
    }
}
