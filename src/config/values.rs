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

/// The largest size that is accepted: a pebibyte.
const MAX_BYTES: usize = 1 << 50;

/// A size: bytes, or a whole number and a unit of 1024.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("not a size".to_owned()),
    };
    let number: usize = number.parse().map_err(|_| "not a size".to_owned())?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes <= MAX_BYTES);
    bytes.ok_or_else(|| "above the maximum".to_owned())
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
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [("0", 0), ("7", 7), (" 512MB ", 512 << 20), ("4 k", 4096), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.5GB", "12XB", "99999999999999999999"] {
            assert_eq!(size(text), Err("not a size".to_owned()), "{text}");
        }
        assert_eq!(size("2000TB"), Err("above the maximum".to_owned()));
    }

    #[test]
    fn rule_names_are_a_set() {
        let twice = " nested_loop_join_guard ,,NESTED_LOOP_JOIN_GUARD";
        assert_eq!(rule_names(twice), Ok(vec!["nested_loop_join_guard".to_owned()]));
        assert_eq!(rule_names(""), Ok(vec![]));
    }
}
