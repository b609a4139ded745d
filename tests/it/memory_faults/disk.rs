//! Disks that are full, read-only, broken, or gone.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::Result;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::{DiskManager, SpillFile, SpillWriter, TempFileFactory};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::tables::{Act, Deed, Script};
use super::{LIMIT, Outcome, Session, WORK, Work, expected, is_exhausted, small_batches};
use crate::support::{query, sql};

/// What the disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A new file: the file system is read-only.
    Create,
    /// A write: it is full.
    Write,
    /// The end of a file.
    Finish,
    /// A read.
    Read,
}

impl Fault {
    /// As the system says it.
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Create => 30,
            Self::Write => 28,
            Self::Finish | Self::Read => 5,
        })
    }
}

/// When it refuses: from the call on for which no other is left.
#[derive(Debug)]
struct Plan {
    fault: Fault,
    left: AtomicUsize,
    refused: AtomicUsize,
}

impl Plan {
    fn check(&self, fault: Fault) -> io::Result<()> {
        let taken = |left: usize| left.checked_sub(1);
        if fault != self.fault || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
        {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(fault.error())
    }
}

/// A disk of files that are there, but for what the plan refuses.
struct FaultyFiles {
    disk: Arc<DiskManager>,
    plan: Arc<Plan>,
}

impl TempFileFactory for FaultyFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        self.plan.check(Fault::Create)?;
        let file = self.disk.create_tmp_file(description)?;
        Ok(Arc::new(FaultyFile { file, plan: Arc::clone(&self.plan) }))
    }
}

struct FaultyFile {
    file: Arc<dyn SpillFile>,
    plan: Arc<Plan>,
}

impl SpillFile for FaultyFile {
    fn path(&self) -> Option<&Path> {
        // Who reads by the path does not come by here.
        (self.plan.fault != Fault::Read).then(|| self.file.path()).flatten()
    }

    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read_stream(&self) -> Result<BoxStream<'static, Result<bytes::Bytes>>> {
        let plan = Arc::clone(&self.plan);
        let pieces = self.file.read_stream()?;
        Ok(pieces.map(move |piece| plan.check(Fault::Read).map_err(Into::into).and(piece)).boxed())
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(FaultyWriter { writer: self.file.open_writer()?, plan: Arc::clone(&self.plan) }))
    }
}

struct FaultyWriter {
    writer: Box<dyn SpillWriter>,
    plan: Arc<Plan>,
}

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.plan.check(Fault::Write)?;
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl SpillWriter for FaultyWriter {
    fn finish(&mut self) -> Result<()> {
        self.plan.check(Fault::Finish)?;
        self.writer.finish()
    }
}

/// Runs `work` on a disk that refuses `fault` after `calls` calls; whether it refused anything.
async fn refused(work: &Work, fault: Fault, calls: usize, expected: &[String]) -> bool {
    let plan = Arc::new(Plan { fault, left: AtomicUsize::new(calls), refused: AtomicUsize::new(0) });
    let session = Session::with_files(LIMIT, small_batches(256), |files| {
        let disk = Arc::new(files.build().unwrap());
        DiskManagerBuilder::default()
            .with_temp_file_factory(Arc::new(FaultyFiles { disk, plan: Arc::clone(&plan) }))
    });
    let session = session.with_tables([Script::NONE, Script::NONE]);
    let what = format!("{}, {fault:?} after {calls} calls", work.name);
    let outcome = session.run(work).await;
    let refused = plan.refused.load(Ordering::Relaxed) > 0;
    let answered = matches!(outcome, Outcome::Rows(_));
    assert!(!answered || !refused, "{what}: an answer, though the disk failed");
    if let Some(error) = outcome.error(&what, work, expected) {
        let (text, cause) = (error.to_string(), fault.error().to_string());
        assert!(refused && text.contains(&cause), "{what}: {text}");
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refuses_is_one_error() {
    for work in WORK.iter().filter(|work| work.spills) {
        let expected = expected(work).await;
        for fault in [Fault::Create, Fault::Write, Fault::Finish, Fault::Read] {
            let mut refusals = 0;
            for calls in [0, 2, 9, 40] {
                refusals += usize::from(refused(work, fault, calls, &expected).await);
            }
            assert!(refusals > 0, "{}: {fault:?} never happened", work.name);
        }
    }
}

/// Takes away whatever is in the directory for spill files.
fn remove(session: &Session) -> Deed {
    let directory = session.spills.path().to_owned();
    Arc::new(move || {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().filter_map(|entry| entry.ok()) {
            // Somebody may write meanwhile; what is left is left.
            drop(std::fs::remove_dir_all(entry.path()));
        }
        futures::future::ready(()).boxed()
    })
}

/// Files that are open can still be read, and others are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_removed_while_queries_run() {
    let mut errors = 0;
    for work in WORK.iter().filter(|work| work.spills) {
        let expected = expected(work).await;
        for (side, percent) in [(0, 50), (0, 80), (0, 100), (1, 0), (1, 60)] {
            let session = Session::new(LIMIT, small_batches(256));
            let mut scripts = [Script::NONE, Script::NONE];
            scripts[side] = Script { percent, act: Act::Do(remove(&session)) };
            let session = session.with_tables(scripts);
            let what = format!("{}, after {percent} % of input {side}", work.name);
            if let Some(error) = session.run(work).await.error(&what, work, &expected) {
                let text = error.to_string();
                assert!(text.contains("No such file or directory"), "{what}: {text}");
                errors += 1;
            }
        }
    }
    assert!(errors > 5, "{errors} errors: nothing was taken away");
}

/// No directory, and one that nobody may write to; but for the superuser, to whom permissions mean nothing. Read-only file
/// systems are among the disks above.
#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_named() {
    let place = tempfile::TempDir::new().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let closed = place.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mut permissions = std::fs::metadata(&closed).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&closed, permissions).unwrap();
    let superuser = std::fs::write(closed.join("probe"), "").is_ok();
    for directory in [Some(&file), (!superuser).then_some(&closed)].into_iter().flatten() {
        let session = Session::new(LIMIT, small_batches(256)).with_tables([Script::NONE, Script::NONE]);
        let set = format!("SET slipstream.disk.directory = '{}'", directory.display());
        sql(&session.ctx, &set).await.unwrap();
        for work in WORK.iter().filter(|work| work.spills) {
            let Outcome::Failed(error) = session.run(work).await else {
                panic!("{} in {directory:?}", work.name)
            };
            let text = error.to_string();
            assert!(text.contains(&format!("slipstream.disk.directory '{}'", directory.display())), "{text}");
            assert!(!is_exhausted(&error), "{text}");
        }
        // Without a need to spill, nobody looks for the directory.
        sql(&session.ctx, "SET slipstream.memory.limit = '1GB'").await.unwrap();
        query(&session.ctx, WORK[0].query).await.unwrap();
    }
}
