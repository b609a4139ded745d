//! Where each statement stands in a text of many.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use crate::hint::is_hint;

/// The text of each statement in `sql`: what stands between semicolons, as the tokenizer sees them.
pub(super) fn statement_texts<'a>(sql: &'a str, dialect: &dyn Dialect) -> Vec<&'a str> {
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
            Token::EOF => {}
            // Hints in front of a statement and behind it belong to it; other comments do not.
            Token::Whitespace(ref space) if !is_hint(space) => {}
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
