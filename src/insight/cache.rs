//! `slipstream.cache` and `slipstream.cache_stats`: the answers that are kept, and what happened so far.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;

use super::queries::micros;
use super::system_table::SystemTable;
use crate::clock::Clock;
use crate::store::{CachedResult, ResultStore};

/// | column | type | meaning |
/// |---|---|---|
/// | `key` | Utf8 | names the answer; `slipstream_cache_drop_entry()` takes it |
/// | `tier` | Utf8 | what is kept: `result`, the answer of a whole query; `subplan`, the rows of a part of one; `file_aggregate`, what each file contributes to an aggregate |
/// | `tables` | List(Utf8) | what it was made from, as the query called it |
/// | `tag` | Utf8 | `slipstream.cache.tag` of the query |
/// | `bytes`, `rows` | UInt64 | what it takes in memory, and its rows |
/// | `cost_ms` | Float64 | how long it took to compute |
/// | `hits` | UInt64 | how often it was given |
/// | `created` | Timestamp(µs, UTC) | when it was kept |
/// | `age_ms` | Float64 | how long ago that is |
/// | `state` | Utf8 | `kept`; `aging`: a table has no version, so that its age counts; `expired`: its time is over; `unreachable`: a table or function was dropped |
///
/// Whether an answer's data is still the same is looked up when it is asked for, and not here.
#[derive(Debug)]
pub(super) struct CacheTable {
    pub(super) results: Arc<ResultStore>,
    pub(super) clock: Arc<dyn Clock>,
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
    ]))
}

impl SystemTable for CacheTable {
    fn schema(&self) -> SchemaRef {
        entry_schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let results = self.results.results();
        let now = self.clock.now();
        let counts = |get: fn(&CachedResult) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(results.iter().map(|result| get(result))))
        };
        let state = |result: &CachedResult| match () {
            () if !result.is_reachable() => "unreachable",
            () if result.is_expired(now) => "expired",
            () if result.is_aging() => "aging",
            () => "kept",
        };
        let mut tables = ListBuilder::new(StringBuilder::new());
        for result in &results {
            result.tables().iter().for_each(|table| tables.values().append_value(table));
            tables.append(true);
        }
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let created =
            TimestampMicrosecondArray::from_iter_values(results.iter().map(|r| micros(r.created_at)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(results.iter().map(|result| result.name()))),
            Arc::new(StringArray::from_iter_values(results.iter().map(|result| result.tier().as_str()))),
            Arc::new(tables.finish()),
            Arc::new(StringArray::from_iter_values(results.iter().map(|result| result.tag()))),
            counts(|result| result.bytes as u64),
            counts(|result| result.rows as u64),
            Arc::new(Float64Array::from_iter_values(results.iter().map(|result| millis(result.cost())))),
            counts(CachedResult::hits),
            Arc::new(created.with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(results.iter().map(|result| millis(result.age(now))))),
            Arc::new(StringArray::from_iter_values(results.iter().map(|result| state(result)))),
        ];
        Ok(RecordBatch::try_new(entry_schema(), columns)?)
    }
}

/// | column | type | meaning |
/// |---|---|---|
/// | `name` | Utf8 | `hits`, `part_hits` (of subplans and file aggregates), `misses`, `waits`, `stored`, `seconds_saved`, `refused`, `evicted`, `entries`, `bytes`, `computing` |
/// | `reason` | Utf8 | of what was refused and evicted; else NULL |
/// | `value` | Float64 | how many or how much, since the `Slipstream` was made; of the last three, now |
#[derive(Debug)]
pub(super) struct CacheStatsTable {
    pub(super) results: Arc<ResultStore>,
}

fn stats_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("value", DataType::Float64, false),
    ]))
}

impl SystemTable for CacheStatsTable {
    fn schema(&self) -> SchemaRef {
        stats_schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let mut rows = self.results.stats().rows();
        let (entries, bytes, computing) = self.results.size();
        rows.extend(
            [("entries", entries), ("bytes", bytes), ("computing", computing)]
                .map(|(name, now)| (name, None, now as f64)),
        );
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, ..)| name))),
            Arc::new(StringArray::from_iter(rows.iter().map(|(_, reason, _)| *reason))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|(.., value)| *value))),
        ];
        Ok(RecordBatch::try_new(stats_schema(), columns)?)
    }
}
