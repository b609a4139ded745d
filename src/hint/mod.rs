//! SQL hints: from the comment a user wrote to what it means for one query.
//!
//! ```sql
//! SELECT /*+ SET(datafusion.execution.batch_size = 1024) */ … ;
//! EXPLAIN SELECT /*+ PLAIN */ … ;
//! SELECT /*+ CACHE(refresh) */ … ;
//! ```
//!
//! Hints are read from the text's comments and not from the syntax tree, since DataFusion's parser keeps them in
//! some places and for some dialects only: here they count anywhere in a statement, in front of it too, and in every
//! dialect. A hint never fails a query. Each is reported as *applied* or *refused*, with the reason, in EXPLAIN and in
//! `slipstream.queries`.

mod cache;
mod low;
mod plain;
mod set;

use std::fmt::Debug;

pub(crate) use low::{LowHint, hints_in, is_hint};

use crate::error::suggestion;

/// One kind of hint.
pub(crate) trait Hint: Debug + Sync {
    /// Its name, in capitals; hints are read without regard to case.
    fn name(&self) -> &'static str;

    /// What the hint means for the query: settings it runs with.
    ///
    /// # Errors
    /// What is wrong with the arguments, as the reason of the refusal.
    fn bind(&self, arguments: Option<&str>) -> Result<Vec<Change>, String>;
}

/// A setting that one query runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// All hints there are.
pub(crate) static HINTS: &[&dyn Hint] = &[&cache::Cache, &plain::Plain, &set::Set];

/// From what was said to what it means.
///
/// # Errors
/// An unknown name, with the nearest known one, or wrong arguments.
pub(crate) fn bind(hint: &LowHint) -> Result<Vec<Change>, String> {
    match HINTS.iter().find(|known| known.name().eq_ignore_ascii_case(&hint.name)) {
        Some(known) => known.bind(hint.arguments.as_deref()),
        None => {
            Err(format!("unknown hint. {}", suggestion(&hint.name, HINTS.iter().map(|known| known.name()))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, arguments: Option<&str>) -> Result<Vec<(String, String)>, String> {
        let hint = LowHint { name: name.to_owned(), arguments: arguments.map(str::to_owned) };
        Ok(bind(&hint)?.into_iter().map(|change| (change.key, change.value)).collect())
    }

    #[test]
    fn hints_are_bound_without_regard_to_case() {
        let off = ("slipstream.enabled".to_owned(), "false".to_owned());
        assert_eq!(check("plain", None), Ok(vec![off]));
        let changes = check("cache", Some(" OFF ")).unwrap();
        assert_eq!(changes.last().unwrap(), &("slipstream.cache.mode".to_owned(), "off".to_owned()));
        let changes = check("Set", Some(" a.b = 1 , c.d='x, y' ")).unwrap();
        assert_eq!(changes, [("a.b".into(), "1".into()), ("c.d".into(), "x, y".into())]);
    }

    #[test]
    fn what_is_wrong_is_the_reason() {
        assert_eq!(check("PLANE", None), Err("unknown hint. Did you mean 'PLAIN'?".to_owned()));
        assert!(check("PLAIN", Some("x")).unwrap_err().contains("no arguments"));
        assert!(check("CACHE", Some("of")).unwrap_err().contains("CACHE(off)"));
        assert!(check("SET", None).unwrap_err().contains("SET(key = value"));
        assert!(check("SET", Some("a.b")).unwrap_err().contains("'a.b'"));
        assert!(check("SET", Some("a.b =")).unwrap_err().contains("'a.b ='"));
    }
}
