//! A part that cannot be divided, joined block by block: as many build rows as fit, with all probe rows, and again.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, UInt64Array,
    new_null_array,
};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, UInt64Type};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{JoinType, Result, internal_datafusion_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, future};
use parking_lot::Mutex;

use super::file::{Files, totals};
use super::pair::{Pair, PairTools, Running};
use super::read::read;
use super::slots::InputSlots;
use super::spec::JoinSpec;

/// What a pass over the probe rows is for.
///
/// | join | each block | after the last block |
/// |---|---|---|
/// | inner, left, left semi, left anti, left mark | the join itself: each build row is in one block | |
/// | right | inner; which probe rows matched is noted | probe rows without a match |
/// | full | left; the same | the same |
/// | right semi, right anti, right mark | right semi; the same, and no rows are given | probe rows by whether they matched |
pub(super) struct Blocks {
    /// The build rows that are still to come.
    build: SendableRecordBatchStream,
    /// A batch that was read and did not fit into the block before.
    left_over: Option<RecordBatch>,
    /// Read once for each block, and once more at the end where matches are noted.
    probe: Files,
    matches: Option<Arc<Mutex<Matches>>>,
}

/// Which probe rows found a match in any block so far, by their numbers.
struct Matches {
    /// One for each row, in the order of the files.
    bits: BooleanBufferBuilder,
    _reservation: MemoryReservation,
}

impl Blocks {
    /// Nothing is read yet.
    pub(super) fn new(pair: Pair, pairs: &PairTools) -> Self {
        let noted = match pairs.spec.join_type {
            JoinType::Inner
            | JoinType::Left
            | JoinType::LeftSemi
            | JoinType::LeftAnti
            | JoinType::LeftMark => false,
            JoinType::Right
            | JoinType::Full
            | JoinType::RightSemi
            | JoinType::RightAnti
            | JoinType::RightMark => true,
        };
        let matches = noted.then(|| {
            let (rows, _, _) = totals(&pair.probe);
            let reservation = pairs.reservation.new_empty();
            // One bit for each row: little, and without it there is no way on.
            reservation.resize(rows / 8 + 1);
            let mut bits = BooleanBufferBuilder::new(rows);
            bits.append_n(rows, false);
            Arc::new(Mutex::new(Matches { bits, _reservation: reservation }))
        });
        let build = read(pair.build, &pairs.spec.left);
        Self { build, left_over: None, probe: pair.probe, matches }
    }

    /// The join of the next block, or the last pass; and whether there is more to come.
    pub(super) async fn next(&mut self, pairs: &PairTools) -> Result<(Option<Running>, bool)> {
        let reservation = pairs.reservation.new_empty();
        let block = self.next_block(pairs, &reservation).await?;
        if block.is_empty() {
            drop(reservation);
            let last = self.matches.take().map(|matches| {
                let rows = last_pass(&pairs.spec, &self.probe, matches);
                Running { rows, join: None }
            });
            return Ok((last, false));
        }
        pairs.counters.block_passes.add(1);
        let spec = &pairs.spec;
        let block = Box::pin(MemoryStream::try_new(block, Arc::clone(&spec.left), None)?);
        let left = InputSlots::filled(&spec.left, block);
        let probe = read(self.probe.clone(), &spec.right);
        let Some(matches) = &self.matches else {
            let probe = (probe, &spec.right);
            return Ok((
                Some(pairs.run(left, probe, reservation, |left, right| spec.join(left, right))?),
                true,
            ));
        };
        let schema = spec.numbered_right(Field::new("row", DataType::UInt64, false));
        let probe = (numbered(probe, &schema), &schema);
        let (join_type, columns) = noting_join(spec);
        let running = pairs.run(left, probe, reservation, |left, right| {
            spec.join_as(left, right, join_type, Some(columns))
        })?;
        let rows = noted(running.rows, spec, Arc::clone(matches));
        Ok((Some(Running { rows, join: running.join }), true))
    }

    /// As many build rows as fit, and at least one batch.
    async fn next_block(
        &mut self,
        pairs: &PairTools,
        reservation: &MemoryReservation,
    ) -> Result<Vec<RecordBatch>> {
        let mut block = Vec::new();
        let mut memory = RecordBatchMemoryCounter::new();
        let mut rows = 0;
        loop {
            let batch = match self.left_over.take() {
                Some(batch) => batch,
                None => match self.build.next().await {
                    Some(batch) => batch?,
                    None => return Ok(block),
                },
            };
            memory.count_batch(&batch);
            rows += batch.num_rows();
            let needed = pairs.need.of(memory.memory_usage(), rows);
            if reservation.try_resize(needed).is_err() {
                if !block.is_empty() {
                    self.left_over = Some(batch);
                    return Ok(block);
                }
                // A single batch is the least that can be joined, whoever holds the memory.
                reservation.resize(needed);
                return Ok(vec![batch]);
            }
            block.push(batch);
        }
    }
}

/// The type and the columns of the join of one block whose probe rows' numbers come last.
fn noting_join(spec: &JoinSpec) -> (JoinType, Vec<usize>) {
    let (left, right) = (spec.left.fields().len(), spec.right.fields().len());
    let with_number = || {
        let mut columns = spec.columns(left + right);
        columns.push(left + right);
        columns
    };
    match spec.join_type {
        JoinType::Right => (JoinType::Inner, with_number()),
        JoinType::Full => (JoinType::Left, with_number()),
        _ => (JoinType::RightSemi, vec![right]),
    }
}

/// `probe` with the number of each row.
fn numbered(probe: SendableRecordBatchStream, schema: &SchemaRef) -> SendableRecordBatchStream {
    let numbered_schema = Arc::clone(schema);
    let mut first = 0;
    let rows = probe.map(move |batch| {
        let batch = batch?;
        let end = first + batch.num_rows() as u64;
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(first..end));
        first = end;
        let columns = batch.columns().iter().cloned().chain([numbers]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&numbered_schema), columns)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
}

/// Notes the probe rows of `rows`, and takes their numbers off; what then has no columns that are wanted is left out.
fn noted(
    rows: SendableRecordBatchStream,
    spec: &Arc<JoinSpec>,
    matches: Arc<Mutex<Matches>>,
) -> SendableRecordBatchStream {
    let given = matches!(spec.join_type, JoinType::Right | JoinType::Full);
    let output = Arc::clone(&spec.output);
    let rows =
        rows.try_filter_map(move |batch| future::ready(note(&batch, &matches, given.then_some(&output))));
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&spec.output), rows))
}

/// Notes the numbers in the last column; with an `output` schema the other columns are given.
fn note(
    batch: &RecordBatch,
    matches: &Mutex<Matches>,
    output: Option<&SchemaRef>,
) -> Result<Option<RecordBatch>> {
    let (numbers, columns) = batch
        .columns()
        .split_last()
        .ok_or_else(|| internal_datafusion_err!("a join of a block gave no row numbers"))?;
    let mut matches = matches.lock();
    // There is none in a build row without a match.
    for number in numbers.as_primitive::<UInt64Type>().iter().flatten() {
        matches.bits.set_bit(place(number)?, true);
    }
    output.map(|output| with_rows(output, columns.to_vec(), batch.num_rows())).transpose()
}

/// A row's number as an index; they came from indices.
fn place(number: u64) -> Result<usize> {
    usize::try_from(number).map_err(|_| internal_datafusion_err!("row {number} of a join's probe side"))
}

/// A batch, also of no columns.
fn with_rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The probe rows, by whether they found a match in any block.
fn last_pass(spec: &Arc<JoinSpec>, probe: &Files, matches: Arc<Mutex<Matches>>) -> SendableRecordBatchStream {
    let own = Arc::clone(spec);
    let mut first = 0;
    let rows = read(probe.clone(), &spec.right).map(move |batch| {
        let batch = batch?;
        let rows = batch.num_rows();
        let matched: BooleanArray = {
            let matches = matches.lock();
            (first..first + rows).map(|row| Some(matches.bits.get_bit(row))).collect()
        };
        first += rows;
        unmatched(&own, &batch, matched)
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&spec.output), rows))
}

/// The rows of one batch that its type gives for having found a match, or none, in any block.
fn unmatched(spec: &JoinSpec, batch: &RecordBatch, matched: BooleanArray) -> Result<RecordBatch> {
    let kept = match spec.join_type {
        JoinType::RightMark => batch.clone(),
        JoinType::RightSemi => filter_record_batch(batch, &matched)?,
        _ => filter_record_batch(batch, &not(&matched)?)?,
    };
    let rows = kept.num_rows();
    let mut all: Vec<ArrayRef> = Vec::new();
    if matches!(spec.join_type, JoinType::Right | JoinType::Full) {
        all.extend(spec.left.fields().iter().map(|field| new_null_array(field.data_type(), rows)));
    }
    all.extend(kept.columns().iter().cloned());
    if spec.join_type == JoinType::RightMark {
        all.push(Arc::new(matched));
    }
    let columns = spec.columns(all.len()).into_iter().map(|column| {
        let found = all.get(column).map(Arc::clone);
        found.ok_or_else(|| internal_datafusion_err!("a join has no column {column}"))
    });
    with_rows(&spec.output, columns.collect::<Result<_>>()?, rows)
}
