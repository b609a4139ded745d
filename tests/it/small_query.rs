//! Small queries: which ones are taken for small, and what that does to their plans. That their rows are the same is shown by the
//! random queries, and by the statements of `tests/slt` with the caches on.

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use tempfile::TempDir;

use crate::support::{layered, picture, query, sql, verdict};

/// A table of 600 rows with a key, one in memory with few values of a text, and one of four files.
async fn tables() -> (SessionContext, TempDir) {
    let (ctx, _) = layered();
    let folder = TempDir::new().unwrap();
    for statement in [
        "SET slipstream.small_query.max_rows = 6000".to_owned(),
        "CREATE TABLE few AS SELECT i AS k, i % 7 AS g, CAST(i % 3 AS VARCHAR) AS s FROM generate_series(0, 599) AS t(i)".to_owned(),
    ] {
        sql(&ctx, &statement).await.unwrap();
    }
    for number in 0..4 {
        let path = folder.path().join(format!("{number}.parquet"));
        let copy = format!(
            "COPY (SELECT k + {number} * 600 AS k, s FROM few) TO '{}' STORED AS PARQUET",
            path.display()
        );
        sql(&ctx, &copy).await.unwrap();
    }
    let wide = folder.path().join("wide");
    let copy = format!(
        "COPY (SELECT k, repeat(md5(CAST(k AS VARCHAR)), 300) AS text FROM few) TO '{}' STORED AS PARQUET",
        wide.display()
    );
    sql(&ctx, &copy).await.unwrap();
    ctx.register_parquet("wide", wide.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let path = folder.path().to_str().unwrap();
    ctx.register_parquet("files", path, ParquetReadOptions::default()).await.unwrap();
    (ctx, folder)
}

async fn explained(ctx: &SessionContext, text: &str) -> String {
    picture(&query(ctx, &format!("EXPLAIN {text}")).await.unwrap())
}

#[tokio::test]
async fn a_small_query_has_one_partition_and_no_rules_that_save_work() {
    let (ctx, _folder) = tables().await;
    for (text, rows) in [
        ("SELECT g, count(*) FROM few GROUP BY g", 600),
        // Each row of the one finds one of the other, by the bounds in the files' footers.
        ("SELECT b.g, sum(a.k) FROM files a JOIN few b ON a.k = b.k GROUP BY b.g", 2400 + 600 + 2400),
        ("SELECT k FROM files WHERE k > (SELECT max(k) FROM few)", 2400 + 600),
        ("SELECT max(k) FROM files WHERE k > 100 GROUP BY k % 5", 2400),
        ("SELECT k FROM few UNION ALL SELECT k FROM files", 3000),
        // Eight rows for each call.
        ("SELECT abs(k) FROM few", 600 + 8 * 600),
    ] {
        let plan = explained(&ctx, text).await;
        assert!(
            plan.contains(&format!("small_query: applied: at most {rows} rows, in one partition")),
            "{plan}"
        );
        assert!(plan.contains("join_order: refused: small_query"), "{plan}");
        assert!(!plan.contains("RoundRobin") && !plan.contains("join_order: applied"), "{plan}");
        assert!(!plan.contains("DynamicFilter"), "{plan}");
        sql(&ctx, "SET slipstream.small_query.max_rows = 0").await.unwrap();
        let plan = explained(&ctx, text).await;
        assert!(!plan.contains("small_query"), "{plan}");
        sql(&ctx, "SET slipstream.small_query.max_rows = 6000").await.unwrap();
    }
}

/// Files are opened side by side, however few rows they have: each may be far away.
#[tokio::test]
async fn files_are_still_read_side_by_side() {
    let (ctx, _folder) = tables().await;
    let plan = explained(&ctx, "SELECT s, max(k) FROM files GROUP BY s").await;
    assert!(plan.contains("small_query: applied"), "{plan}");
    assert!(plan.contains("file_groups={2 groups"), "{plan}");
}

#[tokio::test]
async fn what_is_not_certain_to_be_small_is_planned_as_usual() {
    let (ctx, _folder) = tables().await;
    let slow = create_udf(
        "slow",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        std::sync::Arc::new(|args: &[ColumnarValue]| Ok(args[0].clone())),
    );
    ctx.register_udf(slow);
    for (text, why) in [
        ("SELECT a.k FROM files a JOIN files b ON a.k = b.k", "it may handle more than 6000 rows"),
        // Each text has two hundred rows on both sides.
        ("SELECT a.k FROM few a JOIN few b ON a.s = b.s", "it may handle more than 6000 rows"),
        ("SELECT a.k FROM few a JOIN few b ON a.k < b.k", "it may handle more than 6000 rows"),
        ("SELECT a.k FROM few a, few b", "it may handle more than 6000 rows"),
        ("SELECT text FROM wide WHERE k > 3", "it may handle more than 6000 rows"),
        ("SELECT slow(k) FROM few", "nobody knows how long slow() takes"),
        ("SELECT k FROM few WHERE slow(k) > 1", "nobody knows how long slow() takes"),
        (
            "SELECT /*+ SET(datafusion.execution.batch_size = 77) */ k FROM few",
            "it has hints, which are obeyed",
        ),
        ("SELECT unnest([k, g]) FROM few", "it has a UnnestExec"),
    ] {
        assert_eq!(verdict(&ctx, "small_query", text).await, format!("refused: {why}"), "{text}");
    }
}
