//! The directory: which answers are in it, what they take, and which goes first.
//!
//! | name | what it is |
//! |---|---|
//! | 32 digits`.answer` | an answer, whole: it got this name by a rename |
//! | 32 digits`-`process`-`number`.tmp` | one that is being written, locked by who writes it |
//! | anything else | not ours: never opened, never deleted |
//!
//! A process that dies leaves its lock with the operating system, which takes it off: a temporary file that can be locked is a
//! leftover. Numbers of processes would not do. They are given again, and are others in each container.
//!
//! Several processes know the same directory, each as it saw it last. Whoever finds that a file is gone goes on without it, and
//! whoever deletes one that another process has just replaced costs that process an answer, and nobody a wrong one.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::format::{Header, build};
use crate::store::results::{CacheStats, Evicted};

/// How answers end, and how files end that are being written.
const ANSWER: &str = ".answer";
const TEMPORARY: &str = ".tmp";

/// Hexadecimal digits of a name.
const DIGITS: usize = 32;

/// How often a file is created anew that another process took for a leftover.
const ATTEMPTS: usize = 10;

/// The most answers: their list is in memory.
const MAX_ENTRIES: usize = 20_000;

/// As many of those that were used longest ago are weighed against each other, as in memory.
const WEIGHED: usize = 8;

/// One answer in the directory.
#[derive(Debug, Clone)]
pub(crate) struct DiskEntry {
    /// What stands before its rows; key and versions are left out.
    pub(crate) header: Arc<Header>,
    /// What its file takes.
    pub(crate) bytes: u64,
    /// How often it was given, by this process.
    pub(crate) hits: u64,
    /// Counts up with each use.
    used: u64,
}

impl DiskEntry {
    /// The seconds that a byte of it saves.
    fn weight(&self) -> f64 {
        self.header.cost as f64 / self.bytes.max(1) as f64
    }
}

/// What is known to be there. Other processes add to it and take from it: whether a file is there, the file system says.
#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Arc<str>, DiskEntry>,
    bytes: u64,
    uses: u64,
    /// Bytes that were written since the directory was read.
    since_read: u64,
}

impl Index {
    fn add(&mut self, name: Arc<str>, header: Header, bytes: u64) {
        self.uses += 1;
        let header = Arc::new(Header { key: Vec::new(), versions: Vec::new(), ..header });
        let entry = DiskEntry { header, bytes, hits: 0, used: self.uses };
        self.bytes += bytes;
        self.bytes -= self.entries.insert(name, entry).map_or(0, |replaced| replaced.bytes);
    }

    fn take(&mut self, name: &str) -> bool {
        let taken = self.entries.remove(name);
        self.bytes -= taken.as_ref().map_or(0, |entry| entry.bytes);
        taken.is_some()
    }

    /// Those that have to go until there is room for one of `bytes`.
    fn surplus(&self, bytes: u64, max_bytes: u64) -> Vec<Arc<str>> {
        let fits = |held: u64, count: usize| held + bytes <= max_bytes && count < MAX_ENTRIES;
        if fits(self.bytes, self.entries.len()) {
            return Vec::new();
        }
        let mut oldest: Vec<_> = self.entries.iter().collect();
        oldest.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.used));
        let (mut held, mut surplus) = (self.bytes, Vec::new());
        while !fits(held, oldest.len()) && !oldest.is_empty() {
            let from = oldest.len().saturating_sub(WEIGHED);
            let weights = oldest[from..].iter().enumerate();
            let least = weights.min_by(|(_, one), (_, other)| one.1.weight().total_cmp(&other.1.weight()));
            let (name, entry) = oldest.remove(from + least.map_or(0, |(place, _)| place));
            held -= entry.bytes;
            surplus.push(Arc::clone(name));
        }
        surplus
    }
}

/// A directory with answers.
#[derive(Debug)]
pub(super) struct Place {
    /// The setting that it was opened for, told from others by its address.
    setting: Arc<str>,
    path: PathBuf,
    /// Why it cannot be used.
    problem: Option<String>,
    index: Mutex<Index>,
    /// Held while the directory is read; whether it was.
    read: Mutex<bool>,
    last: AtomicU64,
}

impl Place {
    /// The directory of this setting, which is created where it is missing. Only this user may read what is in it.
    pub(super) fn open(setting: Arc<str>) -> Self {
        let path = std::path::absolute(&*setting).unwrap_or_else(|_| PathBuf::from(&*setting));
        let mut place = Self {
            setting,
            path,
            problem: None,
            index: Mutex::default(),
            read: Mutex::default(),
            last: AtomicU64::new(0),
        };
        place.problem = place.try_open().err().map(|error| {
            format!("slipstream.cache.disk.directory '{}' cannot be used: {error}", place.path.display())
        });
        place
    }

    fn try_open(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.path)?;
        // Whether files can be written only writing one tells.
        Temporary::new(self, &"0".repeat(DIGITS)).map(drop)
    }

    /// Whether it is the directory of this setting, as it was set last.
    pub(super) fn is_of(&self, setting: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.setting, setting)
    }

    /// Why it cannot be used.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The file of this name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{ANSWER}"))
    }

    /// Reads the directory where nobody did.
    pub(super) fn know(&self, stats: &CacheStats) {
        let mut read = self.read.lock();
        if !std::mem::replace(&mut *read, true) {
            self.read_all(stats);
        }
    }

    /// Reads the directory: the answers in it, old ones first, and what dead processes left behind.
    pub(super) fn read_again(&self, stats: &CacheStats) {
        let mut read = self.read.lock();
        *read = true;
        self.read_all(stats);
    }

    fn read_all(&self, stats: &CacheStats) {
        let before: HashSet<Arc<str>> = self.index.lock().entries.keys().cloned().collect();
        let Ok(files) = fs::read_dir(&self.path) else { return };
        let mut there = HashSet::new();
        let mut new = Vec::new();
        for file in files.flatten() {
            let name = file.file_name();
            if let Some(name) = stem(&name, ANSWER).filter(|name| is_name(name)) {
                if !before.contains(name) {
                    new.push((file.metadata().and_then(|file| file.modified()).ok(), Arc::from(name)));
                }
                there.insert(Arc::<str>::from(name));
            } else if stem(&name, TEMPORARY).is_some_and(is_temporary) && remove_leftover(&file.path()) {
                stats.evicted(Evicted::Leftover, 1);
            }
        }
        new.sort_unstable();
        for (_, name) in new {
            self.learn(&name, stats);
        }
        let mut index = self.index.lock();
        index.since_read = 0;
        before.difference(&there).for_each(|gone| {
            index.take(gone);
        });
    }

    /// Adds a file that somebody wrote; one that nobody did, or another version of this program, goes.
    fn learn(&self, name: &Arc<str>, stats: &CacheStats) {
        let read = File::open(self.file(name)).and_then(|file| {
            let bytes = file.metadata()?.len();
            Ok((Header::read(&mut BufReader::new(file))?, bytes))
        });
        match read {
            Ok((Some(header), bytes)) if header.build == build() => {
                self.index.lock().add(Arc::clone(name), header, bytes);
            }
            Ok((Some(_), _)) => self.remove(name, Evicted::Build, stats),
            Ok((None, _)) => self.remove(name, Evicted::Corrupt, stats),
            // It vanished, or it is not this user's.
            Err(error) => log::debug!("slipstream: answer {name} is not read: {error}"),
        }
    }

    /// An answer was written, by whomever.
    pub(super) fn add(&self, name: &Arc<str>, header: Header, bytes: u64) {
        let mut index = self.index.lock();
        index.since_read += bytes;
        index.add(Arc::clone(name), header, bytes);
    }

    /// An answer was given from this file, or from the copy in memory.
    pub(super) fn used(&self, name: &str, given: bool) {
        let mut index = self.index.lock();
        index.uses += 1;
        let uses = index.uses;
        if let Some(entry) = index.entries.get_mut(name) {
            entry.used = uses;
            entry.hits += u64::from(given);
        }
    }

    /// Whether this process knows of it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.index.lock().entries.contains_key(name)
    }

    /// Deletes an answer.
    pub(super) fn remove(&self, name: &str, why: Evicted, stats: &CacheStats) {
        let known = self.index.lock().take(name);
        if fs::remove_file(self.file(name)).is_ok() || known {
            stats.evicted(why, 1);
        }
    }

    /// Deletes answers until one of `bytes` has room. What other processes wrote since the directory was read is looked for
    /// now and then: they keep to the same bound, each as far as it knows.
    pub(super) fn make_room(&self, bytes: u64, max_bytes: u64, stats: &CacheStats) {
        if self.index.lock().since_read > max_bytes / 8 {
            self.read_again(stats);
        }
        let surplus = self.index.lock().surplus(bytes, max_bytes);
        surplus.iter().for_each(|name| self.remove(name, Evicted::Size, stats));
    }

    /// Deletes the answers for which `which` is true; how many there were.
    pub(super) fn drop_where(&self, which: impl Fn(&str, &Header) -> bool, stats: &CacheStats) -> u64 {
        let entries = self.entries();
        let dropped = entries.iter().filter(|(name, entry)| which(name, &entry.header));
        dropped.map(|(name, _)| self.remove(name, Evicted::Dropped, stats)).count() as u64
    }

    /// All answers that are known, those that were used last first.
    pub(super) fn entries(&self) -> Vec<(Arc<str>, DiskEntry)> {
        let index = self.index.lock();
        let mut entries: Vec<_> =
            index.entries.iter().map(|(name, entry)| (Arc::clone(name), entry.clone())).collect();
        entries.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.used));
        entries
    }

    /// How many answers are known, and their bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        let index = self.index.lock();
        (index.entries.len(), index.bytes)
    }

    /// Puts a file that is whole in the place of its answer.
    pub(super) fn publish(&self, temporary: Temporary, name: &str) -> io::Result<()> {
        fs::rename(&temporary.path, self.file(name))?;
        temporary.keep();
        Ok(())
    }

    /// Makes names last, which are in the directory: a file of its own.
    pub(super) fn sync(&self) {
        #[cfg(unix)]
        let _ = File::open(&self.path).and_then(|directory| directory.sync_all());
    }
}

/// A file that is being written. It is locked for as long as its process lives, and goes with this value.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    /// A new file for the answer of this name.
    pub(super) fn new(place: &Place, name: &str) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            if let Some(temporary) = Self::try_new(place, name)? {
                return Ok(temporary);
            }
        }
        Err(io::Error::other("other processes take new files for leftovers"))
    }

    /// `None` where another process, which reads the directory at this moment, took it for a leftover before it was locked.
    fn try_new(place: &Place, name: &str) -> io::Result<Option<Self>> {
        let number = place.last.fetch_add(1, Ordering::Relaxed);
        let path = place.path.join(format!("{name}-{}-{number}{TEMPORARY}", std::process::id()));
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = match options.open(&path) {
            Ok(file) => file,
            // A process of the same number, on another machine or in another container.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = match file.try_lock() {
            Ok(()) => path.exists(),
            // Where files cannot be locked, nobody takes another's for a leftover.
            Err(TryLockError::Error(_)) => true,
            Err(TryLockError::WouldBlock) => false,
        };
        Ok(is_ours.then_some(Self { file, path, kept: false }))
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a file that was being written by a process that is dead: nobody locks it.
fn remove_leftover(path: &Path) -> bool {
    let Ok(file) = fs::OpenOptions::new().write(true).open(path) else { return false };
    file.try_lock().is_ok() && fs::remove_file(path).is_ok()
}

fn stem<'a>(name: &'a OsStr, ending: &str) -> Option<&'a str> {
    name.to_str()?.strip_suffix(ending)
}

/// Whether it is the name of an answer: the directory may be somebody's home, and other files are not ours.
fn is_name(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether it is the name of an answer that is being written: name, process, number.
fn is_temporary(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('-');
    parts.next().is_some_and(is_name)
        && parts.next().is_some_and(number)
        && parts.next().is_some_and(number)
        && parts.next().is_none()
}

/// The time of the last use, for other processes and later ones.
pub(super) fn touch(file: &File, now: SystemTime) {
    // A file of another user's is used all the same.
    let _ = file.set_modified(now);
}
