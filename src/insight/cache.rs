//! `slipstream.cache` and `slipstream.cache_stats`: the answers and plans that are kept, and what happened so far.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;

use super::queries::micros;
use super::system_table::SystemTable;
use crate::clock::Clock;
use crate::store::{CachedPlan, CachedResult, DiskEntry, DiskTier, PlanCache, ResultStore};

/// All that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    /// Answers in memory.
    pub(crate) results: Arc<ResultStore>,
    /// Plans.
    pub(crate) plans: Arc<PlanCache>,
    /// Answers as files.
    pub(crate) disk: Arc<DiskTier>,
}

/// | column | type | meaning |
/// |---|---|---|
/// | `key` | Utf8 | names the entry; `slipstream_cache_drop_entry()` takes it |
/// | `tier` | Utf8 | what is kept: `result`, the answer of a whole query; `subplan`, the rows of a part of one; `file_aggregate`, what each file contributes to an aggregate; `plan`, the optimized plan of a text |
/// | `tables` | List(Utf8) | what it was made from, as the query called it |
/// | `tag` | Utf8 | `slipstream.cache.tag` of the query |
/// | `bytes` | UInt64 | what it takes in memory, or on disk |
/// | `rows` | UInt64 | an answer's rows; 0 for a plan |
/// | `cost_ms` | Float64 | how long it took to compute |
/// | `hits` | UInt64 | how often it was given |
/// | `created` | Timestamp(µs, UTC) | when it was kept |
/// | `age_ms` | Float64 | how long ago that is |
/// | `state` | Utf8 | `kept`; `aging`: a table has no version, so that its age counts; `expired`: its time is over; `unreachable`: a table or function was dropped |
/// | `location` | Utf8 | `memory`, or `disk`: a file in `slipstream.cache.disk.directory`, whichever process wrote it; an answer may be in both |
///
/// Whether an answer's data, or what a plan was made from, is still the same is looked up when it is asked for, and not here.
#[derive(Debug)]
pub(super) struct CacheTable {
    pub(super) caches: Caches,
    pub(super) clock: Arc<dyn Clock>,
}

/// One entry of any tier.
struct Entry {
    key: String,
    tier: &'static str,
    tables: Vec<String>,
    tag: String,
    bytes: usize,
    rows: usize,
    cost: Duration,
    hits: u64,
    created: SystemTime,
    age: Duration,
    state: &'static str,
    location: &'static str,
}

impl Entry {
    fn of_result(result: &CachedResult, now: Instant) -> Self {
        Self {
            key: result.name(),
            tier: result.tier().as_str(),
            tables: result.tables().to_vec(),
            tag: result.tag().to_owned(),
            bytes: result.bytes,
            rows: result.rows,
            cost: result.cost(),
            hits: result.hits(),
            created: result.created_at,
            age: result.age(now),
            state: match () {
                () if !result.is_reachable() => "unreachable",
                () if result.is_expired(now) => "expired",
                () if result.is_aging() => "aging",
                () => "kept",
            },
            location: "memory",
        }
    }

    fn of_file(name: &str, entry: &DiskEntry, now: SystemTime) -> Self {
        let header = &entry.header;
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            key: name.to_owned(),
            tier: "result",
            tables: header.tables.clone(),
            tag: header.tag.clone(),
            bytes: count(entry.bytes),
            rows: count(header.rows),
            cost: header.cost(),
            hits: entry.hits,
            created: header.created_at(),
            age: header.age(now).unwrap_or_default(),
            state: if header.is_expired(now) { "expired" } else { "kept" },
            location: "disk",
        }
    }

    fn of_plan(plan: &CachedPlan, now: Instant) -> Self {
        Self {
            key: plan.name(),
            tier: "plan",
            tables: plan.tables(),
            tag: plan.tag().to_owned(),
            bytes: plan.bytes,
            rows: 0,
            cost: plan.cost(),
            hits: plan.hits(),
            created: plan.created_at,
            age: now.saturating_duration_since(plan.created),
            state: if plan.is_reachable() { "kept" } else { "unreachable" },
            location: "memory",
        }
    }
}

fn entry_schema() -> SchemaRef {
    let column = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        column("key", DataType::Utf8),
        column("tier", DataType::Utf8),
        column("tables", DataType::new_list(DataType::Utf8, true)),
        column("tag", DataType::Utf8),
        column("bytes", DataType::UInt64),
        column("rows", DataType::UInt64),
        column("cost_ms", DataType::Float64),
        column("hits", DataType::UInt64),
        column("created", time),
        column("age_ms", DataType::Float64),
        column("state", DataType::Utf8),
        column("location", DataType::Utf8),
    ]))
}

impl SystemTable for CacheTable {
    fn schema(&self) -> SchemaRef {
        entry_schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let now = self.clock.now();
        let today = self.clock.system_time();
        let Caches { results, plans, disk } = &self.caches;
        let (results, plans, files) = (results.results(), plans.plans(), disk.entries());
        let entries: Vec<Entry> = results
            .iter()
            .map(|result| Entry::of_result(result, now))
            .chain(files.iter().map(|(name, file)| Entry::of_file(name, file, today)))
            .chain(plans.iter().map(|plan| Entry::of_plan(plan, now)))
            .collect();
        let counts = |get: fn(&Entry) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(entries.iter().map(get)))
        };
        let texts = |get: fn(&Entry) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(entries.iter().map(get)))
        };
        let millis = |get: fn(&Entry) -> Duration| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(
                entries.iter().map(|entry| get(entry).as_secs_f64() * 1e3),
            ))
        };
        let mut tables = ListBuilder::new(StringBuilder::new());
        for entry in &entries {
            entry.tables.iter().for_each(|table| tables.values().append_value(table));
            tables.append(true);
        }
        let created =
            TimestampMicrosecondArray::from_iter_values(entries.iter().map(|entry| micros(entry.created)));
        let columns: Vec<ArrayRef> = vec![
            texts(|entry| &entry.key),
            texts(|entry| entry.tier),
            Arc::new(tables.finish()),
            texts(|entry| &entry.tag),
            counts(|entry| entry.bytes as u64),
            counts(|entry| entry.rows as u64),
            millis(|entry| entry.cost),
            counts(|entry| entry.hits),
            Arc::new(created.with_timezone("UTC")),
            millis(|entry| entry.age),
            texts(|entry| entry.state),
            texts(|entry| entry.location),
        ];
        Ok(RecordBatch::try_new(entry_schema(), columns)?)
    }
}

/// | column | type | meaning |
/// |---|---|---|
/// | `name` | Utf8 | `hits`, `part_hits` (of subplans and file aggregates), `broader_hits` (computed from a broader answer), `misses`, `waits`, `stored`, `seconds_saved`, `refused`, `evicted`, `entries`, `bytes`, `computing` (on disk: to be written), `off` |
/// | `reason` | Utf8 | of what was refused and evicted, and of a directory that cannot be used (`off`); else NULL |
/// | `value` | Float64 | how many or how much, since the `Slipstream` was made; of the last four, now |
/// | `tier` | Utf8 | `result`, of answers and of parts; `plan`; or `disk`, of answers as files, where a directory is set |
#[derive(Debug)]
pub(super) struct CacheStatsTable(pub(super) Caches);

fn stats_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("value", DataType::Float64, false),
        Field::new("tier", DataType::Utf8, false),
    ]))
}

impl SystemTable for CacheStatsTable {
    fn schema(&self) -> SchemaRef {
        stats_schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let Caches { results, plans, disk } = &self.0;
        let (entries, bytes, computing) = results.size();
        let mut of_results = owned(results.stats().rows());
        of_results.extend(now([("entries", entries), ("bytes", bytes), ("computing", computing)]));
        let (entries, bytes) = plans.size();
        let mut of_plans = owned(plans.stats().rows());
        of_plans.extend(now([("entries", entries), ("bytes", bytes), ("computing", 0)]));
        let mut of_disk = Vec::new();
        if disk.is_on() {
            let (entries, bytes, writing) = disk.size();
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            of_disk.extend(owned(disk.stats().rows()));
            of_disk.extend(now([("entries", entries), ("bytes", bytes), ("computing", writing)]));
            of_disk.extend(disk.problem().map(|problem| ("off", Some(problem.into()), 1.0)));
        }
        let tier = |rows: Vec<_>, tier: &'static str| rows.into_iter().map(move |row: StatsRow| (row, tier));
        let rows: Vec<_> =
            tier(of_results, "result").chain(tier(of_plans, "plan")).chain(tier(of_disk, "disk")).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|((name, ..), _)| name))),
            Arc::new(StringArray::from_iter(rows.iter().map(|((_, reason, _), _)| reason.as_deref()))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|((.., value), _)| *value))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, tier)| tier))),
        ];
        Ok(RecordBatch::try_new(stats_schema(), columns)?)
    }
}

/// Name, reason, value.
type StatsRow = (&'static str, Option<Cow<'static, str>>, f64);

/// The rows of counters.
fn owned(rows: Vec<(&'static str, Option<&'static str>, f64)>) -> Vec<StatsRow> {
    rows.into_iter().map(|(name, reason, value)| (name, reason.map(Cow::Borrowed), value)).collect()
}

/// What is there at this moment.
fn now(counts: [(&'static str, usize); 3]) -> [StatsRow; 3] {
    counts.map(|(name, count)| (name, None, count as f64))
}
