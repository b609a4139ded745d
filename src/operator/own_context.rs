//! A node that runs in a context of its own, over inputs that run in the context around it.
//!
//! ```text
//!   wrapper                        given: pool, disk, settings
//!     └─ node                      own: another pool, or disk, or settings
//!          ├─ outer_context(left)  given again
//!          └─ outer_context(right)
//! ```

use std::any::Any;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use super::aggregate_limit::AggregateInput;
use super::context::derived;
use super::passthrough::{Passthrough, Wrap};

/// Runs `plan`, an input of a node that runs in a context of its own, in the context that the node was given.
pub(crate) fn outer_context(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Passthrough::outermost(plan, Outer)
}

/// `wrap` around the node in `plan` that stands below all wrappers which give it the context around the node above: those that
/// call [`outer`].
pub(super) fn inside_outer_context(
    plan: Arc<dyn ExecutionPlan>,
    wrap: &dyn Fn(Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    let inside = inside::<Outer>(&plan, wrap).or_else(|| inside::<AggregateInput>(&plan, wrap));
    inside.unwrap_or_else(|| wrap(plan))
}

/// The same below one such wrapper; `None` where the plan is in no wrapper of this kind.
fn inside<W: Wrap>(
    plan: &Arc<dyn ExecutionPlan>,
    wrap: &dyn Fn(Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan>,
) -> Option<Arc<dyn ExecutionPlan>> {
    let entrance = (plan.as_ref() as &dyn Any).downcast_ref::<Passthrough<W>>()?;
    Some(entrance.rewrap(inside_outer_context(Arc::clone(entrance.inner()), wrap)))
}

/// The node in `plan` that stands below all wrappers which give it the context around the node above.
pub(super) fn below_outer_context(plan: &dyn ExecutionPlan) -> &dyn ExecutionPlan {
    let any = plan as &dyn Any;
    let outer = any.downcast_ref::<Passthrough<Outer>>().map(Passthrough::inner);
    let inner = outer.or_else(|| any.downcast_ref::<Passthrough<AggregateInput>>().map(Passthrough::inner));
    inner.map_or(plan, |inner| below_outer_context(inner.as_ref()))
}

/// Executes `node` with `config` and `runtime` in the place of those of `given`.
///
/// # Errors
/// Those of the node.
pub(super) fn execute_in(
    node: &Arc<dyn ExecutionPlan>,
    partition: usize,
    given: &Arc<TaskContext>,
    config: SessionConfig,
    runtime: RuntimeEnv,
) -> Result<SendableRecordBatchStream> {
    let config = config.with_extension(Arc::new(OuterContext(Arc::clone(given))));
    node.execute(partition, derived(given, config, Arc::new(runtime)))
}

/// The context around the nearest node above `own` that runs in one of its own; `own` where there is none.
pub(super) fn outer(own: Arc<TaskContext>) -> Arc<TaskContext> {
    let outer = own.session_config().get_extension::<OuterContext>();
    outer.map_or(own, |outer| Arc::clone(&outer.0))
}

/// Carries the context around a node to its inputs.
struct OuterContext(Arc<TaskContext>);

#[derive(Debug)]
struct Outer;

impl Wrap for Outer {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        inner.execute(partition, outer(context))
    }
}
