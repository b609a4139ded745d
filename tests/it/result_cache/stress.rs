//! Random writers, readers, DDL, evictions and cancels, in any order: every answer is the plain engine's.
//!
//! Short by default; `cargo test --workspace --all-features --test it result_cache::stress -- --include-ignored` runs the
//! long one. A failure says its seed.

use std::path::Path;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use datafusion::prelude::SessionContext;
use datafusion_slipstream::SlipstreamContextExt;
use futures::StreamExt;
use tempfile::TempDir;

use super::{cached, counter, external, recomputed, write_aged};
use crate::support::{query, sorted_rows, sql};

/// Numbers that follow from a seed (xorshift64*: Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

const QUERIES: &[&str] = &[
    "SELECT a, sum(b) FROM t GROUP BY a",
    "SELECT count(*), min(a), max(b) FROM t",
    "SELECT a FROM t WHERE a IN (SELECT a FROM u)",
    "SELECT t.a, u.a FROM t FULL JOIN u ON t.a = u.a",
    "SELECT a FROM v",
    "SELECT sum(a) FROM f",
    "SELECT a FROM f WHERE a > (SELECT min(a) FROM u)",
    "SELECT a, (SELECT count(*) FROM f) FROM v",
    "SELECT * FROM t ORDER BY a, b LIMIT 3",
    "SELECT a FROM t LIMIT 2",
    "SELECT twice(a) FROM u",
    // Broader and narrower ones.
    "SELECT a, b FROM t",
    "SELECT b FROM t WHERE a > 1",
    "SELECT count(*), sum(b) FROM t WHERE a < 3",
    "SELECT a, count(*) FROM f WHERE a > 5 GROUP BY a",
    "SELECT count(*) FROM f WHERE a > 20",
    // Parts in common, and aggregates over files.
    "SELECT a, sum(b) AS s FROM t GROUP BY a HAVING sum(b) > 20",
    "SELECT x.a, x.s FROM (SELECT a, sum(b) AS s FROM t GROUP BY a) x JOIN u ON u.a = x.a",
    "SELECT t.a, u.a AS other, t.b FROM t JOIN u ON t.a = u.a ORDER BY t.b, t.a LIMIT 4",
    "SELECT t.a, u.a AS other, t.b FROM t JOIN u ON t.a = u.a WHERE random() >= 0",
    "SELECT a % 3 AS m, count(*), sum(a), min(a) FROM f GROUP BY a % 3",
    "SELECT m FROM (SELECT a % 3 AS m, count(*) AS n, sum(a) AS s, min(a) AS l FROM f GROUP BY a % 3) WHERE n + s + l > 0",
    "SELECT v.a, x.s FROM v JOIN (SELECT sum(a) AS s FROM f WHERE a > 12) x ON v.a < x.s",
    "SELECT a, (SELECT sum(a) FROM f), (SELECT max(a) FROM f) FROM u",
    "SELECT a, sum(b) OVER (ORDER BY a, b) AS running FROM t",
    "SELECT max(running) FROM (SELECT a, sum(b) OVER (ORDER BY a, b) AS running FROM t) WHERE a > 0",
];

/// One change of the data, of a definition, of the settings or of the cache.
async fn change(ctx: &SessionContext, dice: &mut Dice, folder: &Path, step: u64) {
    let number = dice.roll(5);
    let file = folder.join(format!("{number}.csv"));
    let statement = match dice.roll(15) {
        0 => format!("INSERT INTO t VALUES ({number}, {step})"),
        1 => format!("INSERT INTO u VALUES ({number})"),
        2 => format!("UPDATE t SET b = b + 1 WHERE a = {number}"),
        3 => format!("DELETE FROM t WHERE a = {number}"),
        4 => format!("DELETE FROM u WHERE a = {number}"),
        5 => format!("CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > {number}"),
        6 => format!("CREATE OR REPLACE TABLE u (a BIGINT) AS VALUES ({number}), ({step})"),
        7 => "SELECT slipstream_cache_clear()".to_owned(),
        8 => "SELECT slipstream_cache_drop_table('t')".to_owned(),
        9 => format!("SET slipstream.cache.max_entries = {}", 1 + number),
        10 => {
            let factor = i64::try_from(step).unwrap();
            ctx.register_udf(twice(factor));
            return;
        }
        11 => {
            // As many bytes as before, and a time of its own.
            write_aged(&file, &format!("{}\n", 10 + dice.roll(90)), 100 + step);
            return;
        }
        12 => {
            let _ = std::fs::remove_file(&file);
            return;
        }
        13 => "SET datafusion.execution.batch_size = 1".to_owned(),
        _ => "SET datafusion.execution.batch_size = 8192".to_owned(),
    };
    query(ctx, &statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn twice(factor: i64) -> datafusion::logical_expr::ScalarUDF {
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    use std::sync::Arc;

    let function = move |arguments: &[ColumnarValue]| {
        let column = arguments[0].clone().into_array(1)?;
        let column = column.as_any().downcast_ref::<Int64Array>().unwrap();
        let product: Int64Array = column.iter().map(|value| value.map(|value| value * factor)).collect();
        Ok(ColumnarValue::Array(Arc::new(product)))
    };
    create_udf("twice", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(function))
}

/// `parts`: whether parts of queries are kept, too.
async fn setup(parts: bool) -> (SessionContext, TempDir) {
    let (ctx, _) = cached().await;
    for tier in ["file_aggregates", "subplans"] {
        sql(&ctx, &format!("SET slipstream.cache.{tier} = {parts}")).await.unwrap();
    }
    sql(&ctx, "SET slipstream.cache.plans = true").await.unwrap();
    sql(&ctx, "SET slipstream.cache.broader = true").await.unwrap();
    let folder = TempDir::new().unwrap();
    for number in 0..5 {
        write_aged(&folder.path().join(format!("{number}.csv")), &format!("{}\n", number + 10), 100);
    }
    external(&ctx, "f", folder.path()).await;
    sql(&ctx, "CREATE VIEW v AS SELECT a FROM t").await.unwrap();
    ctx.register_udf(twice(2));
    (ctx, folder)
}

/// Steps one after the other: after each change, some queries, each against recomputation. Some are dropped half way.
async fn one_after_the_other(seed: u64, steps: u64) {
    let (ctx, folder) = setup(!seed.is_multiple_of(3)).await;
    let mut dice = Dice(seed | 1);
    for step in 0..steps {
        if dice.roll(3) == 0 {
            change(&ctx, &mut dice, folder.path(), step).await;
        }
        let text = QUERIES[usize::try_from(dice.roll(QUERIES.len() as u64)).unwrap()];
        if dice.roll(6) == 0 {
            let mut stream = ctx.query(text).await.unwrap();
            let _ = stream.next().await;
            continue;
        }
        let rows = sorted_rows(&query(&ctx, text).await.unwrap());
        if text.ends_with("LIMIT 2") {
            assert!(rows.len() <= 2, "seed {seed}, step {step}: {rows:?}");
            continue;
        }
        assert_eq!(rows, recomputed(&ctx, text).await, "seed {seed}, step {step}: {text}");
    }
    assert!(counter(&ctx, "hits").await > 0.0, "seed {seed}: nothing came from the cache");
    assert!(counter(&ctx, "broader_hits").await > 0.0, "seed {seed}: nothing came from a broader answer");
    assert_eq!(counter(&ctx, "part_hits").await > 0.0, !seed.is_multiple_of(3), "seed {seed}: parts");
}

/// Readers and a writer at one time. A reader's answer is one of a moment between its begin and its end: sums that only grow
/// are between what they were before and what they are after.
async fn at_one_time(seed: u64, rounds: u64) {
    let (ctx, _folder) = setup(!seed.is_multiple_of(2)).await;
    let sum = async |ctx: &SessionContext, text: &str| {
        crate::support::single(&query(ctx, text).await.unwrap()).parse::<i64>().unwrap()
    };
    const TEXT: &str = "SELECT sum(b) FROM t";
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let ctx = ctx.clone();
            let mut dice = Dice(seed * 31 + reader + 1);
            SpawnedTask::spawn(async move {
                for _ in 0..rounds {
                    if dice.roll(5) == 0 {
                        let mut stream = ctx.query(TEXT).await.unwrap();
                        let _ =
                            tokio::time::timeout(Duration::from_micros(dice.roll(300)), stream.next()).await;
                        continue;
                    }
                    if dice.roll(3) == 0 {
                        query(&ctx, "SELECT a, b FROM t").await.unwrap();
                    }
                    let before = sum(&ctx, &format!("/*+ PLAIN */ {TEXT}")).await;
                    let answer = sum(&ctx, TEXT).await;
                    let after = sum(&ctx, &format!("/*+ PLAIN */ {TEXT}")).await;
                    assert!(
                        (before..=after).contains(&answer),
                        "seed {seed}: {before} <= {answer} <= {after}"
                    );
                }
            })
        })
        .collect();
    for step in 0..rounds {
        query(&ctx, &format!("INSERT INTO t VALUES (1, {})", step + 1)).await.unwrap();
        if step % 7 == 0 {
            query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for reader in readers {
        reader.join().await.unwrap();
    }
    let (answer, now) = (sum(&ctx, TEXT).await, sum(&ctx, &format!("/*+ PLAIN */ {TEXT}")).await);
    assert_eq!(answer, now, "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_plain_engines() {
    for seed in [3, 17, 19, 25] {
        one_after_the_other(seed, 120).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_writes_of_others_at_once() {
    at_one_time(5, 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes"]
async fn for_long() {
    for seed in 100..160 {
        one_after_the_other(seed, 400).await;
        at_one_time(seed, 100).await;
    }
}
