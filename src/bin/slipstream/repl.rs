//! The prompt: reads what is typed, runs it, and keeps it in a history.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use datafusion::error::{DataFusionError, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::args::VERSION;
use crate::complete::ShellHelper;
use crate::outcome::{End, Outcome};
use crate::report;
use crate::script;
use crate::session::Shell;

/// Statements that the history keeps.
const HISTORY_LIMIT: usize = 10_000;

/// Reads statements and runs them until the user leaves. Errors are the user's to read and never end it, so
/// that the exit code tells nothing about them.
#[expect(clippy::future_not_send, reason = "the editor belongs to the main thread, which polls this")]
pub(crate) async fn converse(shell: &mut Shell) -> Result<Outcome> {
    if !shell.print.quiet {
        writeln!(io::stdout(), "Slipstream {}", *VERSION)?;
    }
    let mut editor = open_editor(shell).map_err(readline_error)?;
    let history = history_file();
    if let Some(history) = &history {
        // There is none at first, and one that cannot be read is no reason not to start.
        editor.load_history(history).ok();
    }
    loop {
        match editor.readline("> ") {
            Ok(text) => {
                remember(&mut editor, &text, history.as_ref());
                shell.interrupt.forget();
                let outcome = script::run_typed(shell, &text).await;
                if matches!(outcome.end(), Some(End::Quit | End::StdoutClosed)) {
                    return Ok(outcome.forgiven());
                }
                if let Some(helper) = editor.helper_mut() {
                    helper.follow_dialect();
                }
            }
            // Ctrl-C clears the line.
            Err(ReadlineError::Interrupted) => report::note("^C"),
            // Ctrl-D leaves.
            Err(ReadlineError::Eof) => {
                writeln!(io::stdout(), "\\q")?;
                return Ok(Outcome::SUCCEEDED);
            }
            Err(error) => return Err(readline_error(error)),
        }
    }
}

fn open_editor(shell: &Shell) -> rustyline::Result<Editor<ShellHelper, FileHistory>> {
    let config =
        Config::builder().max_history_size(HISTORY_LIMIT)?.completion_type(CompletionType::List).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(ShellHelper::new(shell.ctx.clone(), shell.print.color)));
    Ok(editor)
}

/// Adds to the history at once, so that nothing is lost when the shell is killed, and shells that run side by
/// side do not overwrite one another's.
fn remember(editor: &mut Editor<ShellHelper, FileHistory>, text: &str, file: Option<&PathBuf>) {
    let added = editor.add_history_entry(text.trim_end()).unwrap_or(false);
    if let (true, Some(file)) = (added, file) {
        editor.append_history(file).ok();
    }
}

/// `$XDG_STATE_HOME/slipstream/history`, or below `~/.local/state`: a history in the working directory, as
/// datafusion-cli has it, ends up in repositories.
fn history_file() -> Option<PathBuf> {
    let state = match env::var_os("XDG_STATE_HOME") {
        Some(state) if !state.is_empty() => PathBuf::from(state),
        _ => env::home_dir()?.join(".local").join("state"),
    };
    let directory = state.join("slipstream");
    fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

fn readline_error(error: ReadlineError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
