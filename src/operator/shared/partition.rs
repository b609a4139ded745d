//! One partition of one execution of a shared subplan.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, SpillManager};
use futures::{StreamExt, future};
use parking_lot::Mutex;

use super::budget::compacted;
use super::log::{Item, Log};
use super::wakers::Wakers;

/// A partition that is produced once and read by each consumer at its own speed.
///
/// There is no task that produces: whichever consumer has read everything there is polls the subplan itself, so that the
/// work is done where it would have been done without sharing, and never more than the fastest consumer wants.
/// The others find the batch in the log.
///
/// ```text
///                 first poll            polled by a consumer
///   NotStarted ───────────────► Polled ◄────────────────────► Idle
///                                  │ end, error, panic, or nobody is left
///                                  ▼
///                            Done, Failed
/// ```
///
/// What each consumer sees when it polls:
///
/// | the log has its next batch | somebody polls the subplan | it gets |
/// |---|---|---|
/// | yes | | that batch |
/// | no | yes | `Pending`; it is woken with all others |
/// | no | no | what the subplan gives; the batch goes into the log if somebody else is still to take it |
///
/// Nobody ever waits for a consumer to take something, so consumers may wait for each other: the probe side of a join
/// whose build side reads the same subplan, a consumer that is not executed until another one has ended. What waits is
/// kept in memory or in files. One case needs a task: the last reader that was executed goes away while others are still
/// to come, and what *it* waits for elsewhere may need this partition to make progress (partitions of a join wait for
/// each other). Then a task reads on.
pub(super) struct Partition {
    index: usize,
    /// The subplan; this partition of it is executed at the first poll.
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    /// A lock of its own: the subplan may wake while it is polled, and dropped.
    wakers: Arc<Wakers>,
    /// Never held while the subplan is polled or dropped.
    state: Mutex<State>,
    /// The task that reads on where no consumer does.
    reading_on: Mutex<Option<SpawnedTask<()>>>,
}

#[derive(Debug)]
struct State {
    producer: Producer,
    log: Log,
    readers: Vec<Reader>,
}

/// What has become of the subplan's stream.
enum Producer {
    NotStarted,
    /// Waiting to be polled again.
    Idle(SendableRecordBatchStream),
    /// Somebody polls it, and has it meanwhile.
    Polled,
    /// At its end, or nobody is left to read.
    Done,
    /// Each consumer gets this, behind the batches that came before it.
    Failed(Arc<DataFusionError>),
}

/// A consumer, and the number of the batch that it takes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Not executed yet.
    Expected,
    /// Reading.
    At(usize),
    /// At the end, failed, or dropped: nothing is kept for it.
    Gone,
}

impl State {
    /// Drops what no consumer needs any more, and says whether there is one.
    fn trim(&mut self) -> bool {
        let position = |reader: &Reader| match reader {
            Reader::Expected => Some(0),
            Reader::At(position) => Some(*position),
            Reader::Gone => None,
        };
        let slowest = self.readers.iter().filter_map(position).min();
        self.log.trim(slowest.unwrap_or(usize::MAX));
        slowest.is_some()
    }

    /// Whether some consumer will poll on by itself.
    fn anybody_reads(&self) -> bool {
        self.readers.iter().any(|reader| matches!(reader, Reader::At(_)))
    }
}

/// What came of polling the subplan.
enum Produced {
    /// The caller's batch, or one more in the log.
    Batch(Option<RecordBatch>),
    /// The state has changed: look again.
    Look,
}

impl Partition {
    /// Partition `index` of `plan` for `consumers`.
    pub(super) fn new(
        index: usize,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        log: Log,
        consumers: usize,
    ) -> Arc<Self> {
        let state = State { producer: Producer::NotStarted, log, readers: vec![Reader::Expected; consumers] };
        Arc::new(Self {
            index,
            plan,
            context,
            // One place for the task that reads on.
            wakers: Wakers::new(consumers + 1),
            state: Mutex::new(state),
            reading_on: Mutex::new(None),
        })
    }

    /// `consumer` is executed, and reads from the beginning.
    pub(super) fn begin(&self, consumer: usize) {
        let mut state = self.state.lock();
        if let Some(reader) = state.readers.get_mut(consumer)
            && *reader == Reader::Expected
        {
            *reader = Reader::At(0);
        }
    }

    /// The next item of `consumer`.
    pub(super) fn poll_item(&self, consumer: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
        loop {
            let mut state = self.state.lock();
            let Some(Reader::At(position)) = state.readers.get(consumer).copied() else {
                return Poll::Ready(None);
            };
            match state.log.read(position) {
                Ok(Some((item, next))) => {
                    state.readers[consumer] = Reader::At(next);
                    state.trim();
                    return Poll::Ready(Some(Ok(item)));
                }
                Ok(None) => {}
                Err(error) => state.producer = Producer::Failed(Arc::new(error)),
            }
            match &state.producer {
                Producer::Done => return Poll::Ready(None),
                Producer::Failed(error) => {
                    return Poll::Ready(Some(Err(DataFusionError::Shared(Arc::clone(error)))));
                }
                Producer::NotStarted | Producer::Idle(_) | Producer::Polled => {}
            }
            drop(state);
            match self.poll_produce(Some(consumer), cx) {
                Poll::Ready(Produced::Batch(Some(batch))) => {
                    return Poll::Ready(Some(Ok(Item::Batch(batch))));
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Polls the subplan, unless somebody else does. `consumer` has read all that there is; without one it is the task
    /// that reads on.
    fn poll_produce(&self, consumer: Option<usize>, cx: &mut Context<'_>) -> Poll<Produced> {
        let mut state = self.state.lock();
        if let (Some(consumer), end) = (consumer, state.log.end())
            && state.readers.get(consumer) != Some(&Reader::At(end))
        {
            return Poll::Ready(Produced::Look);
        }
        self.wakers.register(consumer.unwrap_or(state.readers.len()), cx.waker());
        let stream = match std::mem::replace(&mut state.producer, Producer::Polled) {
            Producer::NotStarted => None,
            Producer::Idle(stream) => Some(stream),
            Producer::Polled => return Poll::Pending,
            ended @ (Producer::Done | Producer::Failed(_)) => {
                state.producer = ended;
                return Poll::Ready(Produced::Look);
            }
        };
        drop(state);
        // From here on the others wait for this one, whatever happens to it.
        let mut turn = Turn { partition: self, over: false };
        let mut stream =
            match stream.map_or_else(|| self.plan.execute(self.index, Arc::clone(&self.context)), Ok) {
                Ok(stream) => stream,
                Err(error) => {
                    turn.end(Producer::Failed(Arc::new(error)));
                    return Poll::Ready(Produced::Look);
                }
            };
        let waker = Waker::from(Arc::clone(&self.wakers));
        match stream.poll_next_unpin(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                turn.end(Producer::Idle(stream));
                Poll::Pending
            }
            Poll::Ready(Some(Ok(batch))) => match turn.deliver(batch, stream, consumer) {
                Ok(produced) => Poll::Ready(produced),
                Err(error) => {
                    turn.end(Producer::Failed(Arc::new(error)));
                    Poll::Ready(Produced::Look)
                }
            },
            Poll::Ready(Some(Err(error))) => {
                drop(stream);
                turn.end(Producer::Failed(Arc::new(error)));
                Poll::Ready(Produced::Look)
            }
            Poll::Ready(None) => {
                turn.end(Producer::Done);
                Poll::Ready(Produced::Look)
            }
        }
    }

    /// `consumer` has ended, failed, or been dropped.
    pub(super) fn release(self: &Arc<Self>, consumer: usize) {
        let mut state = self.state.lock();
        match state.readers.get_mut(consumer) {
            Some(reader) if *reader != Reader::Gone => *reader = Reader::Gone,
            _ => return,
        }
        let needed = state.trim();
        let running = matches!(state.producer, Producer::NotStarted | Producer::Idle(_));
        let abandoned = (!needed && running).then(|| std::mem::replace(&mut state.producer, Producer::Done));
        let read_on = needed && running && !state.anybody_reads();
        drop(state);
        // Outside the lock: dropping a stream runs code of the subplan.
        drop(abandoned);
        if read_on {
            self.read_on();
        }
        // It may have been the one that would have polled next.
        self.wakers.wake_all();
    }

    /// Starts the task that reads on until there is a consumer again. Outside of a runtime nothing waits either.
    fn read_on(self: &Arc<Self>) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // Weak: the task ends with the partition, which owns it.
        let partition: Weak<Self> = Arc::downgrade(self);
        let task = SpawnedTask::spawn(future::poll_fn(move |cx| match partition.upgrade() {
            Some(partition) => partition.poll_read_on(cx),
            None => Poll::Ready(()),
        }));
        let before = self.reading_on.lock().replace(task);
        drop(before);
    }

    /// One step of the task that reads on. It ends with the subplan, and where a consumer has come that reads.
    fn poll_read_on(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = self.state.lock();
        let ended = matches!(state.producer, Producer::Done | Producer::Failed(_));
        if ended || state.anybody_reads() {
            return Poll::Ready(());
        }
        drop(state);
        if self.poll_produce(None, cx).is_ready() {
            // One batch a turn, so that it can be aborted and others have theirs.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads the files of the log.
    pub(super) fn spill_manager(&self) -> SpillManager {
        self.state.lock().log.spill_manager().clone()
    }
}

/// One turn at polling the subplan. A turn that is not ended by its owner has panicked.
struct Turn<'a> {
    partition: &'a Partition,
    over: bool,
}

impl Turn<'_> {
    /// Puts the producer back, and wakes the others.
    fn end(&mut self, producer: Producer) {
        self.over = true;
        let more = matches!(producer, Producer::Idle(_));
        let mut state = self.partition.state.lock();
        let wanted = state.trim();
        let left = if wanted || !more {
            state.producer = producer;
            None
        } else {
            state.producer = Producer::Done;
            Some(producer)
        };
        drop(state);
        drop(left);
        if !more {
            self.partition.wakers.wake_all();
        }
    }

    /// Hands the batch to `consumer`, and keeps it for the others.
    fn deliver(
        &mut self,
        batch: RecordBatch,
        stream: SendableRecordBatchStream,
        consumer: Option<usize>,
    ) -> Result<Produced> {
        let mut state = self.partition.state.lock();
        let mut own = None;
        if batch.num_rows() > 0 {
            let others = state.readers.iter().enumerate();
            let others =
                others.filter(|(reader, at)| Some(*reader) != consumer && **at != Reader::Gone).count();
            if others > 0 {
                let batch = compacted(batch)?;
                state.log.push(batch.clone())?;
                own = Some(batch);
            } else {
                state.log.pass();
                own = Some(batch);
            }
            let end = state.log.end();
            match consumer.and_then(|consumer| state.readers.get_mut(consumer)) {
                // Released meanwhile by another thread it stays so.
                Some(reader @ Reader::At(_)) => *reader = Reader::At(end),
                _ => own = None,
            }
        }
        drop(state);
        self.end(Producer::Idle(stream));
        self.partition.wakers.wake_all();
        Ok(Produced::Batch(own))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.end(Producer::Failed(Arc::new(exec_datafusion_err!("a shared subplan panicked"))));
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "NotStarted",
            Self::Idle(_) => "Idle",
            Self::Polled => "Polled",
            Self::Done => "Done",
            Self::Failed(_) => "Failed",
        })
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("index", &self.index)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
