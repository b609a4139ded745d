//! The wrapper of a build side whose rows fill key sets on their way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt};

use super::keys::{Bits, KeySet};
use crate::operator::passthrough::{Passthrough, Wrap};

/// `input`, whose partitions put the keys of `sets` (each with the column that it is of) into them.
///
/// A batch costs one pass over each key column. All partitions must have come to their end before a set counts as
/// complete.
pub(crate) fn collect_keys(
    input: Arc<dyn ExecutionPlan>,
    sets: Vec<(usize, Arc<KeySet>)>,
) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(input, Collect { sets })
}

#[derive(Debug)]
struct Collect {
    sets: Vec<(usize, Arc<KeySet>)>,
}

impl Wrap for Collect {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let writable = |(column, set): &(usize, Arc<KeySet>)| Writer {
            column: *column,
            bits: set.writable(context.memory_pool()),
            set: Arc::clone(set),
        };
        let writers = self.sets.iter().map(writable).collect();
        Ok(Box::pin(CollectStream { input: inner.execute(partition, context)?, writers }))
    }

    /// The next execution may have other rows.
    fn reset(self: &Arc<Self>) -> Arc<Self> {
        self.sets.iter().for_each(|(_, set)| set.retire());
        Arc::clone(self)
    }
}

/// What one partition writes into one set.
struct Writer {
    column: usize,
    /// None where the pool had no memory, or once a key was met that has no bit by its type.
    bits: Option<Arc<Bits>>,
    set: Arc<KeySet>,
}

struct CollectStream {
    input: SendableRecordBatchStream,
    writers: Vec<Writer>,
}

impl Stream for CollectStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.input.poll_next_unpin(cx));
        match &item {
            Some(Ok(batch)) => {
                for writer in &mut self.writers {
                    writer.bits.take_if(|bits| !bits.insert(batch.column(writer.column)));
                }
            }
            Some(Err(_)) => self.writers.clear(),
            None => {
                for writer in self.writers.drain(..).filter(|writer| writer.bits.is_some()) {
                    writer.set.written();
                }
            }
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.input.size_hint()
    }
}

impl RecordBatchStream for CollectStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
