//! Products of decimals in 64 bits: the same values, types, NULLs and errors as on the plain engine.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Decimal128Array, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionContext, col};

use crate::support::{config, picture, query, sorted_rows, sql, verdict, with_layer};

/// 10,000 rows of all widths of decimals; some are NULL, some negative, and `big` needs more than 64 bits.
const ROWS: &str = "CREATE TABLE t AS SELECT \
    v AS id, \
    v % 3 AS kind, \
    CASE WHEN v % 7 <> 0 THEN arrow_cast((v - 5000) * 1.25, 'Decimal128(15, 2)') END AS price, \
    CASE WHEN v % 11 <> 0 THEN arrow_cast((v % 11) * 0.01, 'Decimal128(15, 2)') END AS rate, \
    arrow_cast(v * 0.0001, 'Decimal128(20, 6)') AS fine, \
    arrow_cast(12345678901234567890.0 + v, 'Decimal128(30, 1)') AS big, \
    arrow_cast(v, 'Decimal128(38, 0)') * arrow_cast(100000000000000000, 'Decimal128(18, 0)') AS huge, \
    arrow_cast((v % 100) * 0.5, 'Decimal32(6, 1)') AS d32, \
    arrow_cast((v % 100) * 0.5, 'Decimal64(12, 1)') AS d64, \
    arrow_cast((v % 100) * 0.5, 'Decimal256(50, 1)') AS d256 \
    FROM generate_series(1, 10000) t(v)";

/// Queries, and whether the rule applies to them.
const QUERIES: &[(&str, bool)] = &[
    ("SELECT id, price * (1 - rate) FROM t", true),
    ("SELECT id, price * (1 - rate) * (1 + rate) AS a, price * rate AS b FROM t", true),
    ("SELECT id, -price * rate, price * -1, price * price * price FROM t", true),
    ("SELECT id, price + fine, fine - price, price - price FROM t", true),
    ("SELECT id, big * rate, big * price, price * 3, price * NULL FROM t", true),
    ("SELECT id, (price * rate) / (rate + 1), CAST(price * rate AS DOUBLE) FROM t", true),
    ("SELECT id, CASE WHEN rate > 0.05 THEN price * (1 - rate) ELSE 0 END FROM t", true),
    ("SELECT kind, sum(price * (1 - rate)), avg(price * rate), count(*) FROM t GROUP BY kind", true),
    ("SELECT sum(price * rate) / sum(price), min(price * fine), max(price * fine) FROM t", true),
    ("SELECT kind, sum(DISTINCT price * 2) FILTER (WHERE rate > 0) FROM t GROUP BY kind", true),
    ("SELECT kind, sum(CASE WHEN rate > 0.05 THEN price * (1 - rate) ELSE 0 END) FROM t GROUP BY kind", true),
    ("SELECT id, price * d32, price * d64 FROM t", true),
    ("SELECT id, price * rate FROM t WHERE price * rate > 10 AND price * (1 - rate) < 1000", true),
    ("SELECT id FROM t WHERE price * rate > 10 AND id > 100 AND kind = 1", true),
    ("SELECT id FROM t WHERE price * (1 - rate) > 1000 OR price * rate IS NULL", true),
    ("SELECT id, price * rate FROM t WHERE id < 0", true),
    ("SELECT id, price * rate AS amount FROM t ORDER BY amount, id LIMIT 20", true),
    ("SELECT kind, array_agg(price * rate ORDER BY id) FROM t WHERE id < 30 GROUP BY kind", false),
    ("SELECT id, d32 * d32, d64 * d64, d256 * d256 FROM t", false),
    ("SELECT id, price + rate, price / 3, id * 2 FROM t", false),
    ("SELECT sum(price) FROM t", false),
];

async fn session() -> SessionContext {
    let (ctx, _) = with_layer(SessionContext::new_with_config(config().with_batch_size(1000)));
    sql(&ctx, ROWS).await.unwrap();
    ctx
}

/// The rows, or the error, with the rule and without the layer.
async fn both(ctx: &SessionContext, text: &str) -> [Result<Vec<String>, String>; 2] {
    let mut found = vec![];
    for enabled in [true, false] {
        sql(ctx, &format!("SET slipstream.enabled = {enabled}")).await.unwrap();
        let rows = query(ctx, text).await;
        found.push(rows.map(|rows| sorted_rows(&rows)).map_err(|error| error.strip_backtrace()));
    }
    sql(ctx, "SET slipstream.enabled = true").await.unwrap();
    found.try_into().unwrap()
}

#[tokio::test]
async fn the_same_values() {
    let ctx = session().await;
    for (text, applies) in QUERIES {
        let [layered, plain] = both(&ctx, text).await;
        assert_eq!(layered, plain, "{text}");
        assert!(plain.is_ok(), "{text}: {plain:?}");
        let verdict = verdict(&ctx, "narrow_decimals", text).await;
        assert_eq!(verdict.starts_with("applied: "), *applies, "{text}: {verdict}");
    }
}

#[tokio::test]
async fn an_overflow_is_the_same_error() {
    let ctx = session().await;
    for text in [
        "SELECT huge * huge FROM t",
        "SELECT sum(huge * big * price) FROM t",
        "SELECT id FROM t WHERE huge * big * price > 0",
    ] {
        let [layered, plain] = both(&ctx, text).await;
        assert!(plain.as_ref().is_err_and(|error| error.contains("verflow")), "{text}");
        assert_eq!(layered, plain, "{text}");
        assert!(verdict(&ctx, "narrow_decimals", text).await.starts_with("applied: "), "{text}");
    }
}

/// The plan is printed as before: the expressions look like those that they replace.
#[tokio::test]
async fn the_plan_looks_the_same_and_the_rule_can_be_switched_off() {
    let ctx = session().await;
    let text = "SELECT kind, sum(price * (1 - rate)), sum(price * (1 - rate) * (1 + rate)) FROM t \
        WHERE rate >= 0 AND price > 0 GROUP BY kind";
    let plan = async |setting: &str| {
        sql(&ctx, setting).await.unwrap();
        let plan = picture(&query(&ctx, &format!("EXPLAIN FORMAT INDENT {text}")).await.unwrap());
        let (plan, verdicts) = plan.split_once("slipstream").unwrap();
        (plan.to_owned(), verdicts.to_owned())
    };
    let (on, verdicts) = plan("SET slipstream.narrow_decimals.enabled = true").await;
    assert!(verdicts.contains("narrow_decimals: applied: "), "{verdicts}");
    let (off, verdicts) = plan("SET slipstream.narrow_decimals.enabled = false").await;
    assert!(!verdicts.contains("narrow_decimals: applied"), "{verdicts}");
    assert_eq!(on, off);
}

/// DataFusion knows by the expression that the rows are in its order, or that it is constant.
#[tokio::test]
async fn what_is_known_of_a_product_is_kept() {
    let ctx = session().await;
    let decimals = |values: [i128; 4]| -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(15, 2).unwrap())
    };
    let columns = [("a", decimals([100, 200, 300, 900])), ("b", decimals([500, 400, 300, 200]))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    let order = (col("a") * col("b")).sort(true, false);
    ctx.register_table("o", Arc::new(table.with_sort_order(vec![vec![order]]))).unwrap();
    for text in
        ["SELECT a * b AS p FROM o ORDER BY p", "SELECT a * b AS p, a FROM o WHERE a * b = 9 ORDER BY p"]
    {
        let [layered, plain] = both(&ctx, text).await;
        assert_eq!(layered, plain, "{text}");
        let plan = picture(&query(&ctx, &format!("EXPLAIN {text}")).await.unwrap());
        assert!(!plan.contains("SortExec"), "{plan}");
        assert_eq!(
            verdict(&ctx, "narrow_decimals", text).await,
            "refused: the products of decimals are known to be ordered or constant"
        );
    }
    assert!(verdict(&ctx, "narrow_decimals", "SELECT a * (b + 1) FROM o").await.starts_with("applied: "));
}
