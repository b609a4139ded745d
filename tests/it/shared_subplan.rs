//! Subplans that run once: what is shared, what is not, and that rows stay the same.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use crate::support::{config, limited_runtime, picture, query, sorted_rows, sql, verdict, with_layer};

/// Facts in two files, a dimension, and a table of few keys.
const TABLES: [(&str, &str); 3] = [
    (
        "sale",
        "SELECT v AS id, CASE WHEN v % 17 = 0 THEN NULL ELSE v * 7 % 2000 END AS item, v * 3 % 50 AS shop, \
         v % 100 AS amount, concat('note number ', v % 700) AS note FROM generate_series(1, 20000) t(v)",
    ),
    ("item", "SELECT v AS i, v % 40 AS brand, concat('item ', v) AS name FROM generate_series(0, 1999) t(v)"),
    ("wanted", "SELECT * FROM (VALUES (7), (14), (14), (21), (CAST(NULL AS BIGINT))) t(w)"),
];

async fn fixture(runtime: Arc<RuntimeEnv>) -> (SessionContext, TempDir) {
    let folder = TempDir::new().unwrap();
    let config = config().with_batch_size(1024).with_sort_spill_reservation_bytes(1 << 16);
    let (ctx, _) = with_layer(SessionContext::new_with_config_rt(config, runtime));
    for (name, select) in TABLES {
        let path = folder.path().join(format!("{name}.parquet"));
        let path = path.to_str().unwrap();
        // In a session of its own: the memory of this one may be small.
        sql(&SessionContext::new(), &format!("COPY ({select}) TO '{path}' STORED AS PARQUET")).await.unwrap();
        ctx.register_parquet(name, path, ParquetReadOptions::default()).await.unwrap();
    }
    (ctx, folder)
}

async fn plan(ctx: &SessionContext, text: &str) -> Arc<dyn ExecutionPlan> {
    ctx.sql(text).await.unwrap().create_physical_plan().await.unwrap()
}

/// How many consumers of shared subplans the plan has.
async fn consumers(ctx: &SessionContext, text: &str) -> usize {
    displayable(plan(ctx, text).await.as_ref()).indent(false).to_string().matches("SharedSubplanExec").count()
}

async fn rows(ctx: &SessionContext, text: &str) -> Vec<String> {
    sorted_rows(&query(ctx, text).await.unwrap_or_else(|error| panic!("{text}: {error}")))
}

async fn plain_rows(ctx: &SessionContext, text: &str) -> Vec<String> {
    sql(ctx, "SET slipstream.enabled = false").await.unwrap();
    let rows = rows(ctx, text).await;
    sql(ctx, "SET slipstream.enabled = true").await.unwrap();
    rows
}

/// Queries that do something twice, and how many places read something that is shared.
const SHARED: [(&str, usize); 13] = [
    // TPC-H Q15: the largest of all groups.
    (
        "WITH r AS (SELECT item AS k, sum(amount) AS total FROM sale WHERE shop < 30 AND item > 0 GROUP BY item) \
         SELECT name, total FROM item, r WHERE i = k AND total = (SELECT max(total) FROM r)",
        2,
    ),
    // TPC-H Q11: one join, with and without a column.
    (
        "SELECT item, sum(amount * shop) FROM sale, item WHERE item = i AND brand = 3 GROUP BY item HAVING \
         sum(amount * shop) > (SELECT sum(amount * shop) * 0.01 FROM sale, item WHERE item = i AND brand = 3)",
        2,
    ),
    // Build and probe side of one join.
    (
        "WITH r AS (SELECT item, count(*) AS n, max(id) AS m FROM sale GROUP BY item) \
         SELECT a.item, a.n, a.m, b.m FROM r a JOIN r b ON a.item = b.item",
        2,
    ),
    (
        "WITH r AS (SELECT shop, sum(amount) AS total FROM sale GROUP BY shop) \
         SELECT a.shop, b.shop FROM r a LEFT JOIN r b ON a.total = b.total AND a.shop < b.shop",
        2,
    ),
    // A union of the same.
    (
        "WITH r AS (SELECT shop, item, sum(amount) AS total FROM sale GROUP BY shop, item) \
         SELECT shop, total FROM r UNION ALL SELECT item, total FROM r UNION ALL SELECT shop, item FROM r",
        3,
    ),
    // Four times, in scalar subqueries too.
    (
        "WITH r AS (SELECT item, brand, sum(amount) AS total FROM sale JOIN item ON item = i GROUP BY item, brand) \
         SELECT r.item, total, best, (SELECT sum(total) FROM r) FROM r JOIN \
         (SELECT brand, max(total) AS best, count(*) AS n FROM r GROUP BY brand) b ON r.brand = b.brand \
         WHERE total > (SELECT avg(total) FROM r) AND n > 1",
        4,
    ),
    // EXISTS and IN over the same subquery.
    (
        "SELECT id FROM sale WHERE EXISTS (SELECT 1 FROM (SELECT item AS k FROM sale GROUP BY item HAVING sum(amount) > 480) x \
         WHERE k = item) AND shop IN (SELECT k FROM (SELECT item AS k FROM sale GROUP BY item HAVING sum(amount) > 480) y)",
        2,
    ),
    // Other names, other order of conjuncts.
    (
        "SELECT a, b, n, m FROM (SELECT shop AS a, count(*) AS n FROM sale WHERE amount > 90 AND item < 1000 GROUP BY shop) \
         JOIN (SELECT shop AS b, count(*) AS m FROM sale s WHERE item < 1000 AND amount > 90 GROUP BY shop) ON a = b",
        2,
    ),
    // A limit ends one of them early.
    (
        "WITH r AS (SELECT item, sum(amount) AS total FROM sale GROUP BY item) \
         SELECT sum(total - total) FROM (SELECT total FROM r LIMIT 3) UNION ALL SELECT sum(total) FROM r",
        2,
    ),
    // Sorted, and partitioned by windows above.
    (
        "WITH r AS (SELECT shop, item, sum(amount) AS total FROM sale GROUP BY shop, item) \
         SELECT shop, item, rank() OVER (PARTITION BY shop ORDER BY total, item) FROM r \
         UNION ALL SELECT shop, item, row_number() OVER (PARTITION BY shop ORDER BY total, item) FROM r",
        2,
    ),
    // NULL keys, outer joins, DISTINCT.
    (
        "WITH r AS (SELECT DISTINCT item, brand FROM sale LEFT JOIN item ON item = i) \
         SELECT a.brand, count(*) FROM r a FULL JOIN r b ON a.item = b.item GROUP BY a.brand",
        2,
    ),
    // Grouping sets.
    (
        "WITH r AS (SELECT shop, item % 10 AS d, count(*) AS n FROM sale GROUP BY ROLLUP (shop, item % 10)) \
         SELECT a.shop, a.d, b.n FROM r a JOIN r b ON a.shop = b.shop AND a.d = b.d",
        2,
    ),
    // One subplan inside another: the places that read the inner one do different things with it.
    (
        "WITH r AS (SELECT item, sum(amount) AS total FROM sale GROUP BY item), \
         s AS (SELECT brand, max(total) AS t, count(*) AS n FROM r JOIN item ON item = i GROUP BY brand) \
         SELECT a.brand, b.t, (SELECT max(total) FROM r) FROM s a JOIN s b ON a.brand = b.brand WHERE a.n > 1",
        3,
    ),
];

#[tokio::test]
async fn rows_are_those_of_the_plain_engine() {
    let (ctx, _folder) = fixture(Arc::default()).await;
    let mut others = Vec::new();
    for (text, expected) in SHARED {
        let plain = plain_rows(&ctx, text).await;
        assert!(!plain.is_empty(), "{text}");
        assert_eq!(rows(&ctx, text).await, plain, "{text}");
        let found = consumers(&ctx, text).await;
        if found != expected {
            let plan = plan(&ctx, text).await;
            others.push(format!(
                "{found}, not {expected}: {text}\n{}",
                displayable(plan.as_ref()).indent(false)
            ));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[tokio::test]
async fn rows_are_the_same_where_all_of_them_wait_in_files() {
    let spill = TempDir::new().unwrap();
    let (ctx, _folder) = fixture(limited_runtime(256 << 20, spill.path())).await;
    for (text, _) in SHARED {
        sql(&ctx, "SET slipstream.shared_subplan.max_memory_bytes = 0").await.unwrap();
        sql(&ctx, "SET slipstream.shared_subplan.min_gain_percent = 0").await.unwrap();
        let plain = plain_rows(&ctx, text).await;
        assert_eq!(rows(&ctx, text).await, plain, "{text}");
    }
    let analyzed = picture(&query(&ctx, &format!("EXPLAIN ANALYZE {}", SHARED[0].0)).await.unwrap());
    let shared = analyzed.lines().find(|line| line.contains("SharedSubplanExec")).unwrap();
    for metric in ["spilled_bytes=", "buffered_rows_peak=", "buffered_bytes_peak=", "output_rows="] {
        assert!(shared.contains(metric), "{shared}");
    }
    assert!(!shared.contains("spilled_bytes=0"), "{shared}");
}

/// One execution for each partition count, and under a pool that has room for little.
#[tokio::test]
async fn rows_are_the_same_in_one_partition_and_in_little_memory() {
    let spill = TempDir::new().unwrap();
    let (ctx, _folder) = fixture(limited_runtime(6 << 20, spill.path())).await;
    for partitions in [1, 3] {
        sql(&ctx, &format!("SET datafusion.execution.target_partitions = {partitions}")).await.unwrap();
        for (text, _) in SHARED {
            assert_eq!(rows(&ctx, text).await, plain_rows(&ctx, text).await, "{partitions}: {text}");
        }
    }
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
}

/// Queries that do nearly the same twice, or that must do it twice.
const NOT_SHARED: [&str; 11] = [
    "SELECT * FROM (SELECT shop, sum(amount) FROM sale WHERE item < 10 GROUP BY shop) \
     UNION ALL SELECT * FROM (SELECT shop, sum(amount) FROM sale WHERE item < 11 GROUP BY shop)",
    "SELECT * FROM (SELECT shop, sum(amount), sum(item) FROM sale GROUP BY shop) \
     UNION ALL SELECT * FROM (SELECT shop, sum(DISTINCT amount), sum(DISTINCT item) FROM sale GROUP BY shop)",
    "SELECT * FROM (SELECT shop, sum(amount) FROM sale GROUP BY shop) \
     UNION ALL SELECT * FROM (SELECT item, sum(amount) FROM sale GROUP BY item)",
    "SELECT * FROM (SELECT shop, sum(amount) FROM sale GROUP BY shop) \
     UNION ALL SELECT * FROM (SELECT shop, sum(amount) FILTER (WHERE item > 3) FROM sale GROUP BY shop)",
    "SELECT * FROM (SELECT shop, approx_percentile_cont(amount, 0.1) FROM sale GROUP BY shop) \
     UNION ALL SELECT * FROM (SELECT shop, approx_percentile_cont(amount, 0.9) FROM sale GROUP BY shop)",
    "SELECT count(*) FROM (SELECT sum(amount) AS s FROM sale LEFT JOIN item ON item = i GROUP BY brand) \
     UNION ALL SELECT count(*) FROM (SELECT sum(amount) AS s FROM sale JOIN item ON item = i GROUP BY brand)",
    "SELECT id, note FROM sale UNION ALL SELECT id, note FROM sale",
    "SELECT first_value(amount ORDER BY id), 1 FROM sale UNION ALL SELECT first_value(amount ORDER BY id DESC), 1 FROM sale",
    // The subquery's slot belongs to a node outside of both.
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + (SELECT count(*) FROM wanted) FROM r WHERE n < 20) SELECT n FROM r",
    "SELECT i FROM item WHERE brand = 1 LIMIT 5",
    "SELECT 1",
];

#[tokio::test]
async fn what_is_not_the_same_is_not_shared() {
    let (ctx, _folder) = fixture(Arc::default()).await;
    for text in NOT_SHARED {
        let reported = verdict(&ctx, "shared_subplan", text).await;
        assert_eq!(consumers(&ctx, text).await, 0, "{text}: {reported}");
        assert!(reported.starts_with("refused: "), "{text}: {reported}");
        if !text.contains("LIMIT") {
            assert_eq!(rows(&ctx, text).await, plain_rows(&ctx, text).await, "{text}");
        }
    }
    let volatile = "WITH r AS (SELECT shop, sum(amount * random()) AS x FROM sale GROUP BY shop) \
                    SELECT count(*) FROM r a JOIN r b ON a.x = b.x";
    assert_eq!(consumers(&ctx, volatile).await, 0);
}

#[tokio::test]
async fn the_rule_can_be_switched_off_and_says_what_it_did() {
    let (ctx, _folder) = fixture(Arc::default()).await;
    let text = SHARED[0].0;
    let reported = verdict(&ctx, "shared_subplan", text).await;
    assert!(reported.starts_with("applied: AggregateExec runs once for 2 consumers, 5"), "{reported}");
    assert!(verdict(&ctx, "shared_subplan", NOT_SHARED[0]).await.contains("no subplan occurs twice"));
    assert!(verdict(&ctx, "shared_subplan", NOT_SHARED[6]).await.contains("cheaper to run twice"));
    let explained = picture(&query(&ctx, &format!("EXPLAIN FORMAT INDENT {text}")).await.unwrap());
    assert_eq!(explained.matches("SharedSubplanExec: id=1, consumer=1 of 2").count(), 1, "{explained}");
    assert_eq!(explained.matches("SharedSubplanExec: id=1, consumer=2 of 2").count(), 1, "{explained}");
    let physical = explained.split("physical_plan").nth(1).unwrap();
    assert_eq!(
        physical.lines().filter(|line| line.contains("DataSourceExec") && line.contains("sale")).count(),
        1
    );
    sql(&ctx, "SET slipstream.shared_subplan.min_gain_percent = 60").await.unwrap();
    assert!(verdict(&ctx, "shared_subplan", text).await.contains("cheaper to run twice"));
    sql(&ctx, "SET slipstream.shared_subplan.enabled = false").await.unwrap();
    assert_eq!(consumers(&ctx, text).await, 0);
    assert!(verdict(&ctx, "shared_subplan", text).await.contains("switched off"));
}

/// The join's filter is on one copy of the aggregate only.
#[tokio::test]
async fn a_filter_that_only_one_copy_has_is_taken_off_where_it_keeps_most_rows() {
    let (ctx, _folder) = fixture(Arc::default()).await;
    sql(&ctx, "SET datafusion.optimizer.join_reordering = false").await.unwrap();
    let with = |condition: &str| {
        format!(
            "WITH r AS (SELECT item AS k, sum(amount) AS total, max(note) AS m FROM sale GROUP BY item) \
             SELECT name, total, m FROM item JOIN r ON i = k WHERE {condition} \
             UNION ALL SELECT 'all', sum(total), max(m) FROM r"
        )
    };
    let most = with("brand >= 0");
    let reported = verdict(&ctx, "shared_subplan", &most).await;
    assert!(reported.contains("without the dynamic filters of one"), "{reported}");
    assert_eq!(rows(&ctx, &most).await, plain_rows(&ctx, &most).await);
    // The subquery runs first. With its filter it would give too little to the query around it.
    let text = "WITH r AS (SELECT item AS k, sum(amount) AS total, max(shop) AS m FROM sale GROUP BY item) \
                SELECT sum(total), (SELECT sum(total) + max(m) FROM item JOIN r ON i = k WHERE brand >= 4) FROM r";
    sql(&ctx, "SET datafusion.execution.parquet.pushdown_filters = true").await.unwrap();
    let reported = verdict(&ctx, "shared_subplan", text).await;
    assert!(reported.contains("without the dynamic filters of one"), "{reported}");
    let plan = displayable(plan(&ctx, text).await.as_ref()).indent(false).to_string();
    let scan = plan.lines().find(|line| line.contains("sale.parquet")).unwrap();
    assert!(!scan.contains("DynamicFilter"), "{plan}");
    assert_eq!(rows(&ctx, text).await, plain_rows(&ctx, text).await);
    sql(&ctx, "SET datafusion.execution.parquet.pushdown_filters = false").await.unwrap();
    let few = with("name = 'item 70'");
    let reported = verdict(&ctx, "shared_subplan", &few).await;
    assert!(reported.contains("cheaper to run twice"), "{reported}");
    assert_eq!(rows(&ctx, &few).await, plain_rows(&ctx, &few).await);
}

#[tokio::test]
async fn an_error_in_the_shared_subplan_is_the_querys() {
    let (ctx, _folder) = fixture(Arc::default()).await;
    let text = "WITH r AS (SELECT shop, sum(CAST(note AS BIGINT)) AS x FROM sale GROUP BY shop) \
                SELECT a.shop, b.x FROM r a JOIN r b ON a.shop = b.shop";
    assert_eq!(consumers(&ctx, text).await, 2);
    let error = query(&ctx, text).await.unwrap_err().to_string();
    assert!(error.contains("note number"), "{error}");
    assert_eq!(ctx.runtime_env().memory_pool.reserved(), 0);
}

/// Tables in memory have no version: what counts is the very same batches.
#[tokio::test]
async fn tables_in_memory_and_without_statistics() {
    let (ctx, folder) = fixture(Arc::default()).await;
    sql(&ctx, "CREATE TABLE kept AS SELECT * FROM sale").await.unwrap();
    sql(&ctx, "CREATE TABLE other AS SELECT id, item, shop, amount + 1 AS amount, note FROM sale")
        .await
        .unwrap();
    let csv = folder.path().join("sale.csv");
    let csv = csv.to_str().unwrap();
    sql(&ctx, &format!("COPY sale TO '{csv}' STORED AS CSV OPTIONS ('format.has_header' 'true')"))
        .await
        .unwrap();
    ctx.register_csv("sale_csv", csv, Default::default()).await.unwrap();
    let twice = |a: &str, b: &str| {
        format!(
            "SELECT x.shop, s, t FROM (SELECT shop, sum(amount) AS s FROM {a} GROUP BY shop) x \
             JOIN (SELECT shop, sum(amount) AS t FROM {b} GROUP BY shop) y ON x.shop = y.shop"
        )
    };
    for (a, b, expected) in
        [("kept", "kept", 2), ("kept", "other", 0), ("sale_csv", "sale_csv", 2), ("sale", "sale_csv", 0)]
    {
        let text = twice(a, b);
        assert_eq!(
            consumers(&ctx, &text).await,
            expected,
            "{a} {b}: {}",
            verdict(&ctx, "shared_subplan", &text).await
        );
        assert_eq!(rows(&ctx, &text).await, plain_rows(&ctx, &text).await, "{a} {b}");
    }
}

/// A nested-loop join that spills executes its build side again.
#[tokio::test]
async fn below_a_nested_loop_join_that_spills() {
    let spill = TempDir::new().unwrap();
    let (ctx, _folder) = fixture(limited_runtime(1 << 20, spill.path())).await;
    let text = "WITH r AS (SELECT item, shop, count(*) AS n FROM sale WHERE item < 300 GROUP BY item, shop) \
                SELECT a.item, b.shop FROM r a JOIN r b ON a.item * 50 + a.shop < b.item + b.shop - 330";
    assert_eq!(rows(&ctx, text).await, plain_rows(&ctx, text).await);
}
