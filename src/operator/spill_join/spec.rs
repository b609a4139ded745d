//! What is joined: the parts of a `HashJoinExec`, and new joins made of them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::need::Need;

/// The keys of one side.
pub(super) type Keys = Vec<Arc<dyn PhysicalExpr>>;

/// The parts of the join that a spilling execution puts together again and again.
#[derive(Debug)]
pub(super) struct JoinSpec {
    /// Keys of both sides, in pairs.
    on: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    /// What matching rows must fulfil besides. It names columns by side and index, so that columns may follow.
    filter: Option<JoinFilter>,
    /// Whether NULL keys match each other.
    null_equality: NullEquality,
    pub(super) join_type: JoinType,
    /// The columns of the join's own schema that it gives.
    pub(super) projection: Option<Vec<usize>>,
    /// `NOT IN`: one NULL among the probe keys makes the answer empty.
    pub(super) null_aware: bool,
    /// Rows that each partition gives at most.
    pub(super) fetch: Option<usize>,
    pub(super) left: SchemaRef,
    pub(super) right: SchemaRef,
    pub(super) output: SchemaRef,
}

impl JoinSpec {
    /// The parts of `join`.
    pub(super) fn of(join: &HashJoinExec) -> Self {
        Self {
            on: join.on().to_vec(),
            filter: join.filter().cloned(),
            null_equality: join.null_equality(),
            join_type: *join.join_type(),
            projection: join.projection.as_ref().map(|columns| columns.to_vec()),
            null_aware: join.null_aware,
            fetch: join.fetch(),
            left: join.left().schema(),
            right: join.right().schema(),
            output: join.schema(),
        }
    }

    /// Keys over columns of the build side.
    pub(super) fn left_keys(&self) -> Keys {
        self.on.iter().map(|(left, _)| Arc::clone(left)).collect()
    }

    /// Keys over columns of the probe side.
    pub(super) fn right_keys(&self) -> Keys {
        self.on.iter().map(|(_, right)| Arc::clone(right)).collect()
    }

    /// How much memory its build sides need.
    pub(super) fn need(&self, context: &TaskContext) -> Result<Need> {
        Need::new(&self.left_keys(), &self.left, self.null_equality, context.session_config().options())
    }

    /// A new join of `left`, one partition, with each partition of `right`.
    pub(super) fn join(
        &self,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.join_as(left, right, self.join_type, self.projection.clone())
    }

    /// The same for another type and other columns.
    ///
    /// It has no dynamic filter, no limit and knows nothing of NULL-aware joins: it sees a part of the rows only, and
    /// these three are about all of them.
    pub(super) fn join_as(
        &self,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        join_type: JoinType,
        projection: Option<Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        HashJoinExecBuilder::new(left, right, self.on.clone(), join_type)
            .with_filter(self.filter.clone())
            .with_projection(projection)
            .with_partition_mode(PartitionMode::CollectLeft)
            .with_null_equality(self.null_equality)
            .build_exec()
    }

    /// Whether rows of the build side are given after the last row of the probe side was seen.
    pub(super) fn gives_build_rows(&self) -> bool {
        use JoinType::{Full, Left, LeftAnti, LeftMark, LeftSemi};
        matches!(self.join_type, Left | LeftSemi | LeftAnti | LeftMark | Full)
    }

    /// Whether no row comes of an empty build side.
    pub(super) fn needs_build(&self) -> bool {
        use JoinType::{Inner, Left, LeftAnti, LeftMark, LeftSemi, RightSemi};
        matches!(self.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark | RightSemi)
    }

    /// Whether no row comes of an empty probe side.
    pub(super) fn needs_probe(&self) -> bool {
        use JoinType::{Inner, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        matches!(self.join_type, Inner | LeftSemi | Right | RightSemi | RightAnti | RightMark)
    }

    /// The indexes of the output's columns in `all` columns of a join.
    pub(super) fn columns(&self, all: usize) -> Vec<usize> {
        self.projection.clone().unwrap_or_else(|| (0..all).collect())
    }

    /// The probe side with the number of each row behind its columns.
    pub(super) fn numbered_right(&self, number: datafusion::arrow::datatypes::Field) -> SchemaRef {
        let fields = self.right.fields().iter().cloned().chain([Arc::new(number)]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}
