//! What makes another question of the same text, and what never leaves its process.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{Slipstream, SlipstreamContextExt, TableVersions};

use super::{Ground, ask, from_disk, on_disk, plain, query, sql, stored, table};
use crate::support::{config, picture};

/// Whether a session that was prepared by `statements` answers `text` from what is there; rows are the plain engine's anyway.
async fn is_answered(ground: &Ground, statements: &[&str], text: &str) -> bool {
    let (ctx, slipstream) = ground.session().await;
    for statement in statements {
        sql(&ctx, statement).await.unwrap();
    }
    let (outcome, rows) = ask(&ctx, &slipstream, text).await;
    assert_eq!(rows, plain(&ctx, text).await, "{statements:?}");
    assert!(["hit on disk", "stored"].contains(&outcome.as_str()), "{statements:?}: {outcome}");
    outcome == "hit on disk"
}

#[tokio::test]
async fn settings_tags_and_schemas_are_a_part_of_the_question() {
    let ground = Ground::new();
    let text = "SELECT a, a + 1 AS b FROM f ORDER BY a";
    assert_eq!(ground.asked(text).await, stored(&["1 | 2", "2 | 3"]));
    let declared =
        |columns: &str, options: &str| table(&ground.data(), options).replace("(a BIGINT)", columns);
    let again = |columns: &str, options: &str| vec!["DROP TABLE f".to_owned(), declared(columns, options)];
    for statements in [
        vec!["SET slipstream.cache.tag = 'other'".to_owned()],
        vec!["SET datafusion.execution.time_zone = '+02:00'".to_owned()],
        vec!["SET datafusion.sql_parser.default_null_ordering = 'nulls_first'".to_owned()],
        again("(a INT)", ""),
        again("(a BIGINT NOT NULL)", ""),
        again("(a BIGINT, x VARCHAR)", ", 'format.delimiter' ';', 'format.truncated_rows' 'true'"),
        again("(a BIGINT)", ", 'format.comment' '2'"),
        again("(a BIGINT)", ", 'format.delimiter' ';'"),
    ] {
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        assert!(!is_answered(&ground, &statements, text).await, "{statements:?}");
        assert!(is_answered(&ground, &statements, text).await, "{statements:?}: its own it is given");
    }
    for harmless in [
        vec!["SET datafusion.execution.target_partitions = 7".to_owned()],
        vec!["SET slipstream.cache.max_entry_rows = 77".to_owned()],
        again("(a BIGINT)", ""),
        vec![format!("CREATE VIEW v AS SELECT 1"), "DROP VIEW v".to_owned()],
    ] {
        let statements: Vec<&str> = harmless.iter().map(String::as_str).collect();
        assert!(is_answered(&ground, &statements, text).await, "{statements:?}");
    }
    assert_eq!(
        ground.asked("SELECT g.a, g.a + 1 AS b FROM f AS g ORDER BY g.a ASC").await,
        from_disk(&["1 | 2", "2 | 3"])
    );
}

/// The same text of two tables: each has its own answer.
#[tokio::test]
async fn a_table_is_its_files_and_not_its_name() {
    let (one, other) = (Ground::new(), Ground::new());
    other.write("1.csv", "7\n", 100);
    let text = "SELECT a FROM f";
    assert_eq!(one.asked(text).await, stored(&["1", "2"]));
    let (ctx, slipstream) = one.session().await;
    sql(&ctx, "DROP TABLE f").await.unwrap();
    sql(&ctx, &table(&other.data(), "")).await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, text).await, stored(&["7"]));
    let renamed = table(&one.data(), "").replace("TABLE f", "TABLE other_name");
    sql(&ctx, &renamed).await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM other_name").await, from_disk(&["1", "2"]));
}

#[derive(Debug)]
struct Declared;

#[async_trait]
impl TableVersions for Declared {
    fn table(&self, table: &dyn TableProvider) -> Option<String> {
        (table as &dyn Any).is::<datafusion::datasource::listing::ListingTable>().then(|| "f".to_owned())
    }

    async fn version(&self, _table: &dyn TableProvider) -> Result<String> {
        Ok("1".to_owned())
    }
}

#[tokio::test]
async fn what_is_not_the_same_in_another_process_stays_in_memory() {
    let ground = Ground::new();
    let (ctx, slipstream) = ground.session().await;
    // By `ctx.sql()` its rows would be an answer too, and be written when they may.
    query(&ctx, "CREATE TABLE m AS VALUES (1)").await.unwrap();
    ctx.register_udf(create_udf(
        "abs",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(|args: &[ColumnarValue]| Ok(args[0].clone())),
    ));
    let before = ground.files(".answer").len();
    for (text, reason) in [
        ("SELECT column1 FROM m", "disk_cache: table m is no table of files"),
        ("SELECT a FROM f, m", "disk_cache: table m is no table of files"),
        ("SELECT abs(a) FROM f", "disk_cache: abs() is not DataFusion's own"),
    ] {
        assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored", "in memory: {text}");
        let log = "SELECT array_to_string(rules_refused, '; ') FROM slipstream.queries";
        let said = picture(&query(&ctx, &format!("{log} WHERE text = '{text}'")).await.unwrap());
        assert!(said.contains(reason), "{text}: {said}");
        query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
        let explained = picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
        assert!(explained.contains(&reason.replacen(": ", ": refused: ", 1)), "{explained}");
    }
    assert_eq!(on_disk(&ctx, "refused", "table").await, 2.0);
    assert_eq!(on_disk(&ctx, "refused", "function").await, 1.0);
    drop((ctx, slipstream));
    assert_eq!(ground.files(".answer").len(), before);

    let ctx = SessionContext::new_with_config(config());
    let slipstream = Slipstream::default().with_table_versions(Arc::new(Declared));
    ctx.install_slipstream(slipstream.clone()).unwrap();
    for statement in ground.setup() {
        sql(&ctx, &statement).await.unwrap();
    }
    assert_eq!(ask(&ctx, &slipstream, "SELECT a FROM f").await, stored(&["1", "2"]));
    assert_eq!(on_disk(&ctx, "refused", "table").await, 1.0, "its owner declares its versions");
    assert_eq!(ground.files(".answer").len(), before);
}

/// What a random number or the time would be, nobody keeps; and a limit that leaves its rows open.
#[tokio::test]
async fn what_is_not_kept_in_memory_is_not_on_disk() {
    let ground = Ground::new();
    for text in ["SELECT random() FROM f", "SELECT now(), a FROM f", "SELECT a FROM f LIMIT 1"] {
        assert_ne!(ground.asked(text).await.0, "stored", "{text}");
    }
    assert_eq!(ground.files(".answer").len(), 0);
}

/// Parquet with partitions in its paths, an order that is declared, and options of its own.
#[tokio::test]
async fn parquet_with_partitions_and_an_order_is_told_apart() {
    let ground = Ground::new();
    let (ctx, slipstream) = ground.session().await;
    let place = ground.folder.join("parquet");
    let write = format!(
        "COPY (SELECT a, a % 2 AS p FROM f) TO '{}' STORED AS PARQUET PARTITIONED BY (p)",
        place.display()
    );
    query(&ctx, &write).await.unwrap();
    for p in 0..2 {
        for file in std::fs::read_dir(place.join(format!("p={p}"))).unwrap() {
            crate::result_cache::age(&file.unwrap().path(), 100);
        }
    }
    let declare = |kind: &str, order: &str| {
        format!(
            "CREATE OR REPLACE EXTERNAL TABLE g (a BIGINT, p {kind}) STORED AS PARQUET PARTITIONED BY (p) {order} LOCATION '{}/'",
            place.display()
        )
    };
    let text = "SELECT p, a FROM g ORDER BY a";
    for (kind, order) in
        [("INT", ""), ("VARCHAR", ""), ("INT", "WITH ORDER (a)"), ("INT", "WITH ORDER (a DESC)")]
    {
        sql(&ctx, &declare(kind, order)).await.unwrap();
        assert_eq!(ask(&ctx, &slipstream, text).await.0, "stored", "{kind} {order}");
    }
    drop((ctx, slipstream));
    let (ctx, slipstream) = ground.session().await;
    sql(&ctx, &declare("VARCHAR", "")).await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, text).await, from_disk(&["0 | 2", "1 | 1"]));
}
