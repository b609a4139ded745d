//! `CACHE`, `CACHE(mode)`: what one query does with the result cache.

use super::{Change, Hint};
use crate::config::CacheMode;

/// Before: the query does what the session's settings say. After: the cache is on for it, in this mode; without one, it takes
/// an answer that is there, and leaves its own.
#[derive(Debug)]
pub(super) struct Cache;

impl Hint for Cache {
    fn name(&self) -> &'static str {
        "CACHE"
    }

    fn bind(&self, arguments: Option<&str>) -> Result<Vec<Change>, String> {
        let mode = match arguments {
            None => Some(CacheMode::Use),
            Some(text) => CacheMode::named(text),
        };
        let mode = mode.ok_or(
            "it is written CACHE, CACHE(use), CACHE(read_only), CACHE(refresh), CACHE(only_if_cached) or CACHE(off)",
        )?;
        let change = |key: &str, value: String| Change { key: format!("slipstream.cache.{key}"), value };
        Ok(vec![change("enabled", "true".to_owned()), change("mode", mode.to_string())])
    }
}
