//! Reading spill files back, and saying so when they are not what was written.

use std::pin::Pin;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, stream};

use super::checksum::Checksum;
use super::file::{Files, SpilledFile};

/// Batches that are read ahead.
const READ_AHEAD: usize = 1;

/// All rows of `files`, one file after the other. Each file is let go of when it was read.
pub(super) fn read(files: Files, schema: &SchemaRef) -> SendableRecordBatchStream {
    let reading = Reading { files, current: None };
    let batches = stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|batch| (batch, reading)))
    });
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches));
    spawn_buffered(stream, READ_AHEAD)
}

/// Files on their way to rows: one is open, the others wait.
struct Reading {
    files: Files,
    current: Option<OpenFile>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.current.is_none() {
                let Some(file) = self.files.pop_front() else { return Ok(None) };
                self.current = Some(OpenFile::new(file)?);
            }
            if let Some(file) = &mut self.current {
                let batch = file.next().await.map_err(|error| not_read(&error, &file.file))?;
                if batch.is_some() {
                    return Ok(batch);
                }
                self.current = None;
            }
        }
    }
}

type Bytes = Pin<Box<dyn Stream<Item = Result<Buffer>> + Send>>;

/// The file that is read.
struct OpenFile {
    /// Kept until its last row was read, and deleted with it where nobody else has it.
    file: Arc<SpilledFile>,
    /// Read by DataFusion's spill file, off the async threads.
    pieces: Bytes,
    /// What the decoder has not taken yet.
    piece: Buffer,
    /// It checks what it decodes, unlike that of DataFusion's own spill files: a join's answer must not depend on a disk.
    decoder: StreamDecoder,
    rows: usize,
    bytes: u64,
    checksum: Checksum,
}

impl OpenFile {
    fn new(file: Arc<SpilledFile>) -> Result<Self> {
        let pieces = file.file.read_stream().map_err(|error| not_read(&error, &file))?;
        Ok(Self {
            file,
            pieces: Box::pin(pieces.map(|piece| Ok(Buffer::from(piece?)))),
            piece: Buffer::from(&[]),
            decoder: StreamDecoder::new(),
            rows: 0,
            bytes: 0,
            checksum: Checksum::default(),
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if !self.piece.is_empty() {
                if let Some(batch) = self.decoder.decode(&mut self.piece)? {
                    self.rows += batch.num_rows();
                    // What was written and what was read are of the same schema, but for its metadata.
                    let batch =
                        RecordBatch::try_new(Arc::clone(&self.file.schema), batch.columns().to_vec())?;
                    return Ok(Some(batch));
                }
                continue;
            }
            match self.pieces.next().await {
                Some(piece) => {
                    self.piece = piece?;
                    self.bytes += self.piece.len() as u64;
                    self.checksum.update(&self.piece);
                }
                None => {
                    self.check()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Whether this was the file that was written. A file that was cut off between two batches can be decoded, and
    /// values that were changed can too.
    fn check(&mut self) -> Result<()> {
        self.decoder.finish()?;
        let read = (self.bytes, self.checksum.value());
        if read != self.file.written || self.rows != self.file.rows {
            return Err(exec_datafusion_err!(
                "{} bytes and {} rows with another checksum",
                self.bytes,
                self.rows
            ));
        }
        Ok(())
    }
}

/// One message for all that can be wrong with a file, since what is to be done is the same.
fn not_read(error: &DataFusionError, file: &SpilledFile) -> DataFusionError {
    exec_datafusion_err!(
        "a join's spill file of {} bytes and {} rows was changed, cut off or removed while the query ran: {} ({error}). \
         Check the disk, and whatever cleans the directory for temporary files; then run the query again",
        file.written.0,
        file.rows,
        file.place()
    )
}
