//! Expressions over the columns of a source, comparable word by word whoever wrote them.

use std::hash::{Hash, Hasher};

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;

use super::Refusal;
use super::plan::{Columns, Writer};
use super::token::Token;

/// What a node of an expression takes, with the box that it is in, about.
const NODE: usize = size_of::<Expr>() + 16;

/// An expression whose columns are a source's own: `$0.amount` is the column `amount` of the source's first relation, by
/// whatever name and through however many projections a query came to it.
///
/// Two terms are equal where their words are: the words know functions by the object that was registered, and literals by
/// their bits. The expression itself is what a query is built of.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    expr: Expr,
    words: Box<[Token]>,
}

impl Term {
    /// The term of `expr`, whose columns are a source's.
    ///
    /// # Errors
    /// It is not on the list of expressions, or is a query of its own.
    pub(crate) fn of(expr: Expr) -> Result<Self, Refusal> {
        let asks = |expr: &Expr| {
            Ok(matches!(
                expr,
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
            ))
        };
        // Its plan reads tables at places of its own, and it is computed once for each query.
        if expr.exists(asks).unwrap_or(true) {
            return Err(Refusal::new("broader shape", "an expression is a query of its own"));
        }
        let mut writer = Writer::new(None);
        writer.expr(&expr, Columns::Source)?;
        Ok(Self { expr, words: writer.into_fingerprint().tokens.into() })
    }

    /// The expression.
    pub(crate) fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The column that it is, where it is nothing else.
    pub(crate) fn column(&self) -> Option<&Column> {
        match &self.expr {
            Expr::Column(column) => Some(column),
            _ => None,
        }
    }

    /// As a person reads it: without the numbers of relations.
    pub(crate) fn text(&self) -> String {
        let text = self.expr.to_string();
        let mut parts = text.split('$');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |said, part| {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            match rest.strip_prefix('.').filter(|_| rest.len() < part.len()) {
                Some(name) => said + name,
                None => said + "$" + part,
            }
        })
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let words = self.words.iter().map(|word| size_of::<Token>() + word.heap_bytes()).sum::<usize>();
        // What an expression holds beside its nodes is held in words, too: names, values.
        size_of::<Self>() + 2 * words + nodes(&self.expr) * NODE
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for Term {}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
    }
}

/// How many nodes an expression has.
pub(super) fn nodes(expr: &Expr) -> usize {
    let mut nodes = 0;
    // Counting cannot fail.
    let _ = expr.apply(|_| {
        nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    nodes
}
