//! Joining what is on disk: one part of the build side with the same part of the probe side, after the other.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use super::block::Blocks;
use super::build::Route;
use super::file::{Files, SpillFiles, SpilledFile, totals};
use super::metrics::{Counters, JoinMetrics};
use super::need::Need;
use super::partition::{Divider, MAX_LEVEL};
use super::prepaid::PrepaidPool;
use super::probe::{OnFirstPoll, Scatter};
use super::read::read;
use super::slots::InputSlots;
use super::spec::{JoinSpec, Keys};

/// Parts that a part is divided into when it does not fit.
const PARTS_AGAIN: usize = 16;

/// A part of both sides, on disk.
pub(super) struct Pair {
    /// One file, or none.
    pub(super) build: Files,
    /// One for each partition that probed, or none.
    pub(super) probe: Files,
    /// How often its rows were divided before, but for the first time; it chooses the hash.
    pub(super) level: usize,
    /// Dividing it would not make it smaller: all rows, or nearly all, have the same key.
    pub(super) indivisible: bool,
}

/// What there is to do.
enum Work {
    Pair(Pair),
    Blocks(Box<Blocks>),
}

/// A join that is running, and its rows.
pub(super) struct Running {
    pub(super) rows: SendableRecordBatchStream,
    pub(super) join: Option<Arc<dyn ExecutionPlan>>,
}

/// What each pair is joined with.
pub(super) struct PairTools {
    pub(super) spec: Arc<JoinSpec>,
    pub(super) context: Arc<TaskContext>,
    pub(super) metrics: Arc<JoinMetrics>,
    pub(super) counters: Counters,
    /// How much memory a build side takes.
    pub(super) need: Need,
    /// Empty: reservations of the same consumer are made of it.
    pub(super) reservation: MemoryReservation,
}

/// Joins pairs, one after the other. A pair whose build side does not fit is divided again; one that cannot be divided is
/// joined block by block.
pub(super) struct Pairs {
    /// Shared by all steps.
    tools: PairTools,
    /// A stack: parts of a part come before the next pair, so that files are deleted as early as can be.
    work: Vec<Work>,
    /// What gives rows now.
    running: Option<Running>,
}

impl Pairs {
    pub(super) fn new(
        pairs: Vec<Pair>,
        spec: Arc<JoinSpec>,
        context: Arc<TaskContext>,
        metrics: Arc<JoinMetrics>,
        (counters, reservation): (Counters, MemoryReservation),
    ) -> Result<Self> {
        let need = spec.need(&context)?;
        let work = pairs.into_iter().map(Work::Pair).collect();
        let tools = PairTools { spec, context, metrics, counters, need, reservation };
        Ok(Self { tools, work, running: None })
    }

    /// The next rows; `None` when all pairs were joined.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(running) = &mut self.running {
                if let Some(batch) = running.rows.next().await {
                    return batch.map(Some);
                }
                if let Some(join) = self.running.take().and_then(|running| running.join) {
                    self.tools.metrics.add_inner(join.as_ref());
                }
            }
            match self.work.pop() {
                None => return Ok(None),
                Some(Work::Pair(pair)) => self.begin(pair).await?,
                Some(Work::Blocks(mut blocks)) => {
                    let (running, more) = blocks.next(&self.tools).await?;
                    self.running = running;
                    if more {
                        self.work.push(Work::Blocks(blocks));
                    }
                }
            }
        }
    }

    /// Joins the pair if its build side fits, else finds out what to do with it.
    async fn begin(&mut self, pair: Pair) -> Result<()> {
        let (rows, bytes, batches) = totals(&pair.build);
        let nothing = (pair.build.is_empty() && self.tools.spec.needs_build())
            || (pair.probe.is_empty() && self.tools.spec.needs_probe());
        if nothing {
            return Ok(());
        }
        let reservation = self.tools.reservation.new_empty();
        let needed = self.tools.need.of(bytes, rows);
        let fits = reservation.try_resize(needed).is_ok();
        if fits || batches <= 1 {
            // A single batch is the least that can be joined, whoever holds the memory.
            reservation.resize(needed);
            let build = read(pair.build, &self.tools.spec.left);
            let probe = read(pair.probe, &self.tools.spec.right);
            let left = InputSlots::filled(&self.tools.spec.left, build);
            self.running =
                Some(self.tools.run(left, (probe, &self.tools.spec.right), reservation, |left, right| {
                    self.tools.spec.join(left, right)
                })?);
        } else if pair.indivisible || pair.level >= MAX_LEVEL {
            let blocks = Blocks::new(pair, &self.tools);
            self.work.push(Work::Blocks(Box::new(blocks)));
        } else {
            let pairs = self.tools.divide(pair).await?;
            self.work.extend(pairs.into_iter().map(Work::Pair));
        }
        Ok(())
    }
}

impl PairTools {
    /// Starts a join of `left` and `probe`, whose memory is paid out of `reservation`.
    pub(super) fn run(
        &self,
        left: Arc<InputSlots>,
        (probe, schema): (SendableRecordBatchStream, &SchemaRef),
        reservation: MemoryReservation,
        join: impl FnOnce(Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>,
    ) -> Result<Running> {
        self.counters.reserved(&reservation);
        let pool = PrepaidPool::new(self.context.memory_pool(), reservation);
        let context = pool.context(&self.context);
        let probe = OnFirstPoll { input: probe, first: Some(move || pool.built()) };
        let join = join(left, InputSlots::filled(schema, Box::pin(probe)))?;
        Ok(Running { rows: join.execute(0, context)?, join: Some(join) })
    }

    /// Divides both sides once more, by a hash of their own level.
    async fn divide(&self, pair: Pair) -> Result<Vec<Pair>> {
        let level = pair.level + 1;
        self.counters.recursion_depth.set_max(level);
        let (rows, _, _) = totals(&pair.build);
        let routes = vec![Route::Spill; PARTS_AGAIN];
        let left = &self.spec.left;
        let build = read(pair.build, left);
        let build = self.scatter(build, left, self.spec.left_keys(), routes, level).await?;
        // Probe rows of parts without build rows are not written where no row comes of them.
        let routes = build.iter().map(|part| match part {
            None if self.spec.needs_build() => Route::Drop,
            _ => Route::Spill,
        });
        let right = &self.spec.right;
        let probe = read(pair.probe, right);
        let probe = self.scatter(probe, right, self.spec.right_keys(), routes.collect(), level).await?;
        let pairs = build.into_iter().zip(probe).map(|(build, probe)| {
            let indivisible = build.as_ref().is_some_and(|build| build.rows / 7 > rows / 8);
            let (build, probe) = (build.into_iter().collect(), probe.into_iter().collect());
            Pair { build, probe, level, indivisible }
        });
        Ok(pairs.collect())
    }

    /// Writes all `rows` into the files of their parts, but for those whose route says otherwise.
    async fn scatter(
        &self,
        rows: SendableRecordBatchStream,
        schema: &SchemaRef,
        keys: Keys,
        routes: Vec<Route>,
        level: usize,
    ) -> Result<Vec<Option<Arc<SpilledFile>>>> {
        let spill = self.counters.spill.clone();
        let files = SpillFiles::new(&self.context, schema, PARTS_AGAIN, spill, "part of a hash join")?;
        let divider = Divider::new(keys, PARTS_AGAIN, level, false);
        let memory = (self.reservation.new_empty(), self.context.session_config().batch_size());
        Scatter::new(rows, divider, routes.into(), files, memory, None).into_files().await
    }
}
