//! One partition of the node: a plain hash join where the build side fits, and a spilling one where it does not.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, Stream, StreamExt, stream};

use super::build::{BuildRequest, Built, build};
use super::metrics::JoinMetrics;
use super::prepaid::PrepaidPool;
use super::slots::InputSlots;
use super::spilled::{Spilled, SpilledRun};

/// The join of a build side that fits: DataFusion's own, with its dynamic filter, over inputs that are handed to it.
///
/// One for all partitions, since these agree about the dynamic filter inside it. It holds the table, and lives as long as
/// one of them runs.
#[derive(Debug)]
pub(super) struct Plain {
    /// A copy of the planned join, with its dynamic filter and a state of its own.
    join: HashJoinExec,
    left: Arc<InputSlots>,
    right: Arc<InputSlots>,
    metrics: Arc<JoinMetrics>,
}

impl Plain {
    /// `join` over slots in the place of its inputs, which leaves what it has counted to `metrics`.
    fn of(join: &HashJoinExec, metrics: &Arc<JoinMetrics>) -> Result<Self> {
        let (left, right) = (InputSlots::in_place_of(join.left()), InputSlots::in_place_of(join.right()));
        let inputs: Vec<Arc<dyn ExecutionPlan>> = vec![Arc::clone(&left) as _, Arc::clone(&right) as _];
        // The slots have the properties of what they stand for. Without a new state the copy would share the planned
        // join's, which is there for as long as the plan is.
        let mut copy = join.builder().with_new_children(inputs)?.reset_state().build()?;
        if let Some(filter) = join.dynamic_expressions_produced().pop() {
            let filter: Arc<dyn Any + Send + Sync> = filter;
            let filter = filter.downcast().map_err(|_| internal_datafusion_err!("no dynamic filter"))?;
            copy = copy.with_dynamic_filter_expr(filter)?;
        }
        Ok(Self { join: copy, left, right, metrics: Arc::clone(metrics) })
    }

    /// What it has counted until now.
    pub(super) fn counted(&self) -> Option<MetricsSet> {
        self.join.metrics()
    }

    /// Joins what is in the left slot with `probe`.
    fn probe(
        self: &Arc<Self>,
        partition: usize,
        probe: SendableRecordBatchStream,
        fitting: &Fitting,
    ) -> Result<SendableRecordBatchStream> {
        self.right.put(partition, probe);
        let rows = self.join.execute(partition, Arc::clone(&fitting.context))?;
        let building = Some(Arc::clone(&fitting.pool));
        Ok(Box::pin(Fits { rows, building, _plain: Arc::clone(self) }))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.metrics.plain_ended(self.counted());
    }
}

/// The rows of a join whose build side fits.
struct Fits {
    rows: SendableRecordBatchStream,
    building: Option<Arc<PrepaidPool>>,
    /// Until the rows are dropped, which count to the end.
    _plain: Arc<Plain>,
}

impl Stream for Fits {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let rows = self.rows.poll_next_unpin(cx);
        // The collected rows are all there, so one poll builds the table; what the join then waits for may be the other
        // partitions, and those may want the memory.
        if let Some(pool) = self.building.take() {
            pool.built();
        }
        rows
    }
}

impl RecordBatchStream for Fits {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}

/// The memory of a build side that fits, and the context in which the join finds it.
pub(super) struct Fitting {
    /// Out of which the join is paid.
    pool: Arc<PrepaidPool>,
    context: Arc<TaskContext>,
}

/// A build side that is shared by all partitions.
pub(super) enum Collected {
    Fits(Fitting),
    Spilled(Arc<Spilled>),
}

/// A build side that is on its way; errors reach all who wait for it.
type Collecting = Shared<BoxFuture<'static, Result<Arc<Collected>, Arc<DataFusionError>>>>;

/// What the partitions of one execution share.
///
/// Once all partitions are executed it is theirs alone, so that the last one that ends gives the memory back: a plan lives
/// longer than its streams.
#[derive(Default)]
pub(super) struct Execution {
    plain: Option<Arc<Plain>>,
    running: Weak<Plain>,
    collecting: Option<Collecting>,
    /// Partitions that were executed.
    executed: usize,
}

impl Execution {
    /// The join where the build side fits, for one more of `partitions`.
    pub(super) fn next(
        &mut self,
        join: &HashJoinExec,
        partitions: usize,
        metrics: &Arc<JoinMetrics>,
    ) -> Result<Arc<Plain>> {
        let plain = match self.plain.take() {
            Some(plain) => plain,
            None => Arc::new(Plain::of(join, metrics)?),
        };
        self.running = Arc::downgrade(&plain);
        self.executed += 1;
        if self.executed < partitions {
            self.plain = Some(Arc::clone(&plain));
        }
        Ok(plain)
    }

    /// The join that the partitions run, while one of them does.
    pub(super) fn running(&self) -> Option<Arc<Plain>> {
        self.running.upgrade()
    }

    /// The build side of all `partitions`, which the first that is polled collects.
    pub(super) fn collected(
        &mut self,
        partitions: usize,
        request: impl FnOnce() -> Result<(BuildRequest, SendableRecordBatchStream)>,
        plain: &Arc<Plain>,
    ) -> Result<Collecting> {
        let collecting = match self.collecting.take() {
            Some(collecting) => collecting,
            None => {
                let (request, input) = request()?;
                let plain = Arc::clone(plain);
                collect(request, input, plain, partitions).boxed().shared()
            }
        };
        if self.executed < partitions {
            self.collecting = Some(collecting.clone());
        }
        Ok(collecting)
    }
}

/// As [`built`], for all partitions. The future is polled by whichever partition is polled, and outlives each of them.
async fn collect(
    request: BuildRequest,
    input: SendableRecordBatchStream,
    plain: Arc<Plain>,
    partitions: usize,
) -> Result<Arc<Collected>, Arc<DataFusionError>> {
    let collected = built(&request, input, &plain, 0, partitions).await;
    collected.map(Arc::new).map_err(Arc::new)
}

/// Builds; where it fits, the rows are put into the left slot of `partition`.
async fn built(
    request: &BuildRequest,
    input: SendableRecordBatchStream,
    plain: &Plain,
    partition: usize,
    partitions: usize,
) -> Result<Collected> {
    Ok(match build(request, input).await? {
        Built::Fits { batches, reservation } => {
            let rows = MemoryStream::try_new(batches, Arc::clone(&request.spec.left), None)?;
            plain.left.put(partition, Box::pin(rows));
            let pool = PrepaidPool::new(request.context.memory_pool(), reservation);
            let context = pool.context(&request.context);
            Collected::Fits(Fitting { pool, context })
        }
        Built::Spilled(build) => Collected::Spilled(Spilled::new(request, build, partitions)?),
    })
}

/// The rows of `partition` of a join whose build side is shared.
pub(super) async fn collected(
    collecting: Collecting,
    plain: Arc<Plain>,
    partition: usize,
    probe: SendableRecordBatchStream,
    metrics: Arc<JoinMetrics>,
) -> Result<SendableRecordBatchStream> {
    let collected = collecting.await.map_err(DataFusionError::Shared)?;
    match collected.as_ref() {
        Collected::Fits(fitting) => plain.probe(partition, probe, fitting),
        Collected::Spilled(spilled) => {
            let run = SpilledRun::new(Arc::clone(spilled), partition, probe)?;
            Ok(rows(run, plain.join.schema(), &metrics, partition))
        }
    }
}

/// The rows of a partition that has a build side of its own.
pub(super) fn own(
    request: BuildRequest,
    plain: Arc<Plain>,
    input: SendableRecordBatchStream,
    probe: SendableRecordBatchStream,
) -> impl Future<Output = Result<SendableRecordBatchStream>> + Send + 'static {
    // Made at once: the others wait for this partition also when nobody ever polls it.
    let report = Report::new(&plain, request.partition, &request.context);
    opened(request, plain, input, probe, report)
}

/// Builds, and begins to probe.
async fn opened(
    request: BuildRequest,
    plain: Arc<Plain>,
    input: SendableRecordBatchStream,
    probe: SendableRecordBatchStream,
    report: Report,
) -> Result<SendableRecordBatchStream> {
    let partition = request.partition;
    match built(&request, input, &plain, partition, 1).await? {
        Collected::Fits(fitting) => {
            let rows = plain.probe(partition, probe, &fitting)?;
            report.made();
            Ok(rows)
        }
        Collected::Spilled(spilled) => {
            // The others must not wait for this one's keys.
            drop(report);
            let run = SpilledRun::new(spilled, 0, probe)?;
            Ok(rows(run, plain.join.schema(), &request.metrics, partition))
        }
    }
}

/// The rows of a spilling partition, counted.
fn rows(
    run: SpilledRun,
    schema: SchemaRef,
    metrics: &JoinMetrics,
    partition: usize,
) -> SendableRecordBatchStream {
    let output = metrics.output(partition);
    let rows = stream::try_unfold((run, output), |(mut run, output)| async move {
        let batch = run.next().await?;
        match &batch {
            Some(batch) => output.record_output(batch.num_rows()),
            None => output.done(),
        }
        Ok(batch.map(|batch| (batch, (run, output))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// What a partition owes to the others: those that fit wait until each has told its keys, or that it will not, before they
/// read their probe sides by the dynamic filter.
///
/// Only a stream of the join itself can say that it will not, which it does when it is dropped; so one is made, over inputs
/// without rows. The filter then lets all keys of this partition pass. This happens also where the build side fails, or is
/// dropped while it is collected.
struct Report {
    owed: Option<(Arc<Plain>, usize, Arc<TaskContext>)>,
}

impl Report {
    fn new(plain: &Arc<Plain>, partition: usize, context: &Arc<TaskContext>) -> Self {
        let filters = !plain.join.dynamic_expressions_produced().is_empty();
        Self { owed: filters.then(|| (Arc::clone(plain), partition, Arc::clone(context))) }
    }

    /// The join itself runs, and tells its keys.
    ///
    /// From here on its stream does so itself, also when it is dropped.
    fn made(mut self) {
        self.owed = None;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let Some((plain, partition, context)) = self.owed.take() else { return };
        let empty = |slots: &InputSlots| -> SendableRecordBatchStream {
            Box::pin(EmptyRecordBatchStream::new(slots.schema()))
        };
        plain.left.put(partition, empty(&plain.left));
        plain.right.put(partition, empty(&plain.right));
        // An error would mean that the join cannot be executed at all; then the others fail by themselves.
        drop(plain.join.execute(partition, context));
    }
}
