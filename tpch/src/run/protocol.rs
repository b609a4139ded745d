//! The lines that the harness and its workers exchange: one JSON value a line, a reply to each request.
//!
//! ```text
//! worker ── ready | failed ─►            once, when the tables are registered
//!        ◄─ run ── done | failed ─►      as often as asked
//! ```
//! A worker ends when its standard input does, so that no worker outlives the harness.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the harness asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Run the query once and leave its rows in this Arrow IPC file.
    Run {
        /// The file, which is replaced.
        rows: PathBuf,
    },
}

/// What a worker answers; the figures `T` are those of one run, unless another command has workers of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply<T = Done> {
    /// The worker can run its query.
    Ready,
    /// What was asked for is done.
    Done(T),
    /// The query, or the preparation for it, failed.
    Failed {
        /// The error of the engine.
        message: String,
    },
}

/// The figures of one run; the peaks are those of the process so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// From the text of the query to its last batch.
    pub(crate) elapsed_ms: f64,
    /// Rows of the result.
    pub(crate) rows: usize,
    /// The most memory that the process ever had resident; `None` where the system does not tell.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// The most memory that operators ever had reserved.
    pub(crate) peak_pool_bytes: u64,
    /// Bytes that this run wrote to spill files.
    pub(crate) spilled_bytes: u64,
}

/// Encodes a message as a line, its end included.
pub(crate) fn to_line(message: &impl Serialize) -> Result<String, String> {
    // JSON escapes line ends inside of texts, so that a message is always one line.
    serde_json::to_string(message).map(|line| line + "\n").map_err(|e| e.to_string())
}

/// Decodes a line.
pub(crate) fn from_line<T: for<'a> Deserialize<'a>>(line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|e| format!("unexpected line \"{}\": {e}", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_line() {
        let request = Request::Run { rows: PathBuf::from("/tmp/a \"b\"\n.arrow") };
        let line = to_line(&request).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(from_line::<Request>(&line).unwrap(), request);

        let done = Done {
            elapsed_ms: 12.345_678_9,
            rows: 4,
            peak_rss_bytes: None,
            peak_pool_bytes: u64::MAX,
            spilled_bytes: 0,
        };
        for reply in [Reply::Ready, Reply::Done(done), Reply::Failed { message: "two\nlines: ü".to_owned() }]
        {
            let line = to_line(&reply).unwrap();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(from_line::<Reply>(&line).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_no_message_is_shown() {
        let error = from_line::<Reply>("thread 'main' panicked\n").unwrap_err();
        assert!(error.starts_with("unexpected line \"thread 'main' panicked\""), "{error}");
    }
}
