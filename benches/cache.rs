//! What the caches cost: a hit of a small answer, of many tables, of many files, of a large answer; and a miss. Plans that are
//! used again, and texts that come once. One file more than a hundred, whose states are kept.
//!
//! `cargo bench --workspace --all-features --bench cache`. Every hit looks at its tables: the numbers are those of exact answers.

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Files are old enough to be trusted.
fn write_aged(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    write_at(path, text, 0)
}

/// The same, `seconds` later.
fn write_at(path: &Path, text: impl AsRef<[u8]>, seconds: u64) -> Result<()> {
    std::fs::write(path, text)?;
    let file = std::fs::File::options().write(true).open(path)?;
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds))?;
    Ok(())
}

async fn run(ctx: &SessionContext, sql: &str) -> Result<usize> {
    let batches: Vec<_> = ctx.query(sql).await?.try_collect().await?;
    Ok(batches.iter().map(|batch| batch.num_rows()).sum())
}

/// Tables `f0` to `f9` of one file each, `many` of a thousand, and `big` in memory.
async fn session(folder: &Path) -> Result<SessionContext> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    ctx.install_slipstream(Slipstream::default())?;
    for setting in
        ["enabled = true", "max_bytes = '1GB'", "max_entry_bytes = '1GB'", "max_entry_rows = 100000000"]
    {
        run(&ctx, &format!("SET slipstream.cache.{setting}")).await?;
    }
    let external = async |name: &str, location: &Path| {
        let location = location.to_string_lossy();
        let how = "STORED AS CSV OPTIONS ('format.has_header' 'false')";
        run(&ctx, &format!("CREATE EXTERNAL TABLE {name} (a BIGINT) {how} LOCATION '{location}'")).await
    };
    for table in 0..10 {
        let file = folder.join(format!("{table}.csv"));
        write_aged(&file, "1\n2\n3\n")?;
        external(&format!("f{table}"), &file).await?;
    }
    let many = folder.join("many");
    std::fs::create_dir(&many)?;
    for file in 0..1000 {
        write_aged(&many.join(format!("{file}.csv")), "1\n")?;
    }
    external("many", &many).await?;
    run(&ctx, "CREATE TABLE big AS SELECT i, i * 3 AS j FROM generate_series(1, 6000000) AS s(i)").await?;
    Ok(ctx)
}

fn hits(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let folder = TempDir::new().unwrap_or_else(|error| panic!("{error}"));
    let ctx = runtime.block_on(session(folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let ten: Vec<String> = (0..10).map(|table| format!("SELECT max(a) AS a FROM f{table}")).collect();
    let ten = ten.join(" UNION ALL ");
    let queries = [
        ("one file", "SELECT a, count(*) FROM f0 GROUP BY a"),
        ("ten tables of one file", ten.as_str()),
        ("a thousand files", "SELECT count(*) FROM many"),
        ("a hundred megabytes", "SELECT i, j FROM big ORDER BY j"),
    ];
    let mut group = c.benchmark_group("hit");
    for (name, sql) in queries {
        runtime.block_on(run(&ctx, sql)).unwrap_or_else(|error| panic!("{error}"));
        // The plan is made once: what remains is the look-up, and the rows.
        let state = ctx.state();
        let planned: Result<LogicalPlan> =
            runtime.block_on(async { state.optimize(&state.create_logical_plan(sql).await?) });
        let planned = planned.unwrap_or_else(|error| panic!("{error}"));
        group.bench_function(format!("{name}, from its plan"), |b| {
            b.to_async(&runtime).iter(|| async {
                let plan = state.query_planner().create_physical_plan(&planned, &state).await?;
                datafusion::physical_plan::collect(plan, state.task_ctx()).await
            });
        });
        for (how, plans) in [("its text", false), ("its text, plans kept", true)] {
            set(&runtime, &ctx, &format!("plans = {plans}"));
            group.bench_function(format!("{name}, from {how}"), |b| {
                b.to_async(&runtime).iter(|| run(&ctx, sql));
            });
        }
        set(&runtime, &ctx, "plans = false");
    }
    group.finish();
}

fn set(runtime: &Runtime, ctx: &SessionContext, what: &str) {
    let set = runtime.block_on(run(ctx, &format!("SET slipstream.cache.{what}")));
    set.unwrap_or_else(|error| panic!("{error}"));
}

/// Asks what nobody asked before, each time.
fn other_texts(b: &mut Bencher<'_>, runtime: &Runtime, ctx: &SessionContext, number: &mut u64) {
    b.to_async(runtime).iter_batched(
        || {
            *number += 1;
            format!("SELECT a + {number} AS a, count(*) FROM f0 GROUP BY a")
        },
        async |text| run(ctx, &text).await,
        BatchSize::SmallInput,
    );
}

/// Queries that nobody asked before, with the cache and without.
fn misses(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let folder = TempDir::new().unwrap_or_else(|error| panic!("{error}"));
    let ctx = runtime.block_on(session(folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let mut number = 0_u64;
    let mut group = c.benchmark_group("miss");
    group.sample_size(200);
    for switch in ["off", "on"] {
        set(&runtime, &ctx, &format!("enabled = {}", switch == "on"));
        group.bench_function(format!("one file, {switch}"), |b| {
            other_texts(b, &runtime, &ctx, &mut number);
        });
    }
    group.finish();
}

/// The cache of plans, without that of answers: a text that is asked again, and texts that are asked once.
fn plans(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let folder = TempDir::new().unwrap_or_else(|error| panic!("{error}"));
    let ctx = runtime.block_on(session(folder.path())).unwrap_or_else(|error| panic!("{error}"));
    set(&runtime, &ctx, "enabled = false");
    let text = "SELECT f0.a, count(*) AS n FROM f0 JOIN f1 ON f0.a = f1.a WHERE f0.a > 1 GROUP BY f0.a ORDER BY n, a LIMIT 5";
    let mut group = c.benchmark_group("plan");
    let mut number = 0_u64;
    for (name, switch) in [("off", "plans = false"), ("on", "plans = true")] {
        set(&runtime, &ctx, switch);
        group.bench_function(format!("{name}, the same text"), |b| {
            b.to_async(&runtime).iter(|| run(&ctx, text));
        });
        group.bench_function(format!("{name}, another text each time"), |b| {
            other_texts(b, &runtime, &ctx, &mut number);
        });
    }
    group.finish();
}

/// A table of a hundred files of so many rows, and one more that is another each time.
async fn hundred_files(ctx: &SessionContext, table: &Path, rows: usize) -> Result<Vec<u8>> {
    std::fs::create_dir(table)?;
    let mut bytes = Vec::new();
    for file in 0..=100 {
        let path = table.join(format!("{file:03}.parquet"));
        let rows =
            format!("SELECT i * 7 % 1000 AS k, i * {file} AS v FROM generate_series(1, {rows}) AS s(i)");
        run(ctx, &format!("COPY ({rows}) TO '{}' STORED AS PARQUET", path.to_string_lossy())).await?;
        bytes = std::fs::read(&path)?;
        write_aged(&path, &bytes)?;
    }
    let location = table.to_string_lossy();
    run(ctx, "DROP TABLE IF EXISTS hundred").await?;
    run(ctx, &format!("CREATE EXTERNAL TABLE hundred STORED AS PARQUET LOCATION '{location}'")).await?;
    run(ctx, "SET slipstream.cache.file_aggregates = true").await?;
    Ok(bytes)
}

/// An aggregate over files of which one is new: of the whole, it should take the part that the file is. Files of about 200 kB,
/// of which a hundred take as long as planning and listing, and of 2 MB.
fn appended(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let folder = TempDir::new().unwrap_or_else(|error| panic!("{error}"));
    let ctx = runtime.block_on(session(folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let text = "SELECT k, sum(v), count(*), min(v), max(v) FROM hundred WHERE v % 3 <> 1 GROUP BY k";
    let plain = format!("/*+ PLAIN */ {text}");
    let mut group = c.benchmark_group("a hundred files and one");
    group.sample_size(20);
    for rows in [50_000, 500_000] {
        let table = folder.path().join(rows.to_string());
        let bytes = runtime.block_on(hundred_files(&ctx, &table, rows));
        let bytes = bytes.unwrap_or_else(|error| panic!("{error}"));
        let last = table.join("100.parquet");
        let mut seconds = 0;
        group.bench_function(format!("{rows} rows each, plain"), |b| {
            b.to_async(&runtime).iter(|| run(&ctx, &plain));
        });
        runtime.block_on(run(&ctx, text)).unwrap_or_else(|error| panic!("{error}"));
        group.bench_function(format!("{rows} rows each, one is new"), |b| {
            b.to_async(&runtime).iter_batched(
                || {
                    seconds += 1;
                    write_at(&last, &bytes, seconds).unwrap_or_else(|error| panic!("{error}"));
                },
                async |()| run(&ctx, text).await,
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, hits, misses, plans, appended);
criterion_main!(benches);
