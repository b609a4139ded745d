//! The probe side of a join that spills: rows are joined at once, written to disk, or left out, by their parts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;

use super::build::{MIN_WAITING_BYTES, Route, YIELD_AFTER};
use super::file::{SpillFiles, SpilledFile};
use super::partition::{Divider, NO_PART, Waiting};

/// Rows that wait to be written take no more than this.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// What a NULL-aware anti join has seen of all probe rows, whichever partition they were in.
///
/// Relaxed: they are set before the streams end whose end makes others read them, which orders the two.
#[derive(Debug, Default)]
pub(super) struct ProbeSeen {
    /// There is a row.
    pub(super) any: AtomicBool,
    /// There is a NULL key: no build row can be known to have no match.
    pub(super) null: AtomicBool,
}

/// Divides rows that come, one batch after the other.
pub(super) struct Scatter {
    /// The rows that are divided.
    input: SendableRecordBatchStream,
    /// By the same keys and the same hash as the build side's.
    divider: Divider,
    /// What becomes of the rows of each part.
    routes: Arc<[Route]>,
    /// Rows for files; batches wait as they came, with rows that are not for files in them.
    waiting: Waiting,
    /// `None` while they are written to, and at the end.
    files: Option<SpillFiles>,
    /// For the rows that wait, and their copies.
    reservation: MemoryReservation,
    batch_size: usize,
    /// Where a NULL-aware join notes what it has seen.
    seen: Option<Arc<ProbeSeen>>,
    /// Batches so far: a source that is always ready would keep others from running.
    taken: usize,
    /// The files when all rows were seen.
    written: Option<Vec<Option<Arc<SpilledFile>>>>,
}

impl Scatter {
    /// Divides `input` by `divider`, and writes rows whose route says so to `files`.
    pub(super) fn new(
        input: SendableRecordBatchStream,
        divider: Divider,
        routes: Arc<[Route]>,
        files: SpillFiles,
        (reservation, batch_size): (MemoryReservation, usize),
        seen: Option<Arc<ProbeSeen>>,
    ) -> Self {
        let waiting = Waiting::new(input.schema());
        let (files, written, taken) = (Some(files), None, 0);
        Self { input, divider, routes, waiting, files, reservation, batch_size, seen, taken, written }
    }

    /// The next rows that are to be joined at once; `None` when all rows were seen and the others are on disk.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.written.is_some() {
            return Ok(None);
        }
        while let Some(batch) = self.input.next().await {
            let joined = self.take(&batch?).await?;
            self.taken += 1;
            if joined.is_some() {
                return Ok(joined);
            }
            if self.taken.is_multiple_of(YIELD_AFTER) {
                tokio::task::yield_now().await;
            }
        }
        self.write().await?;
        if let Some(files) = self.files.take() {
            self.written = Some(files.finish().await?);
        }
        Ok(None)
    }

    /// Sees all rows that are left, and gives the files, one or none for each part.
    ///
    /// Rows that would be joined at once are of no use any more when this is called.
    pub(super) async fn into_files(mut self) -> Result<Vec<Option<Arc<SpilledFile>>>> {
        while self.next().await?.is_some() {}
        self.written.ok_or_else(|| internal_datafusion_err!("a join's spill files were lost"))
    }

    /// Sends the rows of one batch on their ways, and gives those that are joined at once.
    ///
    /// A batch whose rows are all joined at once is handed on as it is, without a copy.
    async fn take(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(None);
        }
        let (mut parts, nulls) = self.divider.divide(batch)?;
        if let Some(seen) = &self.seen {
            seen.any.store(true, Ordering::Relaxed);
            seen.null.fetch_or(nulls > 0, Ordering::Relaxed);
        }
        let (mut joined, mut spilled) = (Vec::with_capacity(rows), 0);
        for part in &mut parts {
            let route = self.routes.get(usize::from(*part)).copied().unwrap_or(Route::Drop);
            joined.push(route == Route::Join);
            if route == Route::Spill {
                spilled += 1;
            } else {
                *part = NO_PART;
            }
        }
        if spilled > 0 {
            self.waiting.push(batch, parts)?;
            self.make_room().await?;
        }
        let joined = BooleanArray::from(joined);
        Ok(match joined.true_count() {
            0 => None,
            all if all == rows => Some(batch.clone()),
            _ => Some(filter_record_batch(batch, &joined)?),
        })
    }

    /// Writes what waits when it is much, or when there is no room for more.
    async fn make_room(&mut self) -> Result<()> {
        let full = self.waiting.bytes() >= MAX_WAITING_BYTES
            || self.waiting.rows() >= self.batch_size.saturating_mul(self.routes.len());
        let bytes = self.waiting.bytes();
        let target = bytes.saturating_mul(2).saturating_add(self.waiting.notes_bytes());
        let refused = self.reservation.try_resize(target).is_err();
        if full || (refused && bytes > MIN_WAITING_BYTES) {
            return self.write().await;
        }
        if refused {
            self.reservation.resize(target);
        }
        Ok(())
    }

    /// Writes all that waits.
    async fn write(&mut self) -> Result<()> {
        let batches = self.waiting.gather(self.routes.len(), self.batch_size)?;
        if let Some(files) = self.files.take() {
            self.files = Some(files.append(batches).await?);
        }
        self.reservation.resize(0);
        Ok(())
    }
}

/// Where a [`Scatter`] is put when the join that was fed by it wants no more rows.
pub(super) type Outbox = Arc<Mutex<Option<Scatter>>>;

/// Feeds the join of the resident rows.
///
/// That join may end without having asked for a row, where it can tell that none would match. The rows of the other parts
/// are still to be written then, so the scatter is handed back, whether it is at its end or not.
pub(super) struct ProbeFeed {
    schema: SchemaRef,
    state: Feed,
    outbox: Outbox,
}

/// What the feed is at.
enum Feed {
    Idle(Box<Scatter>),
    Busy(BoxFuture<'static, (Box<Scatter>, Result<Option<RecordBatch>>)>),
    Over,
}

impl ProbeFeed {
    /// The stream, and the box in which the scatter is found when the stream was dropped or is at its end.
    pub(super) fn new(scatter: Scatter) -> (Self, Outbox) {
        let outbox = Outbox::default();
        let schema = scatter.input.schema();
        (Self { schema, state: Feed::Idle(Box::new(scatter)), outbox: Arc::clone(&outbox) }, outbox)
    }
}

impl Stream for ProbeFeed {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            self.state = match std::mem::replace(&mut self.state, Feed::Over) {
                Feed::Over => return Poll::Ready(None),
                Feed::Idle(mut scatter) => Feed::Busy(
                    async move {
                        let batch = scatter.next().await;
                        (scatter, batch)
                    }
                    .boxed(),
                ),
                Feed::Busy(mut next) => {
                    let Poll::Ready((scatter, batch)) = next.poll_unpin(cx) else {
                        self.state = Feed::Busy(next);
                        return Poll::Pending;
                    };
                    return Poll::Ready(match batch {
                        Ok(Some(batch)) => {
                            self.state = Feed::Idle(scatter);
                            Some(Ok(batch))
                        }
                        Ok(None) => {
                            *self.outbox.lock() = Some(*scatter);
                            None
                        }
                        Err(error) => Some(Err(error)),
                    });
                }
            }
        }
    }
}

impl Drop for ProbeFeed {
    fn drop(&mut self) {
        if let Feed::Idle(scatter) = std::mem::replace(&mut self.state, Feed::Over) {
            *self.outbox.lock() = Some(*scatter);
        }
    }
}

impl RecordBatchStream for ProbeFeed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Tells `first` when the join asks for its first probe row: its table is built then.
pub(super) struct OnFirstPoll<F> {
    pub(super) input: SendableRecordBatchStream,
    pub(super) first: Option<F>,
}

impl<F: FnOnce() + Unpin> Stream for OnFirstPoll<F> {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            first();
        }
        Poll::Ready(ready!(self.input.poll_next_unpin(cx)))
    }
}

impl<F: FnOnce() + Unpin> RecordBatchStream for OnFirstPoll<F> {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
