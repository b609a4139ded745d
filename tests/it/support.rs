//! What every test needs: sessions with and without the layer, and rows as text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_slipstream::{Slipstream, SlipstreamContextExt, SlipstreamOptions};
use futures::TryStreamExt;

/// A session with the layer, two partitions, and the information schema.
pub(crate) fn layered() -> (SessionContext, Slipstream) {
    with_layer(SessionContext::new_with_config(config()))
}

/// Two partitions, so that tests see exchanges; the information schema, so that they can SHOW. No query is taken for small:
/// those of the tests are, and no rule would be seen at work.
pub(crate) fn config() -> SessionConfig {
    let options = SlipstreamOptions { small_query_max_rows: 0, ..SlipstreamOptions::default() };
    SessionConfig::new()
        .with_target_partitions(2)
        .with_information_schema(true)
        .with_option_extension(options)
}

pub(crate) fn with_layer(ctx: SessionContext) -> (SessionContext, Slipstream) {
    let slipstream = Slipstream::default();
    ctx.install_slipstream(slipstream.clone()).unwrap();
    (ctx, slipstream)
}

/// A runtime with a fair pool of `bytes` that spills below `directory`.
pub(crate) fn limited_runtime(bytes: usize, directory: &Path) -> Arc<RuntimeEnv> {
    let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(bytes));
    RuntimeEnvBuilder::new().with_memory_pool(pool).with_temp_file_path(directory).build_arc().unwrap()
}

/// Runs `sql` through `ctx.query()`.
pub(crate) async fn query(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    ctx.query(sql).await?.try_collect().await
}

/// Runs `sql` through `ctx.sql()`, as an embedder does who knows nothing of the layer.
pub(crate) async fn sql(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    ctx.sql(sql).await?.collect().await
}

/// What EXPLAIN says that `rule` did to the query `sql`, or why it refused; nothing where it says nothing of the rule.
pub(crate) async fn verdict(ctx: &SessionContext, rule: &str, sql: &str) -> String {
    let explained = picture(&query(ctx, &format!("EXPLAIN {sql}")).await.unwrap());
    let line = explained.lines().find_map(|line| line.split_once(&format!("{rule}: ")));
    line.map_or_else(String::new, |(_, verdict)| verdict.trim_end_matches(['|', ' ']).to_owned())
}

/// The table as text, as a person would see it.
pub(crate) fn picture(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).unwrap().to_string()
}

/// The rows as text, `a | b`, in an order of their own, so that two executions compare as multisets.
pub(crate) fn sorted_rows(batches: &[RecordBatch]) -> Vec<String> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
    let mut rows: Vec<String> =
        picture(batches).lines().filter(|line| line.starts_with('|')).skip(1).map(cells).collect();
    rows.sort_unstable();
    rows
}

/// The one value of a one-column, one-row answer.
pub(crate) fn single(batches: &[RecordBatch]) -> String {
    let rows = sorted_rows(batches);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].clone()
}

/// The project's folder. Asked when the test runs and not when it is built, since clones of the project may share what
/// was built.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
}
