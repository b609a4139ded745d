//! What one record of the corpus did on one engine, as the lines that a worker streams to its parent.

use serde::{Deserialize, Serialize};

/// What a statement gave back.
///
/// A statement that returns nothing is `Rows` without columns, as DataFusion itself sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It ran to its end.
    Rows {
        /// One letter for each column, as sqllogictest writes them.
        types: String,
        /// The cells, in the form in which the corpus prints them.
        rows: Vec<Vec<String>>,
    },
    /// It failed with this text.
    Error {
        /// The whole text, since a user reads the whole text.
        message: String,
    },
    /// It panicked with this text.
    Panic {
        /// The payload of the panic.
        message: String,
    },
    /// It was stopped after this time.
    TimedOut {
        /// The limit that it ran into.
        seconds: u64,
    },
}

/// A record that shows a plan: its text may differ between engines, what it explains may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Picture {
    /// The explained query was run on its own, with this outcome.
    Explained(Outcome),
    /// The explained statement was not run, for this reason.
    NotRun(String),
}

/// How the file wants the rows of a record to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sort {
    /// In the order in which they came.
    None,
    /// Row by row, sorted.
    Rows,
    /// Value by value, sorted.
    Values,
}

/// One record of one file on one engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordRun {
    /// The corpus file, relative to `test_files`.
    pub(super) file: String,
    /// The position among the records of the file, includes expanded; what both engines are aligned by.
    pub(super) index: usize,
    /// `file:line`, with the line of the include where there is one; what an exception names.
    pub(super) location: String,
    /// The statement.
    pub(super) sql: String,
    /// How the file wants the rows to be compared.
    pub(super) sort: Sort,
    /// Whether the statement fixes the order of its rows.
    pub(super) ordered: bool,
    /// Set when the statement is an EXPLAIN.
    pub(super) picture: Option<Picture>,
    /// None when the file says that DataFusion skips this record.
    pub(super) outcome: Option<Outcome>,
    /// Whether the outcome is the one that the file expects.
    pub(super) as_expected: bool,
    /// Whether the answer, or the plan, came from a cache.
    pub(super) from_cache: bool,
}

/// One line of a worker's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// A file begins; without its end, it is the one that took the worker down.
    Started {
        /// The corpus file.
        file: String,
    },
    /// A record has run.
    Record(RecordRun),
    /// A file is through.
    Finished {
        /// The corpus file.
        file: String,
        /// Why none of its records ran.
        not_run: Option<String>,
        /// How many records it holds when none of them ran, zero otherwise.
        records_not_run: usize,
        /// Whether every record, and the settings at the end, were as the file expects.
        as_expected: bool,
    },
}
