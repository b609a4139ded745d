//! The layer in an embedder's program: install it, ask, and look at what it did.
//!
//! `cargo run --example quickstart`

use datafusion::arrow::util::pretty::print_batches;
use datafusion::common::Result;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<()> {
    // The service's own context, however it is built; the layer is the one line below it.
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    ctx.install_slipstream(Slipstream::default())?;

    show(
        &ctx,
        "CREATE TABLE reading AS SELECT i AS at, i % 7 AS sensor FROM generate_series(1, 10000) AS s(i)",
    )
    .await?;
    show(&ctx, "SELECT sensor, count(*) AS readings FROM reading GROUP BY sensor ORDER BY sensor LIMIT 3")
        .await?;

    // What the layer did to a plan, and why it left others alone.
    show(&ctx, "EXPLAIN SELECT a.at FROM reading a JOIN reading b ON a.at > b.at + 9990").await?;

    // What ran, how long it took, what it held. `ctx.sql()` is recorded too, without its text.
    ctx.sql("SELECT max(at) FROM reading").await?.collect().await?;
    show(&ctx, "SELECT id, status, rows, peak_memory_bytes, left(text, 40) AS text FROM slipstream.queries")
        .await?;

    // Settings are SQL; the plain engine is one switch away.
    show(&ctx, "SET slipstream.enabled = false").await?;
    show(&ctx, "SHOW slipstream.enabled").await?;
    Ok(())
}

async fn show(ctx: &SessionContext, sql: &str) -> Result<()> {
    println!("> {sql}");
    let rows: Vec<_> = ctx.query(sql).await?.try_collect().await?;
    if rows.iter().any(|batch| batch.num_rows() > 0) {
        print_batches(&rows)?;
    }
    Ok(())
}
