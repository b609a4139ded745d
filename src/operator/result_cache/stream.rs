//! The rows of a query without an answer: its own, or those of an identical one that runs already.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};

use super::cached::given;
use super::compaction::Kept;
use super::recorder::Recorder;
use crate::fingerprint::Refusal;
use crate::store::{CachedResult, Joined, Leader, Waited};

/// ```text
///   New ─┬─► Waiting ─┬─► Given ──────────────► Over
///        │      ▲     └──► New (nobody to wait for)
///        └──► Running ───► Publishing ────────► Over
/// ```
///
/// Dropped in any state, it leaves nothing behind: an answer is kept behind the last row only, and whoever waits for this one
/// is told by the drop of `Leader`.
pub(super) struct AnswerStream {
    recorder: Arc<Recorder>,
    schema: SchemaRef,
    /// Whether it waits for nobody, and nobody for it.
    alone: bool,
    state: State,
}

enum State {
    New(Arc<dyn ExecutionPlan>, Arc<TaskContext>),
    Waiting(BoxFuture<'static, Waited>, Arc<dyn ExecutionPlan>, Arc<TaskContext>),
    Given(SendableRecordBatchStream),
    Running(Run),
    Publishing(BoxFuture<'static, Result<Arc<CachedResult>, Refusal>>, Option<(Leader, Waker)>),
    Over,
}

/// What a step led to.
enum Step {
    /// Another state, without a row.
    On,
    /// A batch, or the end.
    Item(Option<RecordBatch>),
}

/// A computation.
struct Run {
    rows: SendableRecordBatchStream,
    begun: Instant,
    /// Until the answer is too large; and what is reserved for it.
    kept: Option<(Kept, MemoryReservation)>,
    leader: Option<(Leader, Waker)>,
}

impl Run {
    /// Keeps a batch aside, while the answer may be kept.
    fn keep(&mut self, batch: &RecordBatch, recorder: &Recorder) -> Result<()> {
        let Some((kept, reservation)) = &mut self.kept else { return Ok(()) };
        kept.add(batch)?;
        if let Err(refusal) = recorder.may_keep(kept, reservation) {
            self.kept = None;
            // Who waits for this one had better begin.
            self.leader.take().into_iter().for_each(|(leader, _)| leader.land(None));
            recorder.say(&Err(refusal));
        }
        Ok(())
    }
}

/// Polls on behalf of a leader, whose followers see that it goes on.
fn led<T>(
    leader: Option<&(Leader, Waker)>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let Some((leader, waker)) = leader else { return poll(cx) };
    leader.flight().asked(cx.waker());
    let polled = poll(&mut Context::from_waker(waker));
    if polled.is_ready() {
        leader.flight().gave();
    }
    polled
}

impl AnswerStream {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Self {
        let alone = !recorder.shares;
        Self { recorder, schema: plan.schema(), alone, state: State::New(plan, context) }
    }

    /// Takes an answer that is there by now, waits for one, or begins to compute it.
    fn begin(&self, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<State> {
        let recorder = &self.recorder;
        let mut leader = None;
        if !self.alone {
            if let Some(result) = recorder.answered() {
                return Ok(self.give(&result));
            }
            match recorder.store.join(&recorder.key, &recorder.clock) {
                Joined::Follower(flight) => {
                    let answer = async move { flight.wait().await }.boxed();
                    return Ok(State::Waiting(answer, plan, context));
                }
                Joined::Leader(led) => leader = Some((Waker::from(Arc::clone(led.flight())), led)),
            }
        }
        let begun = recorder.clock.now();
        let rows = plan.execute(0, context)?;
        let reservation = recorder.store.reservation(&recorder.pool).filter(|_| recorder.keeps);
        let kept = reservation.map(|reservation| (Kept::default(), reservation));
        Ok(State::Running(Run { rows, begun, kept, leader: leader.map(|(waker, led)| (led, waker)) }))
    }

    /// The rows of an answer that another query has left.
    fn give(&self, result: &Arc<CachedResult>) -> State {
        self.recorder.gives(result);
        State::Given(given(result, |_| {}))
    }

    /// The query has come to its end: its answer is kept, or not.
    fn end(&self, run: Run) -> State {
        let Some((kept, reservation)) = run.kept else { return State::Over };
        let cost = self.recorder.clock.now().saturating_duration_since(run.begun);
        let published = Arc::clone(&self.recorder).publish(kept, reservation, cost, Arc::clone(&self.schema));
        State::Publishing(published.boxed(), run.leader)
    }

    /// One step on. After an error the stream is over.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step>> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::New(plan, context) => self.state = self.begin(plan, context)?,
            State::Waiting(mut answer, plan, context) => match answer.poll_unpin(cx) {
                Poll::Pending => {
                    self.state = State::Waiting(answer, plan, context);
                    return Poll::Pending;
                }
                Poll::Ready(Waited::Answer(result)) if self.recorder.fits(&result) => {
                    self.state = self.give(&result);
                }
                Poll::Ready(waited) => {
                    self.alone = matches!(waited, Waited::Alone);
                    self.state = State::New(plan, context);
                }
            },
            State::Given(mut rows) => {
                let item = rows.poll_next_unpin(cx);
                self.state = State::Given(rows);
                return Poll::Ready(Ok(Step::Item(ready!(item).transpose()?)));
            }
            State::Running(mut run) => {
                let Run { rows, leader, .. } = &mut run;
                let item = led(leader.as_ref(), cx, |cx| rows.poll_next_unpin(cx));
                match item {
                    Poll::Pending => {
                        self.state = State::Running(run);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(batch)) => {
                        let batch = batch?;
                        run.keep(&batch, &self.recorder)?;
                        self.state = State::Running(run);
                        return Poll::Ready(Ok(Step::Item(Some(batch))));
                    }
                    Poll::Ready(None) => self.state = self.end(run),
                }
            }
            State::Publishing(mut published, leader) => {
                let Poll::Ready(outcome) = led(leader.as_ref(), cx, |cx| published.poll_unpin(cx)) else {
                    self.state = State::Publishing(published, leader);
                    return Poll::Pending;
                };
                self.recorder.say(&outcome);
                if let Some((leader, _)) = leader {
                    leader.land(outcome.ok());
                }
            }
            State::Over => return Poll::Ready(Ok(Step::Item(None))),
        }
        Poll::Ready(Ok(Step::On))
    }
}

impl Stream for AnswerStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.step(cx)) {
                Ok(Step::On) => {}
                Ok(Step::Item(item)) => return Poll::Ready(item.map(Ok)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl RecordBatchStream for AnswerStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
