//! `SET(key = value, …)`: settings for one query alone.

use super::{Change, Hint};
use crate::config::belongs_to_process;

/// Any setting that `SET` knows, `datafusion.*` or `slipstream.*`, except `datafusion.runtime.*`, which belongs to all
/// queries of the session, and the limits that belong to the process. A value with a comma or a parenthesis is quoted: `SET(datafusion.format.null = ',')`.
#[derive(Debug)]
pub(super) struct Set;

const USAGE: &str = "it is written SET(key = value, ...)";

impl Hint for Set {
    fn name(&self) -> &'static str {
        "SET"
    }

    fn bind(&self, arguments: Option<&str>) -> Result<Vec<Change>, String> {
        let arguments = arguments.ok_or(USAGE)?;
        split(arguments).into_iter().map(change).collect()
    }
}

fn change(argument: &str) -> Result<Change, String> {
    let wrong = || format!("'{argument}' is no setting; {USAGE}");
    let (key, value) = argument.split_once('=').ok_or_else(wrong)?;
    let (key, value) = (key.trim(), unquoted(value.trim()));
    if key.is_empty() || value.is_none() {
        return Err(wrong());
    }
    if key.starts_with("datafusion.runtime.") {
        return Err(format!("'{key}' belongs to all queries of the session; use the statement SET"));
    }
    if key.to_ascii_lowercase().strip_prefix("slipstream.").is_some_and(belongs_to_process) {
        return Err(format!("'{key}' belongs to all queries of the process; use the statement SET"));
    }
    Ok(Change { key: key.to_ascii_lowercase(), value: value.unwrap_or_default().to_owned() })
}

/// The value without its quotes; `None` for no value.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\''),
        None => (!value.is_empty()).then_some(value),
    }
}

/// Splits at commas outside quotes.
fn split(arguments: &str) -> Vec<&str> {
    let mut quoted = false;
    arguments
        .split(|c| {
            quoted ^= c == '\'';
            c == ',' && !quoted
        })
        .map(str::trim)
        .filter(|argument| !argument.is_empty())
        .collect()
}
