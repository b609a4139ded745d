//! A build side of which some is on disk, and the partitions that probe it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::memory::MemoryStream;
use futures::StreamExt;
use parking_lot::Mutex;

use super::build::{BuildRequest, Route, SpilledBuild};
use super::file::{Files, SpillFiles, SpilledFile};
use super::metrics::{Counters, JoinMetrics};
use super::pair::{Pair, Pairs};
use super::partition::Divider;
use super::prepaid::PrepaidPool;
use super::probe::{OnFirstPoll, Outbox, ProbeFeed, ProbeSeen, Scatter};
use super::slots::InputSlots;
use super::spec::JoinSpec;

/// What the partitions that probe one build side share.
pub(super) struct Spilled {
    /// What is joined.
    spec: Arc<JoinSpec>,
    /// The context that the node was given. The joins get contexts of their own, with their memory in them.
    context: Arc<TaskContext>,
    metrics: Arc<JoinMetrics>,
    /// Counts of the partition that built; all who probe count here too.
    counters: Counters,
    /// Parts that rows are divided into, without that of the NULL keys.
    parts: usize,
    /// How many partitions probe.
    partitions: usize,
    /// What becomes of probe rows, part by part.
    routes: Arc<[Route]>,
    /// Gone when all partitions have probed it, and from the beginning where no row is joined at once.
    resident: Mutex<Option<Arc<Resident>>>,
    /// Partitions that may still want the rows in memory.
    probing: AtomicUsize,
    /// The files. Locked for moments only, never while something is read or written.
    on_disk: Mutex<OnDisk>,
    /// What a NULL-aware anti join has to know of all probe rows.
    seen: Option<Arc<ProbeSeen>>,
    /// Empty: reservations of the same consumer are made of it.
    reservation: MemoryReservation,
}

/// The join of the rows that stayed in memory.
struct Resident {
    /// One join for all partitions: it holds the table, and the bitmap of matches that they share.
    join: Arc<dyn ExecutionPlan>,
    /// Where each partition puts its rows.
    probe: Arc<InputSlots>,
    context: Arc<TaskContext>,
    pool: Arc<PrepaidPool>,
}

/// Files by their parts.
struct OnDisk {
    /// Of the build side. The last partition takes them, so that each is deleted when it was read.
    build: Vec<Option<Arc<SpilledFile>>>,
    /// Of all partitions that are done, where the last one joins them.
    probe: Vec<Files>,
    /// Partitions whose probe rows are all seen.
    arrived: usize,
}

impl Spilled {
    /// `build`, which `partitions` partitions will probe.
    pub(super) fn new(request: &BuildRequest, build: SpilledBuild, partitions: usize) -> Result<Arc<Self>> {
        let BuildRequest { spec, context, metrics, parts, .. } = request;
        let empty = build.reservation.new_empty();
        let joins = build.routes.contains(&Route::Join);
        let resident =
            joins.then(|| Resident::new(spec, context, build.resident, build.reservation, partitions));
        let probe = build.files.iter().map(|_| Files::new()).collect();
        Ok(Arc::new(Self {
            spec: Arc::clone(spec),
            context: Arc::clone(context),
            metrics: Arc::clone(metrics),
            counters: build.counters,
            parts: *parts,
            partitions,
            routes: build.routes.into(),
            resident: Mutex::new(resident.transpose()?.map(Arc::new)),
            probing: AtomicUsize::new(partitions),
            on_disk: Mutex::new(OnDisk { build: build.files, probe, arrived: 0 }),
            seen: spec.null_aware.then(Arc::default),
            reservation: empty,
        }))
    }

    /// Divides `probe` as the build side was divided.
    fn scatter(&self, probe: SendableRecordBatchStream) -> Result<Scatter> {
        let divider = Divider::new(self.spec.right_keys(), self.parts, 0, self.spec.null_aware);
        let spill = self.counters.spill.clone();
        let purpose = "probe side of a hash join";
        let files = SpillFiles::new(&self.context, &self.spec.right, divider.parts(), spill, purpose)?;
        let memory = (self.reservation.new_empty(), self.context.session_config().batch_size());
        Ok(Scatter::new(probe, divider, Arc::clone(&self.routes), files, memory, self.seen.clone()))
    }

    /// The pairs that a partition is to join whose probe rows were written to `probe`.
    ///
    /// Where build rows are given, whether they found a match is known when all partitions have probed: the last one joins
    /// the pairs of all, and none waits for another.
    fn pairs(&self, probe: Vec<Option<Arc<SpilledFile>>>) -> Vec<Pair> {
        let mut on_disk = self.on_disk.lock();
        on_disk.arrived += 1;
        let last = on_disk.arrived == self.partitions;
        let mut probe: Vec<Files> = probe.into_iter().map(|file| file.into_iter().collect()).collect();
        if self.spec.gives_build_rows() {
            for (all, own) in on_disk.probe.iter_mut().zip(&mut probe) {
                all.append(own);
            }
            if !last {
                return Vec::new();
            }
            probe = std::mem::take(&mut on_disk.probe);
        }
        let build = if last { std::mem::take(&mut on_disk.build) } else { on_disk.build.clone() };
        drop(on_disk);
        let spilled = self.routes.iter().map(|route| *route == Route::Spill);
        let pairs = build.into_iter().zip(probe).zip(spilled).filter(|(_, spilled)| *spilled);
        let pairs = pairs.map(|((build, probe), _)| Pair {
            build: build.into_iter().collect(),
            probe,
            level: 0,
            indivisible: false,
        });
        self.wanted(pairs.collect())
    }

    /// All pairs, but for what a NULL-aware anti join does not give: with a NULL among the probe keys no row is known to
    /// have no match, and a NULL key is known to have none when there are no probe rows at all.
    fn wanted(&self, mut pairs: Vec<Pair>) -> Vec<Pair> {
        let Some(seen) = &self.seen else { return pairs };
        if seen.null.load(Ordering::Relaxed) {
            return Vec::new();
        }
        if seen.any.load(Ordering::Relaxed) {
            // NULL keys are the last part.
            pairs.pop();
        }
        pairs
    }

    /// Whether a NULL among the probe keys makes the answer empty: no build row is known to have no match then.
    fn is_unknown(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.null.load(Ordering::Relaxed))
    }

    /// Called by each partition when it no longer probes what is in memory.
    fn probed(&self) {
        if self.probing.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(resident) = self.resident.lock().take()
        {
            self.metrics.add_inner(resident.join.as_ref());
        }
    }
}

impl Resident {
    fn new(
        spec: &JoinSpec,
        context: &TaskContext,
        batches: Vec<RecordBatch>,
        reservation: MemoryReservation,
        partitions: usize,
    ) -> Result<Self> {
        let rows = MemoryStream::try_new(batches, Arc::clone(&spec.left), None)?;
        let build = InputSlots::filled(&spec.left, Box::pin(rows));
        let probe = InputSlots::unordered(&spec.right, partitions);
        let join = spec.join(build, Arc::clone(&probe) as _)?;
        let pool = PrepaidPool::new(context.memory_pool(), reservation);
        let context = pool.context(context);
        Ok(Self { join, probe, context, pool })
    }
}

/// One partition that probes.
pub(super) struct SpilledRun {
    shared: Arc<Spilled>,
    phase: Phase,
    /// Rows that are still wanted.
    wanted: Option<usize>,
}

enum Phase {
    /// Rows of parts in memory are joined, the others written to disk.
    Probing {
        rows: SendableRecordBatchStream,
        outbox: Outbox,
        _probing: Probing,
    },
    /// All rows are written to disk.
    Scattering(Box<Scatter>),
    /// What is on disk is joined.
    Pairs(Box<Pairs>),
    Over,
}

/// Says that a partition has probed, also when it is dropped.
struct Probing(Arc<Spilled>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.probed();
    }
}

impl SpilledRun {
    /// Probes with `rows` as the partition `place` of those that probe.
    pub(super) fn new(shared: Arc<Spilled>, place: usize, rows: SendableRecordBatchStream) -> Result<Self> {
        let wanted = shared.spec.fetch;
        let probing = Probing(Arc::clone(&shared));
        let scatter = shared.scatter(rows)?;
        let resident = shared.resident.lock().clone();
        let phase = match resident {
            None => Phase::Scattering(Box::new(scatter)),
            Some(resident) => {
                let (feed, outbox) = ProbeFeed::new(scatter);
                let pool = Arc::clone(&resident.pool);
                let feed = OnFirstPoll { input: Box::pin(feed), first: Some(move || pool.built()) };
                resident.probe.put(place, Box::pin(feed));
                let rows = resident.join.execute(place, Arc::clone(&resident.context))?;
                Phase::Probing { rows, outbox, _probing: probing }
            }
        };
        Ok(Self { shared, phase, wanted })
    }

    /// The next rows; `None` at the end, and when as many as are wanted were given.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.wanted == Some(0) {
            self.phase = Phase::Over;
        }
        let Some(batch) = self.next_batch().await? else { return Ok(None) };
        Ok(Some(match &mut self.wanted {
            Some(wanted) => {
                let rows = batch.num_rows().min(*wanted);
                *wanted -= rows;
                batch.slice(0, rows)
            }
            None => batch,
        }))
    }

    /// The next rows of the phase that this partition is in, and of the phases behind it.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let files = match &mut self.phase {
                Phase::Over => return Ok(None),
                Phase::Pairs(pairs) => {
                    let batch = pairs.next().await?;
                    if batch.is_none() {
                        self.phase = Phase::Over;
                    }
                    return Ok(batch);
                }
                Phase::Probing { rows, .. } => {
                    if let Some(batch) = rows.next().await {
                        let batch = batch?;
                        if self.shared.is_unknown() {
                            continue;
                        }
                        return Ok(Some(batch));
                    }
                    self.probed()?.into_files().await?
                }
                Phase::Scattering(_) => self.probed()?.into_files().await?,
            };
            let pairs = self.shared.pairs(files);
            let Spilled { spec, context, metrics, counters, reservation, .. } = self.shared.as_ref();
            let memory = (counters.clone(), reservation.new_empty());
            let (spec, context) = (Arc::clone(spec), Arc::clone(context));
            self.phase =
                Phase::Pairs(Box::new(Pairs::new(pairs, spec, context, Arc::clone(metrics), memory)?));
        }
    }

    /// The scatter of a partition whose rows in memory are joined. What it held of them is given back.
    fn probed(&mut self) -> Result<Scatter> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Probing { rows, outbox, .. } => {
                // A join that wanted no rows still has the feed, and puts the scatter into the box when it is dropped.
                drop(rows);
                let scatter = outbox.lock().take();
                scatter.ok_or_else(|| internal_datafusion_err!("the probe side of a join was lost"))
            }
            Phase::Scattering(scatter) => Ok(*scatter),
            Phase::Pairs(_) | Phase::Over => {
                Err(internal_datafusion_err!("the probe side of a join was read twice"))
            }
        }
    }
}
