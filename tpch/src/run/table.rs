//! The table of a run: a line as each query ends, and the ratios below.

use super::report::{EngineReport, QueryReport, Report};
use crate::engine::Engine;
use crate::sizes::mib;

/// Widths of the table's columns for a run on these engines.
#[derive(Debug)]
pub(super) struct Table {
    engines: Vec<Engine>,
}

impl Table {
    /// A table for a run on these engines.
    pub(super) fn new(engines: &[Engine]) -> Self {
        Self { engines: engines.to_vec() }
    }

    /// What the figures are figures of.
    pub(super) fn title(report: &Report) -> String {
        let Report { machine, versions, settings, .. } = report;
        let limit = settings.memory_limit_bytes.map_or_else(
            || "no memory limit".to_owned(),
            |bytes| format!("memory limit {:.0} MiB", mib(bytes as u64)),
        );
        let set: String = settings.set.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        let warning = if versions.build == "release" { "" } else { "; DEBUG BUILD, its times mean little" };
        format!(
            "TPC-H scale factor {}: median of {} after a warm-up run, target_partitions = {}, {limit}{set}\n\
             Slipstream {} on DataFusion {}; {} x {}, {:.1} GiB, {}{warning}\n",
            settings.scale_factor,
            settings.iterations,
            settings.target_partitions,
            versions.slipstream,
            versions.datafusion,
            machine.cores,
            machine.cpu,
            mib(machine.memory_bytes) / 1024.0,
            machine.os,
        )
    }

    /// The names of the columns; memory is in MiB.
    pub(super) fn header(&self) -> String {
        let times: String = self.engines.iter().map(|e| format!("{:>15}", format!("{e} ms"))).collect();
        let slashed = self.engines.iter().map(Engine::to_string).collect::<Vec<_>>().join(" / ");
        let ends = if self.both() { ("   ratio", "   rows") } else { ("", "") };
        let memory: String =
            ["peak RSS", "peak pool", "spilled"].iter().map(|c| format!("{c:>20}")).collect();
        let note = format!("{:>width$}", format!("MiB, {slashed}"), width = memory.len());
        let indent = 5 + times.len() + ends.0.len();
        format!("{:indent$}{note}\nquery{times}{}{memory}{}", "", ends.0, ends.1)
    }

    /// One query; errors and differences follow on lines of their own.
    pub(super) fn line(&self, query: &QueryReport) -> String {
        let reports: Vec<_> = self.engines.iter().filter_map(|e| Some((*e, query.engine(*e)?))).collect();
        let times: String = reports
            .iter()
            .map(|(_, r)| r.median_ms().map_or_else(|| "failed".to_owned(), |ms| format!("{ms:.1}")))
            .map(|cell| format!("{cell:>15}"))
            .collect();
        let ratio = query.ratio().map_or_else(|| "-".to_owned(), |r| format!("{r:.3}"));
        let rss =
            |r: &EngineReport| r.peak_rss_bytes.map_or_else(|| "?".to_owned(), |b| format!("{:.0}", mib(b)));
        let pool = |r: &EngineReport| format!("{:.1}", mib(r.peak_pool_bytes));
        let spilled = |r: &EngineReport| format!("{:.1}", mib(r.spilled_bytes));
        let cells = |cell: &dyn Fn(&EngineReport) -> String| {
            let cells: Vec<_> = reports.iter().map(|(_, r)| cell(r)).collect();
            format!("{:>20}", cells.join(" / "))
        };
        let memory = [cells(&rss), cells(&pool), cells(&spilled)].concat();
        let rows = match query.same_rows {
            Some(true) => "same",
            Some(false) => "DIFFER",
            None => "-",
        };
        let (ratio, rows) =
            if self.both() { (format!("{ratio:>8}"), format!("   {rows}")) } else { Default::default() };
        let mut line = format!("{:<5}{times}{ratio}{memory}{rows}", format!("Q{}", query.query));
        for (engine, report) in reports {
            if let Some(error) = &report.error {
                line += &format!("\n     {engine} failed: {error}");
            }
        }
        if let Some(difference) = &query.difference {
            line += &format!("\n     {difference}");
        }
        line
    }

    /// The sums and ratios, or the sum of the only engine.
    pub(super) fn footer(&self, report: &Report) -> String {
        if !self.both() {
            let medians = report.queries.iter().flat_map(|q| q.engine(*self.engines.first()?)?.median_ms());
            return format!("total {:.1} ms", medians.sum::<f64>());
        }
        let (Some(total), Some(geomean), Some(worst)) =
            (report.total_ratio, report.geomean_ratio, report.worst_ratio)
        else {
            return "no query ran on both engines".to_owned();
        };
        let (plain, slipstream) = report.totals_ms();
        let ran = report.queries.iter().filter(|q| q.ratio().is_some()).count();
        let same = report.queries.iter().filter(|q| q.same_rows == Some(true)).count();
        let all = report.queries.len();
        format!(
            "total    plain {plain:.1} ms, slipstream {slipstream:.1} ms, ratio {total:.3} ({ran} of {all} queries)\n\
             geomean  ratio {geomean:.3}\n\
             worst    ratio {worst:.3} (Q{})\n\
             rows     same in {same} of {all} queries",
            report.worst_query().unwrap_or_default(),
        )
    }

    /// Whether there is something to compare.
    fn both(&self) -> bool {
        self.engines.len() == 2
    }
}
