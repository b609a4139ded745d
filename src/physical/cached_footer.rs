//! The footers of Parquet files, where DataFusion keeps them.

use std::sync::Arc;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::CachedParquetMetaData;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::file::metadata::ParquetMetaData;

/// The footer of `file` as the query sees it, from what DataFusion has read to plan the query.
///
/// It is kept with the size and the time of the file, so that a file written again since is not taken for the old one.
///
/// # Errors
/// The reason why it is not known.
pub(super) fn cached_footer(
    footers: &FileMetadataCache,
    file: &PartitionedFile,
) -> Result<Arc<ParquetMetaData>, &'static str> {
    let cached = footers.get(&file.object_meta.location);
    let cached = cached.filter(|cached| cached.is_valid_for(&file.object_meta));
    let cached = cached.ok_or("a file's footer is not in DataFusion's metadata cache")?;
    let footer = cached.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>();
    Ok(Arc::clone(footer.ok_or("the metadata cache holds something else")?.parquet_metadata()))
}
