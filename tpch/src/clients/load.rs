//! The clients of one engine: a closed loop each, on one session, until the slice is over.
//!
//! A slice ends when its time is up and the queries under way have ended; its length is the time until then, so that
//! no query is cut off and none is counted without its time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use datafusion::common::instant::Instant;
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::report::EngineReport;
use super::samples::{MAX_SAMPLES, Samples};
use crate::clock;
use crate::engine::{self, Engine};
use crate::queries::Query;
use crate::tables::Table;

/// What all clients of an engine share.
pub(super) struct Target {
    pub(super) engine: Engine,
    pub(super) ctx: SessionContext,
    pub(super) queries: Vec<&'static Query>,
    /// The time that one query may take.
    pub(super) timeout: Duration,
    /// How many texts there have been, where each is to be another.
    pub(super) texts: Option<AtomicU64>,
    pub(super) writer: Writer,
}

/// Changes files, as somebody would who writes them anew: they get another time of change, so that nothing that was made
/// from them is current any more, and keep what is in them, so that engines that know nothing of it answer the same.
pub(super) struct Writer {
    files: Vec<PathBuf>,
    queries_per_write: u64,
    queries: AtomicU64,
}

impl Writer {
    /// One that changes a table of `data` in turn after so many queries; 0 for never.
    pub(super) fn new(data: &Path, queries_per_write: u32) -> Self {
        let files = Table::ALL.iter().map(|table| table.path(data)).collect();
        Self { files, queries_per_write: queries_per_write.into(), queries: AtomicU64::new(0) }
    }

    /// A query has ended.
    fn query_ended(&self) -> std::io::Result<()> {
        let queries = self.queries.fetch_add(1, Ordering::Relaxed) + 1;
        if self.queries_per_write == 0 || !queries.is_multiple_of(self.queries_per_write) {
            return Ok(());
        }
        let write = queries / self.queries_per_write;
        let place = usize::try_from(write).unwrap_or_default() % self.files.len();
        // In the past: what was written a moment ago is not trusted yet by caches that look at times.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + write);
        std::fs::File::options().write(true).open(&self.files[place])?.set_modified(time)
    }
}

impl Target {
    /// What is asked.
    fn text(&self, query: &Query) -> Cow<'static, str> {
        match &self.texts {
            Some(texts) => format!("{}\n-- {}", query.sql, texts.fetch_add(1, Ordering::Relaxed)).into(),
            None => query.sql.into(),
        }
    }

    /// Runs one query to its last batch; the error names it.
    ///
    /// The deadline takes effect where the query yields, as every operator should within a batch. One that does not
    /// is ended with this process by the harness, which waits for each reply no longer than `GRACE` beyond it.
    pub(super) async fn query(&self, query: &Query) -> Result<(), String> {
        let drain = async {
            let mut running = engine::start(self.engine, &self.ctx, &self.text(query)).await?;
            while let Some(batch) = running.stream.next().await {
                batch?;
            }
            Ok::<_, DataFusionError>(())
        };
        match tokio::time::timeout(self.timeout, drain).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(format!("Q{}: {}", query.number, e.strip_backtrace())),
            Err(_) => Err(format!("Q{}: no answer within {} s", query.number, self.timeout.as_secs_f64())),
        }
    }
}

/// All clients of an engine, and what they measured so far.
pub(super) struct Load {
    target: Arc<Target>,
    /// For each client the position of its next query.
    positions: Vec<usize>,
    samples: Samples,
    report: EngineReport,
}

/// What one client did in a slice.
#[derive(Debug)]
struct Tally {
    client: usize,
    position: usize,
    micros: Vec<u32>,
    queries: u64,
    failures: u64,
    first_failure: Option<String>,
}

impl Load {
    /// Clients whose first queries are spread over the list: they do not all run the same one.
    pub(super) fn new(target: Arc<Target>, clients: usize) -> Self {
        let positions = (0..clients).map(|client| first_position(client, clients, target.queries.len()));
        let positions = positions.collect();
        Self { target, positions, samples: Samples::default(), report: EngineReport::default() }
    }

    /// Runs one query, untimed; a failure counts.
    pub(super) async fn warm_up(&mut self, query: &Query) -> EngineReport {
        if let Err(message) = self.target.query(query).await {
            self.report.count_failure(message);
        }
        self.report.clone()
    }

    /// Lets all clients run for this long; the figures are those of all slices so far.
    pub(super) async fn slice(&mut self, length: Duration) -> Result<EngineReport> {
        // Room is divided among the clients beforehand: no lock between them, and still a bound.
        let room = (MAX_SAMPLES - self.samples.len()) / self.positions.len();
        let start = clock::now();
        let end = start + length;
        let mut clients = JoinSet::new();
        for (client, position) in self.positions.iter().enumerate() {
            clients.spawn(closed_loop(Arc::clone(&self.target), client, *position, end, room));
        }
        let mut tallies = vec![];
        while let Some(tally) = clients.join_next().await {
            tallies.push(tally.map_err(|e| DataFusionError::Execution(format!("a client ended: {e}")))?);
        }
        self.report.seconds += start.elapsed().as_secs_f64();
        for tally in tallies {
            self.positions[tally.client] = tally.position;
            self.samples.extend(&tally.micros);
            self.report.queries += tally.queries;
            self.report.failures += tally.failures;
            self.report.first_failure = self.report.first_failure.take().or(tally.first_failure);
        }
        let [p50, p95, p99] = self.samples.percentiles_ms([50, 95, 99]);
        self.report.samples = self.samples.len() as u64;
        (self.report.p50_ms, self.report.p95_ms, self.report.p99_ms) = (p50, p95, p99);
        Ok(self.report.clone())
    }
}

/// Where a client begins: evenly spread when there are fewer clients than queries, else in turn.
fn first_position(client: usize, clients: usize, queries: usize) -> usize {
    (client * queries.div_ceil(clients).max(1)) % queries
}

/// One client: a query after the other until the time is up, at least one.
async fn closed_loop(
    target: Arc<Target>,
    client: usize,
    position: usize,
    end: Instant,
    room: usize,
) -> Tally {
    let mut tally = Tally { client, position, micros: vec![], queries: 0, failures: 0, first_failure: None };
    loop {
        let query = target.queries[tally.position];
        tally.position = (tally.position + 1) % target.queries.len();
        let start = clock::now();
        let answered = target.query(query).await;
        let written = target.writer.query_ended().map_err(|e| format!("a file was not changed: {e}"));
        match answered.and(written) {
            Ok(()) => {
                tally.queries += 1;
                if tally.micros.len() < room {
                    // A deadline keeps latencies below the 71 minutes that fit.
                    tally.micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            }
            Err(message) => {
                tally.failures += 1;
                tally.first_failure.get_or_insert(message);
                // A query that fails at once must not keep the thread from the other clients.
                tokio::task::yield_now().await;
            }
        }
        if clock::now() >= end {
            return tally;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;

    const FINE: Query = Query { number: 1, sql: "select 1" };
    const BROKEN: Query = Query { number: 2, sql: "select 1 / 0" };
    const ENDLESS: Query = Query { number: 3, sql: "select sum(value % 7) from range(1000000000000)" };

    fn load(engine: Engine, queries: &[&'static Query], clients: usize, timeout: Duration) -> Load {
        let ctx = engine::context(engine, &EngineOptions::default()).unwrap();
        let writer = Writer::new(Path::new(""), 0);
        let queries = queries.to_vec();
        Load::new(Arc::new(Target { engine, ctx, queries, timeout, texts: None, writer }), clients)
    }

    #[test]
    fn clients_begin_with_different_queries() {
        let first = |clients| (0..clients).map(|c| first_position(c, clients, 22)).collect::<Vec<_>>();
        assert_eq!(first(2), [0, 11]);
        assert_eq!(first(4), [0, 6, 12, 18]);
        let mut many = first(44);
        many.sort_unstable();
        assert_eq!(many, (0..22).flat_map(|q| [q, q]).collect::<Vec<_>>());
    }

    /// Slices add up, and failures are counted beside the queries that ran.
    #[tokio::test]
    async fn figures_add_up_over_slices() {
        for engine in [Engine::Plain, Engine::Slipstream] {
            let mut load = load(engine, &[&FINE, &BROKEN], 3, Duration::from_secs(60));
            let first = load.slice(Duration::from_millis(50)).await.unwrap();
            let both = load.slice(Duration::from_millis(50)).await.unwrap();
            assert!(first.queries >= 1 && both.queries > first.queries, "{first:?} {both:?}");
            assert!(both.seconds >= 0.1 && both.seconds > first.seconds, "{first:?} {both:?}");
            assert_eq!(both.samples, both.queries);
            // Each client alternates between the two queries.
            assert!(both.failures.abs_diff(both.queries) <= 3, "{both:?}");
            let message = both.first_failure.unwrap();
            assert!(message.starts_with("Q2: ") && message.contains("Divide by zero"), "{message}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn endless_query_is_given_up() {
        let mut load = load(Engine::Slipstream, &[&ENDLESS], 2, Duration::from_millis(200));
        let report = load.slice(Duration::from_millis(1)).await.unwrap();
        assert_eq!((report.queries, report.failures, report.p50_ms), (0, 2, None));
        assert_eq!(report.first_failure.as_deref(), Some("Q3: no answer within 0.2 s"));
        assert!(report.seconds < 20.0, "{report:?}");
    }
}
