//! The states of some files, one after the other.

use std::sync::Arc;
use std::time::Instant;
use std::vec;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::BaselineMetrics;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use super::exec::{FileTask, GivenFile};
use super::one_file::OneFilePlan;
use super::recorder::{Collector, FileRecorder, ReadFile};
use crate::operator::result_cache::{Kept, renamed};
use crate::store::FileIdentity;

/// Where what is read anew goes.
type Record = Option<(Arc<FileRecorder>, Arc<Collector>)>;

/// The states of the files of `tasks`, with the columns of `schema`.
pub(super) fn states(
    schema: SchemaRef,
    partial: &OneFilePlan,
    tasks: Vec<FileTask>,
    record: Record,
    baseline: BaselineMetrics,
    context: Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let files = Files {
        schema: Arc::clone(&schema),
        partial: partial.clone(),
        tasks: tasks.into_iter(),
        record,
        context,
        now: Now::Between,
    };
    let batches = stream::try_unfold((files, baseline), async |(mut files, baseline)| {
        let batch = files.next().await?;
        batch.iter().for_each(|batch| baseline.record_output(batch.num_rows()));
        Ok(batch.map(|batch| (batch, (files, baseline))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// One partition's files, and how far it is.
struct Files {
    schema: SchemaRef,
    partial: OneFilePlan,
    tasks: vec::IntoIter<FileTask>,
    record: Record,
    context: Arc<TaskContext>,
    now: Now,
}

/// What is done for the file at hand.
enum Now {
    /// Nothing: the next task is taken.
    Between,
    /// The place of the next batch.
    Giving(GivenFile, usize),
    Reading(Box<Reading>),
}

/// A file that is read anew.
struct Reading {
    rows: SendableRecordBatchStream,
    begun: Option<Instant>,
    /// What is to be kept, under which identity; and `None` from when it was too much.
    keeps: Option<(FileIdentity, Option<(Kept, MemoryReservation)>)>,
}

impl Files {
    /// The next states of all files; `None` behind the last.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match std::mem::replace(&mut self.now, Now::Between) {
                Now::Between => match self.tasks.next() {
                    None => return Ok(None),
                    Some(FileTask::Give(file)) => self.now = Now::Giving(file, 0),
                    Some(FileTask::Read(file, identity)) => {
                        let rows = self.partial.of(*file)?.execute(0, Arc::clone(&self.context))?;
                        let recorder = self.record.as_ref().map(|(recorder, _)| recorder);
                        let begun = recorder.map(|recorder| recorder.clock.now());
                        let keeps = identity.zip(recorder).map(|(file, recorder)| {
                            let reservation = recorder.store.reservation(&recorder.pool);
                            (file, reservation.map(|reservation| (Kept::default(), reservation)))
                        });
                        self.now = Now::Reading(Box::new(Reading { rows, begun, keeps }));
                    }
                },
                Now::Giving(file, place) => {
                    let Some(batch) = file.batches().get(place).cloned() else { continue };
                    self.now = Now::Giving(file, place + 1);
                    return renamed(&batch, &self.schema).map(Some);
                }
                Now::Reading(mut reading) => match reading.rows.next().await {
                    Some(batch) => {
                        let batch = batch?;
                        self.keep(&mut reading, &batch)?;
                        self.now = Now::Reading(reading);
                        return Ok(Some(batch));
                    }
                    None => read(self.record.as_ref(), *reading).await,
                },
            }
        }
    }

    /// Keeps states aside, as long as they are not too many.
    fn keep(&self, reading: &mut Reading, batch: &RecordBatch) -> Result<()> {
        let Some((recorder, _)) = &self.record else { return Ok(()) };
        if let Some((_, keeps)) = &mut reading.keeps
            && let Some((kept, reservation)) = keeps
        {
            kept.add(batch)?;
            if !recorder.may_keep(kept) || reservation.try_resize(kept.bytes).is_err() {
                *keeps = None;
            }
        }
        Ok(())
    }
}

/// A file has come to its end.
async fn read(record: Option<&(Arc<FileRecorder>, Arc<Collector>)>, reading: Reading) {
    let (Some((recorder, collector)), Some((file, kept))) = (record, reading.keeps) else { return };
    let now = recorder.clock.now();
    let cost = now.saturating_duration_since(reading.begun.unwrap_or(now));
    // The memory is the collector's from here on.
    let file = kept.map(|(kept, _)| ReadFile { file, kept, cost });
    if let Some(all) = recorder.read(collector, file) {
        recorder.publish(all).await;
    }
}
