//! The table of a run: a line as each query ends, and the ratios below.

use super::machine;
use super::report::{EngineReport, QueryReport, Report};
use crate::engine::Engine;
use crate::sizes::mib;
use crate::workload::Workload;

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
    pub(super) fn title(workload: &dyn Workload, report: &Report) -> String {
        let Report { machine, versions, settings, .. } = report;
        let limit = settings.memory_limit_bytes.map_or_else(
            || "no memory limit".to_owned(),
            |bytes| format!("memory limit {:.0} MiB", mib(bytes as u64)),
        );
        let set: String = settings.set.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        let runs = match settings.iterations {
            1 => "one run".to_owned(),
            runs => format!("median of {runs} runs"),
        };
        format!(
            "{} scale factor {}: {runs} after one to warm up, target_partitions = {}, {limit}{set}\n\
             {}\n",
            workload.title(),
            settings.scale_factor,
            settings.target_partitions,
            machine::title(machine, versions),
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
        let rss = |r: &EngineReport| cell(r.peak_rss_bytes, 0);
        let pool = |r: &EngineReport| cell(r.peak_pool_bytes, 1);
        let spilled = |r: &EngineReport| cell(r.spilled_bytes, 1);
        let cells = |cell: &dyn Fn(&EngineReport) -> String| {
            let cells: Vec<_> = reports.iter().map(|(_, report)| cell(report)).collect();
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

/// Bytes in MiB, or a dash where nothing was measured.
fn cell(bytes: Option<u64>, decimals: usize) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.decimals$}", mib(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(times_ms: &[f64], error: Option<&str>) -> Option<EngineReport> {
        let measured = (!times_ms.is_empty()).then_some(3 << 19);
        Some(EngineReport {
            times_ms: times_ms.to_vec(),
            rows: None,
            peak_rss_bytes: measured,
            peak_pool_bytes: measured,
            spilled_bytes: measured,
            error: error.map(str::to_owned),
        })
    }

    /// Columns stand below their names, whatever is in them.
    #[test]
    fn lines_fit_the_header() {
        let table = Table::new(&[Engine::Plain, Engine::Slipstream]);
        let fine = QueryReport {
            query: 1,
            plain: engine(&[100.0], None),
            slipstream: engine(&[23_456.78], None),
            same_rows: Some(true),
            difference: None,
        };
        let failed = QueryReport {
            query: 22,
            plain: engine(&[100.0], None),
            slipstream: engine(&[], Some("out of memory")),
            same_rows: None,
            difference: Some("rows not compared".to_owned()),
        };
        let text = [table.header(), table.line(&fine), table.line(&failed)].join("\n");
        let expected = "
                                                                                MiB, plain / slipstream
query       plain ms  slipstream ms   ratio            peak RSS           peak pool             spilled   rows
Q1             100.0        23456.8 234.568               2 / 2           1.5 / 1.5           1.5 / 1.5   same
Q22            100.0         failed       -               2 / -             1.5 / -             1.5 / -   -
     slipstream failed: out of memory
     rows not compared";
        assert_eq!(text, &expected[1..], "\n{text}");
    }

    #[test]
    fn one_engine_needs_no_ratio() {
        let table = Table::new(&[Engine::Slipstream]);
        let query = QueryReport { query: 6, slipstream: engine(&[1.0, 3.0], None), ..Default::default() };
        let text = [table.header(), table.line(&query)].join("\n");
        let expected = "
                                                                 MiB, slipstream
query  slipstream ms            peak RSS           peak pool             spilled
Q6               2.0                   2                 1.5                 1.5";
        assert_eq!(text, &expected[1..], "\n{text}");
    }
}
