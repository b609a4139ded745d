//! The settings of the result cache, as the list of all settings describes them.

use std::fmt;
use std::sync::Arc;

use super::settings::{Setting, described, field, process};
use super::values::{boolean, count, size};

const BYTES: &str = "bytes, or a whole number with KB, MB, GB or TB (powers of 1024), up to 1024TB";
const MAX_ENTRIES: usize = 1_000_000;
const MAX_MS: usize = 31_536_000_000;
const MAX_ROWS: usize = 1_000_000_000_000;
const MAX_TAG_BYTES: usize = 256;

/// What a query does with the result cache, where it is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Takes an answer that is there, and leaves its own.
    #[default]
    Use,
    /// Takes an answer that is there, and leaves none.
    ReadOnly,
    /// Computes, and leaves its answer in the place of one that is there.
    Refresh,
    /// Takes an answer that is there, or fails.
    OnlyIfCached,
    /// Neither.
    Off,
}

impl CacheMode {
    const NAMES: [(&'static str, Self); 5] = [
        ("use", Self::Use),
        ("read_only", Self::ReadOnly),
        ("refresh", Self::Refresh),
        ("only_if_cached", Self::OnlyIfCached),
        ("off", Self::Off),
    ];

    /// The mode of this name.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let text = text.trim();
        Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, mode)| *mode)
    }
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, mode)| mode == self).map_or("use", |(name, _)| name);
        f.write_str(name)
    }
}

pub(super) const ENABLED: Setting = field!(
    cache_enabled,
    bool::to_string,
    boolean,
    described(
        "cache.enabled",
        "switch",
        "true or false",
        "true",
        "Keeps the answers of queries, and gives them again as long as the data they were made from is the same, to the file \
         and to the array. Off by default: it takes memory, and whoever measures queries wants them to run.",
        "false: every query runs, and nothing is kept",
    )
);

pub(super) const PLANS: Setting = field!(
    cache_plans,
    bool::to_string,
    boolean,
    described(
        "cache.plans",
        "switch",
        "true or false",
        "true",
        "Keeps the optimized logical plans of statements that ctx.query() is asked again, and uses them while tables, views, \
         functions and settings are the same: parsing, planning and logical optimization are most of what a small query \
         takes. It needs no slipstream.cache.enabled, which is about answers. A plan is kept when its text comes for the second \
         time. Plans take at most a quarter of slipstream.cache.max_bytes, and slipstream.cache.max_entries bounds their \
         number.",
        "false: every statement is planned from its text",
    )
);

pub(super) const MODE: Setting = field!(
    cache_mode,
    CacheMode::to_string,
    |text: &str| CacheMode::named(text).ok_or_else(|| "not a mode".to_owned()),
    described(
        "cache.mode",
        "mode",
        "use, read_only, refresh, only_if_cached or off",
        "read_only",
        "What queries do with the cache: use: take an answer and leave one; read_only: leave none; refresh: compute anew and \
         replace; only_if_cached: fail where there is none; off: neither. For one query: the hint CACHE(mode).",
        "there is no empty value",
    )
);

pub(super) const MAX_BYTES: Setting = process!(
    cache_max_bytes,
    set_cache_max_bytes,
    size,
    described(
        "cache.max_bytes",
        "bytes",
        BYTES,
        "1048576",
        "What all answers together may take; they are reserved of the memory pool, and given back when a query needs them. \
         One value for all sessions that share a Slipstream.",
        "0: nothing is kept",
    )
);

pub(super) const MAX_COUNT: Setting = process!(
    cache_max_entries,
    set_cache_max_entries,
    |text: &str| count(text, MAX_ENTRIES),
    described(
        "cache.max_entries",
        "answers",
        "0 to 1000000",
        "100",
        "How many answers are kept. One value for all sessions that share a Slipstream.",
        "0: nothing is kept",
    )
);

pub(super) const DISK_DIRECTORY: Setting = process!(
    cache_disk_directory,
    set_cache_disk_directory,
    |text: &str| Ok::<Arc<str>, String>(text.trim().into()),
    described(
        "cache.disk.directory",
        "path",
        "a directory; one that is missing is created",
        "/var/cache/slipstream",
        "Where answers are kept as files, too, so that they outlive the process: of queries that read tables of files and \
         use DataFusion's own functions. Several processes may share it. It has the rows of answers in it: only this user \
         may read it where it is created here. One value for all sessions that share a Slipstream.",
        "empty: answers are kept in memory only",
    )
);

pub(super) const DISK_MAX_BYTES: Setting = process!(
    cache_disk_max_bytes,
    set_cache_disk_max_bytes,
    size,
    described(
        "cache.disk.max_bytes",
        "bytes",
        BYTES,
        "1073741824",
        "What the files in slipstream.cache.disk.directory may take together. Of those that were used longest ago, the one \
         goes first that saves the least time for each byte. One value for all sessions that share a Slipstream.",
        "0: no file is written",
    )
);

pub(super) const MAX_ENTRY_BYTES: Setting = field!(
    cache_max_entry_bytes,
    usize::to_string,
    size,
    described(
        "cache.max_entry_bytes",
        "bytes",
        BYTES,
        "1048576",
        "What one answer may take. A larger one goes to its query as it comes, and is not kept.",
        "0: nothing is kept",
    )
);

pub(super) const MAX_ENTRY_ROWS: Setting = field!(
    cache_max_entry_rows,
    usize::to_string,
    |text: &str| count(text, MAX_ROWS),
    described(
        "cache.max_entry_rows",
        "rows",
        "0 to 1000000000000",
        "1000",
        "How many rows an answer may have to be kept.",
        "0: only answers without rows are kept",
    )
);

pub(super) const TTL: Setting = field!(
    cache_ttl_ms,
    usize::to_string,
    |text: &str| count(text, MAX_MS),
    described(
        "cache.ttl_ms",
        "milliseconds",
        "0 to 31536000000",
        "60000",
        "How long an answer is given, whatever its data does. What is current needs no end; this is for those who want one.",
        "0: as long as its data is the same",
    )
);

pub(super) const MAX_STALENESS: Setting = field!(
    cache_max_staleness_ms,
    usize::to_string,
    |text: &str| count(text, MAX_MS),
    described(
        "cache.max_staleness_ms",
        "milliseconds",
        "0 to 31536000000",
        "1000",
        "For how long an answer is given without another look at its tables. Each look lists their files, which takes a \
         request or more on an object store. An answer may be wrong for that long after its data has changed.",
        "0: every time an answer is given its tables are looked at",
    )
);

pub(super) const MAX_AGE: Setting = field!(
    cache_max_age_ms,
    usize::to_string,
    |text: &str| count(text, MAX_MS),
    described(
        "cache.max_age_ms",
        "milliseconds",
        "0 to 31536000000",
        "5000",
        "For how long answers are given that read tables without a version (custom providers, table functions, system \
         tables). Such an answer may be wrong for that long.",
        "0: such answers are not kept",
    )
);

pub(super) const MIN_COST: Setting = field!(
    cache_min_cost_ms,
    usize::to_string,
    |text: &str| count(text, MAX_MS),
    described(
        "cache.min_cost_ms",
        "milliseconds",
        "0 to 31536000000",
        "100",
        "How long a query must have run for its answer to be kept.",
        "0: any answer is kept",
    )
);

pub(super) const MIN_REPEATS: Setting = field!(
    cache_min_repeats,
    usize::to_string,
    |text: &str| count(text, MAX_ENTRIES),
    described(
        "cache.min_repeats",
        "times",
        "0 to 1000000",
        "2",
        "How often the same must have been asked before its answer is kept. Of many different questions, those that are asked \
         once then take no place.",
        "0: the first answer is kept",
    )
);

pub(super) const FILE_AGGREGATES: Setting = field!(
    cache_file_aggregates,
    bool::to_string,
    boolean,
    described(
        "cache.file_aggregates",
        "switch",
        "true or false",
        "true",
        "Keeps, of aggregates over tables of several files, what each file contributes, so that after a file was added or \
         replaced only that one is read. Where a sum or a mean is rounded, it may differ in its last digits from one that \
         is computed at once, as any two runs may that add up in parallel. Needs slipstream.cache.enabled.",
        "false: aggregates are computed from all files",
    )
);

pub(super) const SUBPLANS: Setting = field!(
    cache_subplans,
    bool::to_string,
    boolean,
    described(
        "cache.subplans",
        "switch",
        "true or false",
        "true",
        "Keeps the rows of aggregates, joins and windows that several different queries have in common. One is computed \
         apart from its query when it is to be kept, without what the rest of the query would tell it (dynamic filters), \
         which may take longer that once. Needs slipstream.cache.enabled.",
        "false: only the answers of whole queries are kept",
    )
);

pub(super) const BROADER: Setting = field!(
    cache_broader,
    bool::to_string,
    boolean,
    described(
        "cache.broader",
        "switch",
        "true or false",
        "true",
        "Computes a query that has no answer from the answer to a broader one of the same tables, where it is certain that \
         the result is the same: fewer rows, columns or groups, another order, a limit. What an answer was asked is \
         kept beside it for that, and counted in its bytes. Needs slipstream.cache.enabled.",
        "false: an answer is given to the same question only",
    )
);

pub(super) const TAG: Setting = field!(
    cache_tag,
    |tag: &String| tag.clone(),
    |text: &str| match text.len() <= MAX_TAG_BYTES {
        true => Ok::<_, String>(text.to_owned()),
        false => Err("too long".to_owned()),
    },
    described(
        "cache.tag",
        "text",
        "up to 256 bytes",
        "dashboards",
        "Who asks. Sessions with one tag share answers, where they read the same tables (the same providers, of a catalog \
         that they share); no other session gets them. It also names the answers that slipstream_cache_drop_tag() drops.",
        "empty: a session has its answers for itself; in slipstream.cache.disk.directory those without a tag are everybody's",
    )
);
