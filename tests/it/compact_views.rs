//! Strings on their way into operators that keep their rows: what they hold, and that they stay the same.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use crate::support::{config, layered, limited_runtime, sorted_rows, sql, verdict, with_layer};

/// Long strings by key, rows that use an eighth of them, and rows to join those with.
///
/// `note` has 100,000 rows of 120 bytes, twelve batches; `used` has 12,000 rows; `hit` has 30,000.
const TABLES: [(&str, &str); 3] = [
    (
        "note",
        "SELECT v AS n, concat(repeat(md5(concat(v, '')), 3), ' number ', v) AS text, \
         named_struct('long', concat(repeat(md5(concat(v, '')), 2), v), 'tags', make_array(md5(concat(v, '')), 'x')) AS nested \
         FROM generate_series(1, 100000) t(v)",
    ),
    (
        "used",
        "SELECT v AS u, v * 8 AS note, CASE WHEN v % 5 = 0 THEN NULL ELSE concat('used by ', md5(concat(v, ''))) END AS name \
         FROM generate_series(1, 12000) t(v)",
    ),
    ("hit", "SELECT v AS h, v % 12000 + 1 AS used FROM generate_series(1, 30000) t(v)"),
];

/// A join whose build side is a join: all rows of `used` find their note.
const TWICE: &str = "SELECT h, u, text, name FROM (note JOIN used ON n = note) JOIN hit ON u = used";

/// The written order, and one hash table for each join.
const AS_WRITTEN: [&str; 3] = [
    "SET datafusion.optimizer.join_reordering = false",
    "SET datafusion.optimizer.hash_join_single_partition_threshold = 1000000000",
    "SET datafusion.optimizer.hash_join_single_partition_threshold_rows = 1000000000",
];

async fn tables(ctx: &SessionContext, folder: &TempDir) {
    for (name, select) in TABLES {
        let path = folder.path().join(format!("{name}.parquet"));
        let path = path.to_str().unwrap();
        if !std::path::Path::new(path).exists() {
            sql(ctx, &format!("COPY ({select}) TO '{path}' STORED AS PARQUET")).await.unwrap();
        }
        ctx.register_parquet(name, path, ParquetReadOptions::default()).await.unwrap();
    }
    for setting in AS_WRITTEN {
        sql(ctx, setting).await.unwrap();
    }
}

async fn fixture() -> (SessionContext, TempDir) {
    let folder = TempDir::new().unwrap();
    let (ctx, _) = layered();
    tables(&ctx, &folder).await;
    (ctx, folder)
}

/// Switches the rule, runs `text`, and gives its plan, with metrics, and its rows.
async fn run(ctx: &SessionContext, on: bool, text: &str) -> (Arc<dyn ExecutionPlan>, Vec<RecordBatch>) {
    sql(ctx, &format!("SET slipstream.compact_views.enabled = {on}")).await.unwrap();
    let plan = ctx.sql(text).await.unwrap().create_physical_plan().await.unwrap();
    let rows = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    (plan, rows)
}

/// Nodes in the order of their depth, the root first.
fn nodes(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    let below = plan.children().into_iter().flat_map(nodes);
    std::iter::once(Arc::clone(plan)).chain(below).collect()
}

fn metric(node: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    node.metrics().unwrap().sum_by_name(name).map_or(0, |value| value.as_usize())
}

fn compactors(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    nodes(plan).into_iter().filter(|node| node.name() == "CompactViewsExec").collect()
}

/// Bytes that the topmost join's build side reserved.
fn build_bytes(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let join = nodes(plan).into_iter().find(|node| node.is::<HashJoinExec>()).unwrap();
    metric(&join, "build_mem_used")
}

/// The longest list of buffers of column `index`.
fn buffers(rows: &[RecordBatch], index: usize) -> usize {
    rows.iter().map(|batch| batch.column(index).as_string_view().data_buffers().len()).max().unwrap()
}

#[tokio::test]
async fn a_build_side_holds_the_strings_of_its_own_rows() {
    let (ctx, _folder) = fixture().await;
    let (plain, expected) = run(&ctx, false, TWICE).await;
    let (compact, rows) = run(&ctx, true, TWICE).await;
    assert_eq!(sorted_rows(&rows), sorted_rows(&expected));
    assert_eq!(compactors(&plain).len(), 0);
    let (before, after) = (build_bytes(&plain), build_bytes(&compact));
    assert!(before > 12_000_000, "{before}: DataFusion compacts by itself now, the rule may go");
    assert!(after < 3_000_000, "{before} bytes before, {after} after");
    let (before, after) = (buffers(&expected, 2), buffers(&rows, 2));
    assert!(before > 12 && after <= 4, "{before} buffers before, {after} after");
    let compactor = &compactors(&compact)[0];
    assert!(metric(compactor, "compacted_batches") > 0);
    assert!(metric(compactor, "bytes_before") > 8 * metric(compactor, "bytes_after"));
}

#[tokio::test]
async fn a_sort_above_a_join_fits_where_each_batch_counted_the_whole_build_side() {
    let folder = TempDir::new().unwrap();
    let (maker, _) = layered();
    tables(&maker, &folder).await;
    let text = "SELECT u, text FROM note JOIN used ON n = note ORDER BY text";
    for on in [false, true] {
        let ctx = SessionContext::new_with_config_rt(config(), limited_runtime(48_000_000, folder.path()));
        let (ctx, _) = with_layer(ctx);
        tables(&ctx, &folder).await;
        sql(&ctx, &format!("SET slipstream.compact_views.enabled = {on}")).await.unwrap();
        // These copy rows, and leave buffers behind, too, while memory is short.
        sql(&ctx, "SET slipstream.batch_size.enabled = false").await.unwrap();
        sql(&ctx, "SET slipstream.spill_join.enabled = false").await.unwrap();
        match sql(&ctx, text).await {
            Ok(rows) => {
                assert!(on, "DataFusion counts shared buffers once now, the rule's reason for sorts is gone");
                assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 12_000);
            }
            Err(error) => assert!(!on && error.to_string().contains("ExternalSorter"), "{on}: {error}"),
        }
    }
}

#[tokio::test]
async fn rows_that_the_reader_picked_let_go_of_their_pages() {
    let (ctx, _folder) = fixture().await;
    sql(&ctx, "SET datafusion.execution.parquet.pushdown_filters = true").await.unwrap();
    let text = "SELECT h, text FROM note JOIN hit ON n = used WHERE n % 50 = 7";
    let (plain, expected) = run(&ctx, false, text).await;
    let (compact, rows) = run(&ctx, true, text).await;
    assert_eq!(sorted_rows(&rows), sorted_rows(&expected));
    let (before, after) = (build_bytes(&plain), build_bytes(&compact));
    assert!(before > 8 * after, "{before} bytes before, {after} after");
}

/// Every kind of join, with NULLs and nested strings, above and below.
const QUERIES: [&str; 12] = [
    TWICE,
    "SELECT h, nested FROM (note JOIN used ON n = note) JOIN hit ON u = used",
    "SELECT h, name, nested['tags'][1] FROM (note RIGHT JOIN used ON n = note + 3) JOIN hit ON u = used",
    "SELECT h, name, text FROM (note LEFT JOIN used ON n = note) LEFT JOIN hit ON u = used WHERE n % 3 = 0",
    "SELECT h, name, text FROM (note FULL JOIN used ON n = note AND u % 2 = 0) FULL JOIN hit ON u = used",
    "SELECT count(*), max(text) FROM (SELECT * FROM note LEFT SEMI JOIN used ON n = note) JOIN hit ON n = used",
    "SELECT count(*), max(text) FROM (SELECT * FROM note LEFT ANTI JOIN used ON n = note) JOIN hit ON n = used",
    "SELECT count(*), min(text), max(text) FROM (SELECT n, text FROM note JOIN used ON n = note) a \
     JOIN used ON n < u AND u < 20",
    "SELECT a.text, b.u FROM (SELECT text FROM note JOIN used ON n = note WHERE n < 900) a CROSS JOIN used b \
     WHERE b.u <= 40",
    "SELECT substr(text, 3, 40) AS part, name FROM note JOIN used ON n = note ORDER BY part",
    "SELECT text, count(*) FROM (SELECT text, u FROM note JOIN used ON n = note \
     UNION ALL SELECT text, n FROM note) JOIN hit ON u = used GROUP BY text",
    "SELECT text, row_number() OVER (PARTITION BY u % 7 ORDER BY text) FROM note JOIN used ON n = note",
];

#[tokio::test]
async fn rows_are_those_of_the_plain_engine() {
    let (ctx, _folder) = fixture().await;
    let mut busy = 0;
    for text in QUERIES {
        sql(&ctx, "SET slipstream.enabled = false").await.unwrap();
        let expected = sorted_rows(&sql(&ctx, text).await.unwrap());
        sql(&ctx, "SET slipstream.enabled = true").await.unwrap();
        let (plan, rows) = run(&ctx, true, text).await;
        assert_eq!(sorted_rows(&rows), expected, "{text}");
        let compacted: usize = compactors(&plan).iter().map(|node| metric(node, "compacted_batches")).sum();
        busy += usize::from(compacted > 0);
    }
    assert!(busy >= 9, "{busy} of {} queries had something to compact", QUERIES.len());
}

#[tokio::test]
async fn inputs_without_loose_strings_are_left_alone() {
    let (ctx, _folder) = fixture().await;
    let applied = verdict(&ctx, "compact_views", TWICE).await;
    assert_eq!(applied, "applied: strings compacted for HashJoin");
    let refused = [
        "SELECT text, h FROM note JOIN hit ON n = used",
        "SELECT text, h FROM note JOIN hit ON n = used WHERE n % 100 = 7",
        "SELECT h, u FROM (note JOIN used ON n = note) JOIN hit ON u = used",
        "SELECT text, u FROM note JOIN used ON n = note ORDER BY text LIMIT 10",
        "SELECT text, count(*) FROM note JOIN used ON n = note GROUP BY text",
        "SELECT h, name, b.u FROM (SELECT * FROM used WHERE u % 100 = 9) a JOIN (SELECT u FROM used) b ON a.u = b.u \
         JOIN hit ON used = a.u",
    ];
    for text in refused {
        let verdict = verdict(&ctx, "compact_views", text).await;
        assert!(verdict.starts_with("refused: no operator that keeps its rows"), "{text}: {verdict}");
        let (plan, _) = run(&ctx, true, text).await;
        assert!(compactors(&plan).is_empty(), "{text}");
    }
}

/// A filter compacts what it keeps; this is why the rule does not.
#[tokio::test]
async fn a_filter_needs_no_help() {
    let (ctx, _folder) = fixture().await;
    let (plan, _) = run(&ctx, true, "SELECT text, h FROM note JOIN hit ON n = used WHERE n % 100 = 7").await;
    let bytes = build_bytes(&plan);
    assert!(bytes < 1_000_000, "{bytes}");
}
