//! Temporary files that are counted and timed for one operator, in the directories and under the limit of the session.

use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder};
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use datafusion::physical_plan::metrics::Time;
use futures::{Stream, StreamExt};

use super::usage::Usage;
use crate::clock::{Clock, SystemClock};

/// A disk manager that creates its files by `disk` and counts them for `usage`.
///
/// The files are `disk`'s own: its directories, its limit (also one that is set while the query runs), its count of used
/// bytes and of open files. What this manager says of its own limit and use is a copy from the beginning, or nothing;
/// DataFusion 55.2 reads neither in its operators. Where `disk` creates no files, it is used as it is.
///
/// # Errors
/// DataFusion's builder fails.
pub(super) fn counted(disk: &Arc<DiskManager>, usage: &Arc<Usage>) -> Result<Arc<DiskManager>> {
    if !disk.tmp_files_enabled() {
        return Ok(Arc::clone(disk));
    }
    let files = CountedFiles { disk: Arc::clone(disk), usage: Arc::clone(usage) };
    let counted = DiskManagerBuilder::default()
        .with_temp_file_factory(Arc::new(files))
        .with_max_temp_directory_size(disk.max_temp_directory_size())
        .with_max_spill_merge_fan_in(disk.max_spill_merge_fan_in())
        .build()?;
    Ok(Arc::new(counted))
}

struct CountedFiles {
    disk: Arc<DiskManager>,
    usage: Arc<Usage>,
}

impl TempFileFactory for CountedFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        let file = self.disk.create_tmp_file(description)?;
        Ok(Arc::new(CountedFile { file, usage: Arc::clone(&self.usage) }))
    }
}

struct CountedFile {
    file: Arc<dyn SpillFile>,
    usage: Arc<Usage>,
}

#[deny(clippy::missing_trait_methods)]
impl SpillFile for CountedFile {
    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let bytes = self.file.read_stream()?;
        Ok(Box::pin(TimedRead { bytes, since: None, time: self.usage.read_time.clone() }))
    }

    /// A file counts once it is written to: operators create some that they never need.
    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let writer = self.file.open_writer()?;
        self.usage.files.add(1);
        Ok(Box::new(CountedWriter { writer, usage: Arc::clone(&self.usage) }))
    }
}

struct CountedWriter {
    writer: Box<dyn SpillWriter>,
    usage: Arc<Usage>,
}

impl Write for CountedWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _timer = self.usage.write_time.timer();
        let written = self.writer.write(bytes)?;
        self.usage.written.add(written);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _timer = self.usage.write_time.timer();
        self.writer.flush()
    }
}

impl SpillWriter for CountedWriter {
    fn finish(&mut self) -> Result<()> {
        let _timer = self.usage.write_time.timer();
        self.writer.finish()
    }
}

/// Bytes of a file, with the time from asking for each piece to having it.
struct TimedRead {
    bytes: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    since: Option<Instant>,
    time: Time,
}

impl Stream for TimedRead {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let since = *self.since.get_or_insert_with(|| SystemClock.now());
        let item = ready!(self.bytes.poll_next_unpin(cx));
        self.since = None;
        self.time.add_duration(SystemClock.now().saturating_duration_since(since));
        Poll::Ready(item)
    }
}
