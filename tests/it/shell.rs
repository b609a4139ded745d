//! The shell as its users meet it: the real binary, run as a process.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails the test")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// No test waits longer for a process; a development build on a busy machine needs a part of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at a process.
const TICK: Duration = Duration::from_millis(20);

/// A query that ends long after the tests' patience does.
const ENDLESS: &str =
    "select count(*) from range(0, 100000000) a, range(0, 100000) b where (a.value * b.value) % 7 = 1";

/// What a run of the shell left behind.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "out: {}\nerr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "out: {}\nerr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Requires all of these on stderr.
    #[track_caller]
    fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "no '{part}' in: {}", self.err);
        }
        self
    }
}

/// A directory to work in, which is the user's home too, so that no file of the real one takes part.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream"));
        command.args(args).current_dir(self.path()).env("HOME", self.path()).env_remove("XDG_STATE_HOME");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("DATAFUSION_") || name.starts_with("SLIPSTREAM_") {
                command.env_remove(&*name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_with_stdin(args, "")
    }

    fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Run {
        let mut child = self.command(args).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A process that does not read its stdin closes it.
        pipe.write_all(stdin.as_bytes()).ok();
        drop(pipe);
        finish(child)
    }
}

/// Waits for the process to end by itself.
fn finish(mut child: Child) -> Run {
    let out = child.stdout.take().map(read_all);
    let err = child.stderr.take().map(read_all);
    let text =
        |reader: Option<thread::JoinHandle<String>>| reader.map_or(String::new(), |it| it.join().unwrap());
    for _ in 0..PATIENCE.as_millis() / TICK.as_millis() {
        if let Some(status) = child.try_wait().unwrap() {
            return Run { code: status.code(), out: text(out), err: text(err) };
        }
        thread::sleep(TICK);
    }
    child.kill().unwrap();
    panic!("the shell did not end; stdout: {}\nstderr: {}", text(out), text(err));
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// Runs the shell in an empty directory.
fn run(args: &[&str]) -> Run {
    Place::new().run(args)
}

/// The rows of a csv answer without its summary.
fn rows(run: &Run) -> Vec<&str> {
    run.out.lines().collect()
}

#[test]
fn a_command_prints_rows_and_times() {
    let run = run(&["-c", "select 1 as a, 'x' as b"]).succeeded();
    let expected = "+---+---+\n| a | b |\n+---+---+\n| 1 | x |\n+---+---+\n1 row(s) fetched. \nElapsed ";
    assert!(run.out.starts_with(expected), "{}", run.out);
    assert!(run.out.trim_end().ends_with(" seconds."), "{}", run.out);
    assert_eq!(run.err, "");
}

#[test]
fn quiet_prints_rows_only() {
    let run = run(&["-q", "-c", "select 1 as a"]).succeeded();
    assert_eq!(run.out, "+---+\n| a |\n+---+\n| 1 |\n+---+\n");
}

#[test]
fn a_command_stops_at_its_first_error() {
    let run = run(&["-q", "--format", "csv", "-c", "select 1 as a; select nope; select 2 as b", "select 3"]);
    let run = run.failed().says(&["nope"]);
    assert_eq!(rows(&run), ["a", "1"]);
}

#[test]
fn a_syntax_error_names_line_and_column() {
    let sql = "select 1;\nselect 2 +\n  ) from t";
    run(&["-c", sql]).failed().says(&["Line: 3, Column: 3", "\n    ) from t\n    ^"]);
    run(&["-c", "select 1 +"]).failed().says(&["Line: 1, Column: 11"]);
    run(&["-c", "select 'open"]).failed().says(&["Line: 1, Column: 8"]);
}

#[test]
fn a_file_goes_on_after_an_error() {
    let place = Place::new();
    let script = "#!/usr/bin/env slipstream\n-- it's; a remark\nselect 'a;b' as s; select /*+ HINT(x;y) */ 2 as two;\n\
                  /* ; */\nselect nope\n  from nowhere;\nselect 4\n  5 6;\nselect 3 as three";
    place.write("a.sql", script);
    let run = place.run(&["-q", "--format", "csv", "-f", "a.sql"]).failed();
    let run = run.says(&["a.sql:5: ", "nowhere", "a.sql:7: SQL error", "Line: 8, Column: 3"]);
    assert_eq!(rows(&run), ["s", "a;b", "two", "2", "three", "3"]);
}

#[test]
fn files_run_in_order_before_commands() {
    let place = Place::new();
    place.write("one.sql", "create table t as select 1 as n;");
    place.write("two.sql", "insert into t values (2)");
    let args = ["-q", "--format", "csv", "-c", "select count(*) as n from t", "-f", "one.sql", "two.sql"];
    let run = place.run(&args).succeeded();
    assert_eq!(rows(&run), ["count", "1", "n", "2"]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let place = Place::new();
    place.run(&["-f", "nothing.sql"]).failed().says(&["nothing.sql cannot be read", "No such file"]);
    place.write("binary.sql", b"select 1;\nselect '\xff';\n");
    place.run(&["-f", "binary.sql"]).failed().says(&["binary.sql cannot be read: line 2 is not UTF-8"]);
}

#[test]
fn startup_files_run_first() {
    let place = Place::new();
    place.write("rc.sql", "create view v as select 7 as seven;");
    let run = place.run(&["-q", "--format", "csv", "-r", "rc.sql", "-c", "select * from v"]).succeeded();
    assert_eq!(rows(&run), ["seven", "7"]);
    place.write(".datafusionrc", "create view w as select 8 as eight;");
    let run = place.run_with_stdin(&["-q", "--format", "csv"], "select * from w;").succeeded();
    assert_eq!(rows(&run), ["eight", "8"]);
    place.run(&["-c", "select * from w"]).failed().says(&["'datafusion.public.w' not found"]);
}

#[test]
fn a_pipe_carries_statements_and_commands() {
    let script = "select 1 as a;\n\\pset format json\nselect ';\n' as b; selct;\n\\quite\nselect 2 as c";
    let run = Place::new().run_with_stdin(&["-q", "--format", "csv"], script).failed();
    let run = run.says(&[
        "stdin:4: SQL error",
        "Line: 4, Column: 9",
        "stdin:5: there is no command '\\quite'",
        "'\\quiet'",
    ]);
    assert_eq!(rows(&run), ["a", "1", "Output format is Json.", r#"[{"b":";\n"}]"#, r#"[{"c":2}]"#]);
}

#[test]
fn commands_describe_the_session() {
    let script = "create table orders as select 1 as o_key;\n\\d\n\\d orders\n\\h abs\n\\h cuont\n\\h select\n\\?\n\\q\nselect 'behind the end'";
    let run = Place::new().run_with_stdin(&["-q", "--format", "csv"], script).failed();
    let run = run.says(&["stdin:5: there is no function 'cuont'; did you mean 'count'?"]);
    for part in [
        "datafusion,public,orders,BASE TABLE",
        "datafusion,public,orders,o_key,Int64,NO",
        "abs,SCALAR,abs(",
        "retrieve rows from a table",
        "\\pset [format [name]],show or set the output format",
    ] {
        assert!(run.out.contains(part), "no '{part}' in {}", run.out);
    }
    assert!(!run.out.contains("behind the end"), "nothing runs after \\q: {}", run.out);
}

#[test]
fn a_pipe_may_carry_rows_instead() {
    let sql = "create external table t stored as csv location '/dev/stdin'; select sum(b) as s from t";
    let args = ["-q", "--format", "csv", "-c", sql];
    let run = Place::new().run_with_stdin(&args, "a,b\nx,1\ny,2\n").succeeded();
    assert_eq!(rows(&run), ["s", "3"]);
    let run = Place::new().run_with_stdin(&["-q"], &format!("{sql};")).failed();
    run.says(&["stdin carries the statements"]);
}

#[test]
fn formats_without_borders_are_one_document() {
    // More rows than a batch: neither the header nor the brackets may come twice.
    let sql = "select value as v from range(0, 20000) order by v";
    let csv = run(&["-q", "--format", "csv", "-c", sql]).succeeded();
    assert_eq!(rows(&csv).len(), 20_001);
    assert_eq!(csv.out.matches('v').count(), 1);
    let json = run(&["-q", "--format", "json", "-c", sql]).succeeded().out;
    assert!(json.starts_with(r#"[{"v":0},{"v":1}"#) && json.ends_with("{\"v\":19999}]\n"));
    assert_eq!((json.matches('[').count(), json.matches("}{").count()), (1, 0));
    let lines = run(&["-q", "--format", "nd-json", "-c", sql]).succeeded();
    assert_eq!(rows(&lines)[19_999], r#"{"v":19999}"#);
    let tsv = run(&["--format", "tsv", "-c", "select 1 as a, 2 as b"]).succeeded();
    assert!(tsv.out.starts_with("a\tb\n1\t2\n1 row(s) fetched. \nElapsed "), "{}", tsv.out);
}

#[test]
fn a_table_shows_maxrows() {
    let sql = "select value as v from range(0, 100000)";
    let some = run(&["--maxrows", "2", "-c", sql]).succeeded().out;
    assert!(some.starts_with("+---+\n| v |\n+---+\n| 0 |\n| 1 |\n| . |\n"), "{some}");
    assert!(some.contains("100000 row(s) fetched. (First 2 displayed. Use --maxrows to adjust)"), "{some}");
    let all = run(&["-q", "--maxrows", "inf", "-c", sql]).succeeded().out;
    assert_eq!(all.lines().count(), 100_004);
    let plan = run(&["-q", "--maxrows", "1", "-c", "show all"]).succeeded().out;
    assert!(plan.lines().count() > 50, "an answer is shown whole");
}

#[test]
fn plain_leaves_the_layer_out() {
    run(&["--plain", "-c", "select 1"]).succeeded();
    run(&["--plain", "-c", "set slipstream.enabled = false"]).failed().says(&["slipstream"]);
    run(&["--plain", "--set", "slipstream.enabled=false", "-c", "select 1"]).failed().says(&["--plain"]);
}

#[test]
fn settings_are_set_before_the_first_statement() {
    let sql = "show datafusion.execution.batch_size";
    let args = ["-q", "--format", "csv", "--set", "datafusion.execution.batch_size=77", "-c", sql];
    assert_eq!(rows(&run(&args).succeeded()), ["name,value", "datafusion.execution.batch_size,77"]);
    let wrong = ["--set", "datafusion.execution.batch_siz=77", "-c", "select 1"];
    let run_wrong = run(&wrong).failed().says(&["did you mean 'datafusion.execution.batch_size'?"]);
    assert_eq!(run_wrong.out, "");
    run(&["--set", "datafusion.execution.batch_size=many", "-c", "select 1"]).failed().says(&["'many'"]);
    assert_eq!(run(&["--set", "nothing", "-c", "select 1"]).code, Some(2));
}

#[test]
fn hints_and_texts_reach_the_layer() {
    let place = Place::new();
    let log = "select text, rules_applied from slipstream.queries where status = 'finished'";
    place.write("a.sql", format!("/*+ PLAIN */ select 1 as a; select /*+ PLAIN */ ';' as b;\n{log}"));
    let run = place.run(&["-q", "--format", "json", "-f", "a.sql"]).succeeded();
    for text in ["/*+ PLAIN */ select 1 as a", "select /*+ PLAIN */ ';' as b"] {
        let entry = format!(r#"{{"text":"{text}","rules_applied":["hint: PLAIN"]}}"#);
        assert!(run.out.contains(&entry), "no {entry} in {}", run.out);
    }
}

#[test]
fn requests_to_stores_are_profiled_once() {
    let place = parquet_files();
    let table = |name| format!("create external table {name} stored as parquet location 'whole.parquet';");
    let sql = [&table("t"), &table("u"), "select * from t"].concat();
    let run = place.run(&["--object-store-profiling", "summary", "-c", &sql]).succeeded();
    let last = run.out.rsplit("Object Store Profiling").next().unwrap();
    assert_eq!(last.matches("Instrumented Object Store").count(), 1, "{last}");
    assert!(last.contains("| Head      | duration |"), "{last}");
}

#[test]
fn an_unknown_setting_is_an_error_and_the_rest_runs() {
    let place = Place::new();
    place.write("a.sql", "set datafusion.execution.nope = 1;\nset nope.x = 1;\nselect 1 as a;");
    let run = place.run(&["-q", "--format", "csv", "-f", "a.sql"]).failed();
    let run = run.says(&["a.sql:1: ", "\"nope\" not found", "a.sql:2: "]);
    assert_eq!(rows(&run), ["a", "1"]);
}

/// Two Parquet files of one row, whose column `a` has different types, and the first half of one of them.
fn parquet_files() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path().join("mixed")).unwrap();
    let sql = "copy (select 1 as a) to 'mixed/a.parquet'; copy (select 'x' as a) to 'mixed/b.parquet'; \
               copy (select 1 as a) to 'whole.parquet'";
    place.run(&["-q", "-c", sql]).succeeded();
    let whole = std::fs::read(place.path().join("whole.parquet")).unwrap();
    place.write("cut.parquet", &whole[..whole.len() / 2]);
    place
}

#[test]
fn broken_and_unlike_files_are_errors_and_the_rest_runs() {
    let place = parquet_files();
    let run = place.run_with_stdin(
        &["-q", "--format", "csv"],
        "select * from 'cut.parquet';\nselect * from 'mixed/';\n\
         create external table t stored as parquet location 'cut.parquet';\nselect * from 'nothing.parquet';\n\
         select * from 'whole.parquet';",
    );
    let run = run.failed().says(&[
        "cut.parquet: Parquet error",
        "mixed/a.parquet and ",
        "mixed/b.parquet have different columns",
        "stdin:3: ",
        "stdin:4: there is no file nothing.parquet",
    ]);
    assert_eq!(rows(&run), ["a", "1"]);
}

#[test]
fn an_error_for_lack_of_memory_names_the_limit() {
    let sql = "select length(array_agg(value)) from range(0, 10000000)";
    let run = run(&["-m", "5m", "-c", sql]).failed();
    run.says(&[
        "Resources exhausted",
        "process limit of 5.0 MB",
        "--memory-limit",
        "SET slipstream.memory.limit",
    ]);
    let greedy = self::run(&["-m", "5m", "--mem-pool-type", "greedy", "-c", sql]).failed();
    greedy.says(&[
        "Resources exhausted",
        "session's memory pool of 5.0 MB",
        "--memory-limit",
        "Most is held by",
    ]);
    let plain = self::run(&["--plain", "-m", "5m", "-c", sql]).failed();
    plain.says(&["Resources exhausted", "pool_size: 5.0 MB", "--memory-limit", "top memory consumers"]);
}

#[test]
fn the_memory_limit_is_a_part_of_the_machine_by_default() {
    let sql = "show datafusion.runtime.memory_limit";
    let limited = run(&["-q", "--format", "csv", "-c", sql]).succeeded();
    assert!(!limited.out.contains("unlimited"), "{}", limited.out);
    for none in ["0", "unlimited"] {
        let run = run(&["-q", "--format", "csv", "-m", none, "-c", sql]).succeeded();
        assert!(run.out.contains("unlimited"), "{}", run.out);
    }
}

#[test]
fn a_wrong_command_line_is_told_before_anything_runs() {
    for wrong in [&["-m", "much"][..], &["-b", "0"], &["-p", "nowhere"], &["--format", "xml"], &["-c", " "]] {
        let run = run(&[wrong, &["-c", "select 1"]].concat());
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{wrong:?}");
    }
}

#[test]
fn paths_are_relative_to_the_data_path() {
    let place = parquet_files();
    place.write("a.sql", "select a from 'a.parquet'");
    let run = place.run(&["-q", "--format", "csv", "-p", "mixed", "-f", "a.sql"]).succeeded();
    assert_eq!(rows(&run), ["a", "1"]);
}

#[test]
fn a_closed_pipe_ends_the_shell_quietly() {
    for (format, stdin) in [("csv", ""), ("json", ""), ("table", ""), ("table", "\\h\n\\h\n")] {
        let place = Place::new();
        let sql = "select value as v, repeat('x', 100) from range(0, 200000)";
        let args = ["--format", format, "--maxrows", "inf", "-c", sql];
        let mut command = place.command(if stdin.is_empty() { &args } else { &[] });
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        // As `head` does: some of it is read, and then no more.
        let mut some = [0; 100];
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut some).unwrap();
        drop(out);
        let run = finish(child).succeeded();
        assert_eq!(run.err, "", "{format}");
    }
}

#[test]
fn a_file_that_includes_itself_ends() {
    let place = Place::new();
    place.write("loop.sql", "\\i loop.sql\nselect 1 as a;");
    let run = place.run(&["-q", "--format", "csv", "-f", "loop.sql"]).failed().says(&["include one another"]);
    assert_eq!(rows(&run).len(), 32);
}

#[cfg(unix)]
#[test]
fn ctrl_c_cancels_a_command() {
    let place = Place::new();
    let sql = format!("select 'begun' as b; {ENDLESS}; select 'never' as c");
    let mut child = place.command(&["-q", "--format", "csv", "-c", &sql]).spawn().unwrap();
    // The second statement begins when the first one's row is there.
    let mut begun = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    thread::sleep(Duration::from_millis(300));
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let run = finish(child).says(&["cancelled"]);
    assert_eq!(run.code, Some(130), "{}", run.err);
    assert!(!run.out.contains("never"), "{}", run.out);
}

/// Drives the prompt in a pseudo terminal: sends each line, once the answer to the one before has come.
const TERMINAL: &str = r#"
import os, pty, select, sys, time

pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execv(sys.argv[1], sys.argv[1:2])
seen = b""
deadline = time.monotonic() + 45

def wait_for(text):
    global seen
    while text not in seen:
        if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            sys.exit("no %r in %r" % (text, seen))
        try:
            seen += os.read(fd, 65536)
        except OSError:
            sys.exit("it ended with %s before %r: %r" % (os.waitpid(pid, 0)[1], text, seen))
    seen = seen.split(text, 1)[1]

def send(text):
    os.write(fd, text)

wait_for(b"> ")
send(b"select 40 + 1 as a;\r")
wait_for(b"| 41 |")
wait_for(b"> ")
send(b"selct 1;\r")
wait_for(b"SQL error")
wait_for(b"> ")
send(b"select 1 +")
wait_for(b"elect 1 +")
send(b"\x03")
wait_for(b"^C")
wait_for(b"> ")
send(os.environ["ENDLESS"].encode() + b";\r")
wait_for(b"rows scanned")
began = time.monotonic()
send(b"\x03")
wait_for(b"cancelled")
wait_for(b"> ")
if time.monotonic() - began > 10:
    sys.exit("it took %s seconds to cancel" % (time.monotonic() - began))
send(b"select 40 + 2 as a;\r")
wait_for(b"| 42 |")
wait_for(b"> ")
send(b"\\q\r")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[cfg(unix)]
#[test]
fn the_prompt_survives_errors_and_ctrl_c() {
    let place = Place::new();
    let shell = place.command(&[]);
    let mut driver = Command::new("python3");
    driver
        .args(["-c", TERMINAL])
        .arg(shell.get_program())
        .current_dir(place.path())
        .env("HOME", place.path());
    driver.env("ENDLESS", ENDLESS).env_remove("XDG_STATE_HOME");
    driver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(driver.spawn().expect("python3 drives the terminal")).succeeded();
    let history = std::fs::read_to_string(place.path().join(".local/state/slipstream/history")).unwrap();
    assert!(history.contains("select 40 + 2 as a;"), "{history}");
}
