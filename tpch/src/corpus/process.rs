//! Starts one worker process for an engine and gathers what it streams back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::ValueEnum;
use datafusion::common::instant::Instant;
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::{DataFusionError, Result};

use super::locate::Corpus;
use super::outcome::{Event, RecordRun};
use super::tree::Tree;
use super::{Entry, WorkerEngine};
use crate::clock;

/// Events that may wait between the pipe and the collector; more would only hide a slow collector.
const EVENTS_WAITING: usize = 1024;

/// An engine as the corpus sees it: which one, by which door, with which settings.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    /// How reports call it.
    pub(super) name: String,
    /// Plain or with the layer.
    pub(super) engine: WorkerEngine,
    /// The door by which statements enter.
    pub(super) entry: Entry,
    /// Settings made before each file, `key=value`.
    pub(super) settings: Vec<String>,
    /// Whether what the caches keep is asked again, until it comes from there.
    pub(super) warm: bool,
}

/// How every worker of one comparison runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Files at once.
    pub(super) jobs: usize,
    /// The limit for one statement.
    pub(super) limit: Duration,
}

/// What one engine did with all files.
#[derive(Debug)]
pub(super) struct EngineRun {
    /// The engine.
    pub(super) engine: Engine,
    /// Its files.
    pub(super) files: BTreeMap<String, FileRun>,
    /// Wall time from the process's start to its end.
    pub(super) elapsed: Duration,
}

impl EngineRun {
    /// Records whose outcome came from a cache, of answers or of plans.
    pub(super) fn cached_records(&self) -> usize {
        let records = self.files.values().flat_map(|file| file.records.values());
        records.filter(|record| record.from_cache).count()
    }
}

/// What one engine did with one file.
#[derive(Debug, Default)]
pub(super) struct FileRun {
    /// The records, by their position in the file.
    pub(super) records: BTreeMap<usize, RecordRun>,
    /// Why none of them ran.
    pub(super) not_run: Option<String>,
    /// How many there are when none of them ran.
    pub(super) records_not_run: usize,
    /// Whether the whole file was as it expects.
    pub(super) as_expected: bool,
    /// Whether the worker came to its end.
    finished: bool,
}

/// A worker that has been started.
pub(super) struct Running {
    engine: Engine,
    child: Child,
    events: Receiver<Result<Event>>,
    reader: JoinHandle<()>,
    feeder: JoinHandle<std::io::Result<()>>,
    started: Instant,
    idle_limit: Duration,
}

/// Starts a worker on `files` in its own scratch tree.
pub(super) fn start(
    engine: &Engine,
    tree: &Tree,
    corpus: &Corpus,
    files: &[PathBuf],
    pace: Pace,
) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "corpus-worker",
            "--engine",
            &value_name(&engine.engine),
            "--entry",
            &value_name(&engine.entry),
        ])
        .args(["--jobs", &pace.jobs.to_string(), "--limit-seconds", &pace.limit.as_secs().to_string()])
        .arg("--root")
        .arg(&tree.root)
        .arg("--corpus")
        .arg(&corpus.folder)
        .current_dir(tree.current_folder())
        .env("TMPDIR", tree.temporary_folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if engine.warm {
        command.arg("--warm");
    }
    for setting in &engine.settings {
        command.args(["--set", setting]);
    }
    let mut child =
        command.spawn().map_err(|e| exec_datafusion_err!("cannot start the engine {}: {e}", engine.name))?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return exec_err!("the engine {} has no pipes", engine.name);
    };
    let feeder = feed(stdin, files);
    let (sender, events) = sync_channel(EVENTS_WAITING);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let event = line.map_err(DataFusionError::from).and_then(|line| {
                serde_json::from_str(&line)
                    .map_err(|e| exec_datafusion_err!("unreadable event ({e}): {line}"))
            });
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    // A statement that blocks its thread escapes the worker's own limit; a silence this long says so.
    let idle_limit = pace.limit * 2 + Duration::from_secs(30);
    Ok(Running { engine: engine.clone(), child, events, reader, feeder, started: clock::now(), idle_limit })
}

fn feed(mut stdin: ChildStdin, files: &[PathBuf]) -> JoinHandle<std::io::Result<()>> {
    let list: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    std::thread::spawn(move || stdin.write_all(list.as_bytes()))
}

fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Running {
    /// Waits for the worker's end and returns all that it said.
    pub(super) fn finish(mut self) -> Result<EngineRun> {
        let collected = self.collect();
        if collected.is_err() {
            // The worker may be the reason, and may never end by itself.
            self.child.kill().ok();
        }
        let status = self.child.wait()?;
        let elapsed = self.started.elapsed();
        drop(self.events);
        let threads_ended = self.reader.join().is_ok() && self.feeder.join().is_ok_and(|fed| fed.is_ok());
        let files = collected?;
        let unfinished: Vec<&str> =
            files.iter().filter(|(_, file)| !file.finished).map(|(name, _)| name.as_str()).collect();
        if !status.success() || !unfinished.is_empty() || !threads_ended {
            return exec_err!(
                "the engine {} ended with {status}, while running: {}",
                self.engine.name,
                if unfinished.is_empty() { "nothing".to_owned() } else { unfinished.join(", ") }
            );
        }
        Ok(EngineRun { engine: self.engine, files, elapsed })
    }

    fn collect(&self) -> Result<BTreeMap<String, FileRun>> {
        let mut files: BTreeMap<String, FileRun> = BTreeMap::new();
        loop {
            match self.events.recv_timeout(self.idle_limit) {
                Ok(event) => note(&mut files, event?),
                Err(RecvTimeoutError::Disconnected) => return Ok(files),
                Err(RecvTimeoutError::Timeout) => {
                    let open = files.iter().filter(|(_, file)| !file.finished).map(|(name, _)| name.as_str());
                    return exec_err!(
                        "the engine {} said nothing for {} s, while running: {}",
                        self.engine.name,
                        self.idle_limit.as_secs(),
                        open.collect::<Vec<_>>().join(", ")
                    );
                }
            }
        }
    }
}

fn note(files: &mut BTreeMap<String, FileRun>, event: Event) {
    match event {
        Event::Started { file } => {
            files.entry(file).or_default();
        }
        Event::Record(record) => {
            files.entry(record.file.clone()).or_default().records.insert(record.index, record);
        }
        Event::Finished { file, not_run, records_not_run, as_expected } => {
            let run = files.entry(file).or_default();
            run.not_run = not_run;
            run.records_not_run = records_not_run;
            run.as_expected = as_expected;
            run.finished = true;
        }
    }
}
