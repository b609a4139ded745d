//! Parts that several queries have in common: computed apart the second time, given from then on, and always the plain engine's.

use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::StreamExt;
use tempfile::TempDir;

use super::{age, cached, counter, external, recomputed, write_aged};
use crate::support::{picture, query, sorted_rows, sql};

/// A session that keeps parts of queries.
async fn keeping() -> (SessionContext, Slipstream) {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.subplans = true").await.unwrap();
    (ctx, slipstream)
}

/// What the layer did for the last query.
fn said(slipstream: &Slipstream) -> String {
    let record = slipstream.query_log().queries().pop().unwrap();
    let report = record.rules.iter().find(|report| report.rule == "subplans");
    report.map_or_else(|| "-".to_owned(), |report| report.verdict.to_string())
}

/// Asks, and compares with the plain engine; says what the layer did.
async fn right(ctx: &SessionContext, slipstream: &Slipstream, text: &str) -> String {
    let rows = sorted_rows(&query(ctx, text).await.unwrap());
    let said = said(slipstream);
    assert_eq!(rows, recomputed(ctx, text).await, "{text}: {said}");
    said
}

async fn parts(ctx: &SessionContext) -> Vec<String> {
    let text = "SELECT tables, rows FROM slipstream.cache WHERE tier = 'subplan'";
    sorted_rows(&query(ctx, text).await.unwrap())
}

const NOTHING: &str = "refused: no part of the query is kept";

/// Three different queries each over one part: the first leaves no trace of it, the second keeps it, the third is given it.
const FAMILIES: &[[&str; 3]] = &[
    [
        "SELECT a, sum(b) AS s FROM t GROUP BY a ORDER BY s LIMIT 2",
        "SELECT a, sum(b) AS total FROM t GROUP BY a HAVING sum(b) > 5",
        "SELECT x.a + 1, x.s FROM (SELECT a, sum(b) AS s FROM t AS other GROUP BY a) x WHERE x.s < 100",
    ],
    [
        "SELECT t.a, t.b, u.a AS ua FROM t JOIN u ON t.a = u.a ORDER BY t.b",
        "SELECT t.a + t.b + u.a FROM t JOIN u ON t.a = u.a",
        "SELECT sum(x.a), max(x.b), min(y.a) FROM t AS x JOIN u AS y ON x.a = y.a",
    ],
    [
        "SELECT a, b, sum(b) OVER (PARTITION BY a ORDER BY b) AS r FROM t ORDER BY r",
        "SELECT max(a), max(b), max(r) FROM (SELECT a, b, sum(b) OVER (PARTITION BY a ORDER BY b) AS r FROM t)",
        "SELECT a + b + r FROM (SELECT a, b, sum(b) OVER (PARTITION BY a ORDER BY b) AS r FROM t) WHERE r > 0",
    ],
    [
        "SELECT DISTINCT a % 2 AS p FROM t ORDER BY p",
        "SELECT p + 1 FROM (SELECT DISTINCT a % 2 AS p FROM t)",
        "SELECT u.a FROM u JOIN (SELECT DISTINCT a % 2 AS p FROM t) d ON d.p = u.a",
    ],
];

#[tokio::test]
async fn a_part_of_two_queries_is_given_to_the_third() {
    for [first, second, third] in FAMILIES {
        let (ctx, slipstream) = keeping().await;
        assert_eq!(right(&ctx, &slipstream, first).await, NOTHING, "{first}");
        // The same query again is answered as a whole.
        query(&ctx, first).await.unwrap();
        assert!(parts(&ctx).await.is_empty(), "{first}");
        let said = right(&ctx, &slipstream, second).await;
        assert!(said.contains("is computed apart, to be kept"), "{second}: {said}");
        assert_eq!(parts(&ctx).await.len(), 1, "{second}");
        let said = right(&ctx, &slipstream, third).await;
        assert!(said.starts_with("applied: a") && said.ends_with("is kept"), "{third}: {said}");
        assert_eq!(counter(&ctx, "part_hits").await, 1.0);
        let explained = picture(&query(&ctx, &format!("EXPLAIN {third} -- again")).await.unwrap());
        assert!(
            explained.contains("CachedResultExec") && explained.contains("subplans: applied: "),
            "{explained}"
        );
        query(&ctx, "INSERT INTO t VALUES (2, 7)").await.unwrap();
        let said = right(&ctx, &slipstream, third).await;
        assert!(!said.contains("is kept"), "{third}: {said}");
    }
}

/// What a join needs of its inputs is narrowed by dynamic filters: what is kept is all of it, and what is given is all of it.
#[tokio::test]
async fn what_is_kept_does_not_depend_on_what_the_query_needs_of_it() {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    for stealing in [true, false] {
        let (ctx, slipstream) = keeping().await;
        let folder = TempDir::new().unwrap();
        for number in 0..4 {
            let path = folder.path().join(format!("{number}.parquet"));
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..500).map(|key| key * 4 + number)));
            let batch = RecordBatch::try_from_iter([("k", Arc::clone(&keys)), ("v", keys)]).unwrap();
            let file = std::fs::File::create(&path).unwrap();
            let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            age(&path, 100);
        }
        for statement in [
            format!("SET datafusion.execution.enable_file_stream_work_stealing = {stealing}"),
            format!(
                "CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{}'",
                folder.path().to_str().unwrap()
            ),
            "CREATE TABLE few AS VALUES (7), (1000)".to_owned(),
        ] {
            sql(&ctx, &statement).await.unwrap();
        }
        let sums = "SELECT k, sum(v) AS s FROM f GROUP BY k";
        for text in [
            format!("SELECT x.k, x.s FROM few JOIN ({sums}) x ON x.k = few.column1"),
            format!("SELECT x.s, x.k FROM few JOIN ({sums}) x ON x.k = few.column1"),
            format!("SELECT k + s FROM ({sums}) WHERE k IN (SELECT column1 FROM few)"),
            format!("SELECT k, s FROM ({sums}) ORDER BY k LIMIT 3"),
            format!("SELECT k, s FROM ({sums}) WHERE s > 10"),
            format!("SELECT max(k), min(s) FROM ({sums})"),
        ] {
            right(&ctx, &slipstream, &text).await;
        }
        assert!(counter(&ctx, "part_hits").await >= 2.0);
    }
}

/// A limit stops reading: nothing is kept, and after some attempts the part is not computed apart any more.
#[tokio::test]
async fn parts_that_are_not_read_to_their_end_are_not_kept() {
    let (ctx, slipstream) = keeping().await;
    sql(&ctx, "SET datafusion.execution.batch_size = 10").await.unwrap();
    sql(&ctx, "CREATE TABLE n AS SELECT i, i % 100 AS g FROM generate_series(1, 20000) AS s(i)")
        .await
        .unwrap();
    let part = "SELECT x.i, y.i AS j FROM n x JOIN n y ON x.g = y.g";
    let mut apart = 0;
    for number in 0..8 {
        let text = format!("SELECT i + {number}, j FROM ({part}) LIMIT 5");
        let rows = query(&ctx, &text).await.unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5);
        apart += usize::from(said(&slipstream).contains("computed apart"));
        // Dropped half way.
        let mut stream = ctx.query(&format!("SELECT i * {number}, j FROM ({part})")).await.unwrap();
        let _ = stream.next().await;
        apart += usize::from(said(&slipstream).contains("computed apart"));
    }
    assert_eq!(apart, 3);
    assert!(parts(&ctx).await.is_empty());
    assert_eq!(counter(&ctx, "computing").await, 0.0);
}

#[tokio::test]
async fn what_fails_or_is_too_large_is_not_kept() {
    let (ctx, slipstream) = keeping().await;
    for number in 0..3 {
        let text = format!("SELECT d + {number} FROM (SELECT sum(b / (a - 2)) AS d FROM t GROUP BY b)");
        assert!(query(&ctx, &text).await.is_err(), "{}", said(&slipstream));
    }
    assert!(parts(&ctx).await.is_empty());
    sql(&ctx, "SET slipstream.cache.max_entry_rows = 2").await.unwrap();
    let mut apart = 0;
    for number in 0..5 {
        let text = format!("SELECT a + {number}, s FROM (SELECT a, sum(b) AS s FROM t GROUP BY a)");
        apart += usize::from(right(&ctx, &slipstream, &text).await.contains("computed apart"));
    }
    assert_eq!(apart, 1, "what is too large is not tried again");
    assert!(parts(&ctx).await.is_empty());
}

#[tokio::test]
async fn a_part_that_occurs_twice_is_right_in_both_places() {
    let (ctx, slipstream) = keeping().await;
    let part = "SELECT a, sum(b) AS s FROM t GROUP BY a";
    for number in 0..4 {
        let twice = format!(
            "WITH c AS ({part}) SELECT x.a + {number}, x.s, y.s AS ys FROM c AS x JOIN c AS y ON x.a < y.a"
        );
        right(&ctx, &slipstream, &twice).await;
        let in_both = format!(
            "SELECT {number}, (SELECT max(s) FROM ({part})) AS m, (SELECT min(s) FROM ({part})) AS l"
        );
        right(&ctx, &slipstream, &in_both).await;
    }
    assert!(counter(&ctx, "part_hits").await > 0.0);
}

/// Scans of one name are the same to DataFusion, which plans one of two equal scalar subqueries.
#[tokio::test]
async fn parts_in_scalar_subqueries_are_not_mixed_up() {
    let (ctx, slipstream) = keeping().await;
    for number in 0..4 {
        let text = format!(
            "SELECT u.a + {number}, (SELECT sum(a) AS x FROM t) AS one, \
             (SELECT sum(b) AS x FROM t) AS two, (SELECT sum(a) AS x FROM u) AS three FROM u"
        );
        right(&ctx, &slipstream, &text).await;
    }
    assert!(counter(&ctx, "part_hits").await >= 3.0, "{}", said(&slipstream));
}

#[tokio::test]
async fn definitions_and_data_of_a_part_count() {
    let (ctx, slipstream) = keeping().await;
    sql(&ctx, "CREATE VIEW v AS SELECT a, b FROM t WHERE a > 1").await.unwrap();
    let folder = TempDir::new().unwrap();
    write_aged(&folder.path().join("1.csv"), "1\n2\n2\n", 100);
    external(&ctx, "f", folder.path()).await;
    let mut number = 0;
    let mut round = async |change: &str| {
        if !change.is_empty() {
            query(&ctx, change).await.unwrap();
        }
        for _ in 0..3 {
            number += 1;
            for text in [
                format!("SELECT a, s + {number} FROM (SELECT a, sum(b) AS s FROM v GROUP BY a)"),
                format!("SELECT a, n + {number} FROM (SELECT a, count(*) AS n FROM f GROUP BY a)"),
                format!("SELECT f.a, b + {number} FROM f JOIN t ON t.a = f.a"),
                format!("SELECT a FROM t WHERE a + {number} > (SELECT max(a) FROM f)"),
            ] {
                right(&ctx, &slipstream, &text).await;
            }
        }
    };
    round("").await;
    round("INSERT INTO t VALUES (2, 9)").await;
    round("CREATE OR REPLACE VIEW v AS SELECT a, b FROM t WHERE a > 2").await;
    write_aged(&folder.path().join("2.csv"), "3\n", 50);
    round("").await;
    write_aged(&folder.path().join("2.csv"), "2\n", 40);
    round("").await;
    std::fs::remove_file(folder.path().join("1.csv")).unwrap();
    round("").await;
    round("CREATE OR REPLACE TABLE t (a BIGINT, b BIGINT) AS VALUES (1, 1), (3, 5)").await;
    round("SELECT slipstream_cache_drop_table('t')").await;
    assert!(counter(&ctx, "part_hits").await > 10.0);
}

/// While a query is planned its part is hidden from the rules; the plan that runs has all of it.
#[tokio::test]
async fn the_plan_that_runs_shows_the_part() {
    let (ctx, slipstream) = keeping().await;
    let [first, second, _] = FAMILIES[0];
    query(&ctx, first).await.unwrap();
    let stream = ctx.query(second).await.unwrap();
    let shown = displayable(stream.physical_plan().as_ref()).indent(false).to_string();
    assert!(said(&slipstream).contains("computed apart"));
    assert!(shown.contains("AggregateExec: mode=") && shown.contains("DataSourceExec"), "{shown}");
    assert!(!shown.contains("PlannedPartExec"), "{shown}");
}

/// Different queries at one time over one part: one computes it, the others wait or compute it themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_queries_at_one_time_share_a_part() {
    let (ctx, _) = keeping().await;
    sql(&ctx, "CREATE TABLE n AS SELECT i, i % 1000 AS g FROM generate_series(1, 100000) AS s(i)")
        .await
        .unwrap();
    let run = |number: usize| {
        let ctx = ctx.clone();
        SpawnedTask::spawn(async move {
            let text = format!(
                "SELECT max(x.s) + {number}, count(*) FROM (SELECT g, sum(i) AS s FROM n GROUP BY g) x \
                 JOIN (SELECT g, sum(i) AS s FROM n GROUP BY g) y ON x.g = y.g"
            );
            (sorted_rows(&query(&ctx, &text).await.unwrap()), text)
        })
    };
    for round in 0..3 {
        let tasks: Vec<_> = (0..8).map(|number| run(round * 8 + number)).collect();
        for task in tasks {
            let (rows, text) = task.join().await.unwrap();
            assert_eq!(rows, recomputed(&ctx, &text).await, "{text}");
        }
    }
    let kept = parts(&ctx).await;
    assert!((1..=4).contains(&kept.len()), "the aggregates and the join: {kept:?}");
    assert_eq!(counter(&ctx, "computing").await, 0.0);
}
