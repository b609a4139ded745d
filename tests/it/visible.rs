//! What the layer did can be seen: in EXPLAIN, and in `slipstream.queries`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Clock, QueryRecord, QueryStatus, Slipstream, SlipstreamContextExt};
use futures::StreamExt;

use crate::support::{
    config, layered, limited_runtime, picture, query, single, sorted_rows, sql, with_layer,
};

fn last(slipstream: &Slipstream) -> Arc<QueryRecord> {
    slipstream.query_log().queries().pop().unwrap()
}

#[tokio::test]
async fn explain_shows_what_each_rule_did_after_the_plan() {
    let (ctx, _) = layered();
    let text = picture(&sql(&ctx, "EXPLAIN SELECT 1").await.unwrap());
    let first = "slipstream    | join_order: refused: the plan has no joins that may be reordered";
    assert!(text.contains(first), "{text}");
    for rule in datafusion_slipstream::RULE_NAMES {
        assert!(text.contains(&format!("{rule}: refused: ")), "{rule} says nothing: {text}");
    }
    assert!(text.find("physical_plan").unwrap() < text.find("slipstream ").unwrap(), "{text}");

    let text = picture(&sql(&ctx, "EXPLAIN ANALYZE SELECT a.column1 FROM (VALUES (1), (2)) a JOIN (VALUES (1)) b ON a.column1 > b.column1").await.unwrap());
    assert!(text.contains("nested_loop_join_guard: applied: may spill"), "{text}");
    assert!(text.contains("NestedLoopJoinExec"), "{text}");

    let text = picture(&sql(&ctx, "EXPLAIN FORMAT TREE SELECT 1").await.unwrap());
    assert!(text.contains("nested_loop_join_guard"), "{text}");
    let text = picture(&sql(&ctx, "EXPLAIN FORMAT PGJSON SELECT 1").await.unwrap());
    assert!(!text.contains("nested_loop_join_guard"), "machine-readable formats stay as they are: {text}");
    sql(&ctx, "SET slipstream.explain.enabled = false").await.unwrap();
    let text = picture(&sql(&ctx, "EXPLAIN SELECT 1").await.unwrap());
    assert!(!text.contains("slipstream"), "{text}");
}

#[tokio::test]
async fn a_query_leaves_a_record_with_its_text_rows_and_rules() {
    let (ctx, slipstream) = layered();
    let text = "SELECT i FROM generate_series(1, 10000) AS s(i) ORDER BY i % 7, i";
    query(&ctx, text).await.unwrap();
    let record = last(&slipstream);
    assert_eq!((record.text.as_str(), record.status, record.rows), (text, QueryStatus::Finished, 10_000));
    assert!(record.parse.is_some() && record.execute.is_some() && record.plan > Duration::ZERO);
    assert!(record.peak_memory_bytes > 0, "a sort reserves memory");
    assert_eq!(record.error, None);
    assert_eq!(record.rules.len(), datafusion_slipstream::RULE_NAMES.len());

    sql(&ctx, "SELECT 7 AS seven").await.unwrap();
    let record = last(&slipstream);
    assert!(record.text.starts_with("plan: Projection: Int64(7) AS seven"), "{}", record.text);
    assert_eq!(record.parse, None);

    let table = "SELECT id, status, rows, execute_ms IS NOT NULL, error, rules_applied, rules_refused[-1] \
                 FROM slipstream.queries WHERE status <> 'running' AND id = 2";
    let refused = "operator_metrics: no operator of the plan uses memory";
    assert_eq!(
        single(&query(&ctx, table).await.unwrap()),
        format!("2 | finished | 1 | true |  | [] | {refused}")
    );
}

#[tokio::test]
async fn a_running_query_is_shown_and_a_dropped_stream_is_cancelled() {
    let (ctx, slipstream) = layered();
    let mut stream = ctx.query("SELECT i FROM generate_series(1, 1000000) AS s(i)").await.unwrap();
    assert_eq!(last(&slipstream).status, QueryStatus::Running);
    let rows = stream.next().await.unwrap().unwrap().num_rows() as u64;
    drop(stream);
    let record = last(&slipstream);
    assert_eq!((record.status, record.rows), (QueryStatus::Cancelled, rows));
    assert_eq!(slipstream.query_log().queries().len(), 1);
}

#[tokio::test]
async fn errors_are_recorded_where_they_happen() {
    let (ctx, slipstream) = layered();
    for (text, part) in [
        ("SELEC 1", "Expected"),
        ("SELECT x FROM nowhere", "nowhere"),
        ("SELECT 1 / (i - 5) FROM generate_series(1, 10) AS s(i)", "Divide by zero"),
    ] {
        assert!(query(&ctx, text).await.is_err());
        let record = last(&slipstream);
        assert_eq!((record.status, record.text.as_str()), (QueryStatus::Failed, text));
        assert!(record.error.as_ref().unwrap().contains(part), "{record:?}");
    }
}

#[tokio::test]
async fn ddl_set_and_dml_are_recorded_as_finished() {
    let (ctx, slipstream) = layered();
    for text in [
        "CREATE TABLE t (x INT)",
        "INSERT INTO t VALUES (1), (2)",
        "SET datafusion.execution.batch_size = 100",
        "RESET slipstream.explain.enabled",
        "PREPARE p AS SELECT x FROM t",
        "EXECUTE p",
        "DROP TABLE t",
    ] {
        query(&ctx, text).await.unwrap();
        let record = last(&slipstream);
        assert_eq!((record.text.as_str(), record.status), (text, QueryStatus::Finished));
    }
}

#[tokio::test]
async fn the_log_is_bounded_and_its_texts_are_cut() {
    let (ctx, slipstream) = layered();
    query(&ctx, "SET slipstream.query_log.max_entries = 3").await.unwrap();
    query(&ctx, "SET slipstream.query_log.max_text_bytes = 12").await.unwrap();
    for number in 0..10 {
        query(&ctx, &format!("SELECT {number} AS a_long_name")).await.unwrap();
    }
    let texts: Vec<String> =
        slipstream.query_log().queries().iter().map(|record| record.text.clone()).collect();
    assert_eq!(texts, ["SELECT 7 …", "SELECT 8 …", "SELECT 9 …"]);
    query(&ctx, "SET slipstream.query_log.max_entries = 0").await.unwrap();
    query(&ctx, "SELECT 1").await.unwrap();
    assert_eq!(slipstream.query_log().queries().len(), 0);
}

#[tokio::test]
async fn spilled_bytes_are_the_querys_own() {
    let spill = tempfile::TempDir::new().unwrap();
    let mut config = config().with_target_partitions(1);
    config.options_mut().execution.sort_spill_reservation_bytes = 0;
    let (ctx, slipstream) =
        with_layer(SessionContext::new_with_config_rt(config, limited_runtime(2 << 20, spill.path())));
    let text = "SELECT i, repeat('x', 50) || i AS s FROM generate_series(1, 200000) AS s(i) ORDER BY s";
    query(&ctx, text).await.unwrap();
    let record = last(&slipstream);
    assert!(record.spilled_bytes > 1_000_000, "{record:?}");
    assert!(record.peak_memory_bytes <= 2 << 20, "{record:?}");
}

#[tokio::test]
async fn a_plan_that_is_executed_twice_is_two_queries() {
    let (ctx, slipstream) = layered();
    let plan = ctx.sql("SELECT 3 AS three").await.unwrap().create_physical_plan().await.unwrap();
    for _ in 0..2 {
        datafusion::physical_plan::collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    }
    let records = slipstream.query_log().queries();
    let ended: Vec<_> = records.iter().map(|record| (record.id, record.status, record.rows)).collect();
    assert_eq!(ended, [(1, QueryStatus::Finished, 1), (2, QueryStatus::Finished, 1)]);
}

#[tokio::test]
async fn a_plan_that_is_never_executed_stays_planned() {
    let (ctx, slipstream) = layered();
    drop(ctx.sql("SELECT 3").await.unwrap().create_physical_plan().await.unwrap());
    assert_eq!(last(&slipstream).status, QueryStatus::Planned);
}

#[derive(Debug)]
struct StoppedClock(Instant);

impl Clock for StoppedClock {
    fn now(&self) -> Instant {
        self.0
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)
    }
}

#[tokio::test]
async fn times_come_from_the_clock_that_was_given() {
    let ctx = SessionContext::new();
    #[expect(clippy::disallowed_methods, reason = "a stopped clock has to stop somewhere")]
    let clock = StoppedClock(Instant::now());
    ctx.install_slipstream(Slipstream::default().with_clock(Arc::new(clock))).unwrap();
    query(&ctx, "SELECT 1").await.unwrap();
    let times =
        query(&ctx, "SELECT start, parse_ms, plan_ms, execute_ms FROM slipstream.queries WHERE id = 1");
    assert_eq!(sorted_rows(&times.await.unwrap()), ["1970-01-02T00:00:00Z | 0.0 | 0.0 | 0.0"]);
}
