//! Spill files: compressed Arrow IPC, written off the async threads, with a checksum that is compared when they are read.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::CompressionType;
use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::config::SpillCompression;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};
use datafusion::physical_plan::metrics::SpillMetrics;

use super::checksum::Checksum;

/// Small: what is larger goes past it, and there is one for each file that is written.
const WRITE_BUFFER_BYTES: usize = 8 << 10;

/// By how much a column's buffers may grow when they are read back: each is rounded up.
const ROUNDED_UP_BYTES: usize = 128;

/// A spill file that is complete. It is deleted with the last reference to it.
pub(super) struct SpilledFile {
    /// Deletes itself.
    pub(super) file: Arc<dyn SpillFile>,
    /// Of the batches in it, which is the side's own whatever the batches said of themselves.
    pub(super) schema: SchemaRef,
    pub(super) rows: usize,
    /// Bytes that the rows took in memory.
    pub(super) bytes: usize,
    pub(super) batches: usize,
    /// Bytes in the file, and their checksum.
    pub(super) written: (u64, u64),
}

impl SpilledFile {
    /// Where the file is, for messages.
    pub(super) fn place(&self) -> String {
        self.file.path().map_or_else(|| "(not a local file)".to_owned(), |path| path.display().to_string())
    }
}

/// Files of one side of a join, one for each part; a file is created with its first rows.
pub(super) struct SpillFiles {
    /// Whose disk manager creates and counts the files.
    env: Arc<RuntimeEnv>,
    schema: SchemaRef,
    /// With the codec.
    options: IpcWriteOptions,
    metrics: SpillMetrics,
    /// For messages, and for what the disk manager logs.
    purpose: &'static str,
    /// By their parts.
    open: Vec<Option<OpenFile>>,
}

/// A file that is written to, and what was written so far.
struct OpenFile {
    file: Arc<dyn SpillFile>,
    writer: StreamWriter<BufWriter<CountingWriter>>,
    rows: usize,
    bytes: usize,
    batches: usize,
}

impl SpillFiles {
    /// No file yet for any of `parts` parts.
    pub(super) fn new(
        context: &TaskContext,
        schema: &SchemaRef,
        parts: usize,
        metrics: SpillMetrics,
        purpose: &'static str,
    ) -> Result<Self> {
        // DataFusion's default is not to compress. Joins write wide rows, which are worth it even then.
        let codec = match context.session_config().options().execution.spill_compression {
            SpillCompression::Zstd => CompressionType::ZSTD,
            SpillCompression::Lz4Frame | SpillCompression::Uncompressed => CompressionType::LZ4_FRAME,
        };
        Ok(Self {
            env: context.runtime_env(),
            schema: Arc::clone(schema),
            options: IpcWriteOptions::default().try_with_compression(Some(codec))?,
            metrics,
            purpose,
            open: (0..parts).map(|_| None).collect(),
        })
    }

    /// Appends each batch to the file of its part, on a thread that may block.
    ///
    /// The files go along with the task: an error, or a caller that is dropped meanwhile, deletes them.
    pub(super) async fn append(self, batches: Vec<(usize, RecordBatch)>) -> Result<Self> {
        if batches.is_empty() {
            return Ok(self);
        }
        self.blocking(move |files| batches.iter().try_for_each(|(part, batch)| files.write(*part, batch)))
            .await
    }

    /// The complete files by their parts.
    pub(super) async fn finish(self) -> Result<Vec<Option<Arc<SpilledFile>>>> {
        if self.open.iter().all(Option::is_none) {
            return Ok(self.open.iter().map(|_| None).collect());
        }
        let purpose = self.purpose;
        let finished = SpawnedTask::spawn_blocking(move || {
            let Self { open, schema, metrics, .. } = self;
            open.into_iter()
                .map(|file| file.map(|file| file.finish(&schema, &metrics)).transpose())
                .collect::<Result<Vec<_>>>()
        });
        joined(finished).await.map_err(|error| not_written(error, purpose))
    }

    /// Runs `write` where it may block, with all files, and gives them back when it was done.
    ///
    /// A task of this kind cannot be stopped, so a caller that is dropped lets it end: its files are deleted by then.
    async fn blocking(
        mut self,
        write: impl FnOnce(&mut Self) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let purpose = self.purpose;
        let written = SpawnedTask::spawn_blocking(move || {
            write(&mut self)?;
            Ok(self)
        });
        joined(written).await.map_err(|error| not_written(error, purpose))
    }

    fn write(&mut self, part: usize, batch: &RecordBatch) -> Result<()> {
        let Some(place) = self.open.get_mut(part) else {
            return Err(exec_datafusion_err!("a join's rows belong to part {part}, which does not exist"));
        };
        let file = match place {
            Some(file) => file,
            None => {
                let file = self.env.disk_manager.create_tmp_file(self.purpose)?;
                let writer = CountingWriter::new(file.open_writer()?);
                let buffer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer);
                let writer = StreamWriter::try_new_with_options(buffer, &self.schema, self.options.clone())?;
                self.metrics.spill_file_count.add(1);
                place.insert(OpenFile { file, writer, rows: 0, bytes: 0, batches: 0 })
            }
        };
        let before = file.writer.get_ref().get_ref().bytes;
        file.writer.write(batch)?;
        file.rows += batch.num_rows();
        file.bytes += get_record_batch_memory_size(batch) + batch.num_columns() * ROUNDED_UP_BYTES;
        file.batches += 1;
        self.metrics.spilled_rows.add(batch.num_rows());
        self.metrics.spilled_bytes.add(bytes(file.writer.get_ref().get_ref().bytes - before));
        Ok(())
    }
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The outcome of a task; that it panicked is an error here, and not a panic of the caller.
async fn joined<T: Send + 'static>(task: SpawnedTask<Result<T>>) -> Result<T> {
    task.await.map_err(|error| DataFusionError::External(Box::new(error)))?
}

/// What a user can do when there is neither memory nor disk.
fn not_written(error: DataFusionError, purpose: &str) -> DataFusionError {
    error.context(format!(
        "the {purpose} does not fit in memory and could not be written to disk. Make room in the directory for \
         temporary files, allow more of it (datafusion.runtime.max_temp_directory_size), or raise the memory limit"
    ))
}

impl OpenFile {
    /// Ends the file; what is read later is checked against what was counted here.
    fn finish(mut self, schema: &SchemaRef, metrics: &SpillMetrics) -> Result<Arc<SpilledFile>> {
        let before = self.writer.get_ref().get_ref().bytes;
        self.writer.finish()?;
        let buffer = self.writer.into_inner()?;
        let mut writer = buffer.into_inner().map_err(|error| DataFusionError::IoError(error.into_error()))?;
        writer.inner.flush()?;
        writer.inner.finish()?;
        metrics.spilled_bytes.add(bytes(writer.bytes - before));
        Ok(Arc::new(SpilledFile {
            file: self.file,
            schema: Arc::clone(schema),
            rows: self.rows,
            bytes: self.bytes,
            batches: self.batches,
            written: (writer.bytes, writer.checksum.value()),
        }))
    }
}

/// Counts what is written and takes its checksum.
struct CountingWriter {
    inner: Box<dyn SpillWriter>,
    bytes: u64,
    checksum: Checksum,
}

impl CountingWriter {
    fn new(inner: Box<dyn SpillWriter>) -> Self {
        Self { inner, bytes: 0, checksum: Checksum::default() }
    }
}

impl Write for CountingWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        self.checksum.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Files of one part: one for each partition that wrote some.
pub(super) type Files = VecDeque<Arc<SpilledFile>>;

/// Rows, bytes in memory, and batches of all `files`.
pub(super) fn totals(files: &Files) -> (usize, usize, usize) {
    files.iter().fold((0, 0, 0), |(rows, bytes, batches), file| {
        (rows + file.rows, bytes + file.bytes, batches + file.batches)
    })
}
