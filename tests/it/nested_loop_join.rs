//! Nested-loop joins under a memory limit: the plain engine returns wrong rows, the layer does not.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result, resources_err};
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use crate::support::{config, limited_runtime, picture, single, sorted_rows, sql, with_layer};

/// Small batches and a build side of many of them, so that a small pool cuts it into chunks.
const BATCH_ROWS: usize = 16;

/// Every join type that reaches `NestedLoopJoinExec`, from both sides, since DataFusion swaps inputs.
const JOINS: [&str; 9] = [
    "SELECT l.k, r.w FROM l JOIN r ON l.v > r.w",
    "SELECT l.k, r.w FROM l LEFT JOIN r ON l.v > r.w",
    "SELECT l.k, r.w FROM r LEFT JOIN l ON l.v > r.w",
    "SELECT l.k, r.w FROM l RIGHT JOIN r ON l.v > r.w",
    "SELECT l.k, r.w FROM l FULL JOIN r ON l.v > r.w",
    "SELECT l.k, l.v FROM l WHERE EXISTS (SELECT 1 FROM r WHERE l.v > r.w)",
    "SELECT l.k, l.v FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE l.v > r.w)",
    "SELECT r.k, r.w FROM r WHERE NOT EXISTS (SELECT 1 FROM l WHERE l.v > r.w)",
    "SELECT l.k, l.v FROM l WHERE EXISTS (SELECT 1 FROM r WHERE l.v > r.w) OR l.k = 3",
];

fn schema(value: &str) -> SchemaRef {
    let column = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        column("k", DataType::Int64),
        column(value, DataType::Int64),
        column("pad", DataType::Utf8),
    ]))
}

/// `rows` rows in batches of [`BATCH_ROWS`]: keys, a small domain of values with NULLs, and padding.
fn batches(value: &str, rows: i64, domain: i64) -> Vec<RecordBatch> {
    let batch_rows = BATCH_ROWS as i64;
    (0..rows)
        .step_by(BATCH_ROWS)
        .map(|begin| {
            let keys: Vec<i64> = (begin..(begin + batch_rows).min(rows)).collect();
            let values = keys.iter().map(|key| (key % 13 != 0).then_some(key * 7 % domain));
            let pads = keys.iter().map(|key| format!("{key:>64}"));
            RecordBatch::try_new(
                schema(value),
                vec![
                    Arc::new(Int64Array::from(keys.clone())),
                    Arc::new(Int64Array::from_iter(values)),
                    Arc::new(StringArray::from_iter_values(pads)),
                ],
            )
            .unwrap()
        })
        .collect()
}

/// `l` with 200 rows and `r` with 90, in memory, in two partitions each.
fn in_memory(ctx: &SessionContext) {
    for (name, value, rows, domain) in [("l", "v", 200, 50), ("r", "w", 90, 45)] {
        let batches = batches(value, rows, domain);
        let (first, second) = batches.split_at(batches.len() / 2);
        let table = MemTable::try_new(schema(value), vec![first.to_vec(), second.to_vec()]).unwrap();
        ctx.register_table(name, Arc::new(table)).unwrap();
    }
}

/// The same in Parquet files, three a table: scans of several files share a queue, and drain it.
async fn in_parquet(ctx: &SessionContext, directory: &Path) {
    for (name, value, rows, domain) in [("l", "v", 200, 50), ("r", "w", 90, 45)] {
        let table = directory.join(name);
        std::fs::create_dir(&table).unwrap();
        for (part, batches) in batches(value, rows, domain).chunks(5).enumerate() {
            let file = File::create(table.join(format!("{part}.parquet"))).unwrap();
            let mut writer = ArrowWriter::try_new(file, schema(value), None).unwrap();
            for batch in batches {
                writer.write(batch).unwrap();
            }
            writer.close().unwrap();
        }
        ctx.register_parquet(name, table.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    }
}

fn limited(target_partitions: usize, pool_bytes: usize, spill: &Path) -> SessionContext {
    let config = config().with_batch_size(BATCH_ROWS).with_target_partitions(target_partitions);
    SessionContext::new_with_config_rt(config, limited_runtime(pool_bytes, spill))
}

async fn expected(join: &str) -> Vec<String> {
    let ctx = SessionContext::new_with_config(config());
    in_memory(&ctx);
    sorted_rows(&sql(&ctx, join).await.unwrap())
}

/// Thousands of rows: a failure shows the first that differs, not all of them.
#[track_caller]
fn assert_same(rows: &[String], expected: &[String], at: &str) {
    let differs = rows.iter().zip(expected).find(|(row, expected)| row != expected);
    assert!(
        rows == expected,
        "{at}: {} rows where {} were expected, first (got, expected): {differs:?}",
        rows.len(),
        expected.len()
    );
}

/// The rows, or `None` where the join ran out of memory.
fn rows_or_exhausted(result: Result<Vec<RecordBatch>>) -> Option<Vec<String>> {
    match result {
        Ok(batches) => Some(sorted_rows(&batches)),
        Err(error) => {
            assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
            None
        }
    }
}

#[tokio::test]
async fn the_plain_engine_returns_wrong_rows() {
    let mut wrong = 0;
    for target_partitions in [1, 4] {
        for join in JOINS {
            let spill = TempDir::new().unwrap();
            let ctx = limited(target_partitions, 2_000, spill.path());
            in_memory(&ctx);
            if let Some(rows) = rows_or_exhausted(sql(&ctx, join).await) {
                wrong += usize::from(rows != expected(join).await);
            }
        }
    }
    assert!(wrong > 0, "DataFusion spills nested-loop joins rightly now: retire the guard");
}

#[tokio::test]
async fn the_layer_returns_right_rows_or_a_clear_error_at_every_limit() {
    let (mut right, mut refused) = (0, 0);
    for target_partitions in [1, 4] {
        for pool_bytes in [64, 2_000, 20_000, 10_000_000] {
            for join in JOINS {
                let spill = TempDir::new().unwrap();
                let (ctx, _) = with_layer(limited(target_partitions, pool_bytes, spill.path()));
                in_memory(&ctx);
                let result = sql(&ctx, join).await;
                if let Err(error) = &result {
                    let text = error.to_string();
                    assert!(pool_bytes < 10_000_000, "{join}: {text}");
                    let ours = text.contains("NestedLoopJoin");
                    assert!(
                        !ours || text.contains("Raise the memory limit"),
                        "{join} at {pool_bytes}: {text}"
                    );
                    assert!(text.contains("Resources exhausted"), "{join} at {pool_bytes}: {text}");
                }
                match rows_or_exhausted(result) {
                    Some(rows) => {
                        let at = format!("{join} at {pool_bytes}, {target_partitions} partitions");
                        assert_same(&rows, &expected(join).await, &at);
                        right += 1;
                    }
                    None => refused += 1,
                }
            }
        }
    }
    assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
}

/// An exchange and an aggregate above a join have contexts of their own under a limit, and give their inputs the one around
/// them: what guards the join has to hold in there.
#[tokio::test]
async fn a_join_below_an_exchange_is_guarded_too() {
    let (mut right, mut refused) = (0, 0);
    for target_partitions in [1, 4] {
        for pool_bytes in [12_000, 20_000, 30_000, 45_000, 60_000, 10_000_000] {
            for join in JOINS {
                let (data, spill) = (TempDir::new().unwrap(), TempDir::new().unwrap());
                let (ctx, _) = with_layer(limited(target_partitions, pool_bytes, spill.path()));
                in_parquet(&ctx, data.path()).await;
                let padded = join.replacen("SELECT l.k", "SELECT l.pad, l.k", 1);
                let padded = padded.replacen("SELECT r.k", "SELECT r.pad, r.k", 1);
                let grouped = format!("SELECT j.k, count(j.pad) AS n FROM ({padded}) AS j GROUP BY j.k");
                match rows_or_exhausted(sql(&ctx, &grouped).await) {
                    Some(rows) => {
                        let at = format!("{grouped} at {pool_bytes}, {target_partitions} partitions");
                        assert_same(&rows, &expected(&grouped).await, &at);
                        right += 1;
                    }
                    None => refused += 1,
                }
            }
        }
    }
    assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
}

#[tokio::test]
async fn an_inner_join_spills_and_finishes_where_its_build_side_is_a_drained_scan() {
    let join = JOINS[0];
    for target_partitions in [1, 4] {
        let (data, spill) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let plain = limited(target_partitions, 600, spill.path());
        in_parquet(&plain, data.path()).await;
        let plain_rows = sql(&plain, join).await.map(|batches| sorted_rows(&batches));
        let (ctx, slipstream) = with_layer(plain);
        let rows = sorted_rows(&sql(&ctx, join).await.unwrap());
        assert_same(&rows, &expected(join).await, &format!("{target_partitions} partitions"));
        let record = slipstream.query_log().queries().pop().unwrap();
        assert!(record.spilled_bytes > 0, "the test must reach the spilling path");
        assert!(
            plain_rows.is_err() || plain_rows.unwrap() != rows,
            "the plain engine re-executes a drained scan"
        );
    }
}

/// Refuses the first request of a sort, and none after it.
#[derive(Debug, Default)]
struct RefusesOnce {
    granted: UnboundedMemoryPool,
    refused: AtomicBool,
}

impl Display for RefusesOnce {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("refuses once")
    }
}

impl MemoryPool for RefusesOnce {
    fn name(&self) -> &'static str {
        "refuses_once"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.granted.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.granted.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if reservation.consumer().name().starts_with("ExternalSorter[")
            && !self.refused.swap(true, Ordering::Relaxed)
        {
            return resources_err!("the first request of a sort");
        }
        self.granted.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.granted.reserved()
    }
}

/// What runs out of memory is the build side itself, before its first row. The join takes that for its own lack of memory,
/// executes the side again, and that time there are no rows.
#[tokio::test]
async fn a_build_side_that_fails_and_then_has_no_rows_is_an_empty_one() {
    let empty = "(SELECT l.k, l.v FROM l JOIN r AS o ON l.k = o.k + 1000)";
    let mut refused = Vec::new();
    for kind in ["JOIN", "RIGHT JOIN"] {
        let pool = Arc::new(RefusesOnce::default());
        let memory_pool = Arc::clone(&pool) as Arc<dyn MemoryPool>;
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(memory_pool).build_arc().unwrap();
        let mut config = config().with_batch_size(BATCH_ROWS);
        let optimizer = &mut config.options_mut().optimizer;
        optimizer.join_reordering = false;
        optimizer.prefer_hash_join = false;
        let (ctx, _) = with_layer(SessionContext::new_with_config_rt(config, runtime));
        in_memory(&ctx);
        let join = format!("SELECT e.k, r.w FROM {empty} AS e {kind} r ON e.v > r.w");
        let rows = rows_or_exhausted(sql(&ctx, &join).await);
        assert!(pool.refused.load(Ordering::Relaxed), "{kind}: the build side must have failed");
        match rows {
            Some(rows) => assert_same(&rows, &expected(&join).await, kind),
            None => refused.push(kind),
        }
    }
    // DataFusion 55.2 forgets all probe rows where a spilled build side is empty.
    assert_eq!(refused, ["RIGHT JOIN"]);
}

#[tokio::test]
async fn the_guard_is_reported_and_can_be_switched_off() {
    let spill = TempDir::new().unwrap();
    let (ctx, _) = with_layer(limited(4, 2_000, spill.path()));
    in_memory(&ctx);
    let explain = format!("EXPLAIN {}", JOINS[3]);
    let text = picture(&sql(&ctx, &explain).await.unwrap());
    assert!(text.contains("nested_loop_join_guard: applied: must not spill: "), "{text}");
    sql(&ctx, "SET slipstream.disabled_rules = 'nested_loop_join_guard'").await.unwrap();
    let text = picture(&sql(&ctx, &explain).await.unwrap());
    assert!(text.contains("refused: switched off by slipstream.disabled_rules"), "{text}");
    sql(&ctx, "SET slipstream.disabled_rules = ''").await.unwrap();
    sql(&ctx, "SET slipstream.nested_loop_join_guard.enabled = false").await.unwrap();
    let text = picture(&sql(&ctx, &explain).await.unwrap());
    assert!(text.contains("refused: switched off by slipstream.nested_loop_join_guard.enabled"), "{text}");
}

#[tokio::test]
async fn the_inputs_of_a_join_that_must_not_spill_still_may() {
    let spill = TempDir::new().unwrap();
    let (ctx, slipstream) = with_layer(limited(2, 6 << 20, spill.path()));
    sql(&ctx, "SET datafusion.execution.batch_size = 1024").await.unwrap();
    let join = "SELECT count(*) FROM (VALUES (1), (2)) l FULL JOIN \
                (SELECT DISTINCT repeat('x', 40) || i AS s FROM generate_series(1, 60000) AS g(i)) r \
                ON l.column1 > length(r.s)";
    assert_eq!(single(&sql(&ctx, join).await.unwrap()), "60002");
    let record = slipstream.query_log().queries().pop().unwrap();
    assert!(
        record.rules.iter().any(|report| report.to_string().contains("must not spill: Full")),
        "{record:?}"
    );
    assert!(record.spilled_bytes > 0, "the aggregate below the join must spill: {record:?}");
}
