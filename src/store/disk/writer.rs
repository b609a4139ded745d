//! Writing behind: answers that are kept in memory are written by a thread of their own, one after the other.
//!
//! ```text
//!   a query ends ─► Queue (bounded; full: not written) ─► temporary file ─► fsync ─► read back ─► rename
//! ```
//!
//! | what happens meanwhile | what becomes of the answer |
//! |---|---|
//! | it leaves memory, for another's sake or a query's | not written (`gone`) |
//! | somebody drops it, or all | not written, or not renamed (`dropped`) |
//! | more come than the disk takes | not written (`queue`) |
//! | the disk is full, or gone | not written (`disk_full`, `io`) |
//! | it does not come back as it was | not renamed (`type`) |
//! | the process is killed | a temporary file, which the next process clears away |
//!
//! The thread comes with the first answer and goes when there is none left. It holds an answer only while it writes it: one
//! that leaves memory before is not written.

use std::collections::VecDeque;
use std::io::{self, BufWriter, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::CompressionType;
use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use parking_lot::{Condvar, Mutex};

use super::format::{Header, Summed, build};
use super::place::{Place, Temporary};
use super::read::DiskAnswer;
use super::{DiskKey, Shared};
use crate::fingerprint::Refusal;
use crate::store::results::CachedResult;

/// The most answers that wait.
const QUEUE: usize = 64;

/// An answer that is to be written.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Arc<DiskKey>,
    pub(super) versions: Vec<u8>,
    pub(super) result: Weak<CachedResult>,
}

/// What there is to do.
#[derive(Debug)]
enum Work {
    /// The directory is to be read.
    Read(Arc<Place>),
    /// An answer is to be written.
    Write(Job),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Work>,
    /// The answer that is being written.
    writing: Option<(Arc<DiskKey>, Weak<CachedResult>)>,
    /// It was dropped meanwhile.
    dropped: bool,
    /// Whether there is a thread.
    runs: bool,
}

/// Answers that wait for being written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    idle: Condvar,
}

impl Queue {
    /// Has the directory read.
    pub(super) fn read(shared: &Arc<Shared>, place: Arc<Place>) {
        Self::push(shared, Work::Read(place));
    }

    /// Has an answer written, where the queue is not full.
    pub(super) fn write(shared: &Arc<Shared>, job: Job) {
        Self::push(shared, Work::Write(job));
    }

    fn push(shared: &Arc<Shared>, work: Work) {
        let mut state = shared.queue.state.lock();
        if state.waiting.len() >= QUEUE && matches!(work, Work::Write(_)) {
            return shared.stats.refused("queue");
        }
        state.waiting.push_back(work);
        if state.runs {
            return;
        }
        let worker = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("slipstream-disk".to_owned());
        match thread.spawn(move || Self::run(&worker)) {
            Ok(_) => state.runs = true,
            Err(error) => {
                log::warn!("slipstream: answers are not written, for want of a thread: {error}");
                state.waiting.clear();
                shared.stats.refused("thread");
            }
        }
    }

    /// Until there is nothing left to do.
    fn run(shared: &Arc<Shared>) {
        loop {
            let work = {
                let mut state = shared.queue.state.lock();
                state.writing = None;
                state.dropped = false;
                let Some(work) = state.waiting.pop_front() else {
                    state.runs = false;
                    shared.queue.idle.notify_all();
                    return;
                };
                if let Work::Write(job) = &work {
                    state.writing = Some((Arc::clone(&job.key), Weak::clone(&job.result)));
                }
                work
            };
            match work {
                Work::Read(place) => place.know(&shared.stats),
                Work::Write(job) => {
                    // A panic would be a defect, of an encoder: the answer is not written.
                    let written = catch_unwind(AssertUnwindSafe(|| write(shared, &job)));
                    let panicked = || Err(Refusal::new("type", "it cannot be encoded"));
                    match written.unwrap_or_else(|_| panicked()) {
                        Ok(()) => shared.stats.stored(),
                        Err(refusal) => {
                            log::debug!("slipstream: an answer is not written: {}", refusal.reason);
                            shared.stats.refused(refusal.kind);
                        }
                    }
                }
            }
        }
    }

    /// Drops the answers that wait, or are being written, and for which `which` is true.
    pub(super) fn drop_where(&self, which: impl Fn(&str, &CachedResult) -> bool) {
        let mut state = self.state.lock();
        // One that has left memory may be what somebody just dropped there: to write it would bring it back.
        let stays = |key: &DiskKey, result: &Weak<CachedResult>| {
            result.upgrade().is_some_and(|result| !which(key.name(), &result))
        };
        state.waiting.retain(|work| match work {
            Work::Read(_) => true,
            Work::Write(job) => stays(&job.key, &job.result),
        });
        let writes_on = state.writing.as_ref().is_none_or(|(key, result)| stays(key, result));
        state.dropped |= !writes_on;
    }

    /// Does `publish` to the answer that is being written, unless it was dropped.
    fn publish(&self, publish: impl FnOnce() -> io::Result<()>) -> Result<(), Refusal> {
        let state = self.state.lock();
        match state.dropped {
            true => Err(Refusal::new("dropped", "it was dropped")),
            false => publish().map_err(|error| of_io(&error)),
        }
    }

    /// How many wait or are being written.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        state.waiting.len() + usize::from(state.writing.is_some())
    }

    /// Waits until all are written, for so long at most.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.state.lock();
        self.idle.wait_while_for(&mut state, |state| state.runs, patience);
    }
}

/// Writes one answer.
///
/// Room is made when its size is known, so that nothing goes for one that is not kept after all. Flushed before it has its name:
/// after a crash of the machine a name without its bytes would be found, and be a corrupt file.
fn write(shared: &Arc<Shared>, job: &Job) -> Result<(), Refusal> {
    let place = shared.place()?;
    place.know(&shared.stats);
    let result = job.result.upgrade().ok_or_else(|| Refusal::new("gone", "it left memory before"))?;
    let max_bytes = shared.settings.cache_disk_max_bytes() as u64;
    let too_large = || Refusal::new("size", "it is larger than slipstream.cache.disk.max_bytes");
    if max_bytes == 0 {
        return Err(too_large());
    }
    let mut temporary = Temporary::new(&place, job.key.name()).map_err(|error| of_io(&error))?;
    let header = header(job, &result);
    let bytes = encode(&mut temporary, &header, &result)?;
    if bytes > max_bytes {
        return Err(too_large());
    }
    temporary.file.sync_all().map_err(|error| of_io(&error))?;
    read_back(&temporary, &header, job.key.name(), &result)?;
    // It is not held for what follows.
    drop(result);
    place.make_room(bytes, max_bytes, &shared.stats);
    shared.queue.publish(|| {
        place.publish(temporary, job.key.name())?;
        place.add(job.key.name(), header, bytes);
        Ok(())
    })?;
    place.sync();
    Ok(())
}

fn header(job: &Job, result: &CachedResult) -> Header {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let largest = result.batches().iter().map(|batch| batch.get_array_memory_size()).max();
    Header {
        build: build(),
        key: job.key.bytes().to_vec(),
        versions: job.versions.clone(),
        tables: result.tables().to_vec(),
        tag: result.tag().to_owned(),
        created: result.created_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos),
        ttl: result.ttl().map_or(u64::MAX, nanos),
        cost: nanos(result.cost()),
        rows: result.rows as u64,
        bytes: result.bytes as u64,
        largest: largest.unwrap_or_default() as u64,
    }
}

/// Writes the whole file; how large it is.
fn encode(temporary: &mut Temporary, header: &Header, result: &CachedResult) -> Result<u64, Refusal> {
    let mut out = Summed::new(BufWriter::with_capacity(256 << 10, &mut temporary.file));
    header.write(&mut out).map_err(|error| of_io(&error))?;
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::LZ4_FRAME))
        .map_err(|error| of_arrow(&error))?;
    let mut writer = StreamWriter::try_new_with_options(out, result.schema(), options)
        .map_err(|error| of_arrow(&error))?;
    for batch in result.batches() {
        writer.write(batch).map_err(|error| of_arrow(&error))?;
    }
    let out = writer.into_inner().map_err(|error| of_arrow(&error))?;
    let (_, bytes) = out.finish().map_err(|error| of_io(&error))?;
    Ok(bytes)
}

/// Whether what is in the file is the answer, to the batch: a type that comes back as another is not kept.
///
/// This is what decides which types can be on disk. A list of them would have to know what each version of the encoder loses
/// (a dictionary in a union, a slice of runs); reading the file once more, on a thread that nobody waits for, finds out.
fn read_back(
    temporary: &Temporary,
    header: &Header,
    name: &Arc<str>,
    result: &CachedResult,
) -> Result<(), Refusal> {
    let other = || Refusal::new("type", "it is not read as it was written");
    let file = temporary.file.try_clone().map_err(|error| of_io(&error))?;
    let answer = DiskAnswer::read(file, header.clone(), name, Duration::ZERO)
        .map_err(|error| of_io(&error))?
        .filter(|answer| answer.schema == *result.schema())
        .ok_or_else(other)?;
    let mut batches = answer.batches().map_err(|_| other())?;
    let same = result
        .batches()
        .iter()
        .all(|batch| batches.next().is_some_and(|read| read.is_ok_and(|read| read == *batch)));
    match same && batches.next().is_none() {
        true => Ok(()),
        false => Err(other()),
    }
}

fn of_io(error: &io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Refusal::new("disk_full", "the disk is full"),
        ErrorKind::FileTooLarge => Refusal::new("size", format!("its file would be too large: {error}")),
        _ => Refusal::new("io", format!("its file cannot be written: {error}")),
    }
}

fn of_arrow(error: &ArrowError) -> Refusal {
    match error {
        ArrowError::IoError(_, error) => of_io(error),
        _ => Refusal::new("type", format!("it cannot be encoded: {error}")),
    }
}
