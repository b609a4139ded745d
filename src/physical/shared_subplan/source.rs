//! When two scans read the same rows of the same files, or of the same batches.
//!
//! EXPLAIN's picture of a scan is no identity: it shows paths without versions, and of a table in memory only how many
//! batches it has. So fields are compared. Left out is what changes no row: statistics, constraints, metrics, and in
//! which order row groups are visited where no order is promised.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::PhysicalExpr;

use super::expr::{Conjuncts, Places, same, same_order};

/// Where the columns of the scan `narrow` are in `wide`; `None` where they read different rows, or where that is not
/// known. Predicates are not looked at.
pub(super) fn same_rows(wide: &DataSourceExec, narrow: &DataSourceExec) -> Option<Vec<usize>> {
    let (wide, narrow) = (wide.data_source(), narrow.data_source());
    if let (Some(wide), Some(narrow)) =
        (wide.downcast_ref::<MemorySourceConfig>(), narrow.downcast_ref::<MemorySourceConfig>())
    {
        return same_batches(wide, narrow);
    }
    let (wide, narrow) = (wide.downcast_ref::<FileScanConfig>()?, narrow.downcast_ref::<FileScanConfig>()?);
    if !same_files(wide, narrow) || !same_format(wide.file_source(), narrow.file_source()) {
        return None;
    }
    projected(wide.file_source().projection()?, narrow.file_source().projection()?)
}

/// The predicate that a scan evaluates, on the columns of its table.
pub(super) fn predicate(scan: &DataSourceExec) -> Option<Arc<dyn PhysicalExpr>> {
    scan.data_source().downcast_ref::<FileScanConfig>()?.file_source().filter()
}

/// What tells scans apart at first sight: the first file, or the first batch.
pub(super) fn first_sight(scan: &DataSourceExec) -> String {
    if let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>() {
        let file = config.file_groups.iter().flat_map(|group| group.iter()).next();
        return file.map_or_else(String::new, |file| file.object_meta.location.to_string());
    }
    let memory = scan.data_source().downcast_ref::<MemorySourceConfig>();
    let batch = memory.and_then(|memory| memory.partitions().iter().flatten().next());
    batch.map_or_else(String::new, |batch| batch.num_rows().to_string())
}

/// Tables in memory have no version, and an insert appends batches: the scans must hold the very same arrays.
fn same_batches(wide: &MemorySourceConfig, narrow: &MemorySourceConfig) -> Option<Vec<usize>> {
    let same_batch = |(a, b): (&RecordBatch, &RecordBatch)| {
        a.num_rows() == b.num_rows()
            && a.num_columns() == b.num_columns()
            && a.columns().iter().zip(b.columns()).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    let same_partition = |(a, b): (&Vec<RecordBatch>, &Vec<RecordBatch>)| {
        a.len() == b.len() && a.iter().zip(b).all(same_batch)
    };
    let same = wide.partitions().len() == narrow.partitions().len()
        && wide.partitions().iter().zip(narrow.partitions()).all(same_partition)
        && same_orderings(wide.sort_information(), narrow.sort_information());
    if !same || wide.original_schema() != narrow.original_schema() {
        return None;
    }
    let columns = wide.original_schema().fields().len();
    let all = |projection: &Option<Vec<usize>>| projection.clone().unwrap_or_else(|| (0..columns).collect());
    let (wide, narrow) = (all(wide.projection()), all(narrow.projection()));
    narrow.iter().map(|column| wide.iter().position(|other| other == column)).collect()
}

/// Whether the same orders are promised.
fn same_orderings(
    wide: &[datafusion::physical_expr::LexOrdering],
    narrow: &[datafusion::physical_expr::LexOrdering],
) -> bool {
    wide.len() == narrow.len()
        && wide.iter().zip(narrow).all(|(wide, narrow)| same_order(wide, narrow, Places::Same))
}

/// Whether the same parts of the same versions of files are read, in the same partitions, into the same table.
fn same_files(wide: &FileScanConfig, narrow: &FileScanConfig) -> bool {
    let same_partitioning = match (&wide.output_partitioning, &narrow.output_partitioning) {
        (None, None) => true,
        (Some(wide), Some(narrow)) => wide == narrow,
        _ => false,
    };
    let same_adapter = match (&wide.expr_adapter_factory, &narrow.expr_adapter_factory) {
        (None, None) => true,
        (Some(wide), Some(narrow)) => Arc::ptr_eq(wide, narrow),
        _ => false,
    };
    let same_groups = wide.file_groups.len() == narrow.file_groups.len()
        && wide.file_groups.iter().zip(&narrow.file_groups).all(|(wide, narrow)| {
            wide.len() == narrow.len() && wide.iter().zip(narrow.iter()).all(|(a, b)| same_file(a, b))
        });
    same_groups
        && same_partitioning
        && same_adapter
        && wide.object_store_url == narrow.object_store_url
        && wide.limit == narrow.limit
        && wide.preserve_order == narrow.preserve_order
        && wide.file_compression_type == narrow.file_compression_type
        && wide.batch_size == narrow.batch_size
        && same_orderings(&wide.output_ordering, &narrow.output_ordering)
        && wide.file_source().table_schema().table_schema()
            == narrow.file_source().table_schema().table_schema()
        && wide.file_source().table_schema().file_schema()
            == narrow.file_source().table_schema().file_schema()
}

/// Extensions may change what is read of a file (an access plan), and cannot be compared.
fn same_file(wide: &PartitionedFile, narrow: &PartitionedFile) -> bool {
    wide.object_meta == narrow.object_meta
        && wide.range == narrow.range
        && wide.partition_values == narrow.partition_values
        && wide.arrow_schema == narrow.arrow_schema
        && wide.extensions.is_empty()
        && narrow.extensions.is_empty()
}

/// Whether files are read with the same options. Parquet and CSV are known; a format that is not is never the same.
fn same_format(wide: &Arc<dyn FileSource>, narrow: &Arc<dyn FileSource>) -> bool {
    if let (Some(wide), Some(narrow)) =
        (wide.downcast_ref::<ParquetSource>(), narrow.downcast_ref::<ParquetSource>())
    {
        return same_options(wide, narrow)
            && same_reader(wide.parquet_file_reader_factory(), narrow.parquet_file_reader_factory());
    }
    match (wide.downcast_ref::<CsvSource>(), narrow.downcast_ref::<CsvSource>()) {
        (Some(wide), Some(narrow)) => csv_options(wide) == csv_options(narrow),
        _ => false,
    }
}

/// Where a filter has been pushed into a scan, DataFusion notes in the scan's options whether it is evaluated there. That
/// makes no difference to a scan on which no filter is written.
fn same_options(wide: &ParquetSource, narrow: &ParquetSource) -> bool {
    let (options, others) = (wide.table_parquet_options(), narrow.table_parquet_options());
    let unfiltered = |source: &ParquetSource| Conjuncts::of(source.filter().as_ref()).written.is_empty();
    if options == others || !(unfiltered(wide) && unfiltered(narrow)) {
        return options == others;
    }
    let mut options = options.clone();
    options.global.pushdown_filters = others.global.pushdown_filters;
    options == *others
}

/// The same reader, or one of DataFusion's own, which have no settings that change what they read. Each scan has one of
/// its own.
fn same_reader(
    wide: Option<&Arc<dyn ParquetFileReaderFactory>>,
    narrow: Option<&Arc<dyn ParquetFileReaderFactory>>,
) -> bool {
    const OWN: [&str; 2] = ["CachedParquetFileReaderFactory ", "DefaultParquetFileReaderFactory "];
    match (wide, narrow) {
        (None, None) => true,
        (Some(wide), Some(narrow)) => {
            let (a, b) = (beginning(wide), beginning(narrow));
            Arc::ptr_eq(wide, narrow) || OWN.iter().any(|own| a.starts_with(own) && b.starts_with(own))
        }
        _ => false,
    }
}

/// The beginning of a debug picture, where the type's name stands: such types cannot be downcast.
fn beginning(value: &impl std::fmt::Debug) -> String {
    struct Limited(String);

    impl Write for Limited {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            self.0.push_str(part);
            if self.0.len() > NAME_BYTES { Err(std::fmt::Error) } else { Ok(()) }
        }
    }

    let mut limited = Limited(String::new());
    // An error says that the limit was reached.
    let _ = write!(limited, "{value:?}");
    limited.0
}

/// Longer than the names that are looked for.
const NAME_BYTES: usize = 40;

/// The options of a CSV source, which it shows nowhere else. What follows them is its projection and its metrics.
fn csv_options(source: &CsvSource) -> Option<String> {
    let picture = format!("{source:?}");
    picture.split_once(", batch_size: ").map(|(options, _)| options.to_owned())
}

/// Where the expressions of `narrow` are in `wide`, both on the columns of one table.
fn projected(wide: &ProjectionExprs, narrow: &ProjectionExprs) -> Option<Vec<usize>> {
    let place = |narrow: &Arc<dyn PhysicalExpr>| {
        wide.as_ref().iter().position(|wide| same(&wide.expr, narrow, Places::Same))
    };
    narrow.as_ref().iter().map(|narrow| place(&narrow.expr)).collect()
}
