//! The figures of `peers`, as they are printed and as `--json` writes them.

use std::fmt::{Display, Formatter};

use clap::ValueEnum;
use serde::Serialize;

use super::ours::Ours;
use super::python::Versions;
use crate::engine::Engine;
use crate::run::machine::Machine;
use crate::run::report::EngineReport;

/// Another engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Peer {
    /// DuckDB, by its Python package.
    Duckdb,
    /// Polars, by the SQL interface of its Python package.
    Polars,
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Duckdb => "DuckDB",
            Self::Polars => "Polars",
        })
    }
}

/// All of a run of `peers`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where it ran.
    pub(super) machine: Machine,
    /// What ran.
    pub(super) versions: Versions,
    /// How it ran.
    pub(super) settings: Settings,
    /// The queries, in their order.
    pub(super) queries: Vec<QueryReport>,
    /// Our engines to the peers, where both have figures.
    pub(super) ratios: Vec<Ratio>,
}

/// What the user chose.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// Size of the data.
    pub(super) scale_factor: f64,
    /// Timed runs of each query on each engine.
    pub(super) iterations: usize,
    /// Threads of each engine.
    pub(super) threads: u16,
    /// DuckDB's limit.
    pub(super) duckdb_memory_limit_bytes: Option<usize>,
}

/// One query on all engines.
#[derive(Debug, Default, Serialize)]
pub(super) struct QueryReport {
    /// Its number.
    pub(super) query: u8,
    /// The plain engine's figures, from `--ours`.
    pub(super) plain: Option<EngineReport>,
    /// The layer's figures, from `--ours`.
    pub(super) slipstream: Option<EngineReport>,
    /// DuckDB's figures.
    pub(super) duckdb: PeerReport,
    /// Polars' figures.
    pub(super) polars: PeerReport,
}

/// One query on one peer.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct PeerReport {
    /// The timed runs, in their order.
    pub(super) times_ms: Vec<f64>,
    /// Their median; `null` when the query did not run.
    pub(super) median_ms: Option<f64>,
    /// The best of them; `null` when the query did not run.
    pub(super) best_ms: Option<f64>,
    /// Rows of the result.
    pub(super) rows: Option<u64>,
    /// The most memory that the process, the interpreter included, had resident.
    pub(super) peak_rss_bytes: Option<u64>,
    /// Why the engine does not know the query.
    pub(super) not_supported: Option<String>,
    /// Why the query failed.
    pub(super) error: Option<String>,
}

/// One of our engines to one peer, over the queries that both ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// Ours.
    pub(super) ours: Engine,
    /// The other one.
    pub(super) peer: Peer,
    /// How many queries both ran.
    pub(super) queries: usize,
    /// Sum of our medians to that of the peer's.
    pub(super) total: f64,
    /// Geometric mean of the ratios of these queries.
    pub(super) geomean: f64,
}

impl PeerReport {
    /// Computes median and best of a query that neither failed nor is unknown.
    pub(super) fn summarize(&mut self) {
        if self.error.is_some() || self.not_supported.is_some() {
            return;
        }
        let times = EngineReport { times_ms: self.times_ms.clone(), ..Default::default() };
        self.median_ms = times.median_ms();
        self.best_ms = self.times_ms.iter().copied().min_by(f64::total_cmp);
    }
}

impl QueryReport {
    /// A query of which only our own figures are known so far.
    pub(super) fn new(query: u8, ours: Option<&Ours>) -> Self {
        let ours = ours.and_then(|ours| ours.query(query));
        Self {
            query,
            plain: ours.and_then(|q| q.plain.clone()),
            slipstream: ours.and_then(|q| q.slipstream.clone()),
            ..Default::default()
        }
    }

    /// Enters a peer's figures.
    pub(super) fn set(&mut self, peer: Peer, report: PeerReport) {
        match peer {
            Peer::Duckdb => self.duckdb = report,
            Peer::Polars => self.polars = report,
        }
    }

    /// A peer's figures.
    pub(super) fn peer(&self, peer: Peer) -> &PeerReport {
        match peer {
            Peer::Duckdb => &self.duckdb,
            Peer::Polars => &self.polars,
        }
    }

    /// The figures of one of our engines.
    pub(super) fn ours(&self, engine: Engine) -> Option<&EngineReport> {
        match engine {
            Engine::Plain => self.plain.as_ref(),
            Engine::Slipstream => self.slipstream.as_ref(),
        }
    }
}

impl Report {
    /// Computes the ratios once all queries have run.
    pub(super) fn summarize(&mut self) {
        for ours in [Engine::Plain, Engine::Slipstream] {
            for peer in Peer::value_variants() {
                self.ratios.extend(self.ratio(ours, *peer));
            }
        }
    }

    /// One of our engines to one peer; `None` when no query ran on both.
    #[expect(clippy::cast_precision_loss, reason = "at most 22 queries")]
    fn ratio(&self, ours: Engine, peer: Peer) -> Option<Ratio> {
        let pairs: Vec<(f64, f64)> = self
            .queries
            .iter()
            .filter_map(|q| q.ours(ours)?.median_ms().zip(q.peer(peer).median_ms))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let (our_ms, their_ms) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        let mean = pairs.iter().map(|(x, y)| (x / y).ln()).sum::<f64>() / pairs.len() as f64;
        Some(Ratio { ours, peer, queries: pairs.len(), total: our_ms / their_ms, geomean: mean.exp() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query by medians: ours plain, ours with the layer, DuckDB's, Polars'.
    pub(in crate::peers) fn query(number: u8, ms: [Option<f64>; 4]) -> QueryReport {
        let ours = |ms: Option<f64>| {
            ms.map(|ms| EngineReport {
                times_ms: vec![ms],
                peak_rss_bytes: Some(3 << 20),
                ..Default::default()
            })
        };
        let peer = |ms: Option<f64>| {
            let rows = ms.is_some().then_some(1);
            let times_ms = ms.into_iter().collect();
            let mut report =
                PeerReport { times_ms, rows, peak_rss_bytes: Some(9 << 20), ..Default::default() };
            report.summarize();
            report
        };
        let [plain, slipstream, duckdb, polars] = ms;
        QueryReport {
            query: number,
            plain: ours(plain),
            slipstream: ours(slipstream),
            duckdb: peer(duckdb),
            polars: peer(polars),
        }
    }

    pub(in crate::peers) fn report(queries: Vec<QueryReport>) -> Report {
        let versions = Versions { duckdb: "2".to_owned(), polars: "3".to_owned() };
        let settings =
            Settings { scale_factor: 1.0, iterations: 3, threads: 2, duckdb_memory_limit_bytes: None };
        let mut report = Report { machine: Machine::current(), versions, settings, queries, ratios: vec![] };
        report.summarize();
        report
    }

    #[test]
    fn ratios_are_of_queries_that_ran_on_both() {
        let report = report(vec![
            query(1, [Some(100.0), Some(50.0), Some(50.0), None]),
            query(2, [Some(10.0), Some(80.0), Some(20.0), Some(40.0)]),
            query(3, [None, None, Some(5.0), Some(5.0)]),
        ]);
        let ratio = |ours, peer| report.ratios.iter().find(|r| r.ours == ours && r.peer == peer).unwrap();
        let plain = ratio(Engine::Plain, Peer::Duckdb);
        assert_eq!((plain.queries, plain.total), (2, 110.0 / 70.0));
        assert!((plain.geomean - 1.0).abs() < 1e-12, "{plain:?}");
        let slipstream = ratio(Engine::Slipstream, Peer::Polars);
        assert_eq!((slipstream.queries, slipstream.total), (1, 2.0));
        assert!((slipstream.geomean - 2.0).abs() < 1e-12, "{slipstream:?}");
    }

    #[test]
    fn unknown_query_has_no_time() {
        let mut report = PeerReport { times_ms: vec![3.0, 1.0, 2.0], ..Default::default() };
        report.summarize();
        assert_eq!((report.median_ms, report.best_ms), (Some(2.0), Some(1.0)));
        let mut report = PeerReport {
            times_ms: vec![1.0],
            not_supported: Some("no EXISTS".to_owned()),
            ..Default::default()
        };
        report.summarize();
        assert_eq!((report.median_ms, report.best_ms), (None, None));
    }
}
