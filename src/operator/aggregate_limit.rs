//! An aggregate whose memory, once its input has ended, counts as what it is then: memory that it cannot spill.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::{Result, resources_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::own_context::{execute_in, outer};
use super::passthrough::{Passthrough, Wrap};
use super::pool_view::{PoolView, View};
use super::purse::Purse;
use crate::memory::AGGREGATE_MERGE;

/// Bytes that a table without groups may take.
const EMPTY_TABLE: usize = 64 << 10;

/// Bytes that the table of a partial aggregate may take in any case: some batches of groups.
const PARTIAL_TABLE: usize = 2 << 20;

/// Bytes of the table of a partial aggregate, in one of `partitions`.
///
/// It need not be large: it only spares the exchange rows, and puts them out when it is refused more. Those rows are held until the
/// last of them was taken, and nobody counts them: a table that took all that is free would take it twice.
fn partial_table(limit: usize, partitions: usize) -> usize {
    (limit / 8 / partitions.max(1)).max(PARTIAL_TABLE)
}

/// Runs `aggregate`, a grouped `AggregateExec` whose input was wrapped by [`aggregate_input`].
///
/// While it reads, such an aggregate spills when it is refused memory, and is registered as a consumer that can spill: it
/// leaves a share to others. When it has read everything it makes its rows, which take a little more or less than the
/// table did, and then a refusal fails the query although the memory is free. What it asks for from then on is registered
/// here as memory that cannot spill; after a spill, when it merges, as that of a merge, which goes on with less.
pub(crate) fn aggregate_limit(aggregate: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(aggregate, AggregateLimit)
}

/// Runs `input` in the context around the aggregate, which it tells of its end.
pub(crate) fn aggregate_input(input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::outermost(input, AggregateInput)
}

#[derive(Debug)]
struct AggregateLimit;

impl Wrap for AggregateLimit {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let ended = Arc::new(InputEnded::default());
        let (mut more_runs, mut table) = (usize::MAX, usize::MAX);
        if let MemoryLimit::Finite(limit) = context.memory_pool().memory_limit() {
            let partitions = inner.output_partitioning().partition_count();
            more_runs = Merge::part(limit, partitions);
            if inner
                .downcast_ref::<AggregateExec>()
                .is_some_and(|node| *node.mode() == AggregateMode::Partial)
            {
                table = partial_table(limit, partitions);
            }
        }
        let phases = Phases { ended: Arc::clone(&ended), more_runs, table, consumers: Mutex::default() };
        let memory_pool = PoolView::of(context.memory_pool(), phases);
        let runtime = RuntimeEnv { memory_pool, ..context.runtime_env().as_ref().clone() };
        let config = context.session_config().clone().with_extension(ended);
        execute_in(inner, partition, &context, config, runtime)
    }
}

#[derive(Debug)]
pub(super) struct AggregateInput;

impl Wrap for AggregateInput {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Some(ended) = context.session_config().get_extension::<InputEnded>() else {
            return inner.execute(partition, context);
        };
        let rows = inner.execute(partition, outer(context))?;
        let schema = rows.schema();
        // An aggregate drops its input at the end, and may do so before, with a limit: both end this state.
        let rows = stream::unfold((rows, EndNotice(ended)), |(mut rows, notice)| async move {
            rows.next().await.map(|item| (item, (rows, notice)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// Whether the aggregate has all its input.
#[derive(Default)]
struct InputEnded(AtomicBool);

/// Sets the flag when it is dropped.
struct EndNotice(Arc<InputEnded>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

/// Registers what is asked for after the input has ended as other consumers.
struct Phases {
    ended: Arc<InputEnded>,
    /// Bytes of runs that a merge may read beyond those that it needs.
    more_runs: usize,
    /// Bytes that the table of groups may take while it reads.
    table: usize,
    /// By the id of the aggregate's consumer.
    consumers: Mutex<HashMap<usize, Holding>>,
}

/// What one consumer of the aggregate holds.
#[derive(Default)]
struct Holding {
    /// As the consumer that it registered, which can spill.
    reading: usize,
    /// As the merge of what it has spilled.
    merge: Option<Merge>,
    /// As one that cannot spill: rows, and the groups that are made of merged ones.
    output: Option<Purse>,
}

/// The memory of a merge, which reads a run for each request.
struct Merge {
    /// The first two runs, without which it cannot go on.
    first: MemoryReservation,
    /// Further ones, without which it merges in several passes.
    more: MemoryReservation,
    /// Bytes of further ones that leave the merges of other partitions, which begin at the same time, as many.
    most: usize,
    runs: usize,
}

impl Merge {
    const NEEDED_RUNS: usize = 2;

    /// Bytes of further runs for one of `partitions`, of a limit of which a quarter is for such runs.
    fn part(limit: usize, partitions: usize) -> usize {
        limit / 4 / partitions.max(1)
    }

    fn new(pool: &Arc<dyn MemoryPool>, aggregate: &str, most: usize) -> Self {
        let consumer = MemoryConsumer::new(format!("{AGGREGATE_MERGE}{aggregate}"));
        let more = consumer.clone_with_new_id().with_can_spill(true).register(pool);
        Self { first: consumer.register(pool), more, most, runs: 0 }
    }

    fn size(&self) -> usize {
        self.first.size() + self.more.size()
    }

    /// `output` keeps what a merge can do without, and not what it cannot.
    fn try_grow(&mut self, bytes: usize, output: &mut Purse) -> Result<()> {
        if self.size() == 0 {
            // It begins anew, with smaller batches or with the runs of an earlier pass.
            self.runs = 0;
        }
        if self.runs >= Self::NEEDED_RUNS {
            // As much is left to those above, who may not be able to do without.
            if self.more.size() + bytes > self.most {
                return resources_err!(
                    "{} holds its part of the memory for further runs, {} bytes",
                    self.first.consumer().name(),
                    self.most
                );
            }
            self.more.try_grow(bytes * 2)?;
            self.more.shrink(bytes);
        } else if self.first.try_grow(bytes).is_err() {
            output.keep_nothing();
            self.first.try_grow(bytes)?;
        }
        self.runs += 1;
        Ok(())
    }
}

impl Holding {
    /// What the groups of a merge need, in runs of two batches each: a batch of rows, the table of its groups, in which
    /// each column of strings has a block of its own, and the rows that are made of it.
    const KEPT_RUNS: usize = 4;

    /// Pays for what `reservation` asks for after the end of the input.
    ///
    /// A merge asks before any row is read from it, and for nothing afterwards; its reservation and that of the groups
    /// belong to one consumer. So what a reservation asks for beside another that holds something is for groups.
    fn try_grow(
        &mut self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        bytes: usize,
        more_runs: usize,
    ) -> Result<()> {
        let aggregate = reservation.consumer().name();
        let output =
            self.output.get_or_insert_with(|| Purse::new(MemoryConsumer::new(aggregate).register(pool)));
        let merged = self.merge.as_ref().map_or(0, Merge::size);
        if self.reading > 0 || reservation.size() != merged {
            return output.try_grow(bytes);
        }
        if self.merge.is_none() {
            output.keep(bytes * Self::KEPT_RUNS);
        }
        self.merge.get_or_insert_with(|| Merge::new(pool, aggregate, more_runs)).try_grow(bytes, output)
    }

    /// Gives back what can be given back of `bytes`, and says what is left of them.
    fn shrink(&mut self, bytes: usize) -> usize {
        let mut left = bytes;
        if let Some(output) = &mut self.output {
            let part = output.used().min(left);
            output.shrink(part);
            left -= part;
        }
        if let Some(merge) = &self.merge {
            for runs in [&merge.more, &merge.first] {
                let part = runs.size().min(left);
                runs.shrink(part);
                left -= part;
            }
        }
        left
    }
}

impl View for Phases {
    fn unregister(&self, pool: &Arc<dyn MemoryPool>, consumer: &MemoryConsumer) {
        let holding = self.consumers.lock().remove(&consumer.id());
        drop(holding);
        pool.unregister(consumer);
    }

    fn grow(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, additional: usize) {
        pool.grow(reservation, additional);
        self.consumers.lock().entry(reservation.consumer().id()).or_default().reading += additional;
    }

    fn shrink(&self, pool: &Arc<dyn MemoryPool>, reservation: &MemoryReservation, shrink: usize) {
        let mut consumers = self.consumers.lock();
        let holding = consumers.entry(reservation.consumer().id()).or_default();
        let left = holding.shrink(shrink);
        holding.reading = holding.reading.saturating_sub(left);
        if left > 0 {
            pool.shrink(reservation, left);
        }
    }

    fn try_grow(
        &self,
        pool: &Arc<dyn MemoryPool>,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<()> {
        let consumer = reservation.consumer();
        let mut consumers = self.consumers.lock();
        let holding = consumers.entry(consumer.id()).or_default();
        if consumer.can_spill() && self.ended.0.load(Ordering::Acquire) {
            return holding.try_grow(pool, reservation, additional, self.more_runs);
        }
        if holding.reading == 0 && additional <= EMPTY_TABLE {
            // It has nothing to spill, and DataFusion takes a refusal for a defect.
            pool.grow(reservation, additional);
        } else if holding.reading > 0 && holding.reading + additional > self.table {
            return resources_err!("{} holds its part of the memory, {} bytes", consumer.name(), self.table);
        } else {
            pool.try_grow(reservation, additional)?;
        }
        holding.reading += additional;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::FairSpillPool;

    const MORE_RUNS: usize = 250;

    fn view(below: &Arc<dyn MemoryPool>) -> (Arc<dyn MemoryPool>, EndNotice) {
        let ended = Arc::new(InputEnded::default());
        let phases = Phases {
            ended: Arc::clone(&ended),
            more_runs: MORE_RUNS,
            table: usize::MAX,
            consumers: Mutex::default(),
        };
        (PoolView::of(below, phases), EndNotice(ended))
    }

    #[test]
    fn rows_may_take_more_than_the_share_of_the_table_and_all_is_given_back() {
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let _other = MemoryConsumer::new("sort").with_can_spill(true).register(&below);
        let (view, notice) = view(&below);
        let table = MemoryConsumer::new("Aggregate[0]").with_can_spill(true).register(&view);
        table.try_grow(400).unwrap();
        assert!(table.try_grow(200).is_err(), "the half of the memory is the sort's");
        drop(notice);
        table.try_grow(200).unwrap();
        assert_eq!(below.reserved(), 600);
        table.shrink(300);
        assert_eq!(below.reserved(), 300);
        table.try_grow(100).unwrap();
        drop(table);
        assert_eq!(below.reserved(), 0);
    }

    #[test]
    fn an_empty_table_is_not_refused() {
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let (view, _notice) = view(&below);
        let table = MemoryConsumer::new("Aggregate[0]").with_can_spill(true).register(&view);
        table.try_grow(2000).unwrap();
        assert!(table.try_grow(1).is_err(), "with groups it can spill");
        let large = MemoryConsumer::new("Aggregate[1]").with_can_spill(true).register(&view);
        assert!(large.try_grow(EMPTY_TABLE + 1).is_err(), "that is a batch of groups");
        drop((table, large));
        assert_eq!(below.reserved(), 0);
    }

    #[test]
    fn a_partial_table_keeps_to_its_part_while_it_reads() {
        assert_eq!((partial_table(64 << 20, 2), partial_table(1000, 2)), (4 << 20, PARTIAL_TABLE));
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(8000));
        let ended = Arc::new(InputEnded::default());
        let notice = EndNotice(Arc::clone(&ended));
        let view = PoolView::of(
            &below,
            Phases { ended, more_runs: MORE_RUNS, table: 1000, consumers: Mutex::default() },
        );
        let table = MemoryConsumer::new("Aggregate[0]").with_can_spill(true).register(&view);
        table.try_grow(2000).unwrap();
        let error = table.try_grow(1).unwrap_err().to_string();
        assert!(error.contains("holds its part of the memory, 1000 bytes"), "{error}");
        table.shrink(1500);
        table.try_grow(500).unwrap();
        assert!(table.try_grow(1).is_err());
        drop(notice);
        table.try_grow(2000).unwrap();
        drop(table);
        assert_eq!(below.reserved(), 0);
    }

    #[test]
    fn a_merge_after_a_spill_is_known_as_one() {
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let (view, notice) = view(&below);
        let table = MemoryConsumer::new("Aggregate[0]").with_can_spill(true).register(&view);
        table.try_grow(400).unwrap();
        drop(notice);
        table.free();
        let merge = table.new_empty();
        merge.try_grow(100).unwrap();
        assert_eq!(below.reserved(), 500, "four times as much is kept for groups");
        let groups = table.new_empty();
        groups.try_grow(370).unwrap();
        assert_eq!(below.reserved(), 500, "it is paid out of what was kept");
        let error = groups.try_grow(2000).unwrap_err().to_string();
        assert!(error.contains("for Aggregate[0] "), "{error}");
        groups.try_grow(50).unwrap();
        assert_eq!(below.reserved(), 520);
        drop(groups);
        let other = MemoryConsumer::new("other").register(&below);
        other.try_grow(450).unwrap();
        let error = merge.try_grow(2000).unwrap_err().to_string();
        assert!(error.contains("AggregateMerge of Aggregate[0]"), "{error}");
        assert_eq!(below.reserved(), 550, "what was kept is given up before a merge is refused");
        drop((other, merge));
        drop(table);
        assert_eq!(below.reserved(), 0);
    }

    #[test]
    fn further_runs_are_as_many_for_each_partition() {
        assert_eq!(Merge::part(8000, 8), MORE_RUNS);
        let below: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(8000));
        let (view, notice) = view(&below);
        let table = MemoryConsumer::new("Aggregate[0]").with_can_spill(true).register(&view);
        drop(notice);
        let merge = table.new_empty();
        for _ in 0..Merge::NEEDED_RUNS {
            merge.try_grow(1000).unwrap();
        }
        for _ in 0..2 {
            merge.try_grow(100).unwrap();
        }
        let error = merge.try_grow(100).unwrap_err().to_string();
        assert!(error.contains("its part of the memory for further runs, 250 bytes"), "{error}");
        assert!(below.reserved() < 7000, "there was memory");
        drop((merge, table));
        assert_eq!(below.reserved(), 0);
    }
}
