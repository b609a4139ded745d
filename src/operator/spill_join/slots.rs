//! An input of an inner join whose rows come from a stream that is put into it.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
    PlanProperties,
};
use parking_lot::Mutex;

/// Hands out, for each partition, the stream that was put into its slot, once.
///
/// It stands in the place of an input of the join, whose own streams are executed once and outside. Where it stands for
/// a node of the plan, that node is its child: the join looks below for those who read its dynamic filter.
pub(super) struct InputSlots {
    properties: Arc<PlanProperties>,
    stands_for: Option<Arc<dyn ExecutionPlan>>,
    slots: Vec<Mutex<Option<SendableRecordBatchStream>>>,
}

impl InputSlots {
    /// Slots in the place of `input`, with its partitions, order and properties.
    pub(super) fn in_place_of(input: &Arc<dyn ExecutionPlan>) -> Arc<Self> {
        let count = input.output_partitioning().partition_count();
        Arc::new(Self {
            properties: Arc::clone(input.properties()),
            stands_for: Some(Arc::clone(input)),
            slots: (0..count).map(|_| Mutex::new(None)).collect(),
        })
    }

    /// Slots for rows in no order.
    pub(super) fn unordered(schema: &SchemaRef, partitions: usize) -> Arc<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Arc::new(Self {
            properties: Arc::new(properties),
            stands_for: None,
            slots: (0..partitions).map(|_| Mutex::new(None)).collect(),
        })
    }

    /// The only slot, filled.
    pub(super) fn filled(schema: &SchemaRef, stream: SendableRecordBatchStream) -> Arc<Self> {
        let slots = Self::unordered(schema, 1);
        slots.put(0, stream);
        slots
    }

    /// Puts in what the next execution of `partition` hands out.
    pub(super) fn put(&self, partition: usize, stream: SendableRecordBatchStream) {
        if let Some(slot) = self.slots.get(partition) {
            *slot.lock() = Some(stream);
        }
    }
}

impl fmt::Debug for InputSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputSlots").field("partitions", &self.slots.len()).finish_non_exhaustive()
    }
}

impl DisplayAs for InputSlots {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputSlots")
    }
}

impl ExecutionPlan for InputSlots {
    fn name(&self) -> &'static str {
        "InputSlots"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.stands_for.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Made for one execution, when no rule runs any more.
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.slots.get(partition).and_then(|slot| slot.lock().take());
        stream.ok_or_else(|| {
            internal_datafusion_err!("partition {partition} of a join's input was executed twice")
        })
    }
}
