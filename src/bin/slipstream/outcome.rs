//! How a script, or the session, ended, and what the exit code says of it.

use std::process::ExitCode;

/// The exit code after Ctrl-C: 128 + SIGINT, as shells have it.
pub(crate) const EXIT_CANCELLED: u8 = 130;

/// What became of some statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Outcome {
    /// Whether one of them failed.
    failed: bool,
    /// Why nothing after them is to be run.
    end: Option<End>,
}

/// Why nothing else is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// `\q`.
    Quit,
    /// Nobody reads the output any more.
    StdoutClosed,
    /// Ctrl-C.
    Cancelled,
}

impl Outcome {
    /// All succeeded.
    pub(crate) const SUCCEEDED: Self = Self { failed: false, end: None };
    /// One failed.
    pub(crate) const FAILED: Self = Self { failed: true, end: None };

    /// They ended the session.
    pub(crate) const fn ended(end: End) -> Self {
        Self { failed: false, end: Some(end) }
    }

    /// Whether a statement failed.
    pub(crate) fn has_failed(self) -> bool {
        self.failed
    }

    /// Why nothing else is to be run, if that is so.
    pub(crate) fn end(self) -> Option<End> {
        self.end
    }

    /// The outcome of these statements and the next ones.
    pub(crate) fn and(self, next: Self) -> Self {
        Self { failed: self.failed || next.failed, end: self.end.or(next.end) }
    }

    /// The outcome for those who do not count failures.
    pub(crate) fn forgiven(self) -> Self {
        Self { failed: false, ..self }
    }

    /// The outcome of a file for the one who runs it: `\q` leaves the file that says it.
    pub(crate) fn of_file(self) -> Self {
        Self { end: self.end.filter(|end| *end != End::Quit), ..self }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self { end: Some(End::Cancelled), .. } => ExitCode::from(EXIT_CANCELLED),
            Self { failed: true, .. } => ExitCode::FAILURE,
            Self { failed: false, .. } => ExitCode::SUCCESS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_and_an_end_stay_whatever_follows() {
        let quit = Outcome::ended(End::Quit);
        assert!(Outcome::FAILED.and(Outcome::SUCCEEDED).has_failed());
        assert_eq!(Outcome::FAILED.and(quit).end(), Some(End::Quit));
        assert!(Outcome::FAILED.and(quit).has_failed());
        assert_eq!(quit.of_file(), Outcome::SUCCEEDED);
        assert_eq!(Outcome::FAILED.and(quit).forgiven(), quit);
    }
}
