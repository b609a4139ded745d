//! What the layer adds to planning: the same statements, planned with and without it.
//!
//! `cargo bench --workspace --all-features --bench planning`. Compare `plain` and `slipstream` of one statement in
//! one run; the target is five percent.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
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

fn context(runtime: &Runtime, layer: bool) -> SessionContext {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    if layer {
        ctx.install_slipstream(Slipstream::default()).unwrap_or_else(|error| panic!("{error}"));
    }
    for table in TABLES {
        runtime.block_on(async { ctx.sql(table).await }).unwrap_or_else(|error| panic!("{table}: {error}"));
    }
    ctx
}

fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    for (name, statement) in STATEMENTS {
        let mut group = criterion.benchmark_group(name);
        for (engine, layer) in [("plain", false), ("slipstream", true)] {
            let ctx = context(&runtime, layer);
            group.bench_function(BenchmarkId::from_parameter(engine), |bencher| {
                bencher.iter(|| {
                    let plan =
                        runtime.block_on(async { ctx.sql(statement).await?.create_physical_plan().await });
                    black_box(plan).unwrap_or_else(|error| panic!("{statement}: {error}"));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, planning);
criterion_main!(benches);
