//! Where each statement stands in a text of many.

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use crate::hint::is_hint;

/// The text of each statement in `sql`: what stands between semicolons, as the tokenizer sees them.
pub(super) fn statement_texts<'a>(sql: &'a str, dialect: &dyn Dialect) -> Vec<&'a str> {
    // Nearly every text ends here; the tokenizer takes a third of what the parser took.
    single(sql).map_or_else(|| tokenized_texts(sql, dialect), |text| vec![text])
}

fn tokenized_texts<'a>(sql: &'a str, dialect: &dyn Dialect) -> Vec<&'a str> {
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

/// The text of the one statement that `sql` certainly is, in every dialect: comments stand in front of it only, and nothing else could
/// be one, or end it.
fn single(sql: &str) -> Option<&str> {
    let blank = |letter: char| matches!(letter, ' ' | '\t' | '\n' | '\r');
    let mut text = sql.trim_start_matches(blank);
    while let Some(comment) = text.strip_prefix("-- ") {
        let (comment, rest) = comment.split_once('\n')?;
        // In some dialects this alone ends a comment.
        if comment.trim_end_matches('\r').contains('\r') {
            return None;
        }
        text = rest.trim_start_matches(blank);
    }
    let text = text.trim_end_matches(|letter| letter == ';' || blank(letter));
    let opens = |bytes: &[u8]| matches!(bytes, b"--" | b"/*" | b"//");
    let plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '(')
        && !text.bytes().any(|byte| matches!(byte, b';' | b'#'))
        && !text.as_bytes().windows(2).any(opens);
    plain.then_some(text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::{
        GenericDialect, MySqlDialect, PostgreSqlDialect, SnowflakeDialect,
    };

    #[test]
    fn what_is_certainly_single_is_what_the_tokenizer_sees() {
        let texts = [
            ("SELECT 1", true),
            (" \r\n-- why\n--  not\n\tselect 'a -' || \"b\" ;; \n", true),
            ("(SELECT 1)", true),
            ("SELECT 1; SELECT 2", false),
            ("SELECT ';'", false),
            ("SELECT 1 -- one", false),
            ("SELECT 1 # one", false),
            ("SELECT 1 // one", false),
            ("/*+ PLAIN */ SELECT 1", false),
            ("--+ PLAIN\nSELECT 1", false),
            ("-- why\r\nSELECT 1", true),
            ("-- why\rSELECT 1 UNION\nSELECT 2", false),
            ("-- why\n", false),
            ("--", false),
            ("-- ;", false),
            ("", false),
            (";", false),
            ("\u{a0}SELECT 1", false),
        ];
        for (sql, known) in texts {
            let single = single(sql);
            assert_eq!(single.is_some(), known, "{sql:?}");
            for dialect in [
                &GenericDialect {} as &dyn Dialect,
                &MySqlDialect {},
                &PostgreSqlDialect {},
                &SnowflakeDialect,
            ] {
                let tokenized = tokenized_texts(sql, dialect);
                assert!(single.is_none_or(|text| tokenized == [text]), "{sql:?} {dialect:?}: {tokenized:?}");
            }
        }
    }
}
