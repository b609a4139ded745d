//! What was said: names and arguments, validated as text only.

use std::fmt;

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

/// One hint as it was written. It knows no catalog and no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LowHint {
    pub(crate) name: String,
    /// What stands between its parentheses; `None` without parentheses.
    pub(crate) arguments: Option<String>,
}

impl fmt::Display for LowHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.arguments {
            Some(arguments) => write!(f, "{}({arguments})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The hints in the comments of one statement, in order.
///
/// A hint comment begins with `+`, as in `/*+ … */` and `--+ …`, or with `slipstream+` where other readers of the
/// same text have hints of their own.
pub(crate) fn hints_in(text: &str, dialect: &dyn Dialect) -> Vec<LowHint> {
    // Nearly every text ends here; tokenizing it again would cost as much as parsing it.
    if !text.contains("*+") && !text.contains("--+") && !text.contains("slipstream+") {
        return Vec::new();
    }
    let tokens = Tokenizer::new(dialect, text).tokenize().unwrap_or_default();
    let spaces = tokens.iter().filter_map(|token| match token {
        Token::Whitespace(space) => Some(space),
        _ => None,
    });
    spaces.filter_map(hint_text).flat_map(parse).collect()
}

/// Whether this white space is a comment with hints.
pub(crate) fn is_hint(space: &Whitespace) -> bool {
    hint_text(space).is_some()
}

fn hint_text(space: &Whitespace) -> Option<&str> {
    match space {
        Whitespace::MultiLineComment(comment) | Whitespace::SingleLineComment { comment, .. } => {
            comment.strip_prefix('+').or_else(|| comment.strip_prefix("slipstream+"))
        }
        _ => None,
    }
}

/// `NAME`, `NAME(arguments)`, separated by white space or commas. Parentheses and quotes inside arguments balance;
/// where they do not, the arguments go to the end of the comment.
fn parse(mut text: &str) -> Vec<LowHint> {
    let mut hints = Vec::new();
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if text.is_empty() {
            return hints;
        }
        let end = text.find(|c: char| c.is_whitespace() || c == ',' || c == '(').unwrap_or(text.len());
        let name = text[..end].to_owned();
        text = &text[end..];
        let arguments = text.trim_start().strip_prefix('(').map(|inside| {
            let end = closing(inside);
            text = inside.get(end + 1..).unwrap_or_default();
            inside[..end].trim().to_owned()
        });
        // A stray parenthesis is no name, but must be said back to the user rather than loop for ever.
        if name.is_empty() && arguments.is_none() {
            text = text.get(1..).unwrap_or_default();
        }
        hints.push(LowHint { name, arguments });
    }
}

/// Where the parenthesis that was opened before `text` is closed, or the end.
fn closing(text: &str) -> usize {
    let (mut depth, mut quoted) = (0_usize, false);
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => return at,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::{DuckDbDialect, GenericDialect};

    fn check(text: &str, expected: &[&str]) {
        let dialects: [&dyn Dialect; 2] = [&GenericDialect {}, &DuckDbDialect {}];
        for dialect in dialects {
            let found: Vec<String> = hints_in(text, dialect).iter().map(LowHint::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn hints_count_anywhere_and_in_every_dialect() {
        check("SELECT /*+ PLAIN */ 1", &["PLAIN"]);
        check("/*+ A(x y) B */ WITH t AS (SELECT /*+C*/ 1) SELECT 1 --+ D(2)", &["A(x y)", "B", "C", "D(2)"]);
        check("SELECT 1 /*slipstream+ A, B*/ /*other+ C*/", &["A", "B"]);
        check("SELECT 1", &[]);
    }

    #[test]
    fn comments_strings_and_arithmetic_are_no_hints() {
        check("SELECT '/*+ A */', 2 *+ 3 /* a + b */ -- x+y", &[]);
    }

    #[test]
    fn arguments_balance_and_what_does_not_still_ends() {
        check("SELECT /*+ A(b(c), ')') D */ 1", &["A(b(c), ')')", "D"]);
        check("SELECT /*+ A(b */ 1", &["A(b)"]);
        check("SELECT /*+ ) ( A */ 1", &[")(A)"]);
        check("SELECT /*+ ( */ 1", &["()"]);
        check("SELECT /*+ */ 1", &[]);
    }
}
