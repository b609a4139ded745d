//! The command line: what was said, before it means anything.

use std::io::IsTerminal;
use std::sync::LazyLock;

use clap::Parser;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreMode;
use datafusion_cli::object_storage::is_stdin_location;
use datafusion_cli::pool_type::PoolType;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::MaxRows;

/// What `slipstream --version` and the prompt's first line say.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!("{} (DataFusion {})", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
});

/// An SQL shell on Apache DataFusion with the Slipstream performance layer installed.
///
/// Without -c and -f it reads statements from the terminal, or from a pipe.
///
/// Exit codes: 0 when every statement succeeded, 1 when one failed (never after a prompt),
/// 2 when the command line is wrong, 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "slipstream", version = VERSION.as_str(), verbatim_doc_comment)]
pub(crate) struct Args {
    /// Run these statements, then exit; stop at the first error
    #[arg(short = 'c', long, num_args = 0.., value_name = "SQL", value_parser = non_empty)]
    pub(crate) command: Vec<String>,

    /// Run the statements of these files ('-' is stdin), then exit; an error does not stop a file
    #[arg(short = 'f', long, num_args = 0.., value_name = "FILE")]
    pub(crate) file: Vec<String>,

    /// Run these files first, instead of ~/.datafusionrc
    #[arg(short = 'r', long, num_args = 0.., value_name = "FILE", conflicts_with = "file")]
    pub(crate) rc: Option<Vec<String>>,

    /// Work in this directory, which paths in statements are relative to
    #[arg(short = 'p', long, value_name = "DIR", value_parser = directory)]
    pub(crate) data_path: Option<String>,

    /// How to print rows; 'automatic' is 'table', and 'csv' for streams without an end
    #[arg(long, value_enum, default_value_t = PrintFormat::Automatic)]
    pub(crate) format: PrintFormat,

    /// The most rows that a table shows: a number, or 'inf'
    #[arg(long, value_name = "ROWS", default_value = "40")]
    pub(crate) maxrows: MaxRows,

    /// Print rows only: no row count, no times, no progress
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,

    /// Highlight SQL while it is typed
    #[arg(long)]
    pub(crate) color: bool,

    /// Run DataFusion alone: the layer is not installed, and slipstream.* settings do not exist
    #[arg(long)]
    pub(crate) plain: bool,

    /// Set a datafusion.* or slipstream.* setting before the first statement; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    pub(crate) settings: Vec<(String, String)>,

    /// Rows in a batch (datafusion.execution.batch_size)
    #[arg(short = 'b', long, value_name = "ROWS", value_parser = batch_size)]
    pub(crate) batch_size: Option<usize>,

    /// Memory for all queries together: '512m', '10g', '50%' of the cgroup's or machine's memory,
    /// 'unlimited' or '0' for no limit [default: 70%]
    #[arg(verbatim_doc_comment, short = 'm', long, value_name = "SIZE", value_parser = memory_limit)]
    pub(crate) memory_limit: Option<MemoryLimit>,

    /// How operators share the memory, by a pool of DataFusion: 'greedy' (first come, first served) or 'fair'
    /// (an equal part for each one that can spill) [default: by the layer; with --plain greedy]
    #[arg(verbatim_doc_comment, long, value_name = "POOL")]
    pub(crate) mem_pool_type: Option<PoolType>,

    /// How many of the largest memory consumers an out-of-memory error names; 0 tracks none
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) top_memory_consumers: usize,

    /// Disk space for spilling, for example '10g'; 0 forbids spilling [default: 100g]
    #[arg(short = 'd', long, value_name = "SIZE", value_parser = disk_limit)]
    pub(crate) disk_limit: Option<u64>,

    /// What to print about requests to object stores: disabled, summary or trace
    #[arg(long, value_name = "MODE", default_value = "disabled")]
    pub(crate) object_store_profiling: InstrumentedObjectStoreMode,
}

impl Args {
    /// Whether there is somebody to talk with: nothing to run was given, and stdin is a terminal.
    pub(crate) fn is_interactive(&self) -> bool {
        self.command.is_empty() && self.file.is_empty() && std::io::stdin().is_terminal()
    }

    /// Whether stdin is the script, because nothing else to run was given.
    pub(crate) fn reads_statements_from_stdin(&self) -> bool {
        self.command.is_empty() && self.file.is_empty()
    }

    /// Whether stdin is spoken for, so that it cannot carry the rows of a table.
    pub(crate) fn stdin_carries_statements(&self) -> bool {
        let startup = self.rc.iter().flatten();
        self.reads_statements_from_stdin() || self.file.iter().chain(startup).any(|file| is_stdin(file))
    }
}

/// Whether a path given to -f or -r means standard input.
pub(crate) fn is_stdin(path: &str) -> bool {
    path == "-" || is_stdin_location(path)
}

/// The value of --memory-limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// No limit: queries take what they need, and nothing spills.
    Unlimited,
    /// So many bytes.
    Bytes(usize),
    /// A part of what the cgroup or the machine has, in percent.
    Percent(u8),
}

fn non_empty(sql: &str) -> Result<String, String> {
    if sql.trim().is_empty() { Err("there is no statement in it".to_owned()) } else { Ok(sql.to_owned()) }
}

fn directory(path: &str) -> Result<String, String> {
    if std::path::Path::new(path).is_dir() {
        Ok(path.to_owned())
    } else {
        Err("there is no such directory".to_owned())
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE, for example datafusion.execution.target_partitions=4".to_owned()),
    }
}

fn batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows) if rows > 0 => Ok(rows),
        _ => Err("expected a number of rows, 1 or more".to_owned()),
    }
}

fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.trim().parse() {
            Ok(percent @ 1..=100) => Ok(MemoryLimit::Percent(percent)),
            _ => Err("a percentage is a whole number from 1% to 100%".to_owned()),
        };
    }
    if ["unlimited", "none", "inf", "infinite"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(MemoryLimit::Unlimited);
    }
    match size(text)? {
        0 => Ok(MemoryLimit::Unlimited),
        bytes => usize::try_from(bytes)
            .map(MemoryLimit::Bytes)
            .map_err(|_too_large| "it is more than this machine can address".to_owned()),
    }
}

fn disk_limit(text: &str) -> Result<u64, String> {
    size(text)
}

/// Reads a size in bytes: a whole number and a unit of 1024, as datafusion-cli's users write it.
fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a whole number and a unit (b, k, m, g or t), for example 512m".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_not_a_number| expected())?;
    number.checked_mul(1 << shift).ok_or_else(|| "the size is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(size("5"), Ok(5));
        assert_eq!(size("5b"), Ok(5));
        assert_eq!(size("4K"), Ok(4 << 10));
        assert_eq!(size("20mb"), Ok(20 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("3t"), Ok(3 << 40));
        for wrong in ["", "m", "-20mb", "4kbx", "12k12k", "1.5g"] {
            assert!(size(wrong).unwrap_err().contains("whole number"), "{wrong}");
        }
        assert_eq!(size("99999999999t"), Err("the size is too large".to_owned()));
    }

    #[test]
    fn memory_limits_may_be_relative_or_absent() {
        assert_eq!(memory_limit("10g"), Ok(MemoryLimit::Bytes(10 << 30)));
        assert_eq!(memory_limit("50%"), Ok(MemoryLimit::Percent(50)));
        for none in ["0", "0g", "unlimited", "NONE", "inf"] {
            assert_eq!(memory_limit(none), Ok(MemoryLimit::Unlimited), "{none}");
        }
        for wrong in ["0%", "101%", "-1%", "much"] {
            assert!(memory_limit(wrong).is_err(), "{wrong}");
        }
    }
}
