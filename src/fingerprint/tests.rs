//! Which queries have one key, which have another, and which have none.

use std::hash::{BuildHasherDefault, DefaultHasher};

use super::*;
use datafusion::prelude::SessionContext;

async fn context() -> SessionContext {
    let ctx = SessionContext::new();
    for statement in [
        "CREATE TABLE t (a BIGINT, b BIGINT, s VARCHAR) AS VALUES (1, 2, 'x')",
        "CREATE TABLE u (a BIGINT, b BIGINT) AS VALUES (1, 2)",
        "CREATE VIEW v AS SELECT a, b FROM t WHERE a > 0",
    ] {
        ctx.sql(statement).await.unwrap().collect().await.unwrap();
    }
    ctx
}

async fn of(ctx: &SessionContext, sql: &str) -> Result<Fingerprint, Refusal> {
    let state = ctx.state();
    let plan = state.create_logical_plan(sql).await.unwrap();
    let started = state.execution_props().query_execution_start_time;
    fingerprint(&state.optimize(&plan).unwrap(), started.and_then(|started| started.timestamp_nanos_opt()))
}

async fn key(ctx: &SessionContext, sql: &str) -> Key {
    let mut found = of(ctx, sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
    found.tokens.extend(found.tables.iter().map(ScannedTable::address));
    Key::new(found.tokens, &BuildHasherDefault::<DefaultHasher>::new())
}

#[tokio::test]
async fn white_space_and_names_of_tables_do_not_matter() {
    let ctx = context().await;
    for (one, other) in [
        ("SELECT a, sum(b) FROM t GROUP BY a", "select  a , SUM( b )\nfrom t -- why\ngroup by 1"),
        ("SELECT t.a, u.b FROM t JOIN u ON t.a = u.a", "SELECT x.a, y.b FROM t x JOIN u AS y ON x.a = y.a"),
        (
            "SELECT a FROM (SELECT a, b FROM t) q WHERE b > 1",
            "SELECT a FROM (SELECT a, b FROM t) WHERE b > 1",
        ),
        ("SELECT a, b FROM v", "SELECT a, b FROM t WHERE a > 0"),
        ("SELECT a FROM t WHERE a > 1 + 1", "SELECT a FROM t WHERE a > 2"),
    ] {
        assert_eq!(key(&ctx, one).await, key(&ctx, other).await, "{one} | {other}");
    }
}

#[tokio::test]
async fn what_changes_an_answer_changes_the_key() {
    let ctx = context().await;
    let queries = [
        "SELECT a FROM t",
        "SELECT a AS other FROM t",
        "SELECT b FROM t",
        "SELECT a, b FROM t",
        "SELECT a FROM u",
        "SELECT a FROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = 2",
        "SELECT a FROM t WHERE b = 1.0",
        "SELECT a FROM t WHERE s = 'x'",
        "SELECT a FROM t WHERE s LIKE 'x_%y'",
        "SELECT a FROM t WHERE s NOT LIKE 'x_%y'",
        "SELECT a FROM t WHERE s ILIKE 'x_%y'",
        "SELECT a FROM t ORDER BY a",
        "SELECT a FROM t ORDER BY a DESC",
        "SELECT a FROM t ORDER BY a NULLS FIRST",
        "SELECT a FROM t ORDER BY a LIMIT 1",
        "SELECT a FROM t ORDER BY a LIMIT 2",
        "SELECT a FROM t ORDER BY a LIMIT 2 OFFSET 1",
        "SELECT DISTINCT a FROM t",
        "SELECT sum(a) FROM t",
        "SELECT sum(DISTINCT a) FROM t",
        "SELECT sum(a) FILTER (WHERE b > 1) FROM t",
        "SELECT max(a) FROM t",
        "SELECT CAST(a AS INT) AS a FROM t",
        "SELECT TRY_CAST(a AS INT) AS a FROM t",
        "SELECT t.a FROM t JOIN u ON t.a = u.a",
        "SELECT t.a FROM t JOIN u ON t.a = u.b",
        "SELECT t.a FROM t LEFT JOIN u ON t.a = u.a",
        "SELECT t.a FROM t RIGHT JOIN u ON t.a = u.a",
        "SELECT t.a FROM t FULL JOIN u ON t.a = u.a",
        "SELECT t.a FROM t LEFT JOIN u ON t.a = u.a AND u.b > 1",
        "SELECT a FROM t WHERE a IN (SELECT a FROM u)",
        "SELECT a FROM t WHERE a NOT IN (SELECT a FROM u)",
        "SELECT a FROM t WHERE a > (SELECT max(a) FROM u)",
        "SELECT a FROM t UNION ALL SELECT a FROM u",
        "SELECT sum(a) OVER (ORDER BY b) AS a FROM t",
        "SELECT sum(a) OVER (ORDER BY b ROWS 1 PRECEDING) AS a FROM t",
        "SELECT a FROM t WHERE b = 1 OR b = 2 OR b = 3 OR b = 4 OR b = 5",
    ];
    let mut keys = Vec::new();
    for query in queries {
        keys.push((query, key(&ctx, query).await));
    }
    for (at, (one, first)) in keys.iter().enumerate() {
        assert_eq!(*first, key(&ctx, one).await, "{one}");
        for (other, second) in &keys[at + 1..] {
            assert_ne!(first, second, "{one} | {other}");
        }
    }
}

#[tokio::test]
async fn what_has_no_answer_of_its_own_is_refused_with_the_reason() {
    let ctx = context().await;
    for (query, reason) in [
        ("SELECT a, random() FROM t", "random() has another value each time"),
        ("SELECT a, uuid() FROM t", "uuid() has another value each time"),
        ("SELECT a, now() FROM t", "now() is another time"),
        ("SELECT a FROM t WHERE now() - INTERVAL '1 day' < TIMESTAMP '2020-01-01'", ""),
        ("SELECT a FROM (SELECT a FROM t LIMIT 1) WHERE a > 0", "LIMIT without ORDER BY"),
        ("SELECT count(*) FROM (SELECT a FROM t LIMIT 1)", "LIMIT without ORDER BY"),
        ("SELECT a FROM t LIMIT 1 OFFSET 1", "LIMIT without ORDER BY"),
        ("INSERT INTO t VALUES (1, 2, 'y')", "only queries"),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT i FROM r",
            "recursive",
        ),
    ] {
        match (of(&ctx, query).await, reason) {
            // It is folded to a truth value, and has the same answer at any time.
            (Ok(_), "") => {}
            (Err(refusal), _) if !reason.is_empty() => {
                assert!(refusal.reason.contains(reason), "{query}: {refusal:?}")
            }
            (other, _) => panic!("{query}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_limit_counts_where_it_may_have_cut() {
    let ctx = context().await;
    for (query, below) in [
        ("SELECT a FROM t LIMIT 10", Some(10)),
        ("SELECT a, sum(b) FROM t GROUP BY a LIMIT 10", Some(10)),
        ("SELECT count(*) FROM t LIMIT 10", None),
        ("SELECT a FROM t ORDER BY a LIMIT 10", None),
        ("SELECT a FROM t", None),
    ] {
        assert_eq!(of(&ctx, query).await.unwrap().determined_below, below, "{query}");
    }
}

#[tokio::test]
async fn the_value_of_today_is_in_the_key() {
    let ctx = context().await;
    let today = key(&ctx, "SELECT a FROM t WHERE current_date > DATE '2020-01-01' OR a = 1").await;
    assert_eq!(today, key(&ctx, "SELECT a FROM t WHERE current_date > DATE '2020-01-01' OR a = 1").await);
    let query = "SELECT current_date AS d FROM t";
    assert_eq!(key(&ctx, query).await, key(&ctx, query).await);
}

#[tokio::test]
async fn tables_in_subqueries_are_found() {
    let ctx = context().await;
    for query in [
        "SELECT a FROM t WHERE a IN (SELECT a FROM u)",
        "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
        "SELECT a FROM t WHERE a > (SELECT max(a) FROM u)",
        "SELECT a, (SELECT max(a) FROM u) FROM t",
        "SELECT a FROM v UNION ALL SELECT a FROM u",
    ] {
        let mut names: Vec<_> =
            of(&ctx, query).await.unwrap().tables.iter().map(|table| table.name.table().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["t", "u"], "{query}");
    }
}
