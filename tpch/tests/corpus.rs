//! A quick part of DataFusion's own corpus on both engines; `slipstream-tpch corpus` runs the whole.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::process::{Command, Output};

/// Files that take at most a few seconds in a development build and need no data files: every kind of join, subquery
/// and aggregate, statements that change the session, system tables, plan pictures, and errors.
const QUICK_FILES: [&str; 20] = [
    "cte.slt",
    "ddl.slt",
    "distinct_on.slt",
    "dml_delete.slt",
    "errors.slt",
    "grouping.slt",
    "in_list.slt",
    "information_schema.slt",
    "insert.slt",
    "join_is_not_distinct_from.slt",
    "lateral_join.slt",
    "limit.slt",
    "named_arguments.slt",
    "null_aware_anti_join.slt",
    "prepare.slt",
    "set_variable.slt",
    "sort_merge_join.slt",
    "subquery_sort.slt",
    "type_coercion.slt",
    "union_by_name.slt",
];

fn corpus(files: &[&str], more: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream-tpch"));
    command.arg("corpus").args(files.iter().flat_map(|file| ["--filter", file])).args(more);
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[test]
fn every_record_of_the_quick_files_has_the_plain_outcome() {
    let (output, text) = corpus(&QUICK_FILES, &[]);
    assert!(output.status.success(), "{text}");
    // A filter that matches less than it says would pass as well.
    let files =
        text.split_once(" files").and_then(|(before, _)| before.rsplit_once(' ')?.1.parse::<usize>().ok());
    assert!(files >= Some(QUICK_FILES.len()), "{text}");
}

/// The comparison sees what an engine with another setting does otherwise: rows, and errors.
#[test]
fn a_wrong_setting_is_seen() {
    for (file, setting, record) in [
        ("union_by_name.slt", "datafusion.sql_parser.default_null_ordering=nulls_min", "union_by_name.slt:"),
        ("errors.slt", "datafusion.sql_parser.dialect=mysql", "errors.slt:"),
    ] {
        let (output, text) = corpus(&[file], &["--entry", "sql", "--set", setting]);
        assert_eq!(output.status.code(), Some(1), "{setting}\n{text}");
        let different = text.split_once("DIFFERENT on slipstream sql").map(|(_, different)| different);
        assert!(different.is_some_and(|different| different.contains(record)), "{setting}\n{text}");
    }
}

#[test]
fn a_filter_without_files_is_an_error() {
    let (output, text) = corpus(&["no such file"], &[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("contains any of [\"no such file\"]"), "{text}");
}
