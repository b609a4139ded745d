//! Which consumers belong together, and which execution of the subplan each of them takes part in.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{Result, exec_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use parking_lot::Mutex;

use super::budget::Budget;
use super::log::Log;
use super::partition::Partition;

/// What the consumers of one shared subplan have in common.
///
/// It stays the same when their nodes are rewritten or reset, so that they find each other again. A node that was reset
/// is of the next *epoch*; its consumers meet in an execution of their own.
///
/// ```text
///   epoch 0   run 0: consumer 1, consumer 2        the plan is executed
///             run 1: consumer 1, consumer 2        … and once more as it is
///   epoch 1   run 0: consumer 1, consumer 2        a copy of it whose state was reset
/// ```
///
/// Nodes cannot hold a pointer to each other's execution instead: `reset_plan_states` rebuilds a plan node by node, and
/// does not tell one consumer what became of another. Within one epoch a consumer that is executed
/// once more meets the others in the second execution, and so on: a plan that is run again without being reset gives its
/// rows again, too.
#[derive(Debug)]
pub(super) struct Slot {
    /// Tells the shared subplans of one plan apart.
    pub(super) id: usize,
    /// How many nodes stand for the subplan. A plan that lost one of them keeps rows for it as long as it lives.
    pub(super) consumers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The subplan as it was rewritten last.
    plan: Arc<dyn ExecutionPlan>,
    /// The one that was executed last. A plan is single-use: the next execution takes another, or a copy that was reset.
    executed: Option<Arc<dyn ExecutionPlan>>,
    epochs: HashMap<usize, Epoch>,
}

#[derive(Debug, Default)]
struct Epoch {
    /// Of all runs: what EXPLAIN ANALYZE shows at the first consumer.
    metrics: ExecutionPlanMetricsSet,
    /// How often each partition of each consumer was executed.
    executed: HashMap<(usize, usize), usize>,
    /// By how often a consumer had been executed before it.
    runs: Vec<Run>,
}

/// One execution.
#[derive(Debug)]
struct Run {
    /// Let go when all consumers have executed all of them: then their streams own them.
    partitions: Vec<Arc<Partition>>,
    /// Executions of a consumer's partition that are still to come.
    expected: usize,
}

impl Slot {
    /// The slot of `plan`, which `consumers` nodes stand for.
    pub(super) fn new(id: usize, consumers: usize, plan: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        let state = State { plan, executed: None, epochs: HashMap::new() };
        Arc::new(Self { id, consumers, state: Mutex::new(state) })
    }

    /// The subplan.
    pub(super) fn plan(&self) -> Arc<dyn ExecutionPlan> {
        Arc::clone(&self.state.lock().plan)
    }

    /// A rule has rewritten the subplan.
    pub(super) fn set_plan(&self, plan: Arc<dyn ExecutionPlan>) {
        self.state.lock().plan = plan;
    }

    /// What the executions of `epoch` have measured.
    pub(super) fn metrics(&self, epoch: usize) -> Option<ExecutionPlanMetricsSet> {
        self.state.lock().epochs.get(&epoch).map(|epoch| epoch.metrics.clone())
    }

    /// Partition `index` for `consumer`, which is executed in `context`.
    ///
    /// # Errors
    /// There is no such partition: the plan around the consumers was built for another subplan.
    pub(super) fn execute(
        &self,
        epoch: usize,
        consumer: usize,
        index: usize,
        context: &Arc<TaskContext>,
    ) -> Result<Arc<Partition>> {
        let mut state = self.state.lock();
        let State { plan, executed, epochs } = &mut *state;
        let epoch = epochs.entry(epoch).or_default();
        let times = epoch.executed.entry((consumer, index)).or_insert(0);
        let number = *times;
        *times += 1;
        while epoch.runs.len() <= number {
            let plan = fresh(plan, executed)?;
            epoch.runs.push(self.start(&plan, context, &epoch.metrics));
        }
        let run = &mut epoch.runs[number];
        let Some(partition) = run.partitions.get(index).cloned() else {
            return exec_err!("shared subplan {} has no partition {index}", self.id);
        };
        partition.begin(consumer);
        run.expected -= 1;
        if run.expected == 0 {
            run.partitions.clear();
        }
        Ok(partition)
    }

    /// An execution of `plan`, of which nothing runs yet. It runs in the context of the consumer that is executed first;
    /// those of one query differ in nothing that matters here.
    fn start(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Run {
        let budget = Arc::new(Budget::new(self.id, context));
        let count = plan.output_partitioning().partition_count();
        let partition = |index| {
            let log = Log::new(Arc::clone(&budget), plan.schema(), context, metrics, index);
            Partition::new(index, Arc::clone(plan), Arc::clone(context), log, self.consumers)
        };
        Run { partitions: (0..count).map(partition).collect(), expected: count * self.consumers }
    }
}

/// `plan`, or, where it was executed already, a copy that was not.
fn fresh(
    plan: &Arc<dyn ExecutionPlan>,
    executed: &mut Option<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if executed.as_ref().is_some_and(|executed| Arc::ptr_eq(executed, plan)) {
        return reset_plan_states(Arc::clone(plan));
    }
    *executed = Some(Arc::clone(plan));
    Ok(Arc::clone(plan))
}
