//! Whether the rows of one query are among those of another, and what is to be done to find them.
//!
//! ```text
//!   kept     SELECT k, sum(v) FROM t WHERE day > 3            GROUP BY k        conjuncts  {day > 3}
//!   asked    SELECT sum(v)    FROM t WHERE day > 3 AND k < 9                    conjuncts  {day > 3, k < 9}
//!
//!   every kept conjunct follows from the asked ones          else rows are missing
//!   the asked ones that do not follow from the kept: k < 9   are left to be looked at, in the answer's columns
//!   the groups are others                                    they are grouped again
//! ```

use super::implies::implies;
use crate::fingerprint::{Refusal, Shape, SortKey, Term};

/// What the rows of an answer are, to the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    /// Its rows, or its groups.
    Same,
    /// Rows that it groups.
    Rows,
    /// Smaller groups than its own.
    Groups,
}

/// What is to be done with the rows of an answer.
#[derive(Debug)]
pub(super) struct Difference<'a> {
    /// Conditions that are left to be looked at.
    pub(super) conjuncts: Vec<&'a Term>,
    /// Conditions on groups that are left.
    pub(super) having: Vec<&'a Term>,
    /// What the rows are.
    pub(super) grain: Grain,
    /// Whether the answer's rows are in the query's order already, which may be by columns that it has not.
    pub(super) ordered: bool,
    /// How many rows of the answer stand before the query's.
    pub(super) skip: usize,
}

/// What it takes to answer `asked` from the `rows` rows of an answer to `kept`, a query of the same source.
///
/// An answer that was cut off has the first rows of its order, or some rows where it has none. Another query's rows are among
/// them where it asks for a part of these very rows: nothing may be left out before they are counted.
///
/// # Errors
/// Why it cannot be.
pub(super) fn compare<'a>(kept: &Shape, rows: usize, asked: &'a Shape) -> Result<Difference<'a>, Refusal> {
    let conjuncts = left_over(&kept.conjuncts, &asked.conjuncts)?;
    let grain = grain(kept, asked, !conjuncts.is_empty())?;
    let having = match grain {
        Grain::Same => left_over(&kept.having, &asked.having)?,
        // The having of kept groups has dropped some of what is grouped again.
        Grain::Groups | Grain::Rows => match kept.having.first() {
            Some(having) => return Err(lacks(having)),
            None => asked.having.iter().collect(),
        },
    };
    let ordered = grain == Grain::Same && is_prefix(&asked.order, &kept.order);
    let is_whole = kept.window.skip == 0 && has_end(kept, rows);
    if is_whole {
        return Ok(Difference { conjuncts, having, grain, ordered, skip: asked.window.skip });
    }
    let same_rows = grain == Grain::Same && conjuncts.is_empty() && having.is_empty();
    let skip = asked.window.skip.checked_sub(kept.window.skip);
    let fits = |skip: usize| {
        let reaches = |fetch: usize| skip.checked_add(fetch).is_some_and(|end| end <= rows);
        has_end(kept, rows) || asked.window.fetch.is_some_and(reaches)
    };
    match skip {
        Some(skip) if same_rows && ordered && fits(skip) => {
            Ok(Difference { conjuncts, having, grain, ordered, skip })
        }
        _ => Err(Refusal::new("broader limit", "the answer has only the first of its rows, or some of them")),
    }
}

/// Whether an answer of so many rows was not cut off at its end.
fn has_end(kept: &Shape, rows: usize) -> bool {
    kept.window.fetch.is_none_or(|fetch| rows < fetch)
}

/// Which of `asked` do not follow from `kept`, all of which follow from `asked`.
fn left_over<'a>(kept: &[Term], asked: &'a [Term]) -> Result<Vec<&'a Term>, Refusal> {
    match kept.iter().find(|kept| !implies(asked, kept)) {
        Some(kept) => Err(lacks(kept)),
        None => Ok(asked.iter().filter(|asked| !implies(kept, asked)).collect()),
    }
}

fn lacks(kept: &Term) -> Refusal {
    Refusal::new("broader filter", format!("the answer has only rows with {}", kept.text()))
}

/// What the kept rows are; `filtered`, where some of them are not asked for.
fn grain(kept: &Shape, asked: &Shape, filtered: bool) -> Result<Grain, Refusal> {
    let refused = |why| Err(Refusal::new("broader group", why));
    let (kept, asked) = match (&kept.group, &asked.group) {
        (None, None) => return Ok(Grain::Same),
        (None, Some(_)) => return Ok(Grain::Rows),
        (Some(_), None) => return refused("the answer has groups, the query asks for rows"),
        (Some(kept), Some(asked)) => (kept, asked),
    };
    let same = kept.len() == asked.len() && kept.iter().all(|key| asked.contains(key));
    match (same, kept.is_empty()) {
        // A total has one row, also of no rows: it is neither filtered nor grouped.
        (true, true) if filtered => refused("the answer is the total of other rows"),
        (true, _) => Ok(Grain::Same),
        (false, true) => refused("the answer is a total"),
        (false, false) => Ok(Grain::Groups),
    }
}

/// Whether rows in the order of `kept` are in the order of `asked`.
fn is_prefix(asked: &[SortKey], kept: &[SortKey]) -> bool {
    kept.starts_with(asked)
}
