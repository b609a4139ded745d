//! What the layer adds to planning: the same statements, planned with and without it.
//!
//! `cargo bench --workspace --all-features --bench planning`. Compare `plain` and `slipstream` of one statement in
//! one run; the target is five percent. Of joins of many relations, compare `slipstream` with `slipstream without
//! join_order`: the search for an order is to take 1 ms for 6 relations, 10 for 12 and 30 for 30.

use std::hint::black_box;

use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use tokio::runtime::Runtime;

const TABLES: [&str; 3] = [
    "CREATE TABLE part (p_key BIGINT, p_name VARCHAR, p_size INT)",
    "CREATE TABLE item (i_part BIGINT, i_order BIGINT, i_price DECIMAL(15, 2), i_date DATE)",
    "CREATE TABLE orders (o_key BIGINT, o_customer BIGINT, o_date DATE, o_status VARCHAR)",
];

const STATEMENTS: [(&str, &str); 4] = [
    ("constant", "SELECT 1"),
    ("filter", "SELECT sum(i_price) FROM item WHERE i_date < DATE '1995-01-01' AND i_order > 100"),
    (
        "join",
        "SELECT o_status, count(*), sum(i_price) FROM item JOIN orders ON i_order = o_key JOIN part ON i_part = p_key \
         WHERE p_size > 10 AND o_date > DATE '1995-01-01' GROUP BY o_status ORDER BY o_status LIMIT 10",
    ),
    ("nested_loop", "SELECT count(*) FROM item LEFT JOIN orders ON i_date < o_date"),
];

const RELATIONS: [usize; 3] = [6, 12, 30];

/// Joins of `relations` tables: of one with each of the others, and of each with the next.
fn joins(relations: usize) -> [(&'static str, String); 2] {
    let star = (1..relations).map(|i| format!(" JOIN r{i} ON r0.k{i} = r{i}.k"));
    let chain = (1..relations).map(|i| format!(" JOIN r{i} ON r{}.n = r{i}.k", i - 1));
    let filters: Vec<_> = (1..relations).step_by(2).map(|i| format!("r{i}.f < {i}")).collect();
    let text = |joins: String| format!("SELECT count(*) FROM r0{joins} WHERE {}", filters.join(" AND "));
    [("star", text(star.collect())), ("chain", text(chain.collect()))]
}

/// The tables of [`joins`], each with another number of rows.
fn tables(relations: usize) -> Vec<String> {
    let keys: String = (1..relations).map(|i| format!(", v % {} AS k{i}", 100 * (i + 1))).collect();
    (0..relations)
        .map(|i| {
            let keys = if i == 0 { &keys } else { "" };
            let rows = if i == 0 { 10_000 } else { 100 * (1 + i * 7 % relations) };
            format!(
                "CREATE TABLE r{i} AS SELECT v AS k, v % 100 AS f, v % 50 AS n{keys} FROM generate_series(1, {rows}) t(v)"
            )
        })
        .collect()
}

fn context(runtime: &Runtime, layer: bool) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    if layer {
        ctx.install_slipstream(Slipstream::default()).unwrap_or_else(|error| panic!("{error}"));
    }
    TABLES.iter().for_each(|table| run(runtime, &ctx, table));
    ctx
}

fn run(runtime: &Runtime, ctx: &SessionContext, statement: &str) {
    let rows = runtime.block_on(async { ctx.sql(statement).await?.collect().await });
    rows.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn plan(bencher: &mut Bencher<'_>, runtime: &Runtime, ctx: &SessionContext, statement: &str) {
    bencher.iter(|| {
        let plan = runtime.block_on(async { ctx.sql(statement).await?.create_physical_plan().await });
        black_box(plan).unwrap_or_else(|error| panic!("{statement}: {error}"));
    });
}

fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    for (name, statement) in STATEMENTS {
        let mut group = criterion.benchmark_group(name);
        for (engine, layer) in [("plain", false), ("slipstream", true)] {
            let ctx = context(&runtime, layer);
            group.bench_function(BenchmarkId::from_parameter(engine), |bencher| {
                plan(bencher, &runtime, &ctx, statement);
            });
        }
        group.finish();
    }
}

fn many_relations(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let (plain, layered) = (context(&runtime, false), context(&runtime, true));
    for table in RELATIONS.iter().max().map_or_else(Vec::new, |most| tables(*most)) {
        run(&runtime, &plain, &table);
        run(&runtime, &layered, &table);
    }
    // Else so few rows are not worth a search.
    run(&runtime, &layered, "SET slipstream.small_query.max_rows = 0");
    for relations in RELATIONS {
        for (shape, statement) in joins(relations) {
            let mut group = criterion.benchmark_group(format!("{shape} of {relations} relations"));
            group.sample_size(20);
            group.bench_function("plain", |bencher| plan(bencher, &runtime, &plain, &statement));
            for (engine, enabled) in [("slipstream", true), ("slipstream without join_order", false)] {
                run(&runtime, &layered, &format!("SET slipstream.join_order.enabled = {enabled}"));
                group.bench_function(engine, |bencher| plan(bencher, &runtime, &layered, &statement));
            }
            group.finish();
        }
    }
}

criterion_group!(benches, planning, many_relations);
criterion_main!(benches);
