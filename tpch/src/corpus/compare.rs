//! Compares what two engines did, record by record.

use std::collections::BTreeMap;

use super::outcome::{Outcome, Picture, RecordRun, Sort};
use super::process::{EngineRun, FileRun};

/// What the comparison of one record said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same rows, or the same error.
    Same,
    /// Two plan pictures of one query, which gave the same rows or the same error when it was run.
    SamePicture,
    /// Two plan pictures of a statement that is not run for its picture.
    PictureOnly(String),
    /// Neither engine ran it, for this reason.
    NotRun(String),
    /// The outcomes differ.
    Different,
}

/// A record that differs, with both of its runs.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// What the plain engine did; none when it did not come to this record.
    pub(super) plain: Option<RecordRun>,
    /// What the layer did.
    pub(super) layer: Option<RecordRun>,
    /// Which record it is.
    pub(super) location: String,
    /// Why the whole file did not run on one of them.
    pub(super) note: Option<String>,
}

/// The comparison of one engine with the plain one.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// All records, run or not.
    pub(super) records: usize,
    /// Records with the same rows or error.
    pub(super) same: usize,
    /// Plan pictures whose queries gave the same.
    pub(super) same_pictures: usize,
    /// Plan pictures of statements that are not run for them, by reason.
    pub(super) pictures_only: BTreeMap<String, usize>,
    /// Records that neither engine ran, by reason.
    pub(super) not_run: BTreeMap<String, usize>,
    /// Records that differ.
    pub(super) different: Vec<Difference>,
    /// The locations of all records that were compared, differing or not.
    pub(super) compared: Vec<String>,
}

/// Compares two engines on all their files.
pub(super) fn compare(plain: &EngineRun, layer: &EngineRun) -> Comparison {
    let mut comparison = Comparison::default();
    let nothing = FileRun::default();
    for (name, plain) in &plain.files {
        compare_files(name, plain, layer.files.get(name).unwrap_or(&nothing), &mut comparison);
    }
    comparison
}

fn compare_files(name: &str, plain: &FileRun, layer: &FileRun, comparison: &mut Comparison) {
    match (&plain.not_run, &layer.not_run) {
        (Some(reason), Some(other)) if reason == other => {
            comparison.records += plain.records_not_run;
            *comparison.not_run.entry(file_reason(reason)).or_default() += plain.records_not_run;
            return;
        }
        (None, None) => {}
        (plain_reason, layer_reason) => {
            let note = format!("plain: {plain_reason:?}, layer: {layer_reason:?}");
            comparison.records += 1;
            comparison.different.push(Difference {
                plain: None,
                layer: None,
                location: name.to_owned(),
                note: Some(note),
            });
            return;
        }
    }
    let indexes: std::collections::BTreeSet<_> = plain.records.keys().chain(layer.records.keys()).collect();
    for index in indexes {
        compare_pair(plain.records.get(index), layer.records.get(index), comparison);
    }
}

/// The kind of reason, without what differs from file to file, so that the report can count it.
fn file_reason(reason: &str) -> String {
    let first = reason.lines().next().unwrap_or_default();
    format!("the file did not start: {}", first.split(" at ").next().unwrap_or(first))
}

fn compare_pair(plain: Option<&RecordRun>, layer: Option<&RecordRun>, comparison: &mut Comparison) {
    comparison.records += 1;
    let verdict = match (plain, layer) {
        (Some(plain), Some(layer)) => verdict(plain, layer),
        _ => Verdict::Different,
    };
    let location = plain.or(layer).map(|record| record.location.clone()).unwrap_or_default();
    match verdict {
        Verdict::NotRun(reason) => {
            *comparison.not_run.entry(reason).or_default() += 1;
            return;
        }
        Verdict::Same => comparison.same += 1,
        Verdict::SamePicture => comparison.same_pictures += 1,
        Verdict::PictureOnly(reason) => *comparison.pictures_only.entry(reason).or_default() += 1,
        Verdict::Different => comparison.different.push(Difference {
            plain: plain.cloned(),
            layer: layer.cloned(),
            location: location.clone(),
            note: None,
        }),
    }
    comparison.compared.push(location);
}

/// Compares one record's two runs.
pub(super) fn verdict(plain: &RecordRun, layer: &RecordRun) -> Verdict {
    let (Some(plain_outcome), Some(layer_outcome)) = (&plain.outcome, &layer.outcome) else {
        return if plain.outcome.is_none() && layer.outcome.is_none() {
            Verdict::NotRun("the file keeps it for another database".to_owned())
        } else {
            Verdict::Different
        };
    };
    if let Some(reason) = timed_out(plain_outcome) {
        return Verdict::NotRun(reason);
    }
    match (&plain.picture, &layer.picture) {
        (None, None) if same(plain, plain_outcome, layer_outcome) => Verdict::Same,
        (Some(plain_picture), Some(layer_picture)) if same_picture(plain_outcome, layer_outcome) => {
            match (plain_picture, layer_picture) {
                (Picture::NotRun(reason), Picture::NotRun(_)) => Verdict::PictureOnly(reason.clone()),
                (Picture::Explained(explained), Picture::Explained(_)) if timed_out(explained).is_some() => {
                    Verdict::PictureOnly(
                        "the explained query does not end in time on the plain engine".to_owned(),
                    )
                }
                (Picture::Explained(a), Picture::Explained(b)) if same(plain, a, b) => Verdict::SamePicture,
                _ => Verdict::Different,
            }
        }
        _ => Verdict::Different,
    }
}

/// Whether the layer gives the plain engine's rows, and besides only rows about itself.
///
/// A row is the layer's own when a cell names its schema, one of its settings or one of its functions.
pub(super) fn only_adds_own_rows(difference: &Difference) -> bool {
    let (Some(plain), Some(layer)) = (&difference.plain, &difference.layer) else { return false };
    let Some(Outcome::Rows { types, rows }) = &layer.outcome else { return false };
    let is_own = |cell: &String| {
        cell == "slipstream" || cell.starts_with("slipstream.") || cell.starts_with("slipstream_")
    };
    let others: Vec<_> = rows.iter().filter(|row| !row.iter().any(is_own)).cloned().collect();
    let without = Outcome::Rows { types: types.clone(), rows: others };
    verdict(plain, &RecordRun { outcome: Some(without), ..layer.clone() }) == Verdict::Same
}

fn timed_out(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::TimedOut { seconds } => {
            Some(format!("it takes longer than {seconds} s on the plain engine"))
        }
        _ => None,
    }
}

/// Two pictures may show different plans, but both must be shown, or fail alike.
fn same_picture(plain: &Outcome, layer: &Outcome) -> bool {
    match (plain, layer) {
        (Outcome::Rows { .. }, Outcome::Rows { .. }) => true,
        _ => same_failure(plain, layer),
    }
}

/// Errors compare by their text, without the largest consumers of memory that an exhausted pool lists.
///
/// Who holds how much at that moment is a race, and each is numbered by a counter of the whole process.
fn same_failure(plain: &Outcome, layer: &Outcome) -> bool {
    let (Outcome::Error { message }, Outcome::Error { message: layer_message }) = (plain, layer) else {
        return plain == layer;
    };
    let is_told = |line: &&str| !line.contains("(can spill: ");
    message.lines().filter(is_told).eq(layer_message.lines().filter(is_told))
}

/// Compares rows as the file does; without a sort mode exactly, and in any order if the query leaves it open.
fn same(record: &RecordRun, plain: &Outcome, layer: &Outcome) -> bool {
    let (Outcome::Rows { types, rows }, Outcome::Rows { types: layer_types, rows: layer_rows }) =
        (plain, layer)
    else {
        return same_failure(plain, layer);
    };
    if types != layer_types || rows.len() != layer_rows.len() {
        return false;
    }
    match record.sort {
        Sort::Rows => sorted(rows) == sorted(layer_rows),
        Sort::Values => sorted(&values(rows)) == sorted(&values(layer_rows)),
        Sort::None => rows == layer_rows || (!record.ordered && sorted(rows) == sorted(layer_rows)),
    }
}

fn sorted<T: Ord>(rows: &[T]) -> Vec<&T> {
    let mut rows: Vec<&T> = rows.iter().collect();
    rows.sort_unstable();
    rows
}

fn values(rows: &[Vec<String>]) -> Vec<&String> {
    rows.iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&str]) -> Outcome {
        let rows = rows.iter().map(|row| row.split(' ').map(str::to_owned).collect()).collect();
        Outcome::Rows { types: "II".to_owned(), rows }
    }

    fn error(message: &str) -> Outcome {
        Outcome::Error { message: message.to_owned() }
    }

    fn run(outcome: Outcome) -> RecordRun {
        RecordRun {
            file: "a.slt".to_owned(),
            index: 0,
            location: "a.slt:1".to_owned(),
            sql: "SELECT".to_owned(),
            sort: Sort::None,
            ordered: false,
            picture: None,
            outcome: Some(outcome),
            as_expected: true,
            from_cache: false,
        }
    }

    #[test]
    fn rows_without_order_compare_as_a_multiset() {
        let plain = run(rows(&["1 2", "3 4", "3 4"]));
        assert_eq!(verdict(&plain, &run(rows(&["3 4", "1 2", "3 4"]))), Verdict::Same);
        assert_eq!(verdict(&plain, &run(rows(&["1 2", "1 2", "3 4"]))), Verdict::Different);
        assert_eq!(verdict(&plain, &run(rows(&["1 2", "3 4"]))), Verdict::Different);
        let ordered = RecordRun { ordered: true, ..plain };
        assert_eq!(verdict(&ordered, &run(rows(&["3 4", "1 2", "3 4"]))), Verdict::Different);
    }

    #[test]
    fn sort_modes_of_the_file_win_over_order() {
        let plain = RecordRun { ordered: true, sort: Sort::Rows, ..run(rows(&["1 2", "3 4"])) };
        assert_eq!(verdict(&plain, &run(rows(&["3 4", "1 2"]))), Verdict::Same);
        assert_eq!(verdict(&plain, &run(rows(&["2 1", "3 4"]))), Verdict::Different);
        let plain = RecordRun { sort: Sort::Values, ..plain };
        assert_eq!(verdict(&plain, &run(rows(&["2 1", "3 4"]))), Verdict::Same);
    }

    #[test]
    fn errors_compare_by_their_whole_text() {
        assert_eq!(verdict(&run(error("a")), &run(error("a"))), Verdict::Same);
        assert_eq!(verdict(&run(error("a")), &run(error("b"))), Verdict::Different);
        assert_eq!(verdict(&run(error("a")), &run(rows(&[]))), Verdict::Different);
        let exhausted = |limit: &str, id: usize| {
            error(&format!("exhausted:\n  Sort#{id}(can spill: true) consumed 0 B\n{limit}"))
        };
        assert_eq!(verdict(&run(exhausted("1 B", 1)), &run(exhausted("1 B", 2))), Verdict::Same);
        assert_eq!(verdict(&run(exhausted("1 B", 1)), &run(exhausted("2 B", 1))), Verdict::Different);
    }

    #[test]
    fn pictures_compare_by_what_they_explain() {
        let picture = |text: &str, explained: Outcome| RecordRun {
            picture: Some(Picture::Explained(explained)),
            ..run(rows(&[text]))
        };
        let plain = picture("plan one", rows(&["1 1"]));
        assert_eq!(verdict(&plain, &picture("plan two", rows(&["1 1"]))), Verdict::SamePicture);
        assert_eq!(verdict(&plain, &picture("plan one", rows(&["1 2"]))), Verdict::Different);
        let failed = RecordRun { outcome: Some(error("no plan")), ..plain.clone() };
        assert_eq!(verdict(&plain, &failed), Verdict::Different);
        let slow = picture("plan", Outcome::TimedOut { seconds: 1 });
        assert_eq!(verdict(&plain, &slow), Verdict::Different);
        assert!(matches!(verdict(&slow, &plain), Verdict::PictureOnly(_)));
    }

    #[test]
    fn rows_about_the_layer_itself_may_be_added() {
        let difference = |layer: &[&str]| Difference {
            plain: Some(run(rows(&["public t", "setting 1"]))),
            layer: Some(run(rows(layer))),
            location: "a.slt:1".to_owned(),
            note: None,
        };
        assert!(only_adds_own_rows(&difference(&[
            "slipstream queries",
            "public t",
            "slipstream.enabled 1",
            "setting 1"
        ])));
        assert!(!only_adds_own_rows(&difference(&["slipstream queries", "public t", "setting 2"])));
        assert!(!only_adds_own_rows(&difference(&["public slipstreams", "public t", "setting 1"])));
    }

    #[test]
    fn a_record_that_only_one_engine_skips_differs() {
        let skipped = RecordRun { outcome: None, ..run(rows(&[])) };
        assert!(matches!(verdict(&skipped, &skipped), Verdict::NotRun(_)));
        assert_eq!(verdict(&run(rows(&[])), &skipped), Verdict::Different);
    }
}
