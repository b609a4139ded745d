//! EXPLAIN ANALYZE says what each operator held in memory, and what it spilled.

use std::sync::Arc;

use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Clock, Slipstream, SystemClock};
use tempfile::TempDir;

use crate::support::{config, layered, limited_runtime, picture, query, sorted_rows, sql, with_layer};

/// A session of one partition whose memory is `bytes`, with small reservations for merges.
fn limited(bytes: usize, folder: &TempDir) -> (SessionContext, Slipstream) {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .with_sort_spill_reservation_bytes(1 << 20)
        .with_batch_size(1024);
    with_layer(SessionContext::new_with_config_rt(config, limited_runtime(bytes, folder.path())))
}

/// An operator of an executed plan, with what it said of itself.
struct Operator {
    line: String,
    metrics: MetricsSet,
}

impl Operator {
    fn peak(&self) -> Option<usize> {
        self.metrics.sum_by_name("peak_mem_used").map(|peak| peak.as_usize())
    }

    fn nanos(&self, name: &str) -> Option<usize> {
        self.metrics.sum_by_name(name).map(|time| time.as_usize())
    }
}

/// All operators from the root down; a node's metrics count once, whatever wraps it.
fn operators(plan: &Arc<dyn ExecutionPlan>) -> Vec<Operator> {
    let line = displayable(plan.as_ref()).one_line().to_string();
    let metrics = plan.metrics().unwrap_or_default();
    let mut all = vec![Operator { line, metrics }];
    all.extend(plan.children().into_iter().flat_map(operators));
    all
}

/// Executes `text` and gives back its operators.
async fn executed(ctx: &SessionContext, text: &str) -> Vec<Operator> {
    let plan = ctx.sql(text).await.unwrap().create_physical_plan().await.unwrap();
    collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    operators(&plan)
}

fn named<'a>(operators: &'a [Operator], beginning: &str) -> &'a Operator {
    let found = operators.iter().find(|operator| operator.line.starts_with(beginning));
    found.unwrap_or_else(|| {
        panic!("{beginning}: {:?}", operators.iter().map(|operator| &operator.line).collect::<Vec<_>>())
    })
}

const JOIN_SORT: &str = "SELECT a.k, count(*) AS n, max(b.v) AS v \
    FROM (SELECT i % 5000 AS k, i AS v FROM generate_series(1, 200000) t(i)) a \
    JOIN (SELECT i % 5000 AS k, i AS v FROM generate_series(1, 20000) t(i)) b ON a.k = b.k \
    GROUP BY a.k ORDER BY n, v DESC";

#[tokio::test]
async fn explain_analyze_shows_the_peak_of_each_operator() {
    let (ctx, _) = layered();
    let text = picture(&sql(&ctx, &format!("EXPLAIN ANALYZE {JOIN_SORT}")).await.unwrap());
    for operator in
        ["SortPreservingMergeExec", "SortExec", "AggregateExec", "RepartitionExec", "HashJoinExec"]
    {
        let line = text.lines().find(|line| line.contains(operator)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("peak_mem_used="), "{operator}: {line}");
    }
    let sort = text.lines().find(|line| line.contains("SortExec")).unwrap();
    assert!(!sort.contains("peak_mem_used=0.0 B"), "{sort}");
    let scan = text.lines().find(|line| line.contains("LazyMemoryExec")).unwrap();
    assert!(!scan.contains("peak_mem_used"), "a scan keeps nothing: {scan}");
    assert!(text.contains("operator_metrics: applied: "), "{text}");
}

#[tokio::test]
async fn peaks_of_operators_add_up_to_that_of_the_query() {
    let (ctx, slipstream) = layered();
    for text in [
        JOIN_SORT,
        "SELECT i % 7 AS g, i, row_number() OVER (PARTITION BY i % 7 ORDER BY i DESC) FROM generate_series(1, 50000) t(i) ORDER BY 3, 1",
        "SELECT i % 1000 AS k, count(DISTINCT i) FROM generate_series(1, 100000) t(i) GROUP BY 1",
        "SELECT a.i, b.i FROM generate_series(1, 2000) a(i) JOIN generate_series(1, 300) b(i) ON a.i > b.i * 6 ORDER BY 1, 2",
    ] {
        let operators = executed(&ctx, text).await;
        let record = slipstream.query_log().queries().pop().unwrap();
        let query = usize::try_from(record.peak_memory_bytes).unwrap();
        let peaks: Vec<usize> = operators.iter().filter_map(Operator::peak).collect();
        assert!(query > 0 && peaks.iter().sum::<usize>() >= query, "{text}: {peaks:?}, query {query}");
        assert!(peaks.iter().all(|peak| *peak <= query), "{text}: {peaks:?}, query {query}");
    }
    let operators = executed(&ctx, JOIN_SORT).await;
    for operator in ["SortExec", "AggregateExec", "HashJoinExec", "RepartitionExec"] {
        assert!(named(&operators, operator).peak() > Some(0), "{operator}");
    }
}

#[tokio::test]
async fn the_peak_is_that_of_the_operator_and_not_of_its_inputs() {
    let folder = TempDir::new().unwrap();
    let (ctx, _) = limited(1 << 30, &folder);
    // The sort below keeps 400,000 rows; the merge, the limit and the small sort above do not.
    let operators = executed(
        &ctx,
        "SELECT k, n FROM (SELECT r % 3 AS k, count(*) AS n FROM \
         (SELECT i, row_number() OVER (ORDER BY i DESC) AS r FROM generate_series(1, 400000) t(i)) GROUP BY 1) ORDER BY n",
    )
    .await;
    let sorts: Vec<usize> = operators
        .iter()
        .filter(|operator| operator.line.starts_with("SortExec"))
        .filter_map(Operator::peak)
        .collect();
    assert_eq!(sorts.len(), 2, "{sorts:?}");
    assert!(sorts[0] + (1 << 20) < sorts[1], "{sorts:?}");
}

#[tokio::test]
async fn a_spill_shows_files_bytes_and_time() {
    let folder = TempDir::new().unwrap();
    let (ctx, slipstream) = limited(4 << 20, &folder);
    let text = "SELECT i, concat('text ', i) AS t FROM generate_series(1, 100000) s(i) ORDER BY t, i";
    let operators = executed(&ctx, text).await;
    let sort = named(&operators, "SortExec");
    assert!(sort.metrics.spill_count() > Some(1), "{:?}", sort.metrics);
    let bytes = sort.metrics.spilled_bytes().unwrap();
    assert!(bytes > 100_000, "{bytes}");
    assert!(sort.nanos("spill_write_time") > Some(0), "{:?}", sort.metrics);
    assert!(sort.nanos("spill_read_time") > Some(0), "{:?}", sort.metrics);
    assert!(sort.peak().unwrap() <= 4 << 20, "{:?}", sort.peak());
    let record = slipstream.query_log().queries().pop().unwrap();
    assert_eq!(record.spilled_bytes, bytes as u64, "counted once");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the directory of the disk manager");

    let plan = picture(&sql(&ctx, &format!("EXPLAIN ANALYZE {text}")).await.unwrap());
    let line = plan.lines().find(|line| line.contains("SortExec")).unwrap();
    for metric in ["spill_count=", "spilled_bytes=", "spill_write_time=", "spill_read_time="] {
        assert!(line.contains(metric), "{metric}: {line}");
    }
}

#[tokio::test]
async fn the_limit_of_the_disk_holds_and_the_error_is_datafusions() {
    let text = "SELECT i, concat('text ', i) AS t FROM generate_series(1, 100000) s(i) ORDER BY t, i";
    let folder = TempDir::new().unwrap();
    let (ctx, _) = limited(4 << 20, &folder);
    let disk = &ctx.runtime_env().disk_manager;
    disk.set_max_temp_directory_size(100 << 10).unwrap();
    let error = query(&ctx, text).await.unwrap_err().to_string();
    assert!(error.contains("exceeded the allowable limit of 100.0 KB"), "{error}");
    assert_eq!(disk.used_disk_space(), 0, "nothing stays behind");
    disk.set_max_temp_directory_size(1 << 30).unwrap();
    assert_eq!(query(&ctx, text).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 100_000);
}

#[tokio::test]
async fn switched_off_operators_show_what_datafusion_shows() {
    let (ctx, _) = layered();
    let sort = "SELECT i FROM generate_series(1, 1000) t(i) ORDER BY i % 7";
    let on = picture(&sql(&ctx, &format!("EXPLAIN {sort}")).await.unwrap());
    let (shown, verdicts) = on.split_once("slipstream ").unwrap();
    assert!(verdicts.contains("operator_metrics: applied: "), "{verdicts}");
    assert!(named(&executed(&ctx, sort).await, "SortExec").peak().is_some());
    for off in ["slipstream.operator_metrics.enabled = false", "slipstream.enabled = false"] {
        sql(&ctx, &format!("SET {off}")).await.unwrap();
        assert_eq!(named(&executed(&ctx, sort).await, "SortExec").peak(), None, "{off}");
        let plain = picture(&sql(&ctx, &format!("EXPLAIN {sort}")).await.unwrap());
        let plan = |text: &str| {
            text.lines().filter(|line| line.contains("Exec")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(plan(&plain), plan(shown), "the plan's picture is the same");
    }
}

#[tokio::test]
async fn recursive_shared_and_scalar_subplans_give_their_rows() {
    let (ctx, _) = layered();
    let plain = SessionContext::new_with_config(config());
    for text in [
        "WITH RECURSIVE r AS (SELECT 1 AS n, 1 AS s UNION ALL SELECT n + 1, s + k FROM r JOIN \
         (SELECT i AS k FROM generate_series(1, 50) t(i)) d ON d.k = r.n + 1 WHERE n < 40) SELECT n, max(s) FROM r GROUP BY n ORDER BY n",
        "WITH c AS (SELECT i % 10 AS k, count(*) AS n FROM generate_series(1, 1000) t(i) GROUP BY 1) \
         SELECT a.k, a.n, b.n FROM c a JOIN c b ON a.k = b.k ORDER BY 1",
        "SELECT i FROM generate_series(1, 1000) t(i) WHERE i > (SELECT avg(j) FROM generate_series(1, 1900) u(j)) ORDER BY i LIMIT 3",
    ] {
        let expected = sorted_rows(&sql(&plain, text).await.unwrap());
        assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()), expected, "{text}");
        let analyzed = picture(&sql(&ctx, &format!("EXPLAIN ANALYZE {text}")).await.unwrap());
        assert!(analyzed.contains("peak_mem_used="), "{analyzed}");
    }
}

#[tokio::test]
async fn a_plan_that_was_reset_counts_anew() {
    let (ctx, _) = layered();
    let frame = ctx.sql("SELECT i FROM generate_series(1, 20000) t(i) ORDER BY i % 7").await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
    let again = datafusion::physical_plan::execution_plan::reset_plan_states(Arc::clone(&plan)).unwrap();
    assert_eq!(named(&operators(&again), "SortExec").peak(), Some(0));
    collect(Arc::clone(&again), ctx.task_ctx()).await.unwrap();
    assert!(named(&operators(&again), "SortExec").peak() > Some(0));
    assert!(named(&operators(&plan), "SortExec").peak() > Some(0));
}

#[tokio::test]
async fn operators_that_count_spills_themselves_are_not_counted_twice() {
    let folder = TempDir::new().unwrap();
    let (ctx, _) = limited(3 << 20, &folder);
    let text = "SELECT i * 7919 % 200003, count(*) FROM generate_series(1, 200000) s(i) GROUP BY 1";
    let operators = executed(&ctx, text).await;
    let aggregate = named(&operators, "AggregateExec");
    let names =
        aggregate.metrics.iter().filter(|metric| matches!(metric.value(), MetricValue::SpilledBytes(_)));
    assert_eq!(names.count(), 1, "{:?}", aggregate.metrics);
    assert!(aggregate.metrics.spill_count() > Some(0), "{:?}", aggregate.peak());
    assert!(aggregate.metrics.spilled_bytes() > Some(100_000), "{:?}", aggregate.metrics.spilled_bytes());
}

/// Prints what a tiny query costs with and without `slipstream.operator_metrics` and `slipstream.batch_size`.
#[tokio::test]
#[ignore = "a measurement: run it alone, in a release build"]
async fn cost_for_a_tiny_query() {
    let text = "SELECT g, count(*) AS n, max(t) FROM tiny WHERE k > 3 GROUP BY g ORDER BY n, g";
    let mut sessions = Vec::new();
    for off in ["", "operator_metrics", "batch_size", "operator_metrics,batch_size"] {
        let (ctx, _) = layered();
        sql(&ctx, "CREATE TABLE tiny AS SELECT v AS k, v % 3 AS g, concat('t', v) AS t FROM generate_series(1, 20) s(v)").await.unwrap();
        sql(&ctx, &format!("SET slipstream.disabled_rules = '{off}'")).await.unwrap();
        sessions.push((off, ctx, Vec::new()));
    }
    for _ in 0..400 {
        for (_, ctx, times) in &mut sessions {
            let start = SystemClock.now();
            sql(ctx, text).await.unwrap();
            times.push(SystemClock.now().duration_since(start));
        }
    }
    for (off, ctx, times) in &mut sessions {
        times.sort_unstable();
        let rules = "SELECT min(rules_ms), min(plan_ms), min(execute_ms) FROM slipstream.queries WHERE text LIKE '%tiny%' AND rows = 3";
        let phases = picture(&sql(ctx, rules).await.unwrap());
        println!("without '{off}': median {:?}, fastest tenth {:?}\n{phases}", times[200], times[40]);
    }
}
