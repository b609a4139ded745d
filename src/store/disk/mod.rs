//! Answers as files: what was kept when a process ends is there for the next one.
//!
//! ```text
//!   Words (plan, tables of files, functions of DataFusion's own, settings, tag, versions of programs)
//!     └► DiskKey ─► name of a file ─► Header { the whole key, versions of the files } ─► rows
//!                                        │ another key, other versions, too old: no answer
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `format.rs` | the bytes of a file, and how each of them is known to be the right one |
//! | `place.rs` | the directory: what is in it, bounds, leftovers |
//! | `read.rs` | one answer that was found |
//! | `writer.rs` | the thread that writes answers behind the queries |
//!
//! A file is found by its name, without a list: what another process wrote a moment ago is there. The list is for bounds and
//! for people. Nothing that is wrong with a file or a directory fails a query: there is no answer, then.

mod format;
mod place;
mod read;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use twox_hash::XxHash64;

use self::format::{Header, build};
use self::place::Place;
use self::writer::{Job, Queue};
use super::results::{CacheStats, CachedResult, Evicted, ResultStore};
use crate::config::ProcessOptions;
use crate::fingerprint::{BuiltIns, Refusal, Words};
pub(crate) use place::DiskEntry;
pub(crate) use read::DiskAnswer;

/// How many files are read at one time.
const LOADS: usize = 16;

/// How long the end of a process waits for what is to be written.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, in words that mean the same in every process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DiskKey {
    bytes: Vec<u8>,
    name: Arc<str>,
}

impl DiskKey {
    /// The key of these words, for this program. The name only finds it: the file has the whole.
    pub(crate) fn new(words: Words) -> Self {
        let mut whole = Words::default();
        whole.text(&build());
        whole.bytes(&words.into_bytes());
        let bytes = whole.into_bytes();
        let (one, other) = (XxHash64::oneshot(0, &bytes), XxHash64::oneshot(1, &bytes));
        Self { name: format!("{one:016x}{other:016x}").into(), bytes }
    }

    /// What it is known by, on disk and to people.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What the directory has for a question.
#[derive(Debug)]
pub(crate) struct Sought<'a> {
    /// What is asked.
    pub(crate) key: &'a DiskKey,
    /// The versions of the tables now.
    pub(crate) versions: &'a [u8],
    /// The wall clock.
    pub(crate) now: SystemTime,
    /// How old an answer may be.
    pub(crate) max_age: Option<Duration>,
}

/// What the thread that writes shares with those who ask.
#[derive(Debug)]
struct Shared {
    settings: Arc<ProcessOptions>,
    stats: CacheStats,
    place: Mutex<Option<Arc<Place>>>,
    queue: Queue,
}

impl Shared {
    /// The directory, which is opened where that was not done since it was set.
    fn place(&self) -> Result<Arc<Place>, Refusal> {
        let setting = self.settings.cache_disk_directory();
        if setting.is_empty() {
            return Err(Refusal::new("directory", "slipstream.cache.disk.directory is not set"));
        }
        let mut known = self.place.lock();
        let place = match known.as_ref().filter(|place| place.is_of(&setting)) {
            Some(place) => Arc::clone(place),
            None => Arc::clone(known.insert(Arc::new(Place::open(setting)))),
        };
        match place.problem() {
            Some(problem) => Err(Refusal::new("directory", problem.to_owned())),
            None => Ok(place),
        }
    }

    /// The directory, where it was opened.
    fn opened(&self) -> Option<Arc<Place>> {
        let setting = self.settings.cache_disk_directory();
        self.place.lock().as_ref().filter(|place| place.is_of(&setting)).map(Arc::clone)
    }
}

/// The answers in the directory that `slipstream.cache.disk.directory` says.
#[derive(Debug)]
pub(crate) struct DiskTier {
    shared: Arc<Shared>,
    /// Those that wait for being written are held by it alone, to the end.
    _results: Arc<ResultStore>,
    built_ins: OnceLock<BuiltIns>,
    loads: Box<[Arc<Semaphore>]>,
}

impl DiskTier {
    /// The tier of the answers in `results`, which is off until its directory is set.
    pub(crate) fn new(settings: &Arc<ProcessOptions>, results: &Arc<ResultStore>) -> Arc<Self> {
        let shared = Shared {
            settings: Arc::clone(settings),
            stats: CacheStats::default(),
            place: Mutex::default(),
            queue: Queue::default(),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
            _results: Arc::clone(results),
            built_ins: OnceLock::new(),
            loads: (0..LOADS).map(|_| Arc::new(Semaphore::new(1))).collect(),
        })
    }

    /// Whether a directory is set.
    pub(crate) fn is_on(&self) -> bool {
        !self.shared.settings.cache_disk_directory().is_empty()
    }

    /// Why the directory cannot be used, as far as that is known.
    pub(crate) fn problem(&self) -> Option<String> {
        self.shared.opened()?.problem().map(str::to_owned)
    }

    /// DataFusion's own functions.
    pub(crate) fn built_ins(&self) -> &BuiltIns {
        self.built_ins.get_or_init(BuiltIns::default)
    }

    /// Counters.
    pub(crate) fn stats(&self) -> &CacheStats {
        &self.shared.stats
    }

    /// Who reads the answer to `key` holds a permit of this: identical questions at one time read its file once.
    pub(crate) fn load(&self, key: &DiskKey) -> Arc<Semaphore> {
        let place = key.bytes().iter().fold(0, |sum, byte| (sum * 31 + usize::from(*byte)) % LOADS);
        Arc::clone(&self.loads[place])
    }

    /// The answer, every byte of it checked. It blocks, and is not for async threads.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(crate) fn find(&self, sought: &Sought<'_>) -> Result<Option<DiskAnswer>, Refusal> {
        let Some((place, file, header)) = self.look(sought)? else { return Ok(None) };
        let (name, stats) = (&sought.key.name, &self.shared.stats);
        place::touch(&file, sought.now);
        let bytes = file.metadata().map_or(0, |file| file.len());
        let age = header.age(sought.now).unwrap_or_default();
        match DiskAnswer::read(file, header, name, age) {
            Ok(Some(answer)) => {
                if !place.knows(name) {
                    place.add(name, answer.header.clone(), bytes);
                }
                Ok(Some(answer))
            }
            Ok(None) => {
                place.remove(name, Evicted::Corrupt, stats);
                Ok(None)
            }
            Err(error) => Ok(unread(name, &error)),
        }
    }

    /// Whether there seems to be an answer: its rows and name, and not what its bytes are. It blocks.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn foresee(&self, sought: &Sought<'_>) -> Result<Option<u64>, Refusal> {
        Ok(self.look(sought)?.map(|(_, _, header)| header.rows))
    }

    /// The file of an answer that may be given.
    fn look(&self, sought: &Sought<'_>) -> Result<Option<(Arc<Place>, File, Header)>, Refusal> {
        let was_open = self.shared.opened().is_some();
        let place = self.shared.place()?;
        let stats = &self.shared.stats;
        if !was_open {
            Queue::read(&self.shared, Arc::clone(&place));
        }
        let Sought { key, versions, now, max_age } = sought;
        let mut file = match File::open(place.file(&key.name)) {
            Ok(file) => file,
            Err(error) => return Ok(unread(&key.name, &error)),
        };
        let header = match read::header_of(&mut file) {
            Ok(header) => header,
            Err(error) => return Ok(unread(&key.name, &error)),
        };
        let remove = |why| {
            place.remove(&key.name, why, stats);
            Ok(None)
        };
        match header {
            None => remove(Evicted::Corrupt),
            // Another key of the same name: one in a universe, or somebody's own work.
            Some(header) if header.key != key.bytes => remove(Evicted::Replaced),
            Some(header) if header.is_expired(*now) => remove(Evicted::Expired),
            Some(header) if header.versions != *versions => remove(Evicted::Stale),
            // Another session may allow an older one.
            Some(header) if max_age.is_some_and(|most| header.age(*now).is_none_or(|age| age > most)) => {
                Ok(None)
            }
            Some(header) => Ok(Some((place, file, header))),
        }
    }

    /// The answer was given from its file.
    pub(crate) fn gave(&self, answer: &DiskAnswer) {
        self.shared.stats.hit(answer.cost());
        if let Some(place) = self.shared.opened() {
            place.used(&answer.name, true);
        }
    }

    /// The answer of this name was given from memory: its copy on disk is in use.
    pub(crate) fn used(&self, name: &str) {
        if let Some(place) = self.shared.opened() {
            place.used(name, false);
        }
    }

    /// The answer is not what its file seemed to be.
    pub(crate) fn is_corrupt(&self, answer: &DiskAnswer) {
        if let Some(place) = self.shared.opened() {
            place.remove(&answer.name, Evicted::Corrupt, &self.shared.stats);
        }
    }

    /// Has an answer written that was just put into memory.
    pub(crate) fn write(&self, key: &Arc<DiskKey>, versions: &[u8], result: &Arc<CachedResult>) {
        let job = Job { key: Arc::clone(key), versions: versions.to_vec(), result: Arc::downgrade(result) };
        Queue::write(&self.shared, job);
    }

    /// All answers that are known. The directory is read where nobody did.
    pub(crate) fn entries(&self) -> Vec<(Arc<str>, DiskEntry)> {
        let Ok(place) = self.shared.place() else { return Vec::new() };
        place.know(&self.shared.stats);
        place.entries()
    }

    /// Deletes the answers for which `which` is true by their name, tables and tag; how many there were. Those that other
    /// processes wrote are looked for.
    pub(crate) fn drop_where(&self, which: impl Fn(&str, &[String], &str) -> bool) -> u64 {
        let Ok(place) = self.shared.place() else { return 0 };
        self.shared.queue.drop_where(|name, result| which(name, result.tables(), result.tag()));
        place.read_again(&self.shared.stats);
        place.drop_where(|name, header| which(name, &header.tables, &header.tag), &self.shared.stats)
    }

    /// Answers and bytes that are known to be there, and answers that are to be written.
    pub(crate) fn size(&self) -> (usize, u64, usize) {
        let place = self.shared.opened();
        let (entries, bytes) = place.map_or((0, 0), |place| place.size());
        (entries, bytes, self.shared.queue.len())
    }
}

impl Drop for DiskTier {
    /// What was asked last is written before its process ends.
    fn drop(&mut self) {
        self.shared.queue.finish(PATIENCE);
    }
}

/// No answer, since its file could not be read.
fn unread<T>(name: &str, error: &io::Error) -> Option<T> {
    if error.kind() != io::ErrorKind::NotFound {
        log::debug!("slipstream: answer {name} is not read: {error}");
    }
    None
}
