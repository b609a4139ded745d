//! The records that legitimately differ, each with its reason; `exceptions.txt` is the list.

use std::collections::BTreeMap;

use datafusion::common::exec_err;
use datafusion::error::Result;

/// The list; see its head for the form.
const LIST: &str = include_str!("exceptions.txt");

/// Why a record may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exception {
    /// It differs in every run, for this reason; when it no longer does, the entry is stale.
    Differs(String),
    /// The layer adds rows about itself and changes no other, for this reason; stale when it no longer adds any.
    Adds(String),
    /// The plain engine itself answers it differently from time to time, for this reason.
    Unstable(String),
}

/// Exceptions by location.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    by_location: BTreeMap<String, Exception>,
}

impl Exceptions {
    /// Reads the project's list.
    pub(super) fn read() -> Result<Self> {
        Self::parse(LIST)
    }

    fn parse(list: &str) -> Result<Self> {
        let mut by_location = BTreeMap::new();
        for (number, line) in list.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("exceptions.txt:{}", number + 1);
            let [location, kind, reason] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
                return exec_err!("{place}: expected `file:line | kind | reason`, found: {line}");
            };
            if reason.is_empty() {
                return exec_err!("{place}: {location} has no reason");
            }
            let exception = match kind {
                "differs" => Exception::Differs(reason.to_owned()),
                "adds" => Exception::Adds(reason.to_owned()),
                "unstable" => Exception::Unstable(reason.to_owned()),
                other => {
                    return exec_err!(
                        "{place}: {location} is `differs`, `adds` or `unstable`, not `{other}`"
                    );
                }
            };
            if by_location.insert(location.to_owned(), exception).is_some() {
                return exec_err!("{place}: {location} is listed twice");
            }
        }
        Ok(Self { by_location })
    }

    /// Why this record may differ.
    pub(super) fn get(&self, location: &str) -> Option<&Exception> {
        self.by_location.get(location)
    }

    /// The entries whose record was compared and is now the same; `differs` says of each compared record what it is.
    pub(super) fn stale(&self, differs: &BTreeMap<&str, bool>) -> Vec<&str> {
        self.by_location
            .iter()
            .filter(|(_, exception)| !matches!(exception, Exception::Unstable(_)))
            .map(|(location, _)| location.as_str())
            .filter(|location| differs.get(location) == Some(&false))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exception_has_one_reason() {
        let list = "# head\n\na.slt:3 | differs | lists settings\nb.part:1 included at b.slt:2 | unstable | a race\nc.slt:9 | adds | its table\n";
        let exceptions = Exceptions::parse(list).unwrap();
        assert_eq!(exceptions.get("a.slt:3"), Some(&Exception::Differs("lists settings".to_owned())));
        assert_eq!(
            exceptions.get("b.part:1 included at b.slt:2"),
            Some(&Exception::Unstable("a race".to_owned()))
        );
        assert_eq!(exceptions.get("a.slt:4"), None);
    }

    #[test]
    fn an_exception_that_no_longer_differs_is_stale() {
        let list = "a.slt:1 | differs | x\na.slt:2 | adds | x\na.slt:3 | differs | x\na.slt:4 | unstable | x\nb.slt:1 | differs | x";
        let exceptions = Exceptions::parse(list).unwrap();
        // b.slt did not run, and says nothing.
        let differs =
            BTreeMap::from([("a.slt:1", true), ("a.slt:2", false), ("a.slt:3", false), ("a.slt:4", false)]);
        assert_eq!(exceptions.stale(&differs), ["a.slt:2", "a.slt:3"]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        for (list, expect) in [
            ("a.slt:3", "exceptions.txt:1: expected `file:line | kind | reason`"),
            ("\na.slt:3 | differs |", "exceptions.txt:2: a.slt:3 has no reason"),
            ("a.slt:3 | odd | x", "not `odd`"),
            ("a.slt:3 | differs | x\na.slt:3 | unstable | y", "listed twice"),
        ] {
            let error = Exceptions::parse(list).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
