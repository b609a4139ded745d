//! Which nodes are worth accounting, and which may look up functions in their context.

use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec,
    SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::partitioned_topk::PartitionedTopKExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::work_table::WorkTableExec;

use crate::operator::{AnalyzeTableExec, ClusteredAggregateExec, FusedFilterExec, SharedSubplanExec};

/// How a node uses its `TaskContext`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContextUse {
    /// It hands batches on and keeps none beyond the one in its hands.
    Batches,
    /// The same, and code that is not known here runs in its context.
    UnknownBatches,
    /// It reserves memory, or keeps batches, or spills.
    Memory,
    /// Nothing is known of it: it may do anything.
    Unknown,
}

impl ContextUse {
    /// That of `node`, by its kind.
    pub(crate) fn of(node: &dyn ExecutionPlan) -> Self {
        if uses_memory(node) {
            Self::Memory
        } else if hands_on(node) {
            Self::Batches
        } else if node.is::<DataSourceExec>() || node.is::<StreamingTableExec>() || node.is::<DataSinkExec>()
        {
            Self::UnknownBatches
        } else {
            Self::Unknown
        }
    }

    /// Whether such a node is accounted.
    pub(crate) fn accounted(self) -> bool {
        matches!(self, Self::Memory | Self::Unknown)
    }

    /// Whether such a node may look up functions in its context.
    pub(crate) fn functions(self) -> bool {
        matches!(self, Self::UnknownBatches | Self::Unknown)
    }
}

/// Nodes that register memory consumers in DataFusion 55.2 or in the layer, and windows, which keep partitions unregistered.
fn uses_memory(node: &dyn ExecutionPlan) -> bool {
    node.is::<AggregateExec>()
        || node.is::<RepartitionExec>()
        || node.is::<SortExec>()
        || node.is::<SortPreservingMergeExec>()
        || node.is::<HashJoinExec>()
        || node.is::<BoundedWindowAggExec>()
        || node.is::<WindowAggExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<CrossJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<PartialSortExec>()
        || node.is::<PartitionedTopKExec>()
        || node.is::<SymmetricHashJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
        || node.is::<RecursiveQueryExec>()
        || node.is::<BufferExec>()
        || node.is::<SharedSubplanExec>()
        || node.is::<ClusteredAggregateExec>()
        || node.is::<AnalyzeTableExec>()
        || is_parquet_sink(node)
        // A node of the layer that only its own module names.
        || node.name() == "SpillJoinExec"
}

fn hands_on(node: &dyn ExecutionPlan) -> bool {
    if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
        let source = scan.data_source();
        return source.is::<MemorySourceConfig>() || source.is::<FileScanConfig>();
    }
    node.is::<ProjectionExec>()
        || node.is::<FilterExec>()
        || node.is::<FusedFilterExec>()
        || node.is::<CoalescePartitionsExec>()
        || node.is::<CooperativeExec>()
        || node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.is::<UnionExec>()
        || node.is::<InterleaveExec>()
        || node.is::<EmptyExec>()
        || node.is::<PlaceholderRowExec>()
        || node.is::<LazyMemoryExec>()
        || node.is::<ScalarSubqueryExec>()
        || node.is::<UnnestExec>()
        || node.is::<WorkTableExec>()
        || node.is::<AsyncFuncExec>()
        || node.is::<AnalyzeExec>()
        || node.is::<ExplainExec>()
        // Nodes of the layer that only their own module names.
        || matches!(node.name(), "CompactViewsExec" | "LateFetchExec" | "NullSupplyingExec")
}

/// A sink that registers memory: that of Parquet files, which keeps encoded columns.
fn is_parquet_sink(node: &dyn ExecutionPlan) -> bool {
    node.downcast_ref::<DataSinkExec>().is_some_and(|insert| insert.sink().is::<ParquetSink>())
}
