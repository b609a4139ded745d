//! The list of all settings: the source of `SET`, `SHOW`, the environment and the manual.

use super::values::{boolean, count, rule_names};
use super::{SlipstreamOptions, cache, guards, resources};

/// One setting: what it is called, what it means, and how it is read and written.
#[derive(Debug)]
pub struct Setting {
    /// The name without the prefix `slipstream.`
    pub name: &'static str,
    /// What a value is measured in.
    pub unit: &'static str,
    /// The values that are accepted.
    pub accepts: &'static str,
    /// What it is for, and what goes wrong when it is set badly.
    pub purpose: &'static str,
    /// What `0`, `false` or the empty value means.
    pub zero: &'static str,
    /// A value other than the default, for the manual and for tests.
    pub example: &'static str,
    pub(super) get: fn(&SlipstreamOptions) -> String,
    pub(super) set: fn(&mut SlipstreamOptions, &str) -> Result<(), String>,
    pub(super) copy: fn(&mut SlipstreamOptions, &SlipstreamOptions),
}

impl Setting {
    /// The default, as `SHOW` prints it; an empty one is shown as `''`.
    pub fn default_text(&self) -> String {
        let value = (self.get)(&SlipstreamOptions::default());
        if value.is_empty() { "''".to_owned() } else { value }
    }
}

/// Reads, parses and copies one field: what every setting does in the same way.
macro_rules! field {
    ($field:ident, $show:expr, $parse:expr, $setting:expr) => {
        Setting {
            get: |options| $show(&options.$field),
            set: |options, text| {
                options.$field = $parse(text)?;
                Ok(())
            },
            copy: |options, from| options.$field.clone_from(&from.$field),
            ..$setting
        }
    };
}

/// The same for a value that belongs to the process.
macro_rules! process {
    ($get:ident, $put:ident, $parse:expr, $setting:expr) => {
        Setting {
            get: |options| options.process.$get().to_string(),
            set: |options, text| {
                options.process.$put($parse(text)?);
                Ok(())
            },
            copy: |options, from| options.process.$put(from.process.$get()),
            ..$setting
        }
    };
}

pub(super) use {field, process};

/// The described half of a setting; [`field!`] fills in the rest.
pub(super) const fn described(
    name: &'static str,
    unit: &'static str,
    accepts: &'static str,
    example: &'static str,
    purpose: &'static str,
    zero: &'static str,
) -> Setting {
    Setting {
        name,
        unit,
        accepts,
        purpose,
        zero,
        example,
        get: |_| String::new(),
        set: |_, _| Ok(()),
        copy: |_, _| (),
    }
}

const MAX_ENTRIES: usize = 1_000_000;
const MAX_LATE_ROWS: usize = 100_000;
const MAX_TEXT_BYTES: usize = 1_048_576;
/// A tebibyte.
const MAX_MEMORY_BYTES: usize = 1_099_511_627_776;
const MAX_STORE_BYTES: usize = 1 << 40;

/// Every setting of the layer, in the order in which the manual and `SHOW` list them.
pub static SETTINGS: &[Setting] = &[
    field!(
        enabled,
        bool::to_string,
        boolean,
        described(
            "enabled",
            "switch",
            "true or false",
            "false",
            "The whole layer. With it off a query gets DataFusion's own plan, and nothing is recorded; use it to \
             compare, or to rule the layer out when an answer or a time surprises.",
            "false: the plain engine",
        )
    ),
    field!(
        disabled_rules,
        |names: &Vec<String>| names.join(","),
        rule_names,
        described(
            "disabled_rules",
            "rule names",
            "names of the layer's rules, separated by commas",
            "nested_loop_join_guard",
            "Rules that are skipped by name; finer than a feature's own switch when a feature has several rules. \
             A skipped rule is reported as refused.",
            "empty: no rule is skipped",
        )
    ),
    field!(
        explain_enabled,
        bool::to_string,
        boolean,
        described(
            "explain.enabled",
            "switch",
            "true or false",
            "false",
            "Adds a row 'slipstream' after the plans of EXPLAIN and EXPLAIN ANALYZE (formats indent and tree), which \
             says what each rule did. Turn it off where a tool parses the plans and expects DataFusion's rows only.",
            "false: EXPLAIN prints DataFusion's rows only",
        )
    ),
    field!(
        small_query_max_rows,
        usize::to_string,
        |text: &str| count(text, usize::MAX),
        described(
            "small_query.max_rows",
            "rows",
            "0 or a positive number",
            "10000",
            "Queries that handle at most so many rows, those of their scans and those that their joins bring together, run in \
             one partition, without dynamic filters and without the rules that save work: they are over before those could pay. \
             Queries with hints, and those of which it is not certain, are planned as usual.",
            "0: no query is taken for small",
        )
    ),
    field!(
        join_order_enabled,
        bool::to_string,
        boolean,
        described(
            "join_order.enabled",
            "switch",
            "true or false",
            "false",
            "Joins tables in the order, and with the build sides, that statistics make look cheapest. Turn it off \
             where a query is written in a better order than the statistics know.",
            "false: joins stay in the order in which they are written",
        )
    ),
    field!(
        join_order_min_gain_percent,
        usize::to_string,
        |text: &str| count(text, 100),
        described(
            "join_order.min_gain_percent",
            "percent of the written order's cost",
            "0 to 100",
            "30",
            "How much cheaper another order must look before it is taken. Estimates are wrong by more than a few \
             percent, so a small promise is as likely to be a loss.",
            "0: the cheapest order is taken, the written one only where none is cheaper",
        )
    ),
    field!(
        shared_subplan_enabled,
        bool::to_string,
        boolean,
        described(
            "shared_subplan.enabled",
            "switch",
            "true or false",
            "false",
            "Runs a part of a plan that occurs more than once (a common table expression used twice) once, and gives \
             its rows to all who read it. Turn it off where partitions of one plan are executed apart from each \
             other, as a distributed engine does: each would run it again and keep rows that nobody takes.",
            "false: each occurrence runs by itself",
        )
    ),
    field!(
        shared_subplan_min_gain_percent,
        usize::to_string,
        |text: &str| count(text, 100),
        described(
            "shared_subplan.min_gain_percent",
            "percent of the cost of running each occurrence",
            "0 to 100",
            "40",
            "How much cheaper running a subplan once and keeping its rows must look than running it each time.",
            "0: wherever it does not look dearer",
        )
    ),
    field!(
        shared_subplan_max_memory_bytes,
        usize::to_string,
        |text: &str| count(text, MAX_MEMORY_BYTES),
        described(
            "shared_subplan.max_memory_bytes",
            "bytes",
            "0 to 1099511627776",
            "1048576",
            "How much memory the rows of one shared subplan may take while some reader has still to take them; \
             what is more goes to temporary files, also where the memory pool would give it. Too much of it leaves \
             too little to operators that cannot spill.",
            "0: all rows that wait are in files",
        )
    ),
    field!(
        scan_filter_enabled,
        bool::to_string,
        boolean,
        described(
            "scan_filter.enabled",
            "switch",
            "true or false",
            "false",
            "Evaluates filters inside the Parquet reader in those scans where few rows are expected to pass, and \
             nowhere else. Turn it off where the statistics mislead it.",
            "false: datafusion.execution.parquet.pushdown_filters decides for all scans",
        )
    ),
    field!(
        scan_filter_min_gain_percent,
        usize::to_string,
        |text: &str| count(text, 100),
        described(
            "scan_filter.min_gain_percent",
            "percent of the scan's cost",
            "0 to 100",
            "50",
            "How much cheaper a scan must look with its filters in the reader before they are put there.",
            "0: wherever it does not look dearer",
        )
    ),
    field!(
        scan_ranges_enabled,
        bool::to_string,
        boolean,
        described(
            "scan_ranges.enabled",
            "switch",
            "true or false",
            "false",
            "Cuts files of a parallel Parquet scan where row groups end, so that partitions get about as many rows, where \
             ranges of equal bytes would give one of them more.",
            "false: ranges of equal bytes",
        )
    ),
    field!(
        narrow_decimals_enabled,
        bool::to_string,
        boolean,
        described(
            "narrow_decimals.enabled",
            "switch",
            "true or false",
            "false",
            "Computes products of decimals (of up to 38 digits) in projections and aggregates in 64 bits where the values \
             at hand are small enough, without a check for each row. Values and errors are the same either way.",
            "false: each operation is computed in 128 bits, and checked for each row",
        )
    ),
    field!(
        clustered_aggregate_enabled,
        bool::to_string,
        boolean,
        described(
            "clustered_aggregate.enabled",
            "switch",
            "true or false",
            "false",
            "Aggregates in one step, without an exchange and mostly without hashing, where the row groups of a Parquet \
             table do not overlap in a group key. Its partitions share state: turn it off where a plan's partitions \
             are executed by different processes.",
            "false: DataFusion's aggregates stay",
        )
    ),
    field!(
        clustered_aggregate_min_rows,
        usize::to_string,
        |text: &str| count(text, usize::MAX),
        described(
            "clustered_aggregate.min_rows",
            "rows of the table",
            "0 to 18446744073709551615",
            "0",
            "Tables with fewer rows keep DataFusion's aggregates: there is little to gain.",
            "0: no table is too small",
        )
    ),
    field!(
        key_filter_enabled,
        bool::to_string,
        boolean,
        described(
            "key_filter.enabled",
            "switch",
            "true or false",
            "false",
            "Drops rows of a scan whose key is not on the build side of a join further up, by a bitmap of the keys. Its \
             nodes share state: turn it off where a plan's partitions are executed by different processes.",
            "false: rows meet the join's table",
        )
    ),
    field!(
        key_filter_min_rows,
        usize::to_string,
        |text: &str| count(text, usize::MAX),
        described(
            "key_filter.min_rows",
            "rows of the table",
            "0 to 18446744073709551615",
            "0",
            "Scans of tables with fewer rows are not filtered: there is little to gain.",
            "0: no table is too small",
        )
    ),
    field!(
        fused_filter_enabled,
        bool::to_string,
        boolean,
        described(
            "fused_filter.enabled",
            "switch",
            "true or false",
            "false",
            "Evaluates the conditions of a filter in the order that is the cheapest for the rows at hand, and compares \
             strings with literals by their views.",
            "false: DataFusion's filters stay, with the conditions in the written order",
        )
    ),
    resources::SPILL_JOIN_ENABLED,
    field!(
        late_materialization_enabled,
        bool::to_string,
        boolean,
        described(
            "late_materialization.enabled",
            "switch",
            "true or false",
            "false",
            "Sorts ORDER BY … LIMIT over wide Parquet tables by keys and row numbers, and reads the other columns of the \
             first rows only. Turn it off where files are changed in place while queries run: those fail with an error.",
            "false: all columns of all rows are read",
        )
    ),
    field!(
        late_materialization_max_rows,
        usize::to_string,
        |text: &str| count(text, MAX_LATE_ROWS),
        described(
            "late_materialization.max_rows",
            "rows",
            "0 to 100000",
            "100",
            "The largest LIMIT (with its OFFSET) that is read late. Each row may be on a page of its own in each column, \
             and all of them are in memory at once.",
            "0: nothing is read late",
        )
    ),
    field!(
        late_materialization_min_gain_percent,
        usize::to_string,
        |text: &str| count(text, 100),
        described(
            "late_materialization.min_gain_percent",
            "percent of the scan's cost",
            "0 to 100",
            "50",
            "How much cheaper a scan must look before columns are read late.",
            "0: wherever it is possible, whatever it costs",
        )
    ),
    field!(
        compact_views_enabled,
        bool::to_string,
        boolean,
        described(
            "compact_views.enabled",
            "switch",
            "true or false",
            "false",
            "Copies strings into buffers of their own before an operator keeps them, where they would hold much more \
             memory than they use: rows of a join's build side, rows that a Parquet reader has filtered.",
            "false: joins and sorts keep the buffers that they are given",
        )
    ),
    guards::OUTER_JOIN_GUARD_ENABLED,
    guards::DYNAMIC_FILTER_GUARD_ENABLED,
    guards::MEMORY_GUARD_ENABLED,
    guards::NESTED_LOOP_JOIN_GUARD_ENABLED,
    field!(
        statistics_enabled,
        bool::to_string,
        boolean,
        described(
            "statistics.enabled",
            "switch",
            "true or false",
            "false",
            "Uses what ANALYZE TABLE has found out: rows, distinct values, histograms and most common values, for the version \
             of the data that was analyzed. ANALYZE itself works with it off, too.",
            "false: plans are made from the statistics in the files alone",
        )
    ),
    field!(
        statistics_max_entries,
        usize::to_string,
        |text: &str| count(text, MAX_ENTRIES),
        described(
            "statistics.max_entries",
            "tables",
            "0 to 1000000",
            "20",
            "How many tables, each in one version of its data, the results of ANALYZE are kept of. The one that was used least \
             recently makes room.",
            "0: nothing is kept; ANALYZE only answers",
        )
    ),
    field!(
        statistics_max_bytes,
        usize::to_string,
        |text: &str| count(text, MAX_STORE_BYTES),
        described(
            "statistics.max_bytes",
            "bytes",
            "0 to 1099511627776",
            "1048576",
            "How much memory the results of ANALYZE may take. A column takes about 3 KB, of long text up to 13 KB, and a file \
             of the table about 150 bytes.",
            "0: nothing is kept; ANALYZE only answers",
        )
    ),
    field!(
        feedback_enabled,
        bool::to_string,
        boolean,
        described(
            "feedback.enabled",
            "switch",
            "true or false",
            "true",
            "Remembers how many rows came out of the filters, joins and aggregates of queries that ran to their end, and plans \
             equal parts of later queries over the same data with it. A number that is right beside others that are not \
             can make a plan worse as well as better, which is why it is off unless asked for.",
            "false: nothing is remembered, nor looked up",
        )
    ),
    field!(
        feedback_max_entries,
        usize::to_string,
        |text: &str| count(text, MAX_ENTRIES),
        described(
            "feedback.max_entries",
            "row counts",
            "0 to 1000000",
            "50",
            "How many observed row counts are kept; the one that was used least recently makes room.",
            "0: nothing is kept",
        )
    ),
    field!(
        feedback_max_bytes,
        usize::to_string,
        |text: &str| count(text, MAX_STORE_BYTES),
        described(
            "feedback.max_bytes",
            "bytes",
            "0 to 1099511627776",
            "1048576",
            "How much memory observed row counts may take. Each is kept under the full description of what was executed: \
             about 1 KB, and 150 bytes more for each file that was read.",
            "0: nothing is kept",
        )
    ),
    resources::BATCH_SIZE_ENABLED,
    resources::BATCH_SIZE_TARGET_BYTES,
    resources::BATCH_SIZE_MIN_ROWS,
    resources::OPERATOR_METRICS_ENABLED,
    field!(
        query_log_enabled,
        bool::to_string,
        boolean,
        described(
            "query_log.enabled",
            "switch",
            "true or false",
            "false",
            "Records every query in the table slipstream.queries: times, rows, peak memory, spilled bytes, what the \
             rules did, and how it ended.",
            "false: nothing is recorded, and queries run without the node that observes them",
        )
    ),
    field!(
        query_log_max_entries,
        usize::to_string,
        |text: &str| count(text, MAX_ENTRIES),
        described(
            "query_log.max_entries",
            "queries",
            "0 to 1000000",
            "50",
            "How many ended queries slipstream.queries keeps; the oldest make room. An entry takes about 500 bytes \
             plus its text. Sessions that share one log each trim it to their own value when a query of theirs ends.",
            "0: only running queries are shown",
        )
    ),
    field!(
        query_log_max_text_bytes,
        usize::to_string,
        |text: &str| count(text, MAX_TEXT_BYTES),
        described(
            "query_log.max_text_bytes",
            "bytes",
            "0 to 1048576",
            "120",
            "How much of a query's text (and of an error's) an entry keeps; longer ones are cut at a character and \
             end in an ellipsis. It bounds the log's memory where statements carry long IN lists or VALUES.",
            "0: no text is kept",
        )
    ),
    resources::MEMORY_LIMIT,
    resources::QUERY_LIMIT,
    resources::RESERVE,
    resources::DISK_LIMIT,
    resources::DISK_QUERY_LIMIT,
    resources::DISK_DIRECTORY,
    resources::MAX_QUERIES_AT_ONCE,
    resources::MAX_QUEUED,
    resources::TIMEOUT,
    cache::ENABLED,
    cache::PLANS,
    cache::MODE,
    cache::MAX_BYTES,
    cache::MAX_COUNT,
    cache::DISK_DIRECTORY,
    cache::DISK_MAX_BYTES,
    cache::MAX_ENTRY_BYTES,
    cache::MAX_ENTRY_ROWS,
    cache::TTL,
    cache::MAX_STALENESS,
    cache::MAX_AGE,
    cache::MIN_COST,
    cache::MIN_REPEATS,
    cache::FILE_AGGREGATES,
    cache::SUBPLANS,
    cache::BROADER,
    cache::TAG,
];
