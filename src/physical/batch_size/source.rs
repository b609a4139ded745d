//! Bytes of a row of a source: from the footers of Parquet files, from batches in memory, or from statistics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::parquet::basic::Type;
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::ExecutionPlan;

use super::width::{UNKNOWN, computed, fixed_width};
use crate::operator::used_bytes;
use crate::physical::cached_footer::cached_footer;
use crate::physical::estimate::{Known, estimate_leaf};
use crate::scope::QueryScope;

/// Files of a table that are looked at; their row groups tell enough of the others.
const FILES: usize = 4;
/// Batches of a table in memory that are looked at.
const BATCHES: usize = 4;
/// Rows of each of them.
const ROWS: usize = 64;

/// What is known of the sources of one query.
pub(super) struct Sources<'a> {
    pub(super) known: Known<'a>,
    pub(super) scope: Option<&'a QueryScope>,
}

impl Sources<'_> {
    /// Bytes of a value of each column of the leaf `plan`.
    pub(super) fn widths(&self, plan: &Arc<dyn ExecutionPlan>) -> Vec<f64> {
        let schema = plan.schema();
        if schema.fields().iter().all(|field| fixed_width(field.data_type()).is_some()) {
            return schema.fields().iter().filter_map(|field| fixed_width(field.data_type())).collect();
        }
        self.of_parquet(plan).or_else(|| of_memory(plan)).unwrap_or_else(|| self.of_statistics(plan))
    }

    /// By the footers that DataFusion has read to plan the query.
    fn of_parquet(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<f64>> {
        let (scan, source) =
            plan.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()?;
        let table = scan.file_source().table_schema().table_schema();
        let read = source.projection().map(ProjectionExprs::column_indices);
        let is_read = |place: usize| read.as_ref().is_none_or(|read| read.contains(&place));
        let fixed: Vec<_> = table.fields().iter().map(|field| fixed_width(field.data_type())).collect();
        let varying = table.fields().iter().zip(&fixed).enumerate();
        let varying = varying.filter(|(place, (_, fixed))| fixed.is_none() && is_read(*place));
        let mut by_name = varying.map(|(_, (field, _))| (field.name().as_str(), None)).collect();
        self.of_footers(scan, &mut by_name)?;
        let of_table: Vec<f64> = table
            .fields()
            .iter()
            .zip(fixed)
            .map(|(field, fixed)| {
                let found = || by_name.get(field.name().as_str()).copied().flatten();
                fixed.or_else(found).unwrap_or(UNKNOWN)
            })
            .collect();
        let Some(projection) = source.projection() else {
            return Some(of_table);
        };
        let types: Vec<_> = table.fields().iter().map(|field| field.data_type()).collect();
        let output = plan.schema();
        let exprs = projection.as_ref().iter().zip(output.fields());
        Some(exprs.map(|(item, field)| computed(&item.expr, field.data_type(), &types, &of_table)).collect())
    }

    /// Bytes of a row in each column of `widths`: those of the row group in which they are the most.
    fn of_footers(&self, scan: &FileScanConfig, widths: &mut Widths<'_>) -> Option<()> {
        let cache = self.scope?.footers()?;
        let mut files = HashSet::new();
        for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
            if files.len() == FILES || !files.insert(&file.object_meta.location) {
                continue;
            }
            add_widths(cached_footer(cache.as_ref(), file).ok()?.as_ref(), widths);
        }
        (!files.is_empty()).then_some(())
    }

    /// By what the source says, or ANALYZE has found out.
    fn of_statistics(&self, plan: &Arc<dyn ExecutionPlan>) -> Vec<f64> {
        let estimate = estimate_leaf(plan.as_ref(), self.known);
        let schema = plan.schema();
        let fields = schema.fields().iter().enumerate();
        let column = |(place, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| {
            fixed_width(field.data_type()).unwrap_or_else(|| {
                let column = estimate.as_ref().and_then(|estimate| estimate.columns.get(place));
                column.map_or(UNKNOWN, |column| column.bytes.max(UNKNOWN))
            })
        };
        fields.map(column).collect()
    }
}

/// Bytes of a value of some columns, by the column's name.
type Widths<'a> = HashMap<&'a str, Option<f64>>;

/// Takes over the widths of the row groups of one file where they are above those that are known.
fn add_widths(metadata: &ParquetMetaData, widths: &mut Widths<'_>) {
    let leaves = metadata.file_metadata().schema_descr().columns();
    let roots: Vec<_> = leaves.iter().map(|leaf| leaf.path().parts().first().map(String::as_str)).collect();
    // The leaves of a list or a struct stand side by side, and count for the column that they belong to.
    let mut from = 0;
    for leaves in roots.chunk_by(|one, other| one == other) {
        let to = from + leaves.len();
        if let Some(widest) = leaves[0].and_then(|root| widths.get_mut(root)) {
            let groups = metadata.row_groups().iter().filter(|group| group.num_rows() > 0);
            let of_group = |group: &RowGroupMetaData| {
                let chunks = group.columns().get(from..to).unwrap_or_default();
                chunks.iter().map(|chunk| chunk_width(chunk, group)).sum()
            };
            *widest = groups.map(of_group).chain(*widest).reduce(f64::max);
        }
        from = to;
    }
}

/// Bytes in memory of a row's values in one column chunk.
fn chunk_width(chunk: &ColumnChunkMetaData, group: &RowGroupMetaData) -> f64 {
    let values = chunk.num_values() as f64;
    let bytes = match chunk.column_type() {
        Type::BOOLEAN => values / 8.0,
        Type::INT32 | Type::FLOAT => values * 4.0,
        Type::INT64 | Type::DOUBLE => values * 8.0,
        Type::INT96 => values * 12.0,
        // Of text from a dictionary the file has each value once. Writers that note the whole size do so in the footer.
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => {
            let whole = chunk.unencoded_byte_array_data_bytes();
            whole.unwrap_or_else(|| chunk.uncompressed_size()) as f64 + values * VIEW
        }
    };
    bytes / group.num_rows() as f64
}

/// Bytes that a text takes besides its characters, in a view array.
const VIEW: f64 = 16.0;

/// By some of the batches that there are.
fn of_memory(plan: &Arc<dyn ExecutionPlan>) -> Option<Vec<f64>> {
    let scan = plan.downcast_ref::<DataSourceExec>()?;
    let memory = scan.data_source().downcast_ref::<MemorySourceConfig>()?;
    let batches = memory.partitions().iter().flatten().filter(|batch| batch.num_rows() > 0);
    let batches: Vec<&RecordBatch> = batches.take(BATCHES).collect();
    let schema = plan.schema();
    let fields = schema.fields().iter().enumerate();
    let column = |(place, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| {
        let place = memory.projection().as_ref().map_or(Some(place), |kept| kept.get(place).copied());
        fixed_width(field.data_type()).unwrap_or_else(|| {
            let width = |batch: &&RecordBatch| {
                let column = place.and_then(|place| batch.columns().get(place))?;
                let some = column.slice(0, batch.num_rows().min(ROWS));
                Some(used_bytes(std::slice::from_ref(&some)) as f64 / some.len() as f64)
            };
            batches.iter().filter_map(width).reduce(f64::max).unwrap_or(UNKNOWN)
        })
    };
    Some(fields.map(column).collect())
}
