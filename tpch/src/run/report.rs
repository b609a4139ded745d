//! The figures of a run, as they are printed and as `--json` writes them.

use serde::{Deserialize, Serialize};

use super::machine::{Machine, Versions};
use crate::engine::Engine;

/// All of a run.
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
    /// Sum of the layer's medians to that of the plain engine's, over the queries that ran on both.
    pub(super) total_ratio: Option<f64>,
    /// Geometric mean of the ratios of these queries.
    pub(super) geomean_ratio: Option<f64>,
    /// The largest ratio.
    pub(super) worst_ratio: Option<f64>,
}

/// What the user chose.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// Whose queries ran.
    pub(super) workload: &'static str,
    /// Size of the data.
    pub(super) scale_factor: f64,
    /// Timed runs of each query on each engine.
    pub(super) iterations: usize,
    /// The engines that ran.
    pub(super) engines: Vec<Engine>,
    /// The pool's limit.
    pub(super) memory_limit_bytes: Option<usize>,
    /// Degree of parallelism.
    pub(super) target_partitions: usize,
    /// Other settings, in the order given.
    pub(super) set: Vec<(String, String)>,
}

/// One query on all engines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct QueryReport {
    /// Its number.
    pub(crate) query: u8,
    /// The plain engine's figures; `null` when it was not asked.
    pub(crate) plain: Option<EngineReport>,
    /// The layer's figures; `null` when it was not asked.
    pub(crate) slipstream: Option<EngineReport>,
    /// Whether the rows agree; `null` when there was nothing to compare.
    pub(crate) same_rows: Option<bool>,
    /// The first difference between the rows, or why they could not be compared.
    pub(crate) difference: Option<String>,
}

/// One query on one engine.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineReport {
    /// The timed runs, in their order.
    pub(crate) times_ms: Vec<f64>,
    /// Rows of the result; `null` when no run ended well.
    pub(crate) rows: Option<usize>,
    /// The most memory that the process had resident; `null` where the system does not tell.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// The most memory that operators had reserved; `null` when no run ended well.
    pub(crate) peak_pool_bytes: Option<u64>,
    /// The most that one run spilled; `null` when no run ended well.
    pub(crate) spilled_bytes: Option<u64>,
    /// Why the query failed.
    pub(crate) error: Option<String>,
}

impl EngineReport {
    /// The median time of a query that did not fail.
    pub(crate) fn median_ms(&self) -> Option<f64> {
        if self.error.is_some() {
            return None;
        }
        let mut times = self.times_ms.clone();
        times.sort_by(f64::total_cmp);
        let upper = *times.get(times.len() / 2)?;
        let lower = *times.get((times.len() - 1) / 2)?;
        Some(f64::midpoint(lower, upper))
    }
}

impl QueryReport {
    /// The figures of an engine.
    pub(crate) fn engine(&self, engine: Engine) -> Option<&EngineReport> {
        match engine {
            Engine::Plain => self.plain.as_ref(),
            Engine::Slipstream => self.slipstream.as_ref(),
        }
    }

    /// Medians of both engines, the plain one's first.
    fn medians(&self) -> Option<(f64, f64)> {
        Some((self.plain.as_ref()?.median_ms()?, self.slipstream.as_ref()?.median_ms()?))
    }

    /// The layer's time to the plain engine's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.medians().map(|(plain, slipstream)| slipstream / plain)
    }

    /// Whether this query makes the run fail.
    ///
    /// The plain engine may fail under a memory limit: that is what the layer is measured against. Then its
    /// rows come from a run without the limit, and they must still agree.
    pub(crate) fn failed(&self, memory_limited: bool) -> bool {
        let error = |report: &Option<EngineReport>| report.as_ref().is_some_and(|r| r.error.is_some());
        let plain_may_fail = memory_limited && self.slipstream.is_some();
        let both = self.plain.is_some() && self.slipstream.is_some();
        error(&self.slipstream)
            || (error(&self.plain) && !plain_may_fail)
            || (both && self.same_rows != Some(true))
    }
}

impl Report {
    /// Computes the ratios once all queries have run.
    pub(super) fn summarize(&mut self) {
        let (plain, slipstream) = self.totals_ms();
        let ratios: Vec<f64> = self.queries.iter().filter_map(QueryReport::ratio).collect();
        if !ratios.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "some dozen queries")]
            let mean = ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64;
            self.total_ratio = Some(slipstream / plain);
            self.geomean_ratio = Some(mean.exp());
            self.worst_ratio = ratios.into_iter().max_by(f64::total_cmp);
        }
    }

    /// Sums of the medians over the queries that ran on both engines.
    pub(super) fn totals_ms(&self) -> (f64, f64) {
        let medians = self.queries.iter().filter_map(QueryReport::medians);
        medians.fold((0.0, 0.0), |(p, s), (plain, slipstream)| (p + plain, s + slipstream))
    }

    /// The query with the worst ratio.
    pub(super) fn worst_query(&self) -> Option<u8> {
        self.queries.iter().find(|q| q.ratio().is_some() && q.ratio() == self.worst_ratio).map(|q| q.query)
    }

    /// Whether any query makes the run fail.
    pub(super) fn failed(&self) -> bool {
        self.queries.iter().any(|q| q.failed(self.settings.memory_limit_bytes.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(times_ms: &[f64], error: Option<&str>) -> Option<EngineReport> {
        let error = error.map(str::to_owned);
        Some(EngineReport { times_ms: times_ms.to_vec(), error, ..Default::default() })
    }

    fn report(queries: Vec<QueryReport>) -> Report {
        let settings = Settings {
            workload: "tpch",
            scale_factor: 1.0,
            iterations: 3,
            engines: vec![Engine::Plain, Engine::Slipstream],
            memory_limit_bytes: None,
            target_partitions: 2,
            set: vec![],
        };
        let mut report = Report {
            machine: Machine::current(),
            versions: Versions::current(&crate::tpch::Tpch),
            settings,
            queries,
            total_ratio: None,
            geomean_ratio: None,
            worst_ratio: None,
        };
        report.summarize();
        report
    }

    #[test]
    fn medians() {
        let median = |times: &[f64]| engine(times, None).unwrap().median_ms();
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(engine(&[1.0], Some("failed later")).unwrap().median_ms(), None);
    }

    #[test]
    fn ratios_are_of_queries_that_ran_on_both() {
        let pair = |query, plain, slipstream| QueryReport { query, plain, slipstream, ..Default::default() };
        assert_eq!(report(vec![]).total_ratio, None);
        let report = report(vec![
            pair(1, engine(&[100.0], None), engine(&[50.0], None)),
            pair(2, engine(&[10.0], None), engine(&[20.0], None)),
            pair(3, engine(&[], Some("out of memory")), engine(&[1000.0], None)),
            pair(4, engine(&[5.0], None), None),
        ]);
        assert_eq!(report.totals_ms(), (110.0, 70.0));
        assert_eq!(report.total_ratio, Some(70.0 / 110.0));
        assert!((report.geomean_ratio.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(report.worst_ratio, Some(2.0));
        assert_eq!(report.worst_query(), Some(2));
    }

    #[test]
    fn what_makes_a_run_fail() {
        let fine = || engine(&[1.0], None);
        let broken = || engine(&[], Some("out of memory"));
        let failed = |plain, slipstream, same_rows, limited| {
            QueryReport { query: 1, plain, slipstream, same_rows, difference: None }.failed(limited)
        };
        assert!(!failed(fine(), fine(), Some(true), false));
        assert!(failed(fine(), fine(), Some(false), false));
        assert!(failed(fine(), fine(), None, false), "rows that were not compared prove nothing");
        assert!(failed(fine(), broken(), None, true));
        assert!(!failed(broken(), fine(), Some(true), true), "the plain engine may fail under a limit");
        assert!(failed(broken(), fine(), Some(false), true));
        assert!(failed(broken(), fine(), None, true));
        assert!(failed(broken(), fine(), Some(true), false));
        assert!(!failed(fine(), None, None, false));
        assert!(!failed(None, fine(), None, true));
        assert!(failed(broken(), None, None, true));
    }
}
