//! What the footers of Parquet files say about a column's row groups.
//!
//! A footer has the minimum, the maximum and the number of NULLs of each column in each row group.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::common::JoinType;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::operator::KeyIntervals;
use crate::physical::cached_footer::cached_footer;
use crate::physical::estimate::{Known, estimate};
use crate::physical::lineage::column_index;

type Refusal = Cow<'static, str>;

/// Whether the rows of a join may come late, since those whose partners did not fit in memory are on disk: where memory is
/// limited, to so many bytes, and the build side is not expected to take a small part of it. Where it is, the join stays
/// one that cannot spill.
pub(super) fn may_come_late(join: &HashJoinExec, limit: Option<usize>, known: Known<'_>) -> bool {
    /// A build side takes its rows twice while its table is made, and neighbours take memory, too.
    const SMALL_PART: f64 = 16.0;
    let Some(limit) = limit else { return false };
    estimate(join.left(), known).is_none_or(|build| {
        let row: f64 = build.columns.iter().map(|column| column.bytes).sum();
        build.rows * row * SMALL_PART > limit as f64
    })
}

/// The scan whose row groups arrive at `plan` one after the other, and the column of its table that `column` is.
///
/// A scan reads the row groups of a partition in turn. Filters and projections keep that so, and so does the probe side
/// of a join, as long as no exchange spreads it: with one build side for all partitions there is none. Rows that a join
/// adds for its build side have no key of the probe side, hence no outer join on that side.
///
/// `late` says of a join whether some of its rows may come after those of other row groups.
///
/// # Errors
/// The reason why there is no such scan.
pub(super) fn clustered_scan<'a>(
    plan: &'a Arc<dyn ExecutionPlan>,
    column: usize,
    late: &dyn Fn(&HashJoinExec) -> bool,
) -> Result<(&'a FileScanConfig, usize), Refusal> {
    const COMPUTED: Refusal = Cow::Borrowed("the group keys are computed");
    let kept = |projection: Option<&[usize]>, column: usize| match projection {
        Some(kept) => kept.get(column).copied().ok_or(COMPUTED),
        None => Ok(column),
    };
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        let (config, source) = scan.downcast_to_file_source::<ParquetSource>().ok_or("no Parquet files")?;
        let column = match source.projection() {
            Some(projection) => {
                let expr = projection.as_ref().get(column).map(|item| &item.expr);
                expr.and_then(column_index).ok_or(COMPUTED)?
            }
            None => column,
        };
        return Ok((config, column));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let expr = projection.expr().get(column).map(|item| &item.expr);
        return clustered_scan(projection.input(), expr.and_then(column_index).ok_or(COMPUTED)?, late);
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return clustered_scan(filter.input(), kept(filter.projection().as_deref(), column)?, late);
    }
    if let Some(cooperative) = plan.downcast_ref::<CooperativeExec>() {
        return clustered_scan(cooperative.input(), column, late);
    }
    let join = plan.downcast_ref::<HashJoinExec>().ok_or("rows do not arrive row group by row group")?;
    if *join.partition_mode() != PartitionMode::CollectLeft {
        return Err("a partitioned join is below".into());
    }
    if late(join) {
        return Err("a join below may spill, and what it spills comes late".into());
    }
    let column = kept(join.projection.as_deref(), column)?;
    let left_width = match join.join_type() {
        JoinType::Inner | JoinType::Right => join.left().schema().fields().len(),
        JoinType::RightSemi | JoinType::RightAnti => 0,
        _ => return Err("a join below adds rows of its build side".into()),
    };
    let column = column.checked_sub(left_width).ok_or("the group keys are of a build side")?;
    clustered_scan(join.right(), column, late)
}

/// The footers that DataFusion has read.
pub(super) struct Footers {
    pub(super) cache: Arc<FileMetadataCache>,
    pub(super) min_rows: usize,
}

impl Footers {
    /// The intervals of `column` of the scanned table in the row groups of all its files.
    ///
    /// All files of the scan count, whole: that some row groups are pruned later only leaves intervals empty.
    ///
    /// # Errors
    /// The reason why they are not known, or of no use.
    pub(super) fn intervals(&self, scan: &FileScanConfig, column: usize) -> Result<KeyIntervals, Refusal> {
        let schema = scan.file_source().table_schema().file_schema();
        let field = schema.fields().get(column).ok_or("the group keys are of a partition column")?;
        if !is_number(field.data_type()) {
            return Err(format!("{} is no integer, date or timestamp", field.name()).into());
        }
        let mut bounds = Vec::new();
        let mut files = HashSet::new();
        let mut rows = 0;
        for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
            // A file that is read in ranges is in several groups.
            if !files.insert(&file.object_meta.location) {
                continue;
            }
            let metadata = cached_footer(self.cache.as_ref(), file)?;
            bounds.extend(bounds_in(&metadata, schema, field.name())?);
            rows += usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        }
        if rows < self.min_rows {
            return Err(format!("the table has {rows} rows only").into());
        }
        let intervals = KeyIntervals::new(bounds);
        intervals.ok_or_else(|| format!("row groups overlap in {}", field.name()).into())
    }
}

/// Types whose values are numbers in the same order. 64 bits without a sign do not fit.
fn is_number(data_type: &DataType) -> bool {
    let unsigned = matches!(data_type, DataType::UInt8 | DataType::UInt16 | DataType::UInt32);
    let temporal = matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _));
    data_type.is_signed_integer() || unsigned || temporal
}

/// The least and the greatest value of column `name` in each row group of one file.
fn bounds_in(metadata: &ParquetMetaData, schema: &Schema, name: &str) -> Result<Vec<(i64, i64)>, Refusal> {
    const NONE: Refusal = Cow::Borrowed("a row group has no minimum and maximum");
    let groups = || metadata.row_groups().iter().filter(|group| group.num_rows() > 0);
    let converter = StatisticsConverter::try_new(name, schema, metadata.file_metadata().schema_descr())
        .map_err(|error| error.to_string())?;
    let numbers = |array: Result<ArrayRef, ParquetError>| {
        let array = cast(&array.ok()?, &DataType::Int64).ok()?;
        (array.null_count() == 0).then(|| array.as_primitive::<Int64Type>().values().to_vec())
    };
    let lowest = numbers(converter.row_group_mins(groups())).ok_or(NONE)?;
    let highest = numbers(converter.row_group_maxes(groups())).ok_or(NONE)?;
    let nulls = converter.row_group_null_counts(groups()).map_err(|error| error.to_string())?;
    if nulls.null_count() > 0 || nulls.values().iter().any(|nulls| *nulls > 0) {
        return Err(format!("{name} may be NULL").into());
    }
    Ok(lowest.into_iter().zip(highest).collect())
}
