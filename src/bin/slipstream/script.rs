//! Runs statements that are there already: -c, -f, -r, a pipe, and `\i`.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;
use std::thread;

use tokio::sync::mpsc;

use crate::args::{Args, is_stdin};
use crate::command;
use crate::outcome::{End, Outcome};
use crate::report::{self, Failure};
use crate::session::Shell;
use crate::split::{Kind, Piece, Script};
use crate::statement;

/// Lines of stdin that are read ahead of the statements.
const STDIN_LINES_AHEAD: usize = 64;

/// Files that may include one another: more is a file that includes itself.
const INCLUDE_DEPTH_LIMIT: usize = 16;

/// Where statements come from, which says how an error is announced and whether it ends the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// What somebody typed, who sees what it was.
    Prompt,
    /// -c: what follows was written for the case that it succeeds.
    Argument,
    /// A file.
    File(&'a str),
    /// A pipe.
    Stdin,
}

impl Source<'_> {
    fn stops_at_an_error(self) -> bool {
        matches!(self, Self::Argument)
    }

    /// Announces an error of a statement that begins at this line.
    fn announce(self, line: u64, message: &str) {
        match self {
            Self::Prompt | Self::Argument => report::error(message),
            Self::File(_) | Self::Stdin => report::note(&format!("{self}:{line}: {message}")),
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompt => "prompt",
            Self::Argument => "-c",
            Self::File(path) => path,
            Self::Stdin => "stdin",
        })
    }
}

/// Runs what is to be run before anything else: the files of -r, or `~/.datafusionrc` where statements come
/// from a prompt or a pipe.
pub(crate) async fn run_startup_files(shell: &mut Shell, args: &Args) -> Outcome {
    if let Some(files) = &args.rc {
        return run_files(shell, files).await;
    }
    let startup = std::env::home_dir().map(|home| home.join(".datafusionrc"));
    match startup.as_deref().and_then(Path::to_str) {
        Some(path) if args.reads_statements_from_stdin() && Path::new(path).is_file() => {
            // It is the user's habit, not part of this script: what fails in it is said, and does not count.
            let outcome = run_file(shell, path).await;
            outcome.forgiven()
        }
        _ => Outcome::SUCCEEDED,
    }
}

/// Runs the files of -f, then the statements of -c.
pub(crate) async fn run_arguments(shell: &mut Shell, args: &Args) -> Outcome {
    let mut outcome = run_files(shell, &args.file).await;
    for text in &args.command {
        if outcome.end().is_some() {
            break;
        }
        let next = run_all(shell, Script::whole(text), Source::Argument).await;
        outcome = outcome.and(next);
        if next.has_failed() {
            break;
        }
    }
    outcome
}

async fn run_files(shell: &mut Shell, files: &[String]) -> Outcome {
    let mut outcome = Outcome::SUCCEEDED;
    for file in files {
        outcome = outcome.and(if is_stdin(file) {
            run_stdin(shell).await
        } else {
            let path = shell.started_in.join(file);
            run_file_at(shell, &path, file).await
        });
        if outcome.end().is_some() {
            break;
        }
    }
    outcome
}

/// Runs the statements of a file; its path is as the user wrote it.
pub(crate) async fn run_file(shell: &mut Shell, file: &str) -> Outcome {
    run_file_at(shell, Path::new(file), file).await
}

async fn run_file_at(shell: &mut Shell, path: &Path, name: &str) -> Outcome {
    if shell.include_depth >= INCLUDE_DEPTH_LIMIT {
        report::error(&format!("{name} is not run: {INCLUDE_DEPTH_LIMIT} files include one another already"));
        return Outcome::FAILED;
    }
    let text = match read(path) {
        Ok(text) => text,
        Err(reason) => {
            report::error(&format!("{name} cannot be read: {reason}"));
            return Outcome::FAILED;
        }
    };
    shell.include_depth += 1;
    let outcome = Box::pin(run_all(shell, Script::whole(&text), Source::File(name))).await;
    shell.include_depth -= 1;
    outcome.of_file()
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })
}

/// Runs the statements of stdin, each as soon as it is there.
pub(crate) async fn run_stdin(shell: &mut Shell) -> Outcome {
    let mut lines = read_stdin();
    let mut script = Script::new();
    let mut outcome = Outcome::SUCCEEDED;
    loop {
        match shell.interrupt.or(lines.recv()).await {
            Some(Some(Ok(line))) => script.push(&line),
            Some(Some(Err(error))) => {
                report::error(&format!("stdin cannot be read: {error}"));
                return Outcome::FAILED;
            }
            Some(None) => break,
            None => return Outcome::ended(End::Cancelled),
        }
        outcome = outcome.and(run_ready(shell, &mut script, Source::Stdin).await);
        if outcome.end().is_some() {
            return outcome;
        }
    }
    script.finish();
    outcome.and(run_ready(shell, &mut script, Source::Stdin).await)
}

/// Reads stdin on a thread of its own, which the process does not wait for: a read cannot be cancelled.
fn read_stdin() -> mpsc::Receiver<io::Result<String>> {
    let (sender, lines) = mpsc::channel(STDIN_LINES_AHEAD);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = String::new();
            let read = stdin.read_line(&mut line);
            let ended = !matches!(read, Ok(1..));
            if let Some(line) = read.map(|bytes| (bytes > 0).then_some(line)).transpose()
                && sender.blocking_send(line).is_err()
            {
                return;
            }
            if ended {
                return;
            }
        }
    });
    lines
}

/// Runs what was typed at the prompt.
pub(crate) async fn run_typed(shell: &mut Shell, text: &str) -> Outcome {
    run_all(shell, Script::whole(text), Source::Prompt).await
}

async fn run_all(shell: &mut Shell, mut script: Script, source: Source<'_>) -> Outcome {
    run_ready(shell, &mut script, source).await
}

/// Runs what of the script has arrived.
async fn run_ready(shell: &mut Shell, script: &mut Script, source: Source<'_>) -> Outcome {
    let mut outcome = Outcome::SUCCEEDED;
    while let Some(piece) = script.next(shell.dialect()) {
        let next = run_piece(shell, &piece, source).await;
        outcome = outcome.and(next);
        if outcome.end().is_some() || (next.has_failed() && source.stops_at_an_error()) {
            break;
        }
    }
    outcome
}

async fn run_piece(shell: &mut Shell, piece: &Piece, source: Source<'_>) -> Outcome {
    let Piece { kind, text, start } = piece;
    let result = match kind {
        Kind::Statement => statement::run(shell, text).await.map(|()| Outcome::SUCCEEDED),
        Kind::Command => command::run(shell, text).await,
    };
    match result {
        Ok(outcome) => outcome,
        Err(Failure::Query(error)) => {
            source.announce(start.line, &report::describe_in(&error, text, *start));
            Outcome::FAILED
        }
        Err(Failure::Command(message)) => {
            source.announce(start.line, &message);
            Outcome::FAILED
        }
        Err(Failure::Cancelled) => {
            report::note("The query was cancelled.");
            Outcome::ended(End::Cancelled)
        }
        Err(Failure::StdoutClosed) => Outcome::ended(End::StdoutClosed),
    }
}
