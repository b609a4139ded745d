//! ANALYZE TABLE, what plans make of it, and what finished queries teach the next ones.

use std::path::Path;
use std::sync::Arc;

use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::StreamExt;
use tempfile::TempDir;

use crate::support::{
    config, layered, limited_runtime, picture, query, single, sorted_rows, sql, verdict, with_layer,
};

/// A fact table and two dimensions. Nine of ten items have brand 7, although brands go up to 999.
const TABLES: [(&str, &str); 3] = [
    (
        "sale",
        "SELECT v AS id, v * 7 % 2000 AS item, CASE WHEN v % 13 = 0 THEN NULL ELSE v * 3 % 50 END AS shop, \
         v % 100 AS amount FROM generate_series(1, 20000) t(v)",
    ),
    (
        "item",
        "SELECT v AS i, CASE WHEN v % 10 < 9 THEN 7 ELSE v % 1000 END AS brand, concat('item ', v) AS name \
         FROM generate_series(0, 1999) t(v)",
    ),
    ("shop", "SELECT v AS s, v % 7 AS city FROM generate_series(0, 49) t(v)"),
];

/// The tables as files of `format`, in a session with the layer.
async fn star(format: &str) -> (SessionContext, TempDir) {
    let folder = TempDir::new().unwrap();
    let (ctx, _) = layered();
    for (name, select) in TABLES {
        let path = folder.path().join(format!("{name}.{format}"));
        let path = path.to_str().unwrap();
        sql(&ctx, &format!("COPY ({select}) TO '{path}' STORED AS {format}")).await.unwrap();
        match format {
            "csv" => ctx.register_csv(name, path, CsvReadOptions::default()).await.unwrap(),
            _ => ctx.register_parquet(name, path, ParquetReadOptions::default()).await.unwrap(),
        }
    }
    (ctx, folder)
}

async fn analyze_star(ctx: &SessionContext) {
    for (name, _) in TABLES {
        query(ctx, &format!("ANALYZE TABLE {name}")).await.unwrap();
    }
}

/// The tables in the order in which the plan reads them, build sides first, and a bracket for each join.
async fn shape(ctx: &SessionContext, text: &str) -> String {
    fn draw(plan: &Arc<dyn ExecutionPlan>, shape: &mut String) {
        let join = plan.is::<HashJoinExec>();
        shape.push_str(if join { "(" } else { "" });
        let line = displayable(plan.as_ref()).one_line().to_string();
        if plan.children().is_empty()
            && let Some((path, _)) = line.split_once(".csv").or_else(|| line.split_once(".parquet"))
        {
            shape.push_str(&format!(" {} ", path.rsplit('/').next().unwrap()));
        }
        plan.children().into_iter().for_each(|child| draw(child, shape));
        shape.push_str(if join { ")" } else { "" });
    }
    let mut shape = String::new();
    draw(&ctx.sql(text).await.unwrap().create_physical_plan().await.unwrap(), &mut shape);
    shape
}

/// Rows with the layer, which must be those of the plain engine.
async fn rows_as_plain(ctx: &SessionContext, text: &str) -> Vec<String> {
    let own = sorted_rows(&query(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = false").await.unwrap();
    let plain = sorted_rows(&sql(ctx, text).await.unwrap());
    sql(ctx, "SET slipstream.enabled = true").await.unwrap();
    assert_eq!(own, plain, "{text}");
    own
}

#[tokio::test]
async fn analyze_answers_with_a_row_for_each_column() {
    let (ctx, _folder) = star("parquet").await;
    let rows = sorted_rows(&query(&ctx, "ANALYZE TABLE item").await.unwrap());
    let [brand, i, name] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(
        brand.starts_with("datafusion.public.item | brand | Int64 | 2000 | 0 | 101 | 7 | 999 |"),
        "{brand}"
    );
    assert!(brand.ends_with("| 2000 | 64 | [7: 90.00 %]"), "{brand}");
    assert!(i.contains("| i | Int64 | 2000 | 0 | 2000 | 0 | 1999 |"), "{i}");
    assert!(name.contains("| 2000 | 0 | 2000 | item 0 | item 999 | 8.445 | 9 | 2000 | 64 | []"), "{name}");

    let some = "SELECT rows, null_count, distinct_count FROM slipstream_analyze('sale', 'shop', 'id')";
    let rows = sorted_rows(&sql(&ctx, some).await.unwrap());
    assert_eq!(rows, ["20000 | 0 | 20000", "20000 | 1538 | 50"]);

    // More rows than are sampled: distinct values are estimated, the rest is counted.
    sql(&ctx, "CREATE TABLE big AS SELECT v % 70000 AS a, NULL AS n, v / 3.0 AS f FROM generate_series(1, 100000) t(v)")
        .await
        .unwrap();
    query(&ctx, "ANALYZE TABLE big").await.unwrap();
    let text = "SELECT column_name, rows, null_count, abs(distinct_count - 70000) < 1400, sampled_rows \
                FROM slipstream.statistics WHERE table_name LIKE '%.big' AND column_name <> 'f'";
    let rows = sorted_rows(&query(&ctx, text).await.unwrap());
    assert_eq!(rows, ["a | 100000 | 0 | true | 30000", "n | 100000 | 100000 | false | 0"]);
}

#[tokio::test]
async fn names_are_those_of_sql_and_errors_say_what_is_wrong() {
    let (ctx, _) = layered();
    for text in [
        "CREATE SCHEMA other",
        "CREATE TABLE other.t AS SELECT 1 AS a, 2 AS \"B c\"",
        "CREATE TABLE \"My Table\" AS SELECT 1 AS a",
        "CREATE VIEW v AS SELECT * FROM other.t",
    ] {
        query(&ctx, text).await.unwrap();
    }
    for (text, rows) in [
        ("ANALYZE TABLE other.t", 2),
        ("analyze table OTHER.T (\"B c\")", 1),
        ("ANALYZE datafusion.other.t (a, A)", 1),
        ("ANALYZE TABLE \"My Table\"", 1),
        ("SELECT * FROM slipstream_analyze('\"My Table\"', 'a')", 1),
    ] {
        assert_eq!(sorted_rows(&query(&ctx, text).await.unwrap()).len(), rows, "{text}");
    }
    for (text, part) in [
        ("ANALYZE TABLE nowhere", "there is no table 'nowhere' to analyze"),
        ("ANALYZE TABLE other.t (a, b_c)", "table 'other.t' has no column 'b_c'. Did you mean 'B c'?"),
        ("ANALYZE TABLE v", "'v' is a view"),
        ("ANALYZE", "ANALYZE takes a table"),
        ("ANALYZE TABLE other.t NOSCAN", "ANALYZE takes a table"),
        ("SELECT * FROM slipstream_analyze(1)", "takes names as text"),
        ("SELECT * FROM slipstream_analyze()", "takes names as text"),
    ] {
        let error = query(&ctx, text).await.unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    // Columns that are analyzed one by one add up.
    let columns = "SELECT count(*) FROM slipstream.statistics WHERE table_name = 'datafusion.other.t'";
    assert_eq!(single(&query(&ctx, columns).await.unwrap()), "2");
    query(&ctx, "SET slipstream.statistics.max_entries = 1").await.unwrap();
    query(&ctx, "ANALYZE TABLE other.t (a)").await.unwrap();
    let tables = "SELECT DISTINCT table_name FROM slipstream.statistics";
    assert_eq!(single(&query(&ctx, tables).await.unwrap()), "datafusion.other.t");
}

#[tokio::test]
async fn csv_tables_can_be_joined_in_order_once_they_are_analyzed() {
    let (ctx, _folder) = star("csv").await;
    let text = "SELECT count(*), sum(amount) FROM sale JOIN shop ON shop = s JOIN item ON item = i WHERE name = 'item 7'";
    assert!(verdict(&ctx, "join_order", text).await.contains("does not know how many rows"));
    assert_eq!(verdict(&ctx, "statistics", text).await, "");
    let before = shape(&ctx, text).await;
    let rows = rows_as_plain(&ctx, text).await;

    analyze_star(&ctx).await;
    let reported = verdict(&ctx, "join_order", text).await;
    assert!(reported.starts_with("applied: 3 relations"), "{reported}");
    let used = verdict(&ctx, "statistics", text).await;
    assert_eq!(
        used,
        "applied: of datafusion.public.item, datafusion.public.sale, datafusion.public.shop, from ANALYZE"
    );
    let after = shape(&ctx, text).await;
    assert_eq!(after, "(( item  sale ) shop )");
    assert_ne!(before, after);
    assert_eq!(rows_as_plain(&ctx, text).await, rows);

    sql(&ctx, "SET slipstream.statistics.enabled = false").await.unwrap();
    assert_eq!(shape(&ctx, text).await, before);
}

#[tokio::test]
async fn skew_that_minima_and_maxima_hide_changes_the_order() {
    let (ctx, _folder) = star("parquet").await;
    let text = "SELECT count(*), sum(amount) FROM sale JOIN shop ON shop = s JOIN item ON item = i \
                WHERE brand = 7 AND city = 3";
    // By the range of the brands a thousandth of the items is left, in truth nine of ten.
    assert_eq!(shape(&ctx, text).await, "( shop ( item  sale ))");
    let rows = rows_as_plain(&ctx, text).await;
    analyze_star(&ctx).await;
    let after = shape(&ctx, text).await;
    assert!(["( item ( shop  sale ))", "(( shop  sale ) item )"].contains(&after.as_str()), "{after}");
    assert_eq!(rows_as_plain(&ctx, text).await, rows);

    // A rare brand is still rare.
    let rare = text.replace("brand = 7", "brand = 509");
    assert_eq!(shape(&ctx, &rare).await, "( shop ( item  sale ))");
}

#[tokio::test]
async fn statistics_of_another_version_of_the_data_are_not_used() {
    let folder = TempDir::new().unwrap();
    let slipstream = Slipstream::default();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("a.csv"), "k,v\n1,x\n2,y\n").unwrap();
    // A session of its own for each look: DataFusion keeps a session's list of files.
    let state = async || {
        let ctx = SessionContext::new_with_config(config());
        ctx.install_slipstream(slipstream.clone()).unwrap();
        let path = folder.path().to_str().unwrap();
        ctx.register_csv("t", path, CsvReadOptions::default()).await.unwrap();
        let text = "SELECT DISTINCT state FROM slipstream.statistics";
        let state = single(&query(&ctx, text).await.unwrap());
        let used = !verdict(&ctx, "statistics", "SELECT a.k FROM t a JOIN t b ON a.k = b.k").await.is_empty();
        assert_eq!(used, state == "current");
        (state, ctx)
    };
    let ctx = SessionContext::new_with_config(config());
    ctx.install_slipstream(slipstream.clone()).unwrap();
    ctx.register_csv("t", folder.path().to_str().unwrap(), CsvReadOptions::default()).await.unwrap();
    query(&ctx, "ANALYZE TABLE t").await.unwrap();
    assert_eq!(state().await.0, "current");

    std::fs::write(file("b.csv"), "k,v\n3,z\n").unwrap();
    assert_eq!(state().await.0, "stale", "a file was added");
    std::fs::remove_file(file("b.csv")).unwrap();
    assert_eq!(state().await.0, "current");
    std::fs::write(file("a.csv"), "k,v\n1,x\n2,z\n").unwrap();
    let (stale, ctx) = state().await;
    assert_eq!(stale, "stale", "a file was rewritten in the same size");
    query(&ctx, "DROP TABLE t").await.unwrap();
    assert_eq!(
        single(&query(&ctx, "SELECT DISTINCT state FROM slipstream.statistics").await.unwrap()),
        "stale"
    );
}

#[tokio::test]
async fn a_table_in_memory_is_another_after_an_insert() {
    let (ctx, _) = layered();
    query(&ctx, "CREATE TABLE t AS SELECT v FROM generate_series(1, 100) t(v)").await.unwrap();
    query(&ctx, "ANALYZE TABLE t").await.unwrap();
    let state = "SELECT state FROM slipstream.statistics";
    assert_eq!(single(&query(&ctx, state).await.unwrap()), "current");
    query(&ctx, "INSERT INTO t VALUES (7)").await.unwrap();
    assert_eq!(single(&query(&ctx, state).await.unwrap()), "stale");
    query(&ctx, "ANALYZE TABLE t").await.unwrap();
    let states = "SELECT state, rows FROM slipstream.statistics";
    assert_eq!(sorted_rows(&query(&ctx, states).await.unwrap()), ["current | 101", "stale | 100"]);
}

#[tokio::test]
async fn analyze_stays_within_the_memory_pool() {
    let spill = TempDir::new().unwrap();
    let (ctx, _) =
        with_layer(SessionContext::new_with_config_rt(config(), limited_runtime(1 << 20, spill.path())));
    let path = spill.path().join("wide.parquet");
    let path = path.to_str().unwrap();
    let wide = "SELECT v, repeat(chr(65 + v % 26), 500) AS t FROM generate_series(1, 20000) t(v)";
    sql(&layered().0, &format!("COPY ({wide}) TO '{path}' STORED AS PARQUET")).await.unwrap();
    ctx.register_parquet("wide", path, ParquetReadOptions::default()).await.unwrap();
    let error = query(&ctx, "ANALYZE TABLE wide").await.unwrap_err().to_string();
    assert!(error.contains("Resources exhausted") && error.contains("AnalyzeTable"), "{error}");
    assert_eq!(single(&query(&ctx, "SELECT count(*) FROM slipstream.statistics").await.unwrap()), "0");
    query(&ctx, "ANALYZE TABLE wide (v)").await.unwrap();
}

#[tokio::test]
async fn datafusions_own_rules_may_ask_for_the_statistics() {
    let (ctx, _folder) = star("csv").await;
    sql(&ctx, "SET slipstream.join_order.enabled = false").await.unwrap();
    sql(&ctx, "SET datafusion.optimizer.use_statistics_registry = true").await.unwrap();
    let text = "SELECT count(*) FROM sale JOIN item ON item = i";
    assert_eq!(shape(&ctx, text).await, "( sale  item )");
    analyze_star(&ctx).await;
    assert_eq!(shape(&ctx, text).await, "( item  sale )");
    rows_as_plain(&ctx, text).await;
}

#[tokio::test]
async fn a_finished_query_teaches_the_next_one() {
    let (ctx, _folder) = star("csv").await;
    let text = "SELECT count(*), sum(amount) FROM sale JOIN shop ON shop = s JOIN item ON item = i \
                WHERE brand = 7 AND city = 3";
    query(&ctx, text).await.unwrap();
    assert_eq!(verdict(&ctx, "feedback", text).await, "", "off unless asked for");
    sql(&ctx, "SET slipstream.feedback.enabled = true").await.unwrap();
    assert!(verdict(&ctx, "join_order", text).await.contains("does not know how many rows"));
    let before = shape(&ctx, text).await;
    let rows = rows_as_plain(&ctx, text).await;
    assert_eq!(
        verdict(&ctx, "feedback", text).await,
        "applied: row counts that earlier queries observed: 7, 50, 1800, 2000, 20000"
    );
    let after = shape(&ctx, text).await;
    assert_eq!((before.as_str(), after.as_str()), ("(( sale  shop ) item )", "( item ( shop  sale ))"));
    assert_eq!(rows_as_plain(&ctx, text).await, rows);

    // The same parts of other queries: an equal filter in other words, and its groups.
    let groups = "SELECT brand, count(*) FROM item WHERE 'item 7' = name GROUP BY brand";
    query(&ctx, groups).await.unwrap();
    let later = "SELECT count(*) FROM sale JOIN (SELECT DISTINCT brand FROM item WHERE name = 'item 7') ON brand = shop";
    let learned = "applied: row counts that earlier queries observed: 1, 1, 2000, 20000";
    assert_eq!(verdict(&ctx, "feedback", later).await, learned);
    let other = "SELECT count(*) FROM sale JOIN item ON item = i WHERE name = 'item 8'";
    let scans = "applied: row counts that earlier queries observed: 2000, 20000";
    assert_eq!(verdict(&ctx, "feedback", other).await, scans);
}

#[tokio::test]
async fn nothing_is_learned_from_rows_that_were_cut_short() {
    let (ctx, folder) = star("parquet").await;
    sql(&ctx, "SET slipstream.feedback.enabled = true").await.unwrap();
    let asks = "SELECT count(*) FROM sale JOIN item ON item = i WHERE amount > 50 AND brand = 7";
    for cut in [
        "SELECT id FROM sale WHERE amount > 50 LIMIT 10",
        "SELECT id FROM sale WHERE amount > 50 ORDER BY item LIMIT 10",
        "SELECT DISTINCT amount FROM sale WHERE amount > 50 LIMIT 3",
        // The probe side drops rows by what the build side has.
        "SELECT count(*) FROM shop JOIN sale ON shop = s WHERE amount > 50 AND city = 3",
        // And is not read where nothing can match.
        "SELECT count(*) FROM (SELECT * FROM shop WHERE city = 99) JOIN sale ON shop = s WHERE amount > 50",
    ] {
        query(&ctx, cut).await.unwrap();
        assert_eq!(verdict(&ctx, "feedback", asks).await, "", "{cut}");
    }
    sql(&ctx, "SET datafusion.execution.batch_size = 100").await.unwrap();
    let mut dropped = ctx.query("SELECT id FROM sale WHERE amount > 50").await.unwrap();
    dropped.next().await.unwrap().unwrap();
    drop(dropped);
    assert_eq!(verdict(&ctx, "feedback", asks).await, "", "a dropped stream");
    let failed = "SELECT 1 / (amount - 99) FROM sale WHERE amount > 50";
    query(&ctx, failed).await.unwrap_err();
    assert_eq!(verdict(&ctx, "feedback", asks).await, "", "a failed query");

    query(&ctx, "SELECT id FROM sale WHERE amount > 50").await.unwrap();
    let learned = "applied: row counts that earlier queries observed: 9800";
    assert_eq!(verdict(&ctx, "feedback", asks).await, learned);
    rewrite(&ctx, folder.path()).await;
    assert_eq!(verdict(&ctx, "feedback", asks).await, "", "the data is another");
}

#[tokio::test]
async fn nothing_is_learned_from_a_probe_side_that_nobody_read() {
    // Files that take no dynamic filter: only the join itself stops reading.
    let (ctx, _folder) = star("csv").await;
    sql(&ctx, "SET slipstream.feedback.enabled = true").await.unwrap();
    let asks = "SELECT count(*) FROM sale JOIN item ON item = i WHERE amount > 50";
    let unread =
        "SELECT count(*) FROM (SELECT * FROM shop WHERE city = 99) JOIN sale ON shop = s WHERE amount > 50";
    assert_eq!(single(&query(&ctx, unread).await.unwrap()), "0");
    assert_eq!(verdict(&ctx, "feedback", asks).await, "");
    let read = unread.replace("city = 99", "city < 99");
    query(&ctx, &read).await.unwrap();
    let learned = "applied: row counts that earlier queries observed: 9800, 20000";
    assert_eq!(verdict(&ctx, "feedback", asks).await, learned);
}

#[tokio::test]
async fn columns_of_all_types_are_analyzed_and_planned_with() {
    let (ctx, _) = layered();
    let types = "CREATE TABLE types AS SELECT v % 10 = 0 AS flag, arrow_cast(v % 100, 'Decimal128(12, 2)') AS price, \
                 arrow_cast(v % 365, 'Date32') AS day, to_timestamp(v) AS time, arrow_cast(v % 7, 'Float32') AS ratio, \
                 CASE WHEN v % 2 = 0 THEN 'NaN'::double ELSE v END AS nan, arrow_cast(concat('p', v % 3), 'Binary') AS bin, \
                 arrow_cast(concat('d', v % 4), 'Dictionary(Int32, Utf8)') AS dict, [v, 1] AS list, {k: v % 5} AS record, \
                 arrow_cast(v, 'Duration(Second)') AS span, arrow_cast(v, 'Decimal256(50, 2)') AS huge, arrow_cast(v, 'UInt64') AS big \
                 FROM generate_series(1, 2000) t(v)";
    query(&ctx, types).await.unwrap();
    let rows = query(&ctx, "ANALYZE TABLE types").await.unwrap();
    let rows = sorted_rows(&rows);
    let distinct = |column: &str| -> u64 {
        let row = rows.iter().find(|row| row.contains(&format!(" | {column} | "))).unwrap();
        row.split(" | ").nth(5).unwrap().parse().unwrap()
    };
    for (column, expected) in [
        ("flag", 2),
        ("price", 100),
        ("day", 365),
        ("time", 2000),
        ("ratio", 7),
        ("bin", 3),
        ("dict", 4),
        ("record", 5),
    ] {
        assert_eq!(distinct(column), expected, "{column}: {rows:?}");
    }
    for column in ["nan", "list", "span", "huge", "big"] {
        assert!((980..=2020).contains(&distinct(column)), "{column}: {rows:?}");
    }
    for filter in [
        "flag",
        "NOT flag",
        "price BETWEEN 3.50 AND 7",
        "day < DATE '1970-02-01'",
        "time >= TIMESTAMP '1970-01-01T00:30:00'",
        "ratio IN (1, 2)",
        "nan > 3",
        "bin = arrow_cast('p1', 'Binary')",
        "dict = 'd2' AND list[1] > 5",
        "record['k'] = 3 AND huge > 7",
        "1000 > big AND big <> 3",
    ] {
        let text = format!(
            "SELECT count(*) FROM (SELECT * FROM types WHERE {filter}) a JOIN types b ON a.time = b.time"
        );
        rows_as_plain(&ctx, &text).await;
    }
}

/// The table `sale` with another file of the same rows.
async fn rewrite(ctx: &SessionContext, folder: &Path) {
    sql(ctx, "DROP TABLE sale").await.unwrap();
    let path = folder.join("sale.parquet");
    let path = path.to_str().unwrap();
    sql(ctx, &format!("COPY ({}) TO '{path}' STORED AS PARQUET", TABLES[0].1)).await.unwrap();
    ctx.register_parquet("sale", path, ParquetReadOptions::default()).await.unwrap();
}

#[tokio::test]
async fn the_manuals_examples_run() {
    let manual = include_str!("../../docs/STATISTICS.md");
    let (ctx, _) = layered();
    let mut answers = String::new();
    for example in manual.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        for statement in ctx.parse_query(example).unwrap() {
            let planned = ctx.plan_query(statement).await.unwrap();
            let rows: Vec<_> = planned.execute().await.unwrap().map(Result::unwrap).collect().await;
            answers.push_str(&picture(&rows));
        }
    }
    for part in
        ["[7: 90.00 %]", "of datafusion.public.item, datafusion.public.sale, from ANALYZE", "observed: "]
    {
        assert!(answers.contains(part), "{part}: {answers}");
    }
}
