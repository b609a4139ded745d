//! From the text of a value to the value, with errors that say what was wrong.

use super::RULE_NAMES;
use crate::error::suggestion;

/// `true`/`false`, and the other spellings PostgreSQL takes.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "yes" | "1" => Ok(true),
        "false" | "f" | "off" | "no" | "0" => Ok(false),
        _ => Err("not a truth value".to_owned()),
    }
}

/// A whole number from 0 to `max`. Numbers are written as Rust writes them: no signs, units or separators.
pub(super) fn count(text: &str, max: usize) -> Result<usize, String> {
    let number: usize = text.trim().parse().map_err(|_| "not a whole number".to_owned())?;
    if number > max { Err("above the maximum".to_owned()) } else { Ok(number) }
}

/// Names of rules, separated by commas; order and repetition do not matter.
pub(super) fn rule_names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = text
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.iter().find(|name| !RULE_NAMES.contains(&name.as_str())) {
        Some(unknown) => {
            Err(format!("there is no rule '{unknown}'. {}", suggestion(unknown, RULE_NAMES.iter().copied())))
        }
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_postgresql_reads_them() {
        for text in ["true", "ON", " yes ", "1", "t"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["false", "Off", "no", "0", "F"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        assert!(boolean("").is_err());
    }

    #[test]
    fn rule_names_are_a_set() {
        let twice = " nested_loop_join_guard ,,NESTED_LOOP_JOIN_GUARD";
        assert_eq!(rule_names(twice), Ok(vec!["nested_loop_join_guard".to_owned()]));
        assert_eq!(rule_names(""), Ok(vec![]));
    }
}
