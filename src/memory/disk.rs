//! Spill files: how large those of a query and of the process may be, and where they are.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use datafusion::common::{Result, human_readable_size};
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use parking_lot::Mutex;

use crate::config::{ProcessOptions, SlipstreamOptions};
use crate::error::config_error;

/// A disk manager for one query that keeps to `slipstream.disk.*`, or `None` where nothing of it is set: then the runtime's
/// own is right. `used` are the bytes of all queries that have such a manager.
///
/// # Errors
/// The manager cannot be made.
pub(super) fn manager(
    given: &Arc<DiskManager>,
    options: &SlipstreamOptions,
    settings: &Arc<ProcessOptions>,
    used: &Arc<AtomicUsize>,
) -> Result<Option<Arc<DiskManager>>> {
    let set = settings.disk_limit() > 0 || options.disk_query_limit > 0 || !options.disk_directory.is_empty();
    // Without temporary files there is nothing to limit, and whoever switched them off meant it.
    if !set || !given.tmp_files_enabled() {
        return Ok(None);
    }
    let factory = LimitedFiles {
        given: Arc::clone(given),
        directory: Some(PathBuf::from(&options.disk_directory)).filter(|path| !path.as_os_str().is_empty()),
        own: Mutex::new(None),
        quota: Arc::new(Quota {
            settings: Arc::clone(settings),
            process_used: Arc::clone(used),
            query_limit: options.disk_query_limit,
            query_used: AtomicUsize::new(0),
        }),
    };
    let builder = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Custom(Arc::new(factory)))
        .with_max_spill_merge_fan_in(given.max_spill_merge_fan_in());
    Ok(Some(Arc::new(builder.build()?)))
}

/// What one query may write.
struct Quota {
    settings: Arc<ProcessOptions>,
    process_used: Arc<AtomicUsize>,
    query_limit: usize,
    query_used: AtomicUsize,
}

impl Quota {
    /// Takes `bytes`, or says which limit they would pass.
    fn take(&self, bytes: usize) -> io::Result<()> {
        take(&self.query_used, bytes, self.query_limit, "one query", "slipstream.disk.query_limit")?;
        take(&self.process_used, bytes, self.settings.disk_limit(), "all queries", "slipstream.disk.limit")
            .inspect_err(|_| _ = self.query_used.fetch_sub(bytes, Ordering::Relaxed))
    }

    /// The reverse of [`take`](Self::take).
    fn give_back(&self, bytes: usize) {
        self.query_used.fetch_sub(bytes, Ordering::Relaxed);
        self.process_used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds to what is used, where the limit allows it.
fn take(used: &AtomicUsize, bytes: usize, limit: usize, whose: &str, setting: &str) -> io::Result<()> {
    let before = used.fetch_add(bytes, Ordering::Relaxed);
    if limit == 0 || before.saturating_add(bytes) <= limit {
        return Ok(());
    }
    used.fetch_sub(bytes, Ordering::Relaxed);
    Err(io::Error::other(format!(
        "the spill files of {whose} may take {} (SET {setting}), they take {}, and {} more are to be written. Raise the \
         limit, or give queries more memory (slipstream.memory.limit), so that they spill less",
        human_readable_size(limit),
        human_readable_size(before),
        human_readable_size(bytes)
    )))
}

/// Makes the files of one query.
struct LimitedFiles {
    /// The runtime's manager, whose limit stays in force.
    given: Arc<DiskManager>,
    directory: Option<PathBuf>,
    /// The manager of the query's own folder in `directory`, made with the first file.
    own: Mutex<Option<Arc<DiskManager>>>,
    quota: Arc<Quota>,
}

impl LimitedFiles {
    /// Whose files they are.
    fn manager(&self) -> Result<Arc<DiskManager>> {
        let Some(directory) = &self.directory else { return Ok(Arc::clone(&self.given)) };
        let mut own = self.own.lock();
        if let Some(manager) = own.as_ref() {
            return Ok(Arc::clone(manager));
        }
        let builder = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![directory.clone()]))
            .with_max_temp_directory_size(self.given.max_temp_directory_size());
        let manager = Arc::new(builder.build().map_err(|error| unusable(directory, &error))?);
        *own = Some(Arc::clone(&manager));
        Ok(manager)
    }
}

/// The directory that somebody set is none to write in.
fn unusable(directory: &Path, error: &dyn fmt::Display) -> datafusion::common::DataFusionError {
    config_error(format!(
        "slipstream.disk.directory '{}' cannot take spill files: {error}. SET it to a directory that can be written to",
        directory.display()
    ))
}

impl TempFileFactory for LimitedFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        let file = self.manager()?.create_tmp_file(description);
        let file = match (&self.directory, file) {
            (Some(directory), Err(error)) => return Err(unusable(directory, &error.strip_backtrace())),
            (_, file) => file?,
        };
        let written = Arc::new(Written { bytes: AtomicU64::new(0), quota: Arc::clone(&self.quota) });
        Ok(Arc::new(LimitedFile { file, written }))
    }
}

/// The bytes of one file; they are given back when the file and its writers are gone.
struct Written {
    bytes: AtomicU64,
    quota: Arc<Quota>,
}

impl Drop for Written {
    fn drop(&mut self) {
        self.quota.give_back(usize::try_from(*self.bytes.get_mut()).unwrap_or(usize::MAX));
    }
}

/// A file of another manager, whose bytes are counted.
struct LimitedFile {
    file: Arc<dyn SpillFile>,
    written: Arc<Written>,
}

impl SpillFile for LimitedFile {
    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        self.file.read_stream()
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(LimitedWriter { writer: self.file.open_writer()?, written: Arc::clone(&self.written) }))
    }
}

/// Writes where there is room.
struct LimitedWriter {
    writer: Box<dyn SpillWriter>,
    written: Arc<Written>,
}

impl Write for LimitedWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let quota = &self.written.quota;
        quota.take(buffer.len())?;
        let written = self.writer.write(buffer).inspect_err(|_| quota.give_back(buffer.len()))?;
        quota.give_back(buffer.len() - written);
        self.written.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl SpillWriter for LimitedWriter {
    fn finish(&mut self) -> Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> usize {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
    }

    #[test]
    fn bytes_are_counted_limited_and_given_back() {
        let (settings, used) = (Arc::new(ProcessOptions::default()), Arc::new(AtomicUsize::new(0)));
        let given = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let mut options = SlipstreamOptions::default();
        assert!(manager(&given, &options, &settings, &used).unwrap().is_none(), "nothing is set");
        options.disk_query_limit = 100;
        settings.set_disk_limit(150);
        let [one, other] = [(), ()].map(|()| manager(&given, &options, &settings, &used).unwrap().unwrap());
        let file = one.create_tmp_file("test").unwrap();
        let mut writer = file.open_writer().unwrap();
        writer.write_all(&[1; 90]).unwrap();
        let error = writer.write_all(&[1; 11]).unwrap_err().to_string();
        assert!(error.contains("of one query may take 100.0 B (SET slipstream.disk.query_limit)"), "{error}");
        let second = other.create_tmp_file("test").unwrap();
        let error = second.open_writer().unwrap().write_all(&[1; 70]).unwrap_err().to_string();
        assert!(error.contains("of all queries may take 150.0 B (SET slipstream.disk.limit)"), "{error}");
        assert_eq!((used.load(Ordering::Relaxed), file.size()), (90, Some(90)));
        drop((file, writer));
        assert_eq!(used.load(Ordering::Relaxed), 0);
        second.open_writer().unwrap().write_all(&[1; 70]).unwrap();
        drop(second);
        assert_eq!(used.load(Ordering::Relaxed), 0, "what was refused was not kept either");
    }

    #[test]
    fn files_are_in_the_directory_and_go() {
        let place = tempfile::tempdir().unwrap();
        let (settings, used) = (Arc::default(), Arc::default());
        let given = Arc::new(DiskManagerBuilder::default().build().unwrap());
        let directory = place.path().to_str().unwrap().to_owned();
        let options = SlipstreamOptions { disk_directory: directory.clone(), ..Default::default() };
        let own = manager(&given, &options, &settings, &used).unwrap().unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing before the first file");
        let file = own.create_tmp_file("test").unwrap();
        assert!(file.path().unwrap().starts_with(place.path()));
        assert_eq!(files(place.path()), 1);
        drop((file, own));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the query's folder goes too");

        let nowhere = SlipstreamOptions { disk_directory: format!("{directory}/no/where"), ..options };
        let own = manager(&given, &nowhere, &settings, &used).unwrap().unwrap();
        let error = own.create_tmp_file("test").err().unwrap().to_string();
        assert!(error.contains("slipstream.disk.directory '") && error.contains("no/where'"), "{error}");
    }
}
