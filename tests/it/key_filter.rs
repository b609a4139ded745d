//! Scans filtered by join keys: the same rows as the plain engine's, for every join, key and place of the scan.

use std::sync::Arc;

use datafusion::physical_plan::{ExecutionPlan, collect, execution_plan::reset_plan_states};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tempfile::TempDir;

use crate::support::{config, picture, query, sorted_rows, sql, verdict, with_layer};

/// `fact` refers to `dim` by keys of several types, some of them NULL, some of them without a partner, one constant; `more`
/// to `fact`. `dim` has a name by which few of its rows can be chosen.
const TABLES: [(&str, &str); 3] = [
    (
        "dim",
        "SELECT v AS dk, arrow_cast(v, 'Int32') AS dsmall, DATE '2020-01-01' + CAST(v AS INT) AS dday, \
         concat('name ', v % 20) AS name, CASE WHEN v % 9 = 0 THEN NULL ELSE v END AS dnull, v * 1000000 AS dwide, \
         concat('k', v) AS dtext FROM generate_series(1, 400) t(v)",
    ),
    (
        "fact",
        "SELECT v AS id, v * 7 % 500 AS fk, arrow_cast(v * 3 % 500, 'Int32') AS fsmall, \
         DATE '2020-01-01' + CAST(v % 450 AS INT) AS fday, \
         CASE WHEN v % 5 = 0 THEN NULL ELSE v % 420 END AS fnull, 1 AS one, (v % 400) * 1000000 AS fwide, \
         concat('k', v % 500) AS ftext, concat('a text of some length ', v) AS note FROM generate_series(1, 9000) t(v)",
    ),
    ("more", "SELECT v % 9000 AS mid, v % 30 AS kind, v AS amount FROM generate_series(1, 20000) t(v)"),
];

/// The rows of `select` as the table `name`, in a file of `folder` that is written once.
async fn table(ctx: &SessionContext, folder: &TempDir, name: &str, select: &str) {
    let path = folder.path().join(format!("{name}.parquet"));
    let text = path.to_str().unwrap();
    if !path.exists() {
        sql(ctx, &format!("COPY ({select}) TO '{text}' STORED AS PARQUET")).await.unwrap();
    }
    ctx.register_parquet(name, text, ParquetReadOptions::default()).await.unwrap();
}

async fn session(config: SessionConfig, folder: &TempDir) -> SessionContext {
    let config = config.set_usize("datafusion.optimizer.repartition_file_min_size", 1);
    let (ctx, _) = with_layer(SessionContext::new_with_config(config));
    for (name, select) in TABLES {
        table(&ctx, folder, name, select).await;
    }
    sql(&ctx, "SET slipstream.key_filter.min_rows = 0").await.unwrap();
    // Else the readers of these small files filter.
    sql(&ctx, "SET slipstream.scan_filter.enabled = false").await.unwrap();
    ctx
}

const QUERIES: [&str; 20] = [
    "SELECT count(*), sum(id), max(note) FROM fact JOIN dim ON fk = dk WHERE name = 'name 3'",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fsmall = dsmall WHERE name = 'name 4'",
    "SELECT fday, count(*) FROM fact JOIN dim ON fday = dday WHERE name = 'name 5' GROUP BY fday",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fnull = dnull WHERE name IN ('name 5', 'name 9')",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fk = dk AND fsmall = dsmall WHERE name < 'name 12'",
    "SELECT count(*), sum(id) FROM fact WHERE fk IN (SELECT dk FROM dim WHERE name = 'name 6')",
    "SELECT count(*), sum(id) FROM fact WHERE fk NOT IN (SELECT dk FROM dim WHERE name = 'name 6')",
    "SELECT count(*), sum(id) FROM fact WHERE fnull NOT IN (SELECT dnull FROM dim WHERE name = 'name 6')",
    "SELECT count(*) FROM dim WHERE name = 'name 7' AND EXISTS (SELECT 1 FROM fact WHERE fk = dk AND id % 3 = 0)",
    "SELECT count(*) FROM dim WHERE name = 'name 7' AND NOT EXISTS (SELECT 1 FROM fact WHERE fk = dk AND id < 900)",
    "SELECT dk, count(id), min(note) FROM dim LEFT JOIN fact ON fk = dk AND id % 2 = 0 WHERE name = 'name 8' GROUP BY dk",
    "SELECT count(*), count(dk) FROM fact LEFT JOIN dim ON fk = dk AND name = 'name 8'",
    "SELECT count(*), count(dk), count(id) FROM (SELECT * FROM dim WHERE name = 'name 8') FULL JOIN fact ON fk = dk",
    "SELECT kind, sum(amount) FROM more JOIN fact ON mid = id JOIN dim ON fk = dk WHERE name = 'name 1' GROUP BY kind",
    "SELECT count(*), sum(amount) FROM more JOIN (SELECT fk, max(id) AS last FROM fact GROUP BY fk) ON mid = last \
     JOIN dim ON fk = dk WHERE name = 'name 2'",
    "SELECT count(*), sum(a.id + b.id) FROM fact a JOIN fact b ON a.id = b.fk JOIN dim ON a.fk = dk WHERE name = 'name 3'",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fk = dk WHERE name = 'nobody'",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fk = dk WHERE name = 'name 3' AND id % 7 = 1 AND note LIKE '%9'",
    "SELECT id, note FROM fact JOIN dim ON fk = dk WHERE name = 'name 3' ORDER BY id LIMIT 5",
    "SELECT count(*), sum(id) FROM fact JOIN dim ON fk IS NOT DISTINCT FROM dk WHERE name = 'name 3'",
];

#[tokio::test]
async fn rows_are_those_of_the_plain_engine() {
    let folder = TempDir::new().unwrap();
    let mut filtered = 0;
    for (batch_rows, partitions, partitioned) in [(8192, 2, false), (100, 3, true), (1, 1, false)] {
        let mut config = config().with_batch_size(batch_rows).with_target_partitions(partitions);
        if partitioned {
            // No build side is small enough for one table.
            config = config
                .set_usize("datafusion.optimizer.hash_join_single_partition_threshold", 0)
                .set_usize("datafusion.optimizer.hash_join_single_partition_threshold_rows", 0);
        }
        let ctx = session(config, &folder).await;
        sql(&ctx, &format!("SET slipstream.join_order.enabled = {}", !partitioned)).await.unwrap();
        for text in QUERIES {
            let plan = picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
            filtered += usize::from(plan.contains("KeyFilterExec"));
            let layered = sorted_rows(&query(&ctx, text).await.unwrap());
            sql(&ctx, "SET slipstream.enabled = false").await.unwrap();
            let plain = sorted_rows(&query(&ctx, text).await.unwrap());
            sql(&ctx, "SET slipstream.enabled = true").await.unwrap();
            assert_eq!(layered, plain, "batch_rows={batch_rows} partitions={partitions}: {text}\n{plan}");
        }
    }
    assert!(filtered > 30, "{filtered} plans with a key filter");
}

/// What `EXPLAIN ANALYZE` says of the filter over `column`.
async fn analyzed(ctx: &SessionContext, column: &str, text: &str) -> String {
    let plan = picture(&query(ctx, &format!("EXPLAIN ANALYZE {text}")).await.unwrap());
    let line = plan.lines().find(|line| line.contains(&format!("KeyFilterExec: keys=[{column}]")));
    line.unwrap_or_else(|| panic!("no filter on {column}:\n{plan}")).to_owned()
}

#[tokio::test]
async fn rows_without_a_partner_stop_above_their_scan() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    // 20 of 500 keys, 18 rows each.
    let line = analyzed(&ctx, "fk", QUERIES[0]).await;
    assert!(line.contains("selectivity=4% (360/9.00 K)"), "{line}");
    // Through the join of `fact`, whose own rows are filtered as well.
    let line = analyzed(&ctx, "mid", QUERIES[13]).await;
    assert!(line.contains("/20.00 K)") && line.contains("selectivity=4"), "{line}");
}

/// A build side that is a join itself is replaced after its keys were asked for.
#[tokio::test]
async fn a_build_side_that_may_spill_gives_its_keys() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    sql(&ctx, "SET slipstream.memory.limit = '4MB'").await.unwrap();
    let plan = picture(&query(&ctx, &format!("EXPLAIN {}", QUERIES[13])).await.unwrap());
    assert!(plan.matches("SpillJoinExec").count() > 1, "{plan}");
    let line = analyzed(&ctx, "mid", QUERIES[13]).await;
    assert!(line.contains("/20.00 K)") && line.contains("selectivity=4"), "{line}");
}

#[tokio::test]
async fn a_reader_that_filters_tests_keys_itself() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    sql(&ctx, "SET slipstream.scan_filter.enabled = true").await.unwrap();
    sql(&ctx, "SET slipstream.scan_filter.min_gain_percent = 0").await.unwrap();
    for text in QUERIES {
        let layered = sorted_rows(&query(&ctx, text).await.unwrap());
        sql(&ctx, "SET slipstream.enabled = false").await.unwrap();
        let plain = sorted_rows(&query(&ctx, text).await.unwrap());
        sql(&ctx, "SET slipstream.enabled = true").await.unwrap();
        assert_eq!(layered, plain, "{text}");
    }
    let plan = picture(&query(&ctx, &format!("EXPLAIN ANALYZE {}", QUERIES[0])).await.unwrap());
    assert!(plan.contains("key_filter(fk@1) AND DynamicFilter"), "{plan}");
    assert!(!plan.contains("KeyFilterExec"), "{plan}");
    assert!(plan.contains("pushdown_rows_pruned=8.64 K"), "{plan}");
}

/// What `scan_filter` says of a join of 60,000 rows with those of 2,000 keys, `step` apart, that `chosen` keeps.
async fn scan_filter_of(ctx: &SessionContext, step: usize, chosen: &str) -> String {
    let text = format!(
        "SELECT max(a), max(b), max(c) FROM fact{step} JOIN key{step} ON fact{step}.k = key{step}.k WHERE {chosen}"
    );
    verdict(ctx, "scan_filter", &text).await
}

#[tokio::test]
async fn a_reader_gains_where_a_bit_tells_and_not_a_look_up() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    for setting in ["scan_filter.enabled = true", "scan_filter.min_gain_percent = 0"] {
        sql(&ctx, &format!("SET slipstream.{setting}")).await.unwrap();
    }
    for step in [1, 8] {
        let values = "v * 7919 % 100003 AS a, v * 7907 % 100003 AS b, v * 7901 % 100003 AS c";
        let facts = format!("SELECT v % 2000 * {step} AS k, {values} FROM generate_series(1, 60000) t(v)");
        table(&ctx, &folder, &format!("fact{step}"), &facts).await;
        let keys =
            format!("SELECT v * {step} AS k, v % 100 AS g, v % 40 AS h FROM generate_series(0, 1999) t(v)");
        table(&ctx, &folder, &format!("key{step}"), &keys).await;
    }
    let bits = scan_filter_of(&ctx, 1, "g = 3").await;
    assert!(bits.starts_with("applied: fact1.parquet keeps about 1.00 %"), "{bits}");
    // Keys with gaps: one row of 320 is kept by their bounds, and one of 40 by their number.
    let scattered = scan_filter_of(&ctx, 8, "h = 3").await;
    assert!(scattered.starts_with("refused: no scan"), "{scattered}");
    sql(&ctx, "SET slipstream.key_filter.enabled = false").await.unwrap();
    let looked_up = scan_filter_of(&ctx, 1, "g = 3").await;
    assert!(looked_up.starts_with("refused: no scan"), "{looked_up}");
}

#[tokio::test]
async fn a_filter_that_keeps_most_rows_is_left_out() {
    let folder = TempDir::new().unwrap();
    // Statistics say that few values of `one` are met; all rows have the one that is.
    let config = config().with_batch_size(64).with_target_partitions(1);
    let ctx = session(config, &folder).await;
    let skewed = "SELECT CASE v WHEN 1 THEN 1000 ELSE 5 END AS k, v FROM generate_series(1, 20000) t(v)";
    table(&ctx, &folder, "skewed", skewed).await;
    let text = "SELECT count(*), sum(v) FROM skewed JOIN dim ON k = dk WHERE dk < 9";
    let line = analyzed(&ctx, "k", text).await;
    // Eight batches are tested, then 120 are not.
    let untested = line.split_once("untested_batches=").unwrap().1;
    let untested: usize = untested.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!(untested > 200, "{line}");
    assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()), ["19999 | 200009999"]);
}

#[tokio::test]
async fn refusals_say_why() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    let verdict = async |text: &str| verdict(&ctx, "key_filter", text).await;
    let none = "refused: no scan has a join that is expected to drop half of its rows";
    assert_eq!(verdict("SELECT count(*) FROM fact").await, none);
    assert_eq!(verdict("SELECT count(*) FROM fact JOIN dim ON fk = dk").await, none, "most keys are kept");
    let wide = "SELECT count(*) FROM fact JOIN dim ON fwide = dwide WHERE name = 'name 3'";
    assert_eq!(verdict(wide).await, none, "400 million values");
    let text = "SELECT count(*) FROM fact JOIN dim ON ftext = dtext WHERE name = 'name 3'";
    assert_eq!(verdict(text).await, none, "text has no bits");
    let recursive = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r JOIN dim ON n = dk \
                     JOIN fact ON dk = fk WHERE name = 'name 1' AND n < 3) SELECT count(*) FROM r";
    assert!(verdict(recursive).await.contains("recursive"));
    assert!(verdict(QUERIES[0]).await.starts_with("applied: fk keeps about "));
    sql(&ctx, "SET slipstream.key_filter.min_rows = 10000").await.unwrap();
    assert_eq!(verdict(QUERIES[0]).await, none, "9,000 rows");
}

/// A plan that is reset and executed again finds other rows on its build side than the first time.
#[tokio::test]
async fn a_plan_that_is_reset_forgets_its_keys() {
    let folder = TempDir::new().unwrap();
    let ctx = session(config(), &folder).await;
    sql(&ctx, "CREATE TABLE chosen AS SELECT dk FROM dim WHERE dk < 10").await.unwrap();
    let text = "SELECT id FROM fact JOIN chosen ON fk = dk";
    let plan = ctx.sql(text).await.unwrap().create_physical_plan().await.unwrap();
    let rows = async |plan: Arc<dyn ExecutionPlan>| {
        let batches = collect(plan, ctx.task_ctx()).await.unwrap();
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>()
    };
    let drawn = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(drawn.contains("KeyFilterExec"), "{drawn}");
    assert_eq!(rows(Arc::clone(&plan)).await, 9 * 18);
    let again = reset_plan_states(plan).unwrap();
    assert_eq!(rows(again).await, 9 * 18);
}
