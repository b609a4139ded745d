//! Prints what the comparison found.

use std::collections::BTreeMap;

use super::compare::{Comparison, Difference};
use super::outcome::{Outcome, Picture, RecordRun};
use super::process::EngineRun;

/// Differences shown in full; the rest is listed by location.
const DIFFERENCES_SHOWN: usize = 20;

/// Lines shown of one outcome.
const LINES_SHOWN: usize = 12;

/// Characters shown of one line.
const CHARACTERS_SHOWN: usize = 240;

/// The final judgement on one engine, after exceptions and reruns.
#[derive(Debug)]
pub(super) struct Judgement<'a> {
    /// The engine.
    pub(super) run: &'a EngineRun,
    /// The raw comparison.
    pub(super) comparison: Comparison,
    /// Differences that stand.
    pub(super) different: Vec<Difference>,
    /// Locations that the list excepts, with reasons.
    pub(super) excepted: Vec<(String, String)>,
    /// Records on which the plain engine does not agree with itself either.
    pub(super) unstable: Vec<Difference>,
}

/// Prints one line for each engine: files, records, files that are as the corpus expects, time.
pub(super) fn engines(runs: &[&EngineRun]) {
    println!("{:<18} {:>7} {:>10} {:>10} {:>9}", "engine", "files", "records", "pass", "time");
    for run in runs {
        let records: usize = run
            .files
            .values()
            .map(|file| if file.not_run.is_some() { file.records_not_run } else { file.records.len() })
            .sum();
        let pass = run.files.values().filter(|file| file.as_expected).count();
        let (files, seconds) = (run.files.len(), run.elapsed.as_secs_f64());
        println!("{:<18} {files:>7} {records:>10} {pass:>10} {seconds:>7.1} s", run.engine.name);
    }
    for run in runs.iter().filter(|run| run.engine.warm) {
        println!("{}: {} records came from the caches", run.engine.name, run.cached_records());
    }
    println!("(pass: files whose every outcome is the one that the corpus publishes)\n");
}

/// Prints the table of counts, then what needs a reader's eye.
pub(super) fn judgements(judgements: &[Judgement<'_>], verbose: bool) {
    println!(
        "{:<18} {:>8} {:>8} {:>10} {:>12} {:>8} {:>10} {:>10} {:>10}",
        "against plain",
        "records",
        "same",
        "same query",
        "picture only",
        "not run",
        "exception",
        "unstable",
        "DIFFERENT"
    );
    for judgement in judgements {
        let comparison = &judgement.comparison;
        println!(
            "{:<18} {:>8} {:>8} {:>10} {:>12} {:>8} {:>10} {:>10} {:>10}",
            judgement.run.engine.name,
            comparison.records,
            comparison.same,
            comparison.same_pictures,
            comparison.pictures_only.values().sum::<usize>(),
            comparison.not_run.values().sum::<usize>(),
            judgement.excepted.len(),
            judgement.unstable.len(),
            judgement.different.len(),
        );
    }
    println!("(same query: a plan picture, compared by the rows of the query that it explains;");
    println!(" unstable: two runs of the plain engine do not agree either)\n");
    if let Some(first) = judgements.first() {
        reasons("plan pictures of statements that are not run", &first.comparison.pictures_only);
        reasons("records that neither engine ran", &first.comparison.not_run);
    }
    for judgement in judgements {
        details(judgement, verbose);
    }
}

fn reasons(title: &str, reasons: &BTreeMap<String, usize>) {
    if reasons.is_empty() {
        return;
    }
    println!("{title}:");
    for (reason, count) in reasons {
        println!("  {count:>6}  {reason}");
    }
    println!();
}

fn details(judgement: &Judgement<'_>, verbose: bool) {
    let name = &judgement.run.engine.name;
    if !judgement.excepted.is_empty() {
        println!("exceptions of {name}:");
        for (location, reason) in &judgement.excepted {
            println!("  {location}: {reason}");
        }
        println!();
    }
    if !judgement.unstable.is_empty() {
        println!("unstable on the plain engine itself, seen from {name}:");
        for difference in &judgement.unstable {
            println!("  {}", difference.location);
            if verbose {
                show(difference);
            }
        }
        println!();
    }
    if judgement.different.is_empty() {
        return;
    }
    println!("DIFFERENT on {name}:");
    for (position, difference) in judgement.different.iter().enumerate() {
        println!("  {}", difference.location);
        if verbose || position < DIFFERENCES_SHOWN {
            show(difference);
        }
    }
    println!();
}

fn show(difference: &Difference) {
    if let Some(note) = &difference.note {
        println!("    {note}");
        return;
    }
    if let Some(record) = difference.plain.as_ref().or(difference.layer.as_ref()) {
        block("sql", &record.sql.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    let (mut plain, mut layer) = (lines(difference.plain.as_ref()), lines(difference.layer.as_ref()));
    // Long outcomes that begin alike are shown from where they part.
    let alike = plain.iter().zip(&layer).take_while(|(plain, layer)| plain == layer).count();
    let skip = alike.saturating_sub(2);
    if skip > 0 {
        println!("    … {skip} lines alike");
        plain.drain(..skip);
        layer.drain(..skip);
    }
    block("plain", &plain);
    block("layer", &layer);
}

fn block(title: &str, lines: &[String]) {
    for (number, line) in lines.iter().take(LINES_SHOWN).enumerate() {
        // Some errors print a whole plan on one line.
        let cut: String = line.chars().take(CHARACTERS_SHOWN).collect();
        let more = if cut.len() < line.len() { " …" } else { "" };
        println!("    {:<6}| {cut}{more}", if number == 0 { title } else { "" });
    }
    if lines.is_empty() {
        println!("    {title:<6}| (nothing)");
    } else if lines.len() > LINES_SHOWN {
        println!("    {:<6}| … {} lines in all", "", lines.len());
    }
}

/// What the comparison looked at, as lines.
fn lines(record: Option<&RecordRun>) -> Vec<String> {
    let Some(record) = record else { return vec!["(the record was not reached)".to_owned()] };
    let outcome = match (&record.outcome, &record.picture) {
        // A failed picture is itself the difference.
        (Some(Outcome::Rows { .. }), Some(Picture::Explained(explained))) => Some(explained),
        (outcome, _) => outcome.as_ref(),
    };
    match outcome {
        None => vec!["(skipped)".to_owned()],
        Some(Outcome::Rows { types, rows }) => std::iter::once(format!("[{types}] {} rows", rows.len()))
            .chain(rows.iter().map(|row| row.join(" | ")))
            .collect(),
        Some(Outcome::Error { message }) => format!("error: {message}").lines().map(str::to_owned).collect(),
        Some(Outcome::Panic { message }) => format!("panic: {message}").lines().map(str::to_owned).collect(),
        Some(Outcome::TimedOut { seconds }) => vec![format!("stopped after {seconds} s")],
    }
}
