//! An answer that was found in the directory, and its rows.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::common::Result;

use super::format::{Header, verified};

/// A file whose every byte is the one that was written. It stays readable when its name is gone.
#[derive(Debug)]
pub(crate) struct DiskAnswer {
    file: Arc<File>,
    /// Where the rows are.
    rows: (u64, u64),
    /// Its columns.
    pub(crate) schema: SchemaRef,
    /// What stands before the rows.
    pub(crate) header: Header,
    /// What it is known by.
    pub(crate) name: Arc<str>,
    /// How old it is.
    pub(crate) age: Duration,
}

/// The batches of an answer, one after the other.
pub(crate) struct DiskBatches(StreamReader<BufReader<Section>>);

impl Iterator for DiskBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|batch| batch.map_err(Into::into))
    }
}

impl DiskAnswer {
    /// The answer in `file`; `None` where it is not what somebody wrote.
    ///
    /// # Errors
    /// The file's.
    pub(super) fn read(
        mut file: File,
        header: Header,
        name: &Arc<str>,
        age: Duration,
    ) -> io::Result<Option<Self>> {
        let Some(end) = verified(&mut file)? else { return Ok(None) };
        let mut answer = Self {
            file: Arc::new(file),
            rows: (header.rows_at(), end),
            schema: Arc::new(datafusion::arrow::datatypes::Schema::empty()),
            header,
            name: Arc::clone(name),
            age,
        };
        let Ok(batches) = answer.batches() else { return Ok(None) };
        answer.schema = batches.0.schema();
        Ok(Some(answer))
    }

    /// Its rows. Each call begins anew.
    ///
    /// # Errors
    /// The file's, or the decoder's.
    pub(crate) fn batches(&self) -> Result<DiskBatches> {
        let section = Section { file: Arc::clone(&self.file), at: self.rows.0, end: self.rows.1 };
        Ok(DiskBatches(StreamReader::try_new(BufReader::new(section), None)?))
    }

    /// How long it took to compute.
    pub(crate) fn cost(&self) -> Duration {
        Duration::from_nanos(self.header.cost)
    }

    /// How long it may be given.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.header.ttl()
    }
}

impl Header {
    /// How long the answer may be given.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        (self.ttl != u64::MAX).then(|| Duration::from_nanos(self.ttl))
    }

    /// When it was computed.
    pub(crate) fn created_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.created)
    }

    /// How long it took.
    pub(crate) fn cost(&self) -> Duration {
        Duration::from_nanos(self.cost)
    }

    /// How old it is; `None` where it was computed after `now`: somebody set the clock back, and nobody knows.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.created_at()).ok()
    }

    /// Whether its time is over. Where its age is not known, it may be.
    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.ttl().is_some_and(|ttl| self.age(now).is_none_or(|age| age > ttl))
    }
}

/// A part of a file, read without the file's own place, which all who read it share.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let size = left.min(buffer.len());
        let read = read_at(&self.file, &mut buffer[..size], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

/// Reads what stands before the rows of `file`, from its beginning.
pub(super) fn header_of(file: &mut File) -> io::Result<Option<Header>> {
    file.seek(SeekFrom::Start(0))?;
    Header::read(&mut BufReader::new(file))
}
