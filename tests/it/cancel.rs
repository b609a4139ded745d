//! A cancelled query gives back its memory and its temporary files, at once.

use std::path::Path;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use datafusion_slipstream::{QueryStatus, SlipstreamContextExt};
use futures::StreamExt;
use tempfile::TempDir;

use crate::support::{config, limited_runtime, with_layer};

const QUERIES: [&str; 3] = [
    // Spills a sort, and streams its merge.
    "SELECT i, repeat('x', 40) || i AS s FROM generate_series(1, 900000) AS s(i) ORDER BY s",
    // Holds a hash table, behind an exchange.
    "SELECT s, count(*) FROM (SELECT repeat('y', 10) || i AS s FROM generate_series(1, 300000) AS s(i)) GROUP BY s",
    // Never comes to an end by itself.
    "SELECT a.i + b.i FROM generate_series(1, 100000) AS a(i), generate_series(1, 100000) AS b(i) WHERE a.i * b.i = -1",
];

fn files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_frees_memory_and_files_within_100_ms() {
    let mut spilled = false;
    for query in QUERIES {
        for running_ms in [20, 300, 900] {
            let spill = TempDir::new().unwrap();
            let runtime = limited_runtime(24 << 20, spill.path());
            let (ctx, slipstream) = with_layer(SessionContext::new_with_config_rt(config(), runtime));
            let mut stream = ctx.query(query).await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(running_ms), stream.next()).await;
            spilled |= files(spill.path()) > 0;
            drop(stream);
            let freed = async {
                while ctx.runtime_env().memory_pool.reserved() > 0 || files(spill.path()) > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let left = tokio::time::timeout(Duration::from_millis(100), freed).await;
            assert!(
                left.is_ok(),
                "{query} after {running_ms} ms left {} bytes and {} files",
                ctx.runtime_env().memory_pool.reserved(),
                files(spill.path())
            );
            let record = slipstream.query_log().queries().pop().unwrap();
            assert_eq!(
                record.status,
                QueryStatus::Cancelled,
                "{query} after {running_ms} ms: {:?}",
                record.error
            );
        }
    }
    assert!(spilled, "the test must cancel a query that has spill files");
}
