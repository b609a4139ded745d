//! The settings of memory, disk and admission, and of the rules that keep operators within them, as the list of all settings describes them.

use super::settings::{Setting, described, field, process};
use super::values::{boolean, count, size};

const BYTES: &str = "bytes, or a whole number with KB, MB, GB or TB (powers of 1024), up to 1024TB";
const MAX_BATCH_BYTES: usize = 1 << 40;
const MAX_BATCH_ROWS: usize = 1_000_000;
const MAX_QUERIES: usize = 1_000_000;
const MAX_TIMEOUT_MS: usize = 86_400_000;
const MAX_RESERVE_PERCENT: usize = 90;

pub(super) const MEMORY_LIMIT: Setting = process!(
    memory_limit,
    set_memory_limit,
    size,
    described(
        "memory.limit",
        "bytes",
        BYTES,
        "536870912",
        "Memory that all queries and caches together may reserve; one value for all sessions that share a Slipstream, \
         in force at once, for running queries too. Lowered below what is in use, it takes nothing away: nobody gets \
         more until it fits again. A smaller limit of the session's own memory pool stays in force.",
        "0: no limit but that of the session's memory pool",
    )
);

pub(super) const QUERY_LIMIT: Setting = field!(
    memory_query_limit,
    usize::to_string,
    size,
    described(
        "memory.query_limit",
        "bytes",
        BYTES,
        "67108864",
        "Memory that one query may reserve. A query keeps the value it started with.",
        "0: no limit but that of the process",
    )
);

pub(super) const RESERVE: Setting = process!(
    unspillable_reserve,
    set_unspillable_reserve,
    |text: &str| count(text, MAX_RESERVE_PERCENT),
    described(
        "memory.unspillable_reserve",
        "percent of the limit",
        "0 to 90",
        "25",
        "What operators that can spill leave to those that cannot: a join's table that finds no memory fails its query, \
         a sort that finds none writes a file. Too much of it, and operators spill early.",
        "0: operators that can spill may take all memory",
    )
);

pub(super) const DISK_LIMIT: Setting = process!(
    disk_limit,
    set_disk_limit,
    size,
    described(
        "disk.limit",
        "bytes",
        BYTES,
        "1073741824",
        "Size of all spill files together, of the queries that start while it is set; one value for all sessions that \
         share a Slipstream. A query that would write more fails.",
        "0: no limit but datafusion.runtime.max_temp_directory_size",
    )
);

pub(super) const DISK_QUERY_LIMIT: Setting = field!(
    disk_query_limit,
    usize::to_string,
    size,
    described(
        "disk.query_limit",
        "bytes",
        BYTES,
        "268435456",
        "Size of the spill files of one query. A query that would write more fails.",
        "0: no limit but that of the process",
    )
);

pub(super) const DISK_DIRECTORY: Setting = field!(
    disk_directory,
    String::clone,
    |text: &str| Ok::<_, String>(text.trim().to_owned()),
    described(
        "disk.directory",
        "path",
        "a directory, whose parent must exist",
        "/tmp",
        "Where queries put their spill files, each in a folder of its own that goes with the query. A directory that \
         cannot be written to fails the query that spills, not the setting.",
        "empty: where datafusion.runtime.temp_directory says",
    )
);

pub(super) const MAX_QUERIES_AT_ONCE: Setting = process!(
    max_queries,
    set_max_queries,
    |text: &str| count(text, MAX_QUERIES),
    described(
        "admission.max_queries",
        "queries",
        "0 to 1000000",
        "4",
        "How many queries run at once; others wait for their turn, in order, before they do any work. A query runs from \
         the first poll of its stream to the end or the drop of the stream. One value for all sessions that share a \
         Slipstream.",
        "0: as many as come",
    )
);

pub(super) const MAX_QUEUED: Setting = process!(
    max_queued,
    set_max_queued,
    |text: &str| count(text, MAX_QUERIES),
    described(
        "admission.max_queued",
        "queries",
        "0 to 1000000",
        "10",
        "How many queries may wait where admission.max_queries run already. One that finds the queue full fails at once.",
        "0: nobody waits: a query runs or fails",
    )
);

pub(super) const TIMEOUT: Setting = process!(
    admission_timeout_ms,
    set_admission_timeout_ms,
    |text: &str| count(text, MAX_TIMEOUT_MS),
    described(
        "admission.timeout_ms",
        "milliseconds",
        "0 to 86400000",
        "1000",
        "How long a query waits for its turn before it fails.",
        "0: as long as it takes",
    )
);

pub(super) const SPILL_JOIN_ENABLED: Setting = field!(
    spill_join_enabled,
    bool::to_string,
    boolean,
    described(
        "spill_join.enabled",
        "switch",
        "true or false",
        "false",
        "Lets hash joins write to disk what does not fit in memory, where memory is limited. While the build side fits \
         they are DataFusion's own.",
        "false: a hash join whose build side does not fit fails",
    )
);

pub(super) const BATCH_SIZE_ENABLED: Setting = field!(
    batch_size_enabled,
    bool::to_string,
    boolean,
    described(
        "batch_size.enabled",
        "switch",
        "true or false",
        "false",
        "Gives batches fewer rows than datafusion.execution.batch_size where rows are wide, and cuts batches before \
         operators that keep them where memory is limited and they are large.",
        "false: all batches have the configured rows, whatever they take in memory",
    )
);

pub(super) const BATCH_SIZE_TARGET_BYTES: Setting = field!(
    batch_size_target_bytes,
    usize::to_string,
    |text: &str| count(text, MAX_BATCH_BYTES),
    described(
        "batch_size.target_bytes",
        "bytes",
        "0 to 1099511627776",
        "1048576",
        "What a batch of wide rows should take at most; under a memory limit a 64th of it where that is less, and a half \
         or a quarter of that while half or three quarters of the limit are reserved. Too little costs time for each row.",
        "0: wide rows come min_rows at a time",
    )
);

pub(super) const BATCH_SIZE_MIN_ROWS: Setting = field!(
    batch_size_min_rows,
    usize::to_string,
    |text: &str| count(text, MAX_BATCH_ROWS),
    described(
        "batch_size.min_rows",
        "rows",
        "0 to 1000000",
        "64",
        "Rows that a batch has at least, however wide they are.",
        "0: as 1",
    )
);

pub(super) const OPERATOR_METRICS_ENABLED: Setting = field!(
    operator_metrics_enabled,
    bool::to_string,
    boolean,
    described(
        "operator_metrics.enabled",
        "switch",
        "true or false",
        "false",
        "Counts memory and temporary files for each operator, and adds them to its metrics: peak_mem_used and, where \
         it spilled, files, bytes and time, in EXPLAIN ANALYZE and wherever else a plan's metrics are read.",
        "false: operators show what DataFusion 55.2 counts, which for sorts and most aggregates is no memory",
    )
);
