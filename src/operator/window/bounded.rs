//! `BoundedWindowAggExec`, accounted: the rows that came in and did not come out, and those that frames look back at.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::TryStreamExt;
use parking_lot::Mutex;

use super::Described;
use super::cuts::Cuts;
use crate::operator::context::derived;
use crate::operator::passthrough::{Passthrough, Wrap};
use crate::operator::shared::batch_bytes;

/// A window that holds less is not what another operator lacks memory for.
const MIN_BLAMED_BYTES: usize = 64 << 10;

/// Runs `plan`, a `BoundedWindowAggExec` over sorted groups whose input was wrapped by [`window_ledger`], with what it
/// holds reserved.
///
/// Such a window emits rows as soon as their frames have ended. It holds, in two copies (its input in order, and each
/// group), the rows that it has not emitted, and of the group that is open those that the frames still look back at.
/// DataFusion 55.2 counts none of it. From outside, both are known in rows:
///
/// ```text
///   group    r r r r r r r r r
///                    │   └ read
///                    └ emitted          pending  = read - emitted
///                └ ROWS 2 PRECEDING     retained = min(2, rows of the group)
/// ```
///
/// Not seen: how many rows a RANGE or GROUPS frame of bounded start looks back at, and states of aggregates that grow
/// with each row (`array_agg`). Does not spill: fails with an error that names the window.
pub(crate) fn accounted_window(
    plan: Arc<dyn ExecutionPlan>,
    window: &BoundedWindowAggExec,
) -> Arc<dyn ExecutionPlan> {
    let windows = window.window_expr();
    let keys = windows.first().map(|window| window.partition_by().to_vec()).unwrap_or_default();
    let lookback_rows = windows.iter().map(lookback_rows).max().unwrap_or(0);
    let described = Arc::new(Described::new(windows));
    Passthrough::around(plan, Accounted { keys, described, lookback_rows })
}

/// Counts the rows that a window reads of `input`.
pub(crate) fn window_ledger(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(input, Counted)
}

/// How many rows behind the current one the frame of `window` needs.
fn lookback_rows(window: &Arc<dyn WindowExpr>) -> usize {
    let frame = window.get_window_frame();
    match (&frame.units, &frame.start_bound) {
        (WindowFrameUnits::Rows, WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows)))) => {
            usize::try_from(*rows).unwrap_or(usize::MAX)
        }
        // Of a frame that begins with the group, the state of the aggregate is kept, and one row.
        _ => 1,
    }
}

#[derive(Debug)]
struct Accounted {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    described: Arc<Described>,
    lookback_rows: usize,
}

impl Wrap for Accounted {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let reservation =
            MemoryConsumer::new(format!("BoundedWindowAggExec[{partition}]")).register(context.memory_pool());
        let account = Account {
            cuts: Cuts::new(self.keys.clone()),
            lookback_rows: self.lookback_rows,
            described: Arc::clone(&self.described),
            reservation,
            read_rows: 0,
            read_bytes: 0,
            emitted_rows: 0,
            group_rows: 0,
        };
        let ledger = Arc::new(Ledger { outer: Arc::clone(&context), account: Arc::new(Mutex::new(account)) });
        let account = Arc::clone(&ledger.account);
        let config = context.session_config().clone().with_extension(ledger);
        let rows = inner.execute(partition, derived(&context, config, context.runtime_env()))?;
        let schema = rows.schema();
        let emitted = rows.map_ok(move |batch| {
            account.lock().emitted(batch.num_rows());
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, emitted)))
    }
}

/// What a window and its input share, and the context around the window, for the input.
struct Ledger {
    outer: Arc<TaskContext>,
    account: Arc<Mutex<Account>>,
}

#[derive(Debug)]
struct Counted;

impl Wrap for Counted {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Some(ledger) = context.session_config().get_extension::<Ledger>() else {
            return inner.execute(partition, context);
        };
        let rows = inner.execute(partition, Arc::clone(&ledger.outer))?;
        let schema = rows.schema();
        let account = Arc::clone(&ledger.account);
        let blamed = Arc::clone(&account);
        let rows = rows.map_err(move |error| blamed.lock().blamed(error));
        let read = rows.and_then(move |batch| {
            let read = account.lock().read(&batch);
            async { read.map(|()| batch) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, read)))
    }
}

/// What the window of one partition holds.
struct Account {
    cuts: Cuts,
    lookback_rows: usize,
    described: Arc<Described>,
    reservation: MemoryReservation,
    read_rows: usize,
    read_bytes: usize,
    emitted_rows: usize,
    /// Rows of the group that is open.
    group_rows: usize,
}

impl Account {
    fn held_rows(&self) -> usize {
        let pending = self.read_rows.saturating_sub(self.emitted_rows);
        pending + self.lookback_rows.min(self.group_rows)
    }

    fn held_bytes(&self) -> usize {
        2 * self.held_rows().saturating_mul(self.read_bytes / self.read_rows.max(1))
    }

    fn read(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        self.group_rows = match self.cuts.find(batch)?.last() {
            Some(begin) => rows - begin,
            None => self.group_rows + rows,
        };
        self.read_rows += rows;
        self.read_bytes += batch_bytes(batch);
        let refused = self.reservation.try_resize(self.held_bytes());
        refused.map_err(|error| self.described.no_room(error, self.held_rows()))
    }

    /// The input's error; where it found no memory while the window held most of it, with what the window holds.
    fn blamed(&self, error: DataFusionError) -> DataFusionError {
        let filled = self.held_bytes() > MIN_BLAMED_BYTES;
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) if filled => {
                self.described.no_room(error, self.held_rows())
            }
            _ => error,
        }
    }

    fn emitted(&mut self, rows: usize) {
        self.emitted_rows += rows;
        let held = self.held_bytes().min(self.reservation.size());
        self.reservation.resize(held);
    }
}
