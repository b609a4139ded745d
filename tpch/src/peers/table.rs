//! The table of `peers`: a line as each query ends, sums and ratios below.

use clap::ValueEnum;

use super::ours::Ours;
use super::report::{Peer, PeerReport, QueryReport, Report};
use crate::engine::Engine;
use crate::sizes::mib;

/// Our engines, in the order of their columns.
const OURS: [Engine; 2] = [Engine::Plain, Engine::Slipstream];

/// What the figures are figures of, with what makes them hard to compare.
pub(super) fn title(report: &Report, ours: Option<&Ours>) -> String {
    let Report { machine, versions, settings, .. } = report;
    let runs = match settings.iterations {
        1 => "one run".to_owned(),
        runs => format!("median of {runs} runs"),
    };
    let limit = limit(settings.duckdb_memory_limit_bytes);
    let mut text = format!(
        "TPC-H scale factor {}: {runs} after one to warm up, {} threads\n\
         DuckDB {} ({limit}), Polars {}; {} x {}, {:.1} GiB, {}\n",
        settings.scale_factor,
        settings.threads,
        versions.duckdb,
        versions.polars,
        machine.cores,
        machine.cpu,
        mib(machine.memory_bytes) / 1024.0,
        machine.os,
    );
    if let Some(ours) = ours {
        text += &format!(
            "Slipstream {} on DataFusion {} ({}), target_partitions = {}, from --ours\n",
            ours.versions.slipstream,
            ours.versions.datafusion,
            self::limit(ours.settings.memory_limit_bytes),
            ours.settings.target_partitions,
        );
        if ours.versions.build != "release" {
            text += "OURS ARE OF A DEBUG BUILD: its times mean little\n";
        }
        if ours.settings.target_partitions != usize::from(settings.threads) {
            text +=
                "ours ran with another degree of parallelism: see --threads and run --target-partitions\n";
        }
    } else {
        let scale_factor = settings.scale_factor;
        text += &format!(
            "our own columns: `slipstream-tpch run --scale-factor {scale_factor} --target-partitions {} \
             --json FILE`, then `peers … --ours FILE`\n",
            settings.threads
        );
    }
    text
}

/// A memory limit in words.
fn limit(bytes: Option<usize>) -> String {
    bytes.map_or_else(
        || "default memory limit".to_owned(),
        |bytes| format!("memory limit {:.0} MiB", mib(bytes as u64)),
    )
}

/// The names of the columns.
pub(super) fn header(with_ours: bool) -> String {
    let engines = names(with_ours);
    let times: String = engines.iter().map(|name| format!("{:>15}", format!("{name} ms"))).collect();
    format!("query{times}   peak RSS, MiB: {}", engines.join(" / "))
}

/// The engines that have columns.
fn names(with_ours: bool) -> Vec<String> {
    let ours = OURS.iter().filter(|_| with_ours).map(Engine::to_string);
    ours.chain(Peer::value_variants().iter().map(Peer::to_string)).collect()
}

/// One query; reasons and differences follow on lines of their own.
pub(super) fn line(query: &QueryReport, with_ours: bool) -> String {
    let (mut times, mut memory) = (String::new(), vec![]);
    for engine in OURS.iter().filter(|_| with_ours) {
        let report = query.ours(*engine);
        let time = match report {
            None => "-".to_owned(),
            Some(report) => report.median_ms().map_or_else(|| "failed".to_owned(), |ms| format!("{ms:.1}")),
        };
        times += &format!("{time:>15}");
        memory.push(rss(report.and_then(|r| r.peak_rss_bytes)));
    }
    let mut notes = String::new();
    for peer in Peer::value_variants() {
        let report = query.peer(*peer);
        times += &format!("{:>15}", time(report));
        memory.push(rss(report.peak_rss_bytes));
        if let Some(reason) = &report.not_supported {
            notes += &format!("\n     {peer} does not support it: {}", reason.trim());
        }
        if let Some(error) = &report.error {
            notes += &format!("\n     {peer} failed: {}", error.trim());
        }
    }
    if let (Some(duckdb), Some(polars)) = (query.duckdb.rows, query.polars.rows)
        && duckdb != polars
    {
        notes += &format!("\n     DuckDB has {duckdb} rows, Polars {polars}: one of them is wrong");
    }
    format!("{:<5}{times}   {}{notes}", format!("Q{}", query.query), memory.join(" / "))
}

/// A peer's median, or why there is none.
fn time(report: &PeerReport) -> String {
    match report.median_ms {
        Some(ms) => format!("{ms:.1}"),
        None if report.not_supported.is_some() => "not supported".to_owned(),
        None => "failed".to_owned(),
    }
}

/// Bytes in MiB, or a dash where nothing was measured.
fn rss(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0}", mib(bytes)))
}

/// The sum of each column, and our ratios to the peers.
pub(super) fn footer(report: &Report, with_ours: bool) -> String {
    let sum = |medians: Vec<f64>| {
        let (ms, queries) = (medians.iter().sum::<f64>(), medians.len());
        format!("{ms:.1} ms ({queries} queries)")
    };
    let ours = OURS.iter().filter(|_| with_ours).map(|engine| {
        let medians = report.queries.iter().filter_map(|q| q.ours(*engine)?.median_ms());
        format!("total    {engine} {}", sum(medians.collect()))
    });
    let peers = Peer::value_variants().iter().map(|peer| {
        let medians = report.queries.iter().filter_map(|q| q.peer(*peer).median_ms);
        format!("total    {peer} {}", sum(medians.collect()))
    });
    let ratios = report.ratios.iter().map(|ratio| {
        format!(
            "ratio    {} / {}: total {:.3}, geomean {:.3} ({} queries that ran on both; below 1 ours is faster)",
            ratio.ours, ratio.peer, ratio.total, ratio.geomean, ratio.queries
        )
    });
    ours.chain(peers).chain(ratios).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{query, report};
    use super::*;

    #[test]
    fn lines_fit_the_header() {
        let fine = query(1, [Some(100.0), Some(23_456.78), Some(1.0), Some(2.0)]);
        let mut other = query(22, [Some(1.0), None, Some(1.0), None]);
        other.polars.not_supported = Some("correlated subquery".to_owned());
        let text = [header(true), line(&fine, true), line(&other, true)].join("\n");
        let expected = "
query       plain ms  slipstream ms      DuckDB ms      Polars ms   peak RSS, MiB: plain / slipstream / DuckDB / Polars
Q1             100.0        23456.8            1.0            2.0   3 / 3 / 9 / 9
Q22              1.0              -            1.0  not supported   3 / - / 9 / 9
     Polars does not support it: correlated subquery";
        assert_eq!(text, &expected[1..], "\n{text}");
    }

    #[test]
    fn peers_stand_alone() {
        let mut differing = query(6, [None, None, Some(1.0), Some(2.0)]);
        differing.polars.rows = Some(7);
        let text =
            [header(false), line(&differing, false), footer(&report(vec![differing]), false)].join("\n");
        let expected = "
query      DuckDB ms      Polars ms   peak RSS, MiB: DuckDB / Polars
Q6               1.0            2.0   9 / 9
     DuckDB has 1 rows, Polars 7: one of them is wrong
total    DuckDB 1.0 ms (1 queries)
total    Polars 2.0 ms (1 queries)";
        assert_eq!(text, &expected[1..], "\n{text}");
    }
}
