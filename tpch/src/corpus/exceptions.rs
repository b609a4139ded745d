//! The records that legitimately differ, each with its reason; `exceptions.txt` is the list.

use std::collections::BTreeMap;

use datafusion::common::exec_err;
use datafusion::error::Result;

/// The list; see its head for the form.
const LIST: &str = include_str!("exceptions.txt");

/// Reasons by location.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    reasons: BTreeMap<String, String>,
}

impl Exceptions {
    /// Reads the project's list.
    pub(super) fn read() -> Result<Self> {
        Self::parse(LIST)
    }

    fn parse(list: &str) -> Result<Self> {
        let mut reasons = BTreeMap::new();
        for (number, line) in list.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((location, reason)) = line.split_once('|') else {
                return exec_err!(
                    "exceptions.txt:{}: expected `file:line | reason`, found: {line}",
                    number + 1
                );
            };
            let (location, reason) = (location.trim().to_owned(), reason.trim().to_owned());
            if reason.is_empty() {
                return exec_err!("exceptions.txt:{}: {location} has no reason", number + 1);
            }
            if reasons.insert(location.clone(), reason).is_some() {
                return exec_err!("exceptions.txt:{}: {location} is listed twice", number + 1);
            }
        }
        Ok(Self { reasons })
    }

    /// Why this record may differ.
    pub(super) fn reason(&self, location: &str) -> Option<&str> {
        self.reasons.get(location).map(String::as_str)
    }

    /// All of them.
    pub(super) fn locations(&self) -> impl Iterator<Item = &str> {
        self.reasons.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exception_has_one_reason() {
        let list = "# head\n\na.slt:3 | lists settings\nb.slt.part:1 included at b.slt:2 | lists tables\n";
        let exceptions = Exceptions::parse(list).unwrap();
        assert_eq!(exceptions.reason("a.slt:3"), Some("lists settings"));
        assert_eq!(exceptions.reason("b.slt.part:1 included at b.slt:2"), Some("lists tables"));
        assert_eq!(exceptions.reason("a.slt:4"), None);
        assert_eq!(exceptions.locations().count(), 2);
    }

    #[test]
    fn a_line_without_a_reason_is_an_error() {
        for (list, expect) in [
            ("a.slt:3", "expected `file:line | reason`"),
            ("a.slt:3 |", "has no reason"),
            ("a.slt:3 | x\na.slt:3 | y", "listed twice"),
        ] {
            let error = Exceptions::parse(list).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
