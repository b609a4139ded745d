//! LIKE with several parts, `'%new%order%'`, as a search for one part behind the other.

use std::fmt;

use datafusion::arrow::array::{Array, StringViewArray};
use datafusion::arrow::buffer::BooleanBuffer;
use memchr::memmem::Finder;

/// What a string begins with, contains, and ends with, in this order and nowhere twice.
///
/// DataFusion 55.2 makes a regular expression of such a pattern, anew for each batch. Between wildcards that stand for any
/// text, the first place where a part is found is as good as a later one, so that no search ever goes back.
#[derive(Clone)]
pub(super) struct Parts {
    begin: Vec<u8>,
    middle: Vec<Finder<'static>>,
    end: Vec<u8>,
}

impl Parts {
    /// The parts of `pattern`, where it has several, `%` between them, and nothing else that has a meaning.
    ///
    /// Patterns of one part are left to DataFusion, which looks for it in the same way.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        if pattern.contains(['_', '\\']) {
            return None;
        }
        let mut parts: Vec<&str> = pattern.split('%').collect();
        if parts.iter().filter(|part| !part.is_empty()).count() < 2 {
            return None;
        }
        let end = parts.pop()?;
        let mut parts = parts.into_iter();
        let begin = parts.next()?;
        let middle = parts.filter(|part| !part.is_empty()).map(|part| Finder::new(part).into_owned());
        Some(Self { begin: begin.into(), middle: middle.collect(), end: end.into() })
    }

    /// Which strings match, or with `negated` do not; NULL does neither.
    pub(super) fn test(&self, strings: &StringViewArray, negated: bool) -> BooleanBuffer {
        let test = |row| self.matches(strings.value(row).as_bytes()) != negated;
        match strings.nulls() {
            Some(nulls) => BooleanBuffer::collect_bool(strings.len(), |row| nulls.is_valid(row) && test(row)),
            None => BooleanBuffer::collect_bool(strings.len(), test),
        }
    }

    /// Bytes will do: in UTF-8 no character begins within another.
    ///
    /// Nothing is compared with an empty part: the C library's comparison of no bytes reads, masked, from the address of
    /// the empty part, which is mapped nowhere, and processors take a hundred times as long for that (half of TPC-H Q13).
    fn matches(&self, text: &[u8]) -> bool {
        let mut rest = text;
        if !self.begin.is_empty() {
            let Some(after) = rest.strip_prefix(self.begin.as_slice()) else { return false };
            rest = after;
        }
        if !self.end.is_empty() {
            let Some(before) = rest.strip_suffix(self.end.as_slice()) else { return false };
            rest = before;
        }
        for part in &self.middle {
            let Some(at) = part.find(rest) else { return false };
            rest = rest.get(at + part.needle().len()..).unwrap_or_default();
        }
        true
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle = self.middle.iter().map(|part| String::from_utf8_lossy(part.needle()));
        let ends = [&self.begin, &self.end].map(|end| String::from_utf8_lossy(end));
        f.debug_struct("Parts").field("ends", &ends).field("middle", &middle.collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{BooleanArray, Scalar, StringArray};
    use datafusion::arrow::compute::kernels::comparison;

    const TEXTS: &[Option<&str>] = &[
        None,
        Some(""),
        Some("a"),
        Some("ab"),
        Some("ba"),
        Some("aba"),
        Some("abab"),
        Some("a%b"),
        Some("A b"),
        Some("a\nb"),
        Some("xaxbxax"),
        Some("abcabc"),
        Some("äbä"),
        Some("aä\u{10FFFF}b"),
        Some("a long string with some special packages and, behind them, requests"),
        Some("requests that are not special at all, and longer than a view"),
        Some("special requests"),
        Some("specialrequests"),
        Some("specirequestsal"),
    ];

    const PATTERNS: &[&str] = &[
        "%special%requests%",
        "special%requests",
        "%a%b%",
        "a%b",
        "a%a",
        "ab%ab",
        "ab%b",
        "%a%a%",
        "%ab%ab%",
        "%a%b",
        "a%b%",
        "a%%b",
        "%%a%%b%%",
        "a%b%a",
        "abc%abc",
        "%ä%ä",
        "ä%ä",
        "%a%\u{10FFFF}%b",
        "%a%.%b%",
        "%(%)%",
        "%a%\n%b%",
    ];

    #[test]
    fn parts_match_as_patterns_do() {
        let plain = StringArray::from(TEXTS.to_vec());
        let strings: StringViewArray = TEXTS.iter().collect();
        for pattern in PATTERNS {
            let parts = Parts::of(pattern).unwrap();
            let datum = Scalar::new(StringArray::from(vec![*pattern]));
            let want =
                [comparison::like(&plain, &datum).unwrap(), comparison::nlike(&plain, &datum).unwrap()];
            for (want, negated) in want.iter().zip([false, true]) {
                let want: BooleanArray = want.iter().map(|found| Some(found == Some(true))).collect();
                assert_eq!(&parts.test(&strings, negated), want.values(), "{pattern}, negated: {negated}");
            }
            let slice = strings.slice(3, 9);
            assert_eq!(parts.test(&slice, false), parts.test(&strings, false).slice(3, 9), "{pattern}");
        }
    }

    #[test]
    fn other_patterns_are_left_alone() {
        for pattern in ["", "%", "%%", "a", "a%", "%a", "%a%", "%a_b%c%", "a_b", "%a\\%b%c%", "%a%b\\"] {
            assert!(Parts::of(pattern).is_none(), "{pattern}");
        }
    }
}
