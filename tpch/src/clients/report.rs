//! The figures of `clients`, as they are printed and as `--json` writes them.

use serde::{Deserialize, Serialize};

use crate::run::machine::{self, Machine, Versions};
use crate::sizes::mib;

/// All of a run of `clients`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where it ran.
    pub(super) machine: Machine,
    /// What ran.
    pub(super) versions: Versions,
    /// How it ran.
    pub(super) settings: Settings,
    /// The plain engine's figures.
    pub(super) plain: EngineReport,
    /// The layer's figures.
    pub(super) slipstream: EngineReport,
    /// Queries a second of the layer to those of the plain engine; `null` when an engine answered none.
    pub(super) ratio: Option<f64>,
    /// The layer with its caches; empty unless they were asked for.
    pub(super) caches: Vec<CacheReport>,
}

/// The layer with a cache.
#[derive(Debug, Serialize)]
pub(super) struct CacheReport {
    /// Which one, and how it is used.
    pub(super) name: &'static str,
    /// Its figures.
    #[serde(flatten)]
    pub(super) figures: EngineReport,
    /// Queries a second to those of the plain engine.
    pub(super) ratio: Option<f64>,
    /// The same process without the cache, in turn with it; `null` where the row of the layer is what it is compared with.
    pub(super) baseline: Option<EngineReport>,
}

/// What the user chose.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    /// Size of the data.
    pub(super) scale_factor: f64,
    /// Clients at once.
    pub(super) clients: u16,
    /// Seconds of load on each engine, the end of the last queries of each slice not counted.
    pub(super) seconds: u32,
    /// Turns of each engine.
    pub(super) slices: u16,
    /// Deadline of one query.
    pub(super) timeout_seconds: u32,
    /// The queries.
    pub(super) queries: Vec<u8>,
    /// The pool's limit, for all clients of an engine together.
    pub(super) memory_limit_bytes: Option<usize>,
    /// Degree of parallelism of one query.
    pub(super) target_partitions: usize,
    /// Other settings, in the order given.
    pub(super) set: Vec<(String, String)>,
}

/// One engine under load.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EngineReport {
    /// Queries that ended well.
    pub(super) queries: u64,
    /// The time in which they did, to the end of the last query of each slice.
    pub(super) seconds: f64,
    /// `queries` by `seconds`; `null` before the first query.
    pub(super) queries_per_second: Option<f64>,
    /// Half of the latencies are not above this.
    pub(super) p50_ms: Option<f64>,
    /// 95 % of the latencies are not above this.
    pub(super) p95_ms: Option<f64>,
    /// 99 % of the latencies are not above this.
    pub(super) p99_ms: Option<f64>,
    /// How many latencies the percentiles are of: all, up to a bound of ten million.
    pub(super) samples: u64,
    /// Queries that failed or missed the deadline, those of the warm-up included, and the loss of the worker.
    pub(super) failures: u64,
    /// The first of these failures.
    pub(super) first_failure: Option<String>,
}

impl EngineReport {
    /// Counts one failure; the first message stays.
    pub(super) fn count_failure(&mut self, message: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(message);
    }

    /// Completes the figures.
    #[expect(clippy::cast_precision_loss, reason = "a count of queries, for a quotient")]
    fn summarize(&mut self) {
        self.queries_per_second =
            (self.queries > 0 && self.seconds > 0.0).then(|| self.queries as f64 / self.seconds);
    }
}

impl Report {
    /// Computes what follows from the counts.
    pub(super) fn summarize(&mut self) {
        self.plain.summarize();
        self.slipstream.summarize();
        let rates = self.slipstream.queries_per_second.zip(self.plain.queries_per_second);
        self.ratio = rates.map(|(slipstream, plain)| slipstream / plain);
        for cache in &mut self.caches {
            cache.figures.summarize();
            cache.baseline.iter_mut().for_each(EngineReport::summarize);
            let rates = cache.figures.queries_per_second.zip(self.plain.queries_per_second);
            cache.ratio = rates.map(|(cached, plain)| cached / plain);
        }
    }

    /// Whether the program's exit code says so. As in `run`, the plain engine may fail under a memory limit.
    pub(super) fn failed(&self) -> bool {
        let plain_may_fail = self.settings.memory_limit_bytes.is_some();
        self.slipstream.failures > 0
            || self.caches.iter().any(|cache| {
                let baseline = cache.baseline.as_ref().is_some_and(|baseline| baseline.failures > 0);
                baseline || cache.figures.failures > 0 || cache.figures.queries == 0
            })
            || self.slipstream.queries == 0
            || (self.plain.failures > 0 && !plain_may_fail)
    }

    /// What the figures are figures of.
    pub(super) fn title(&self) -> String {
        let settings = &self.settings;
        let limit = settings.memory_limit_bytes.map_or_else(
            || "no memory limit".to_owned(),
            |bytes| format!("memory limit {:.0} MiB", mib(bytes as u64)),
        );
        let set: String = settings.set.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        format!(
            "TPC-H scale factor {}, {} queries: {} clients on one session, {} s for each engine in {} slices, \
             target_partitions = {}, {limit}{set}\n{}\n",
            settings.scale_factor,
            settings.queries.len(),
            settings.clients,
            settings.seconds,
            settings.slices,
            settings.target_partitions,
            machine::title(&self.machine, &self.versions),
        )
    }

    /// The names of the columns.
    pub(super) fn header() -> String {
        format!(
            "{:<12}{:>10}{:>12}{:>12}{:>12}{:>12}{:>10}",
            "engine", "queries", "queries/s", "p50 ms", "p95 ms", "p99 ms", "failures"
        )
    }

    /// One engine; its first failure follows on a line of its own.
    pub(super) fn line(name: &str, report: &EngineReport) -> String {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let mut report = report.clone();
        report.summarize();
        let line = format!(
            "{:<12}{:>10}{:>12}{:>12}{:>12}{:>12}{:>10}",
            name,
            report.queries,
            report.queries_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}")),
            cell(report.p50_ms),
            cell(report.p95_ms),
            cell(report.p99_ms),
            report.failures,
        );
        let notes = report.first_failure.map(|message| format!("\n     first failure: {message}"));
        let bound = (report.samples < report.queries)
            .then(|| format!("\n     percentiles of the first {} queries", report.samples));
        [Some(line), notes, bound].into_iter().flatten().collect()
    }

    /// The ratio below the table.
    pub(super) fn footer(&self) -> String {
        let mut footer = match self.ratio {
            Some(ratio) => {
                format!("slipstream / plain: {ratio:.3} of the queries a second (above 1 is faster)")
            }
            None => "no ratio: an engine answered no query".to_owned(),
        };
        for cache in &self.caches {
            let baseline = cache.baseline.as_ref().unwrap_or(&self.slipstream);
            let own = cache.figures.queries_per_second.zip(baseline.queries_per_second);
            let (Some(ratio), Some((cached, slipstream))) = (cache.ratio, own) else { continue };
            let to_slipstream = cached / slipstream;
            footer += &format!(
                "\n{} / plain: {ratio:.3}, / slipstream without a cache: {to_slipstream:.3}",
                cache.name
            );
        }
        footer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(plain: (u64, f64, u64), slipstream: (u64, f64, u64), limit: Option<usize>) -> Report {
        let engine = |(queries, seconds, failures)| EngineReport {
            queries,
            seconds,
            failures,
            samples: queries,
            ..Default::default()
        };
        let settings = Settings {
            scale_factor: 1.0,
            clients: 2,
            seconds: 10,
            slices: 4,
            timeout_seconds: 60,
            queries: vec![1],
            memory_limit_bytes: limit,
            target_partitions: 2,
            set: vec![],
        };
        let (machine, versions) = (Machine::current(), Versions::current(&crate::tpch::Tpch));
        let (plain, slipstream) = (engine(plain), engine(slipstream));
        let mut report =
            Report { machine, versions, settings, plain, slipstream, ratio: None, caches: vec![] };
        report.summarize();
        report
    }

    #[test]
    fn ratio_is_of_rates() {
        let fine = report((100, 10.0, 0), (300, 20.0, 0), None);
        assert_eq!(fine.plain.queries_per_second, Some(10.0));
        assert_eq!(fine.ratio, Some(1.5));
        assert_eq!(fine.footer(), "slipstream / plain: 1.500 of the queries a second (above 1 is faster)");
        let none = report((0, 10.0, 9), (300, 20.0, 0), None);
        assert_eq!((none.ratio, none.footer().as_str()), (None, "no ratio: an engine answered no query"));
    }

    #[test]
    fn what_makes_it_fail() {
        let fine = (10, 1.0, 0);
        assert!(!report(fine, fine, None).failed());
        assert!(report(fine, (10, 1.0, 1), None).failed());
        assert!(report(fine, (10, 1.0, 1), Some(1)).failed());
        assert!(report(fine, (0, 1.0, 0), None).failed(), "nothing ran");
        assert!(report((10, 1.0, 1), fine, None).failed());
        assert!(!report((10, 1.0, 1), fine, Some(1)).failed(), "the plain engine may fail under a limit");
    }

    #[test]
    fn lines_fit_the_header() {
        let mut engine = EngineReport {
            queries: 1234,
            seconds: 10.0,
            p50_ms: Some(1.0),
            p95_ms: Some(20.0),
            p99_ms: Some(12_345.67),
            samples: 1000,
            ..Default::default()
        };
        engine.count_failure("Q1: no".to_owned());
        engine.count_failure("Q2: no".to_owned());
        let lines = [
            Report::header(),
            Report::line("slipstream", &engine),
            Report::line("plain", &EngineReport::default()),
        ];
        let expected = "
engine         queries   queries/s      p50 ms      p95 ms      p99 ms  failures
slipstream        1234      123.40         1.0        20.0     12345.7         2
     first failure: Q1: no
     percentiles of the first 1000 queries
plain                0           -           -           -           -         0";
        assert_eq!(lines.join("\n"), &expected[1..], "\n{}", lines.join("\n"));
    }
}
