//! What it costs to run a subplan, and to keep its rows for somebody.
//!
//! Nanoseconds, on one core, in the same rough measure as that of `scan_filter`: they order two ways of doing the same,
//! and promise no time.
//!
//! | node | each row of its input |
//! |---|---|
//! | scan | decode the values of the columns that are read: 4 and 0.35 a byte; nothing where they are in memory |
//! | hash join | 60 to build, 25 to probe, 2 for each row that comes out |
//! | aggregate | 50 to find its group, 5 for each aggregate |
//! | exchange by keys, merge | 20 |
//! | sort | 4 for each comparison |
//! | filter, projection | 2 |
//!
//! Keeping a row costs 2 and half a nanosecond a byte, for each who reads it, and 3 for each byte that does not fit into
//! memory. So a scan alone is not shared: to decode a number costs 7, to keep it 6 for each of two readers. The tenth of
//! its rows that a filter leaves is.

use std::sync::Arc;

use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};

use crate::operator::{NullSupplyingExec, SharedSubplanExec};
use crate::physical::estimate::{Estimate, Known, estimate};
use crate::physical::lineage::column_index;

type Plan = Arc<dyn ExecutionPlan>;

/// To decode one value of a file: at least, and for each byte of it.
const DECODE: f64 = 4.0;
const DECODE_BYTE: f64 = 0.35;
/// To pass a row on, or to compare it.
const ROW: f64 = 2.0;
const BUILD_ROW: f64 = 60.0;
const PROBE_ROW: f64 = 25.0;
const GROUP_ROW: f64 = 50.0;
const AGGREGATE: f64 = 5.0;
const EXCHANGE_ROW: f64 = 20.0;
/// To compare two rows of a sort, of which there are n log n.
const COMPARE: f64 = 4.0;

/// To keep a row in memory, and to come back to it when it is no longer in a cache.
const KEEP_ROW: f64 = 2.0;
const KEEP_BYTE: f64 = 0.5;
/// To write a byte to a file, and to read it back.
const SPILL_BYTE: f64 = 3.0;
/// To set it up.
const START: f64 = 10_000.0;

/// What it costs to run `plan` once; `None` where a source does not know its rows.
pub(super) fn work(plan: &Plan, known: Known<'_>) -> Option<f64> {
    if let Some(shared) = plan.downcast_ref::<SharedSubplanExec>() {
        return keeping(&shared.subplan(), f64::INFINITY, known);
    }
    let inputs = plan.children().into_iter().map(|input| work(input, known)).sum::<Option<f64>>()?;
    Some(inputs + own_work(plan, known)?)
}

/// The share of the node itself. What a node of an unknown kind does with a row is taken to be little: it makes subplans
/// look cheaper to run again than they are.
fn own_work(plan: &Plan, known: Known<'_>) -> Option<f64> {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        let output = estimate(plan, known)?;
        let decode: f64 = output.columns.iter().map(|column| DECODE + DECODE_BYTE * column.bytes).sum();
        let decode = if scan.data_source().is::<MemorySourceConfig>() { 0.0 } else { decode };
        return Some(output.rows * (ROW + decode));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let output = estimate(plan, known)?.rows;
        return Some(
            rows(join.left(), known)? * BUILD_ROW + rows(join.right(), known)? * PROBE_ROW + output * ROW,
        );
    }
    if plan.is::<CrossJoinExec>() {
        return Some(rows(plan, known)? * ROW);
    }
    let input = plan.children().into_iter().map(|input| rows(input, known)).sum::<Option<f64>>()?;
    Some(if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let group = if aggregate.group_expr().is_empty() { 0.0 } else { GROUP_ROW };
        input * (ROW + group + AGGREGATE * aggregate.aggr_expr().len() as f64)
    } else if let Some(exchange) = plan.downcast_ref::<RepartitionExec>() {
        let hashed = matches!(exchange.partitioning(), Partitioning::Hash(..));
        input * if hashed { EXCHANGE_ROW } else { 0.0 }
    } else if plan.is::<SortExec>() {
        input * COMPARE * input.max(2.0).log2()
    } else if plan.is::<SortPreservingMergeExec>() {
        input * EXCHANGE_ROW
    } else if plan.is::<CoalescePartitionsExec>() || plan.is::<NullSupplyingExec>() {
        0.0
    } else {
        input * ROW
    })
}

/// How many rows are expected of `plan`.
fn rows(plan: &Plan, known: Known<'_>) -> Option<f64> {
    estimate(plan, known).map(|estimate| estimate.rows)
}

/// What it costs one reader that the rows of `plan` are kept for it. What does not fit into `memory` bytes is in files.
pub(super) fn keeping(plan: &Plan, memory: f64, known: Known<'_>) -> Option<f64> {
    let Estimate { rows, columns } = estimate(plan, known)?;
    let bytes = rows * columns.iter().map(|column| column.bytes).sum::<f64>();
    let spilled = (bytes - memory).max(0.0);
    Some(START + rows * KEEP_ROW + bytes * KEEP_BYTE + spilled * SPILL_BYTE)
}

/// Whether `plan` gives less than it reads whatever its input: the groups of an aggregate. Where nothing is known of the
/// number of rows, only the rows of such a plan are kept.
pub(super) fn reduces(plan: &Plan) -> bool {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return *aggregate.mode() != AggregateMode::Partial;
    }
    let passes = plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<NullSupplyingExec>()
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>();
    passes && plan.children().first().is_some_and(|input| reduces(input))
}

/// Whether `plan` does next to nothing with its input's rows. Its input is shared rather than the node itself: more places
/// may read that.
pub(super) fn is_thin(plan: &Plan) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().iter().all(|item| column_index(&item.expr).is_some());
    }
    if let Some(exchange) = plan.downcast_ref::<RepartitionExec>() {
        return matches!(exchange.partitioning(), Partitioning::RoundRobinBatch(_));
    }
    plan.is::<CoalescePartitionsExec>() || plan.is::<CooperativeExec>() || plan.is::<NullSupplyingExec>()
}
