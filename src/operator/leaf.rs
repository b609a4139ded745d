//! What the layer's nodes without inputs have in common.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::{ExecutionPlan, Partitioning, PlanProperties};

/// The properties of a node that gives rows of `schema` in so many partitions: as they come, up to an end, in no order that
/// anybody may rely on, and yielding to others.
pub(super) fn leaf_properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

/// `leaf` with the inputs that a rule puts in the place of its own: it has none.
///
/// # Errors
/// There is one.
pub(super) fn childless<T: ExecutionPlan + 'static>(
    leaf: Arc<T>,
    children: &[Arc<dyn ExecutionPlan>],
) -> Result<Arc<dyn ExecutionPlan>> {
    match children {
        [] => Ok(leaf),
        _ => internal_err!("{} has no input", leaf.name()),
    }
}
