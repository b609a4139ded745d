//! Aggregates over several files: only the files that changed are read, and the answer is the plain engine's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;

use super::{age, cached, counter, recomputed, write_aged};
use crate::support::{config, picture, query, sorted_rows, sql, with_layer};

/// A session that keeps what files contribute.
async fn keeping() -> (SessionContext, Slipstream, TempDir) {
    let (ctx, slipstream) = cached().await;
    sql(&ctx, "SET slipstream.cache.file_aggregates = true").await.unwrap();
    (ctx, slipstream, TempDir::new().unwrap())
}

/// A table of CSV files below `folder` with the columns `k` and `v`, the files separated by commas and without a header.
async fn table(ctx: &SessionContext, folder: &Path) {
    let location = folder.to_str().unwrap();
    let text = format!(
        "CREATE EXTERNAL TABLE f (k VARCHAR, v BIGINT) STORED AS CSV LOCATION '{location}' \
         OPTIONS ('format.has_header' 'false')"
    );
    sql(ctx, &text).await.unwrap();
}

fn file(folder: &Path, number: usize) -> std::path::PathBuf {
    folder.join(format!("{number:03}.csv"))
}

/// Files `from` to `to`, of a few rows each.
fn files(folder: &Path, from: usize, to: usize) {
    for number in from..to {
        let text = format!("a,{number}\nb,{}\n,{}\na,\n", number * 10, number * 7);
        write_aged(&file(folder, number), &text, 1000 - number as u64);
    }
}

/// What the layer did for the last query.
fn said(slipstream: &Slipstream) -> String {
    let record = slipstream.query_log().queries().pop().unwrap();
    let report = record.rules.iter().find(|report| report.rule == "file_aggregates");
    report.map_or_else(|| "-".to_owned(), |report| report.verdict.to_string())
}

/// Asks, and compares with the plain engine; says what the layer did.
async fn right(ctx: &SessionContext, slipstream: &Slipstream, text: &str) -> String {
    let rows = sorted_rows(&query(ctx, text).await.unwrap());
    let said = said(slipstream);
    assert_eq!(rows, recomputed(ctx, text).await, "{text}: {said}");
    said
}

fn kept(given: usize, files: usize) -> String {
    format!("applied: {given} of {files} files of f are kept")
}

const TEXTS: &[&str] = &[
    "SELECT count(*), count(v), sum(v), min(v), max(v), avg(v), min(k), max(k) FROM f",
    "SELECT k, count(*), sum(v), avg(v) FROM f GROUP BY k",
    "SELECT k, count(DISTINCT v) AS d FROM f WHERE v % 2 = 0 OR v IS NULL GROUP BY k HAVING count(*) > 1",
    "SELECT upper(k) AS u, v % 3 AS m, sum(v + 1) FROM f GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5",
    "SELECT k, median(v), round(stddev(v), 6), bit_or(v), bool_and(v > 1) FROM f GROUP BY k",
    "SELECT k, v % 2 AS m, sum(v) FROM f GROUP BY ROLLUP (k, v % 2)",
    "SELECT DISTINCT k FROM f",
    "SELECT sum(v) FILTER (WHERE k = 'a') FROM f",
    "SELECT x.k, x.s, t.b FROM (SELECT k, sum(v) AS s FROM f GROUP BY k) x JOIN t ON x.s > t.b",
    "SELECT v FROM f WHERE v > (SELECT avg(v) FROM f) ORDER BY v",
];

#[tokio::test]
async fn only_files_that_changed_are_read() {
    for text in TEXTS {
        let (ctx, slipstream, folder) = keeping().await;
        let folder = folder.path();
        files(folder, 0, 10);
        table(&ctx, folder).await;
        assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 10), "{text}");
        files(folder, 10, 11);
        assert_eq!(right(&ctx, &slipstream, text).await, kept(10, 11), "{text}");
        // As many bytes.
        write_aged(&file(folder, 3), "a,8\nb,30\n,21\na,\n", 10);
        assert_eq!(right(&ctx, &slipstream, text).await, kept(10, 11), "{text}");
        std::fs::remove_file(file(folder, 5)).unwrap();
        assert_eq!(right(&ctx, &slipstream, text).await, kept(10, 10), "{text}");
        // An older file comes back under another name.
        write_aged(&file(folder, 1), "c,1\n", 2000);
        std::fs::rename(file(folder, 2), folder.join("moved.csv")).unwrap();
        assert_eq!(right(&ctx, &slipstream, text).await, kept(8, 10), "{text}");
    }
}

#[tokio::test]
async fn another_query_over_the_same_aggregate_is_given_the_same() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 6);
    table(&ctx, folder.path()).await;
    right(&ctx, &slipstream, "SELECT k, sum(v) FROM f WHERE v > 3 GROUP BY k").await;
    for text in [
        "SELECT k, sum(v) FROM f WHERE v > 3 GROUP BY k ORDER BY 2 DESC LIMIT 1",
        "SELECT x.k, sum(x.v) AS total FROM f AS x WHERE x.v > 3 GROUP BY x.k HAVING sum(x.v) > 7",
        "SELECT max(s) FROM (SELECT k, sum(v) AS s FROM f WHERE v > 3 GROUP BY k)",
    ] {
        assert_eq!(right(&ctx, &slipstream, text).await, kept(6, 6), "{text}");
    }
    for text in [
        "SELECT k, sum(v) FROM f WHERE v > 4 GROUP BY k",
        "SELECT k, sum(v + 1) FROM f WHERE v > 3 GROUP BY k",
    ] {
        assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 6), "{text}");
    }
    assert_eq!(counter(&ctx, "part_hits").await, 3.0);
    let tiers = query(&ctx, "SELECT DISTINCT tier, tables[1] FROM slipstream.cache").await.unwrap();
    assert_eq!(sorted_rows(&tiers), ["file_aggregate | f", "result | f"]);
    assert!(sorted_rows(&query(&ctx, "SELECT slipstream_cache_drop_table('f')").await.unwrap())[0] != "0");
    let again = "SELECT k, sum(v) AS s FROM f WHERE v > 3 GROUP BY k";
    assert_eq!(right(&ctx, &slipstream, again).await, kept(0, 6));
}

#[tokio::test]
async fn what_is_not_determined_by_each_file_is_refused() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    ctx.register_udf(volatile());
    for (text, why) in [
        ("SELECT array_agg(v) FROM f", "may depend on the order"),
        ("SELECT k, array_agg(v ORDER BY v) FROM f GROUP BY k", "may depend on the order"),
        ("SELECT first_value(v ORDER BY v DESC) FROM f", "may depend on the order"),
        ("SELECT string_agg(k, ',') FROM f", "may depend on the order"),
        ("SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY v) FROM f", "may depend on the order"),
        ("SELECT sum(v + noise()) FROM f", "has another value each time"),
        ("SELECT count(*) FROM f WHERE v > noise()", "has another value each time"),
        ("SELECT count(*) FROM (SELECT v FROM f LIMIT 3)", "is over more than filters"),
        ("SELECT count(*) FROM f x JOIN f y ON x.v = y.v", "is over more than filters"),
        ("SELECT count(*) FROM t", "table t is not one of files"),
        ("SELECT sum(a) FROM (VALUES (1)) AS x(a)", "is over more than filters"),
        ("SELECT v FROM f", "no aggregate"),
    ] {
        query(&ctx, text).await.unwrap();
        let said = said(&slipstream);
        assert!(said.starts_with("refused: ") && said.contains(why), "{text}: {said}");
    }
    assert_eq!(counter(&ctx, "part_hits").await, 0.0);
    let one = TempDir::new().unwrap();
    files(one.path(), 0, 1);
    sql(&ctx, "DROP TABLE f").await.unwrap();
    table(&ctx, one.path()).await;
    assert!(right(&ctx, &slipstream, TEXTS[1]).await.contains("no more than one file"));
}

fn volatile() -> ScalarUDF {
    let zero = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(0))));
    create_udf("noise", vec![], DataType::Int64, Volatility::Volatile, Arc::new(zero))
}

/// A plain plan of one partition adds up floats in the order of the files; one of several in any order.
#[tokio::test]
async fn floats_are_kept_where_a_plain_plan_adds_them_up_in_any_order_too() {
    let folder = TempDir::new().unwrap();
    files(folder.path(), 0, 4);
    for (partitions, exact, rounded) in [(1, true, false), (2, true, true)] {
        let config = config().with_target_partitions(partitions);
        let (ctx, slipstream) = with_layer(SessionContext::new_with_config(config));
        for setting in ["enabled", "file_aggregates"] {
            sql(&ctx, &format!("SET slipstream.cache.{setting} = true")).await.unwrap();
        }
        table(&ctx, folder.path()).await;
        for (text, applies) in [
            ("SELECT k, sum(v), max(v) FROM f GROUP BY k", exact),
            ("SELECT avg(CAST(v AS DECIMAL(20, 3))) FROM f", exact),
            ("SELECT sum(CAST(v AS DOUBLE)) FROM f", rounded),
            ("SELECT min(CAST(v AS DOUBLE)) FROM f", rounded),
            ("SELECT avg(v) FROM f", rounded),
            ("SELECT round(stddev(v), 6) FROM f", rounded),
        ] {
            let said = right(&ctx, &slipstream, text).await;
            assert_eq!(said == kept(0, 4), applies, "{partitions}: {text}: {said}");
        }
    }
}

#[tokio::test]
async fn a_file_that_was_written_this_moment_is_read_and_not_kept() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    age(&file(folder.path(), 2), 0);
    let text = TEXTS[1];
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4));
    age(&file(folder.path(), 2), 0);
    assert_eq!(right(&ctx, &slipstream, text).await, kept(3, 4));
    // The same file, which is old enough by now: what was read of it when it was not has not been kept.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(right(&ctx, &slipstream, text).await, kept(3, 4));
    let again = format!("{text} ORDER BY k");
    assert_eq!(right(&ctx, &slipstream, &again).await, kept(4, 4));
    sql(&ctx, "SET slipstream.cache.mode = 'refresh'").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4));
}

/// Writes a file anew while it is read.
#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_not_kept() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 3);
    table(&ctx, folder.path()).await;
    // In place, so that what comes back later is the same to whoever looks at paths, sizes and times.
    let paths: Vec<_> = (0..3).map(|number| file(folder.path(), number)).collect();
    let armed = Arc::new(AtomicBool::new(true));
    let touch = {
        let armed = Arc::clone(&armed);
        move |arguments: &[ColumnarValue]| {
            if armed.swap(false, Ordering::SeqCst) {
                // The last of three files is opened by one of two partitions after this.
                paths.iter().for_each(|path| write_aged(path, "a,500\nb,1\n", 20));
            }
            Ok(arguments[0].clone())
        }
    };
    ctx.register_udf(create_udf(
        "touch",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(touch),
    ));
    let modified = |number| std::fs::metadata(file(folder.path(), number)).unwrap().modified().unwrap();
    let times: Vec<_> = (0..3).map(modified).collect();
    let text = "SELECT k, sum(touch(v)) FROM f GROUP BY k";
    query(&ctx, text).await.unwrap();
    assert!(!armed.load(Ordering::SeqCst));
    assert_eq!(said(&slipstream), kept(0, 3));
    for (number, times) in times.iter().enumerate() {
        files(folder.path(), number, number + 1);
        std::fs::File::options()
            .write(true)
            .open(file(folder.path(), number))
            .unwrap()
            .set_modified(*times)
            .unwrap();
    }
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 3));
    assert_eq!(right(&ctx, &slipstream, &format!("{text} ORDER BY k")).await, kept(3, 3));
}

#[tokio::test]
async fn queries_that_are_dropped_or_fail_keep_nothing() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    let text = TEXTS[1];
    drop(ctx.query(text).await.unwrap());
    // Asked once and dropped, before any file is read.
    let mut stream = ctx.query(text).await.unwrap();
    assert!(stream.next().now_or_never().is_none());
    drop(stream);
    write_aged(&file(folder.path(), 2), "a,no number\n", 30);
    assert!(query(&ctx, text).await.is_err());
    assert_eq!(sorted_rows(&query(&ctx, "SELECT count(*) FROM slipstream.cache").await.unwrap()), ["0"]);
    files(folder.path(), 0, 4);
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4));
}

#[tokio::test]
async fn explain_shows_what_is_kept_and_leaves_no_trace() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    sql(&ctx, "SET slipstream.cache.min_repeats = 1").await.unwrap();
    let text = TEXTS[1];
    let explained = async || picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
    for _ in 0..3 {
        let explained = explained().await;
        assert!(explained.contains("FileAggregateExec: table=f, files=4, kept=0, gby=[k]"), "{explained}");
    }
    assert!(right(&ctx, &slipstream, text).await.contains("not asked often enough"));
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4));
    files(folder.path(), 4, 5);
    let now = explained().await;
    assert!(
        now.contains("files=5, kept=4")
            && now.contains("file_aggregates: applied: 4 of 5 files of f are kept"),
        "{now}"
    );
    let analyzed = picture(&query(&ctx, &format!("EXPLAIN ANALYZE {text}")).await.unwrap());
    assert!(analyzed.contains("files_kept=4") && analyzed.contains("files_read=1"), "{analyzed}");
    sql(&ctx, "SET slipstream.cache.mode = 'read_only'").await.unwrap();
    files(folder.path(), 5, 6);
    assert_eq!(right(&ctx, &slipstream, text).await, kept(5, 6));
    assert_eq!(right(&ctx, &slipstream, text).await, kept(5, 6));
}

#[tokio::test]
async fn states_that_are_too_large_are_not_kept() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 3);
    let many: String = (0..2000).map(|number| format!("key{number},{number}\n")).collect();
    write_aged(&file(folder.path(), 3), &many, 10);
    table(&ctx, folder.path()).await;
    let text = TEXTS[1];
    sql(&ctx, "SET slipstream.cache.max_entry_bytes = 20000").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4));
    files(folder.path(), 4, 5);
    assert_eq!(right(&ctx, &slipstream, text).await, kept(3, 5));
    sql(&ctx, "SET slipstream.cache.max_entry_rows = 4").await.unwrap();
    sql(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 5));
    // The three states of one file, and of no second one.
    assert_eq!(right(&ctx, &slipstream, &format!("{text} ORDER BY k")).await, kept(1, 5));
}

#[tokio::test]
async fn both_tiers_go_together() {
    let (ctx, slipstream, folder) = keeping().await;
    sql(&ctx, "SET slipstream.cache.subplans = true").await.unwrap();
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    let part = TEXTS[1];
    assert_eq!(right(&ctx, &slipstream, part).await, kept(0, 4));
    for number in 0..3 {
        let text = format!("{part} HAVING count(*) > {number}");
        assert_eq!(right(&ctx, &slipstream, &text).await, kept(4, 4), "{text}");
    }
    assert_eq!(right(&ctx, &slipstream, &format!("{part} ORDER BY k")).await, kept(4, 4));
}

#[tokio::test]
async fn what_files_contribute_may_have_an_end() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    table(&ctx, folder.path()).await;
    sql(&ctx, "SET slipstream.cache.ttl_ms = 20").await.unwrap();
    assert_eq!(right(&ctx, &slipstream, TEXTS[1]).await, kept(0, 4));
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(right(&ctx, &slipstream, TEXTS[1]).await, kept(0, 4));
}

/// A plain plan reads one large file by several partitions; here a file is read by one.
#[tokio::test]
async fn a_file_that_several_partitions_should_read_is_left_to_them() {
    let (ctx, slipstream, folder) = keeping().await;
    files(folder.path(), 0, 4);
    let large: String = (0..2000).map(|number| format!("a,{number}\n")).collect();
    write_aged(&file(folder.path(), 4), &large, 10);
    table(&ctx, folder.path()).await;
    assert_eq!(right(&ctx, &slipstream, TEXTS[1]).await, kept(0, 5));
    sql(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
    sql(&ctx, "SET datafusion.optimizer.repartition_file_min_size = 1000").await.unwrap();
    assert!(right(&ctx, &slipstream, TEXTS[1]).await.contains("several partitions should read it"));
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, seconds: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    age(path, seconds);
}

fn numbers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Columns in another order, one more, one missing, empty files, dictionaries, and keys that are NULL.
#[tokio::test]
async fn files_of_one_table_may_have_other_columns() {
    let (ctx, slipstream, folder) = keeping().await;
    let at = |number: usize| folder.path().join(format!("{number}.parquet"));
    let keys = || texts(&[Some("a"), None, Some("a long text that is not inlined in a view")]);
    parquet(&at(0), vec![("k", keys()), ("v", numbers([1, 2, 3]))], 100);
    parquet(&at(1), vec![("v", numbers([4, 5, 6])), ("more", numbers([0, 0, 0])), ("k", keys())], 90);
    parquet(&at(2), vec![("v", numbers([7]))], 80);
    parquet(&at(3), vec![("k", texts(&[])), ("v", numbers([]))], 70);
    let location = folder.path().to_str().unwrap();
    let create =
        format!("CREATE EXTERNAL TABLE f (k VARCHAR, v BIGINT) STORED AS PARQUET LOCATION '{location}'");
    sql(&ctx, &create).await.unwrap();
    let texts_of =
        ["SELECT k, sum(v), count(*) FROM f GROUP BY k", "SELECT max(k), min(k) FROM f WHERE v > 1"];
    for text in texts_of {
        assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 4), "{text}");
    }
    parquet(&at(4), vec![("k", texts(&[Some("b")])), ("v", numbers([1 << 62]))], 60);
    for text in texts_of {
        assert_eq!(right(&ctx, &slipstream, text).await, kept(4, 5), "{text}");
    }
    // Footers say it already.
    assert!(
        right(&ctx, &slipstream, "SELECT count(*) FROM f")
            .await
            .contains("statistics of the files answer it")
    );

    let dictionary = |values: &[&str]| -> ArrayRef {
        Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>())
    };
    let folder = TempDir::new().unwrap();
    let at = |number: usize| folder.path().join(format!("{number}.parquet"));
    parquet(&at(0), vec![("k", dictionary(&["x", "y"])), ("v", numbers([1, 2]))], 100);
    parquet(&at(1), vec![("k", dictionary(&["z", "x"])), ("v", numbers([3, 4]))], 100);
    sql(&ctx, "DROP TABLE f").await.unwrap();
    sql(
        &ctx,
        &format!("CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{}'", folder.path().to_str().unwrap()),
    )
    .await
    .unwrap();
    let text = "SELECT k, sum(v) FROM f GROUP BY k";
    assert_eq!(right(&ctx, &slipstream, text).await, kept(0, 2));
    parquet(&at(2), vec![("k", dictionary(&["z", "w"])), ("v", numbers([5, 6]))], 50);
    assert_eq!(right(&ctx, &slipstream, text).await, kept(2, 3));
}

#[tokio::test]
async fn partition_columns_are_a_part_of_each_file() {
    let (ctx, slipstream, folder) = keeping().await;
    let at = |day: usize, number: usize| folder.path().join(format!("day={day}/{number}.parquet"));
    for day in 0..3 {
        parquet(&at(day, 0), vec![("v", numbers([1, 2]))], 100);
        parquet(&at(day, 1), vec![("v", numbers([day as i64]))], 100);
    }
    let location = folder.path().to_str().unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE f (v BIGINT, day INT) STORED AS PARQUET PARTITIONED BY (day) LOCATION '{location}'"
    );
    sql(&ctx, &create).await.unwrap();
    let all = "SELECT day, sum(v) FROM f GROUP BY day";
    let some = "SELECT day, sum(v) FROM f WHERE day > 0 AND v > 0 GROUP BY day";
    assert_eq!(right(&ctx, &slipstream, all).await, kept(0, 6));
    assert_eq!(right(&ctx, &slipstream, some).await, kept(0, 4));
    parquet(&at(3, 0), vec![("v", numbers([9]))], 50);
    assert_eq!(right(&ctx, &slipstream, all).await, kept(6, 7));
    assert_eq!(right(&ctx, &slipstream, some).await, kept(4, 5));
    // The same rows on another day.
    std::fs::rename(at(1, 0), at(3, 1)).unwrap();
    assert_eq!(right(&ctx, &slipstream, all).await, kept(6, 7));
    assert_eq!(right(&ctx, &slipstream, some).await, kept(4, 5));
}

/// The rows that a join needs of an aggregate would be fewer than all: what is kept must be all of them.
#[tokio::test]
async fn what_is_kept_does_not_depend_on_what_the_query_needs_of_it() {
    for stealing in [true, false] {
        let (ctx, slipstream, folder) = keeping().await;
        for number in 0..4 {
            let path = folder.path().join(format!("{number}.parquet"));
            let keys = (0..500).map(|key| key * 4 + number);
            parquet(&path, vec![("k", numbers(keys.clone())), ("v", numbers(keys))], 100);
        }
        let location = folder.path().to_str().unwrap();
        for statement in [
            format!("SET datafusion.execution.enable_file_stream_work_stealing = {stealing}"),
            format!("CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION '{location}'"),
            "CREATE TABLE few AS VALUES (7), (1000)".to_owned(),
        ] {
            sql(&ctx, &statement).await.unwrap();
        }
        let sums = "SELECT k, sum(v) AS s FROM f GROUP BY k";
        for text in [
            format!("SELECT x.* FROM few JOIN ({sums}) x ON x.k = few.column1"),
            format!("SELECT * FROM ({sums}) WHERE k IN (SELECT column1 FROM few)"),
            format!("SELECT k FROM ({sums}) ORDER BY k LIMIT 3"),
            sums.to_owned(),
            "SELECT min(v), max(v) FROM f WHERE k > 10".to_owned(),
            "SELECT max(v) FROM f WHERE k > 20".to_owned(),
        ] {
            right(&ctx, &slipstream, &text).await;
            let path = folder.path().join("9.parquet");
            parquet(&path, vec![("k", numbers([7])), ("v", numbers([1]))], 50);
            let said = right(&ctx, &slipstream, &text).await;
            assert_eq!(said, kept(4, 5), "{text}");
            std::fs::remove_file(path).unwrap();
        }
    }
}
