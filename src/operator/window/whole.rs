//! `WindowAggExec` by pieces: each some whole groups of PARTITION BY.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{DataFusionError, Result, internal_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::Described;
use super::cuts::Cuts;
use super::pieces::Held;
use crate::operator::context::derived;
use crate::operator::passthrough::{Passthrough, Wrap};

/// A piece is evaluated when it has this share of the memory limit; under pressure it is evaluated earlier.
const PIECE_SHARE: usize = 32;
const MIN_PIECE_BYTES: usize = 64 << 10;
const MAX_PIECE_BYTES: usize = 8 << 20;

/// Runs `plan`, a `WindowAggExec` whose input was wrapped by [`window_feed`], piece by piece.
///
/// DataFusion 55.2 collects the whole input, joins it into one batch, evaluates the windows group by group, and counts
/// nothing of it. Its input is sorted by PARTITION BY, so that whole groups may be evaluated by themselves:
///
/// ```text
///   input      a a a b b b c c c d │          the batch that begins d says that c has ended
///   piece      └──── a b c ──────┘            reserved, then evaluated by the WindowAggExec, as its whole input
///   held                         d ...        the beginning of the next piece
/// ```
///
/// Memory: what is held of the input, and while a piece is evaluated a copy of it and its new columns, all reserved
/// before. New columns without a fixed width are guessed at the width of an input row, and measured when they are
/// there. Does not spill: a group that does not fit fails with an error that names the window. Where nothing is left
/// for another batch, the whole groups that are held are evaluated first.
///
/// Batches of more rows than the session's batch size are handed on in parts, each with its own buffers: a consumer
/// that keeps a slice would keep, and count, all of it.
pub(crate) fn window_by_pieces(
    plan: Arc<dyn ExecutionPlan>,
    window: &WindowAggExec,
) -> Arc<dyn ExecutionPlan> {
    let windows = window.window_expr();
    let keys = windows.first().map(|window| window.partition_by().to_vec()).unwrap_or_default();
    Passthrough::around(
        plan,
        ByPieces { keys, described: Described::new(windows), new: NewColumns::of(windows) },
    )
}

/// Gives a window that runs by pieces the next piece in place of the rows of `input`.
pub(crate) fn window_feed(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(input, Feed)
}

/// The piece that is to be evaluated, carried in the context of its evaluation.
#[derive(Default)]
struct Piece(Mutex<Option<SendableRecordBatchStream>>);

#[derive(Debug)]
struct Feed;

impl Wrap for Feed {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        match context.session_config().get_extension::<Piece>() {
            None => inner.execute(partition, context),
            Some(piece) => piece
                .0
                .lock()
                .take()
                .ok_or_else(|| internal_datafusion_err!("a window has no piece to evaluate")),
        }
    }
}

/// Bytes that a window adds to a row.
#[derive(Debug, Clone, Copy)]
struct NewColumns {
    fixed_bytes: usize,
    /// Whether there is a column whose width is not known before it is there.
    varies: bool,
}

impl NewColumns {
    fn of(windows: &[Arc<dyn WindowExpr>]) -> Self {
        let widths = windows.iter().map(|window| window.field().ok()?.data_type().primitive_width());
        widths.fold(Self { fixed_bytes: 0, varies: false }, |sum, width| match width {
            Some(bytes) => Self { fixed_bytes: sum.fixed_bytes + bytes, ..sum },
            None => Self { varies: true, ..sum },
        })
    }

    fn bytes_per_row(self, held: &Held) -> usize {
        let guessed = if self.varies { held.batch_bytes() / held.rows().max(1) } else { 0 };
        self.fixed_bytes + guessed
    }
}

#[derive(Debug)]
struct ByPieces {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    described: Described,
    new: NewColumns,
}

impl Wrap for ByPieces {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let [feed] = inner.children()[..] else {
            return Err(internal_datafusion_err!("a window has one input"));
        };
        let input = feed.execute(partition, Arc::clone(&context))?;
        let piece = Arc::new(Piece::default());
        let config = context.session_config().clone().with_extension(Arc::clone(&piece));
        let limit = match context.memory_pool().memory_limit() {
            MemoryLimit::Finite(bytes) => bytes,
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        };
        let partitions = inner.output_partitioning().partition_count().max(1);
        let evaluation = Evaluation {
            window: Arc::clone(inner),
            partition,
            piece_context: derived(&context, config, context.runtime_env()),
            piece,
            input_schema: feed.schema(),
        };
        let pieces = Pieces {
            wrap: Arc::clone(self),
            input: Some(input),
            evaluation,
            cuts: Cuts::new(self.keys.clone()),
            held: Held::default(),
            waiting: None,
            output: None,
            reservation: MemoryConsumer::new(format!("WindowAggExec[{partition}]"))
                .register(context.memory_pool()),
            piece_bytes: (limit / PIECE_SHARE / partitions).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES),
            batch_rows: context.session_config().batch_size(),
        };
        let rows = stream::try_unfold(pieces, |mut pieces| async move {
            Ok(pieces.next().await?.map(|batch| (batch, pieces)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(inner.schema(), rows)))
    }
}

/// The node that evaluates pieces. It has no state of its own, so it is executed once for each.
struct Evaluation {
    window: Arc<dyn ExecutionPlan>,
    partition: usize,
    piece: Arc<Piece>,
    piece_context: Arc<TaskContext>,
    input_schema: SchemaRef,
}

impl Evaluation {
    /// `piece` with its new columns; none where it has no rows. DataFusion gives one batch, a wrapper around its node may
    /// cut it.
    async fn run(&self, piece: Vec<RecordBatch>) -> Result<Option<RecordBatch>> {
        let rows = stream::iter(piece.into_iter().map(Ok));
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&self.input_schema), rows);
        *self.piece.0.lock() = Some(Box::pin(rows));
        let evaluated = self.window.execute(self.partition, Arc::clone(&self.piece_context))?;
        let schema = evaluated.schema();
        let mut batches: Vec<RecordBatch> = evaluated.try_collect().await?;
        Ok(match batches.len() {
            0 | 1 => batches.pop(),
            _ => Some(concat_batches(&schema, &batches)?),
        })
    }
}

/// A batch that is handed on in parts.
struct Output {
    batch: RecordBatch,
    emitted_rows: usize,
}

/// The stream of one partition.
struct Pieces {
    wrap: Arc<ByPieces>,
    input: Option<SendableRecordBatchStream>,
    evaluation: Evaluation,
    cuts: Cuts,
    held: Held,
    /// A batch for which there was no room, with the rows that begin groups in it.
    waiting: Option<(RecordBatch, Vec<usize>)>,
    output: Option<Output>,
    reservation: MemoryReservation,
    piece_bytes: usize,
    batch_rows: usize,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(part) = self.emit()? {
                return Ok(Some(part));
            }
            if let Some((batch, begins)) = self.waiting.take() {
                self.hold(batch, begins).await?;
            } else if self.held.has_whole_groups()
                && (self.input.is_none() || self.held.batch_bytes() >= self.piece_bytes)
            {
                self.evaluate().await?;
            } else if let Some(input) = &mut self.input {
                let next = input.next().await.transpose();
                match next.map_err(|error| self.blamed(error))? {
                    Some(batch) if batch.num_rows() == 0 => {}
                    Some(batch) => {
                        let begins = self.cuts.find(&batch)?;
                        self.hold(batch, begins).await?;
                    }
                    None => {
                        self.input = None;
                        self.held.end();
                    }
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// The input's error. Where it found no memory while a group filled it, the group is what has to be made smaller.
    fn blamed(&self, error: DataFusionError) -> DataFusionError {
        let filled = self.held.batch_bytes() > self.piece_bytes;
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) if filled => self.no_room(error, self.held.rows()),
            _ => error,
        }
    }

    /// Reserves what the piece needs with `batch`, or evaluates what is whole and lets `batch` wait.
    async fn hold(&mut self, batch: RecordBatch, begins: Vec<usize>) -> Result<()> {
        // A batch that begins a group tells that the group before has ended.
        if begins.first() == Some(&0) {
            self.held.end();
        }
        let before = self.held.rows();
        let whole = self.held.has_whole_groups();
        let mut with = Held::default();
        with.push(batch.clone(), &begins);
        let new = self.wrap.new;
        let more = with.evaluated_bytes(new.bytes_per_row(&with));
        if whole && self.reservation.try_grow(more).is_err() {
            self.waiting = Some((batch, begins));
            return self.evaluate().await;
        }
        self.held.push(batch, &begins);
        let needed = self.held.evaluated_bytes(new.bytes_per_row(&self.held));
        self.resize(needed, before + with.rows())
    }

    fn resize(&self, bytes: usize, rows: usize) -> Result<()> {
        self.reservation.try_resize(bytes).map_err(|error| self.no_room(error, rows))
    }

    fn no_room(&self, error: DataFusionError, rows: usize) -> DataFusionError {
        self.wrap.described.no_room(error, rows)
    }

    async fn evaluate(&mut self) -> Result<()> {
        let piece = self.held.take_whole();
        let rows = piece.iter().map(RecordBatch::num_rows).sum();
        let Some(batch) = self.evaluation.run(piece).await? else {
            return Ok(());
        };
        let held = self.held.evaluated_bytes(self.wrap.new.bytes_per_row(&self.held));
        self.resize(get_record_batch_memory_size(&batch) + held, rows)?;
        self.output = Some(Output { batch, emitted_rows: 0 });
        Ok(())
    }

    /// The next part of what was evaluated; its memory is released with the last one.
    fn emit(&mut self) -> Result<Option<RecordBatch>> {
        let Some(Output { batch, emitted_rows }) = &mut self.output else {
            return Ok(None);
        };
        let rows = batch.num_rows();
        let part = if rows <= self.batch_rows {
            *emitted_rows = rows;
            batch.clone()
        } else {
            let end = (*emitted_rows + self.batch_rows).min(rows);
            let part = copied(batch, *emitted_rows, end)?;
            *emitted_rows = end;
            part
        };
        if *emitted_rows == rows {
            self.output = None;
            let held = self.held.evaluated_bytes(self.wrap.new.bytes_per_row(&self.held));
            self.reservation.try_resize(held)?;
        }
        Ok(Some(part))
    }
}

/// Rows of `batch` with buffers of their own.
fn copied(batch: &RecordBatch, begin: usize, end: usize) -> Result<RecordBatch> {
    let index = |row: usize| u32::try_from(row).map_err(|error| DataFusionError::External(Box::new(error)));
    let rows = UInt32Array::from_iter_values(index(begin)?..index(end)?);
    Ok(take_record_batch(batch, &rows)?)
}
