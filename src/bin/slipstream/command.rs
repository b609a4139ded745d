//! The `\` commands, as datafusion-cli has them.

use std::io::{self, Write};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::error::{DataFusionError, Result};
use datafusion_cli::command::{Command, OutputFormat};
use datafusion_cli::functions::Function;
use datafusion_cli::print_format::PrintFormat;
use futures::FutureExt;

use crate::complete;
use crate::outcome::{End, Outcome};
use crate::progress;
use crate::report::Failure;
use crate::script;
use crate::session::Shell;
use crate::statement;

/// A command as `\?` lists it.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Its name, after the `\`.
    pub(crate) name: &'static str,
    form: &'static str,
    meaning: &'static str,
}

/// All commands.
pub(crate) const COMMANDS: &[Usage] = &[
    Usage { name: "d", form: "\\d", meaning: "list tables" },
    Usage { name: "d", form: "\\d name", meaning: "describe a table" },
    Usage { name: "h", form: "\\h", meaning: "list the statements that \\h describes" },
    Usage { name: "h", form: "\\h name", meaning: "describe a statement or a function" },
    Usage { name: "i", form: "\\i file", meaning: "run the statements of a file" },
    Usage { name: "pset", form: "\\pset [format [name]]", meaning: "show or set the output format" },
    Usage {
        name: "quiet",
        form: "\\quiet [true|false]",
        meaning: "show or set whether only rows are printed",
    },
    Usage {
        name: "object_store_profiling",
        form: "\\object_store_profiling [disabled|summary|trace]",
        meaning: "show or set what is printed about requests to object stores",
    },
    Usage { name: "?", form: "\\?", meaning: "list commands" },
    Usage { name: "q", form: "\\q", meaning: "quit" },
];

/// Runs a command; the text begins after the `\`.
pub(crate) async fn run(shell: &mut Shell, text: &str) -> Result<Outcome, Failure> {
    // As at a prompt, a semicolon at the end is a habit.
    let words: Vec<_> = text.trim_end_matches(';').split_whitespace().collect();
    let Ok(command) = words.join(" ").parse::<Command>() else {
        return Err(Failure::Command(explain(words.first().copied().unwrap_or_default())));
    };
    match command {
        Command::Quit => return Ok(Outcome::ended(End::Quit)),
        Command::Help => print_commands(shell)?,
        Command::ListTables => statement::run(shell, "SHOW TABLES").await?,
        Command::DescribeTableStmt(table) => {
            statement::run(shell, &format!("SHOW COLUMNS FROM {table}")).await?;
        }
        // datafusion-cli describes the statements of its manual; functions are the session's.
        Command::SearchFunctions(name) if name.parse::<Function>().is_err() => {
            describe_function(shell, &name.to_lowercase()).await?;
        }
        Command::Include(Some(file)) => return Ok(Box::pin(script::run_file(shell, &file)).await),
        Command::Include(None) => return Err(Failure::Command(explain("i"))),
        Command::OutputFormat(None) => writeln!(io::stdout(), "Output format is {:?}.", shell.print.format)
            .map_err(DataFusionError::IoError)?,
        Command::OutputFormat(Some(change)) => match change.parse::<OutputFormat>() {
            Ok(change) => change.execute(&mut shell.print)?,
            Err(()) => return Err(Failure::Command(explain("pset"))),
        },
        // None of these waits for anything.
        Command::ListFunctions
        | Command::SearchFunctions(_)
        | Command::QuietMode(_)
        | Command::ObjectStoreProfileMode(_) => {
            command.execute(&shell.ctx, &mut shell.print).now_or_never().unwrap_or(Ok(()))?;
        }
    }
    Ok(Outcome::SUCCEEDED)
}

async fn describe_function(shell: &mut Shell, name: &str) -> Result<(), Failure> {
    let known = complete::functions(&shell.ctx.state());
    if !known.iter().any(|function| function == name) {
        let nearest = known.iter().min_by_key(|function| strsim::damerau_levenshtein(function, name));
        let nearest = nearest.map(String::as_str).unwrap_or_default();
        return Err(Failure::Command(format!("there is no function '{name}'; did you mean '{nearest}'?")));
    }
    let quoted = name.replace('\'', "''");
    let sql = format!(
        "SELECT DISTINCT routine_name AS function, function_type AS kind, syntax_example AS usage, description \
         FROM information_schema.routines WHERE routine_name = '{quoted}'"
    );
    statement::run(shell, &sql).await
}

/// What to write instead of a command that does not exist, or not in this form.
fn explain(name: &str) -> String {
    let forms: Vec<_> = COMMANDS.iter().filter(|usage| usage.name == name).map(|usage| usage.form).collect();
    if !forms.is_empty() {
        return format!("\\{name} is used as {}", forms.join(" or "));
    }
    let nearest = COMMANDS.iter().min_by_key(|usage| strsim::damerau_levenshtein(usage.name, name));
    let nearest = nearest.map(|usage| usage.name).unwrap_or_default();
    format!("there is no command '\\{name}'; did you mean '\\{nearest}'? \\? lists all")
}

fn print_commands(shell: &Shell) -> Result<()> {
    let started = progress::now();
    let column = |text: fn(&Usage) -> &'static str| -> ArrayRef {
        Arc::new(COMMANDS.iter().map(|usage| Some(text(usage))).collect::<StringArray>())
    };
    let batch = RecordBatch::try_from_iter([
        ("Command", column(|usage| usage.form)),
        ("Description", column(|usage| usage.meaning)),
    ])?;
    let config = shell.ctx.copied_config();
    let (schema, rows) = (batch.schema(), batch.num_rows());
    let mut print = shell.print.clone();
    if print.format == PrintFormat::Automatic {
        print.format = PrintFormat::Table;
    }
    print.print_batches(schema, &[batch], started, rows, &config.options().format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_command_is_understood() {
        for usage in COMMANDS {
            let form = usage.form.split_whitespace().next().unwrap();
            // A command that needs an argument has no form without one.
            let text = if usage.name == "i" { "i file" } else { &form[1..] };
            assert!(text.parse::<Command>().is_ok(), "{}", usage.form);
        }
    }

    #[test]
    fn a_wrong_command_names_the_nearest() {
        assert!(explain("quite").contains("did you mean '\\quiet'"));
        assert!(explain("pst").contains("did you mean '\\pset'"));
        assert_eq!(explain("d"), "\\d is used as \\d or \\d name");
    }
}
