//! `slipstream.queries`: one row for each query that runs or ran.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;

use super::cache::{CacheStatsTable, CacheTable, Caches};
use super::memory::MemoryTable;
use super::statistics::StatisticsTable;
use super::system_table::{SystemTable, SystemTableProvider};
use crate::clock::Clock;
use crate::memory::MemoryGovernor;
use crate::monitor::{QueryLog, QueryRecord};
use crate::scope::Verdict;
use crate::store::StatisticsStore;

/// The schema of the layer's tables, in the session's default catalog.
pub(crate) const SCHEMA_NAME: &str = "slipstream";

/// The schema provider with all system tables.
pub(crate) fn system_schema(
    query_log: Arc<QueryLog>,
    statistics: Arc<StatisticsStore>,
    governor: Arc<MemoryGovernor>,
    caches: Caches,
    clock: Arc<dyn Clock>,
) -> Arc<dyn SchemaProvider> {
    let schema = MemorySchemaProvider::new();
    let stats = CacheStatsTable(caches.clone());
    let tables: [(&str, Arc<dyn TableProvider>); 5] = [
        ("cache", Arc::new(SystemTableProvider(CacheTable { caches, clock }))),
        ("cache_stats", Arc::new(SystemTableProvider(stats))),
        ("queries", Arc::new(SystemTableProvider(QueriesTable { query_log }))),
        ("memory", Arc::new(SystemTableProvider(MemoryTable { governor }))),
        ("statistics", Arc::new(StatisticsTable { store: statistics })),
    ];
    for (name, table) in tables {
        // A memory schema refuses only a name it has already.
        if let Err(error) = schema.register_table(name.to_owned(), table) {
            log::warn!("slipstream: table {SCHEMA_NAME}.{name} was not registered: {error}");
        }
    }
    Arc::new(schema)
}

/// | column | type | meaning |
/// |---|---|---|
/// | `id` | UInt64 | counts up from 1 in each log |
/// | `text` | Utf8 | SQL text; `plan: …` where the query came without text (`ctx.sql()`, data frames) |
/// | `status` | Utf8 | planned, queued, running, finished, failed, cancelled |
/// | `start` | Timestamp(µs, UTC) | when it came in |
/// | `parse_ms`, `plan_ms`, `execute_ms` | Float64 | milliseconds; NULL where that phase did not take place |
/// | `rows` | UInt64 | rows handed to the caller |
/// | `peak_memory_bytes`, `spilled_bytes` | UInt64 | the query's own |
/// | `refused_grows` | UInt64 | requests for memory that were refused |
/// | `reclaimed_bytes` | UInt64 | what caches gave back for it |
/// | `queued_ms` | Float64 | milliseconds that it waited for its turn |
/// | `error` | Utf8 | NULL unless failed |
/// | `cache` | Utf8 | what the result cache did: `hit`, `hit on disk`, `broader` (computed from the answer to a broader query), `stored`, `waited` (for an identical query), or why not; NULL where it is off |
/// | `cached_plan` | Utf8 | what the cache of plans did: `hit`, `stored`, or why not; NULL where it is off |
/// | `rules_applied`, `rules_refused` | List(Utf8) | `rule: what was done`, `rule: why not` |
/// | `rules_ms` | Float64 | milliseconds that the layer's rules took |
#[derive(Debug)]
struct QueriesTable {
    query_log: Arc<QueryLog>,
}

fn schema() -> SchemaRef {
    let column = |name: &str, data_type: DataType, nullable: bool| Field::new(name, data_type, nullable);
    let texts = || DataType::new_list(DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        column("id", DataType::UInt64, false),
        column("text", DataType::Utf8, false),
        column("status", DataType::Utf8, false),
        column("start", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        column("parse_ms", DataType::Float64, true),
        column("plan_ms", DataType::Float64, false),
        column("execute_ms", DataType::Float64, true),
        column("rows", DataType::UInt64, false),
        column("peak_memory_bytes", DataType::UInt64, false),
        column("spilled_bytes", DataType::UInt64, false),
        column("refused_grows", DataType::UInt64, false),
        column("reclaimed_bytes", DataType::UInt64, false),
        column("queued_ms", DataType::Float64, false),
        column("error", DataType::Utf8, true),
        column("cache", DataType::Utf8, true),
        column("cached_plan", DataType::Utf8, true),
        column("rules_applied", texts(), false),
        column("rules_refused", texts(), false),
        column("rules_ms", DataType::Float64, false),
    ]))
}

impl SystemTable for QueriesTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let records = self.query_log.queries();
        let texts = |get: fn(&QueryRecord) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(records.iter().map(|record| get(record))))
        };
        let counts = |get: fn(&QueryRecord) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| get(record))))
        };
        let millis = |get: fn(&QueryRecord) -> Option<Duration>| -> ArrayRef {
            let value = |record: &Arc<QueryRecord>| get(record).map(|time| time.as_secs_f64() * 1e3);
            Arc::new(Float64Array::from_iter(records.iter().map(value)))
        };
        let start =
            TimestampMicrosecondArray::from_iter_values(records.iter().map(|record| micros(record.start)));
        let columns: Vec<ArrayRef> = vec![
            counts(|record| record.id),
            texts(|record| &record.text),
            texts(|record| record.status.as_str()),
            Arc::new(start.with_timezone("UTC")),
            millis(|record| record.parse),
            millis(|record| Some(record.plan)),
            millis(|record| record.execute),
            counts(|record| record.rows),
            counts(|record| record.peak_memory_bytes),
            counts(|record| record.spilled_bytes),
            counts(|record| record.refused_grows),
            counts(|record| record.reclaimed_bytes),
            millis(|record| Some(record.queued)),
            Arc::new(StringArray::from_iter(records.iter().map(|record| record.error.as_deref()))),
            Arc::new(StringArray::from_iter(records.iter().map(|record| record.cache.as_deref()))),
            Arc::new(StringArray::from_iter(records.iter().map(|record| record.cached_plan.as_deref()))),
            verdicts(&records, true),
            verdicts(&records, false),
            millis(|record| Some(record.rules.iter().map(|report| report.elapsed).sum())),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// The reports of rules that applied, or of those that refused, as one list a query.
fn verdicts(records: &[Arc<QueryRecord>], applied: bool) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for record in records {
        for report in &record.rules {
            match &report.verdict {
                Verdict::Applied(detail) if applied => {
                    lists.values().append_value(format!("{}: {detail}", report.rule));
                }
                Verdict::Refused(reason) if !applied => {
                    lists.values().append_value(format!("{}: {reason}", report.rule));
                }
                _ => {}
            }
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

/// Microseconds since the epoch; a clock before 1970 reads as the epoch.
pub(super) fn micros(time: SystemTime) -> i64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
