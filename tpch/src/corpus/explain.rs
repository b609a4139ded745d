//! Tells plan pictures from results, and finds the query that a picture explains.

use datafusion::config::Dialect;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{PipeOperator, Query, SetExpr, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::{Dialect as ParserDialect, dialect_from_str};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// What the text of a statement says about how its outcome may be compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows; `ordered` when the statement fixes their order.
    Results {
        /// Whether there is an ORDER BY at the top, or the text could not be read.
        ordered: bool,
    },
    /// An EXPLAIN of this query.
    PictureOfQuery {
        /// The text after `EXPLAIN …`.
        query: String,
        /// Whether the query fixes the order of its rows.
        ordered: bool,
    },
    /// An EXPLAIN of something that must not be run twice.
    PictureOfEffect {
        /// Why it is not run.
        reason: String,
    },
}

/// Reads a statement in the session's dialect.
pub(super) fn shape(sql: &str, dialect: &Dialect) -> Shape {
    // A text that does not parse fails alike on both engines, and errors have no order.
    let unread = Shape::Results { ordered: true };
    let Some(dialect) = dialect_from_str(dialect) else { return unread };
    let Some(statement) = parse(sql, dialect.as_ref()) else { return unread };
    match statement {
        Statement::Explain(explain) => match *explain.statement {
            Statement::Statement(inner) => picture(sql, &inner, dialect.as_ref()),
            other => Shape::PictureOfEffect { reason: effect(&other.to_string()) },
        },
        Statement::Statement(statement) => {
            Shape::Results { ordered: matches!(*statement, SqlStatement::Query(query) if is_ordered(&query)) }
        }
        _ => Shape::Results { ordered: false },
    }
}

fn picture(sql: &str, inner: &SqlStatement, dialect: &dyn ParserDialect) -> Shape {
    let SqlStatement::Query(query) = inner else {
        return Shape::PictureOfEffect { reason: effect(&inner.to_string()) };
    };
    if !is_read_only(&query.body) {
        return Shape::PictureOfEffect { reason: effect(&query.to_string()) };
    }
    match explained_text(sql, dialect) {
        Some(text) => Shape::PictureOfQuery { query: text, ordered: is_ordered(query) },
        None => Shape::PictureOfEffect { reason: "the explained text could not be found".to_owned() },
    }
}

fn effect(sql: &str) -> String {
    let verb = sql.split_whitespace().next().unwrap_or("nothing");
    format!("explains {}, which is not run for its picture", verb.to_uppercase())
}

fn parse(sql: &str, dialect: &dyn ParserDialect) -> Option<Statement> {
    DFParserBuilder::new(sql).with_dialect(dialect).build().ok()?.parse_statements().ok()?.pop_front()
}

/// Whether the statement itself says in which order its rows come.
fn is_ordered(query: &Query) -> bool {
    query.order_by.is_some()
        || query.pipe_operators.iter().any(|operator| matches!(operator, PipeOperator::OrderBy { .. }))
        || matches!(&*query.body, SetExpr::Query(inner) if is_ordered(inner))
}

/// Whether running the query changes nothing: SELECT INTO makes a table.
fn is_read_only(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::Query(query) => is_read_only(&query.body),
        SetExpr::SetOperation { left, right, .. } => is_read_only(left) && is_read_only(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        _ => false,
    }
}

/// Cuts `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT name]` or `EXPLAIN (options)` off the text.
///
/// The text is cut, and not printed anew from the parsed statement: what runs must be what was written.
fn explained_text(sql: &str, dialect: &dyn ParserDialect) -> Option<String> {
    let tokens = Tokenizer::new(dialect, sql).tokenize_with_location().ok()?;
    let mut tokens =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).peekable();
    tokens.next_if(|token| is_keyword(token, Keyword::EXPLAIN))?;
    let mut first = tokens.next()?;
    if first.token == Token::LParen && dialect.supports_explain_with_utility_options() {
        let starts_query = [Keyword::SELECT, Keyword::WITH, Keyword::VALUES, Keyword::TABLE];
        let is_query = tokens.peek().is_some_and(|token| {
            token.token == Token::LParen || starts_query.iter().any(|keyword| is_keyword(token, *keyword))
        });
        if !is_query {
            tokens.find(|token| token.token == Token::RParen)?;
            first = tokens.next()?;
            return text_from(sql, first.span.start);
        }
    }
    for keyword in [Keyword::ANALYZE, Keyword::VERBOSE] {
        if is_keyword(&first, keyword) {
            first = tokens.next()?;
        }
    }
    if is_keyword(&first, Keyword::FORMAT) {
        tokens.next()?;
        first = tokens.next()?;
    }
    text_from(sql, first.span.start)
}

fn is_keyword(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(word) if word.keyword == keyword)
}

/// The text from a position on; the tokenizer counts lines and characters from one.
fn text_from(sql: &str, start: Location) -> Option<String> {
    let line = usize::try_from(start.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(start.column).ok()?.checked_sub(1)?;
    let rest: String = sql.split_inclusive('\n').skip(line).collect();
    Some(rest.chars().skip(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, expect: &str) {
        let actual = match shape(sql, &Dialect::Generic) {
            Shape::Results { ordered } => format!("results ordered={ordered}"),
            Shape::PictureOfQuery { query, ordered } => format!("picture ordered={ordered}: {query}"),
            Shape::PictureOfEffect { reason } => format!("not run: {reason}"),
        };
        assert_eq!(actual, expect, "{sql}");
    }

    #[test]
    fn the_explained_query_is_cut_from_the_text() {
        check("EXPLAIN SELECT 'it''s'", "picture ordered=false: SELECT 'it''s'");
        check(
            "-- why\nexplain analyze verbose\n  select 1\norder by 1",
            "picture ordered=true: select 1\norder by 1",
        );
        check("EXPLAIN FORMAT TREE SELECT 1", "picture ordered=false: SELECT 1");
        check("EXPLAIN (ANALYZE, FORMAT TREE) SELECT 'ü', 1", "picture ordered=false: SELECT 'ü', 1");
        check(
            "EXPLAIN (SELECT 1) UNION ALL (SELECT 2)",
            "picture ordered=false: (SELECT 1) UNION ALL (SELECT 2)",
        );
        check("EXPLAIN\tVALUES (1)", "picture ordered=false: VALUES (1)");
    }

    #[test]
    fn effects_are_not_run_for_a_picture() {
        check(
            "EXPLAIN INSERT INTO t VALUES (1)",
            "not run: explains INSERT, which is not run for its picture",
        );
        check("EXPLAIN COPY t TO 'x.csv'", "not run: explains COPY, which is not run for its picture");
        check("EXPLAIN SELECT 1 INTO t", "not run: explains SELECT, which is not run for its picture");
    }

    #[test]
    fn only_an_order_by_at_the_top_fixes_the_order() {
        check("SELECT * FROM t ORDER BY a", "results ordered=true");
        check("(SELECT * FROM t ORDER BY a)", "results ordered=true");
        check("SELECT * FROM (SELECT * FROM t ORDER BY a)", "results ordered=false");
        check("SELECT rank() OVER (ORDER BY a) FROM t", "results ordered=false");
        check("SELECT (", "results ordered=true");
        check("SHOW TABLES", "results ordered=false");
    }
}
