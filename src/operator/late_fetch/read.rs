//! Chosen rows of one Parquet file.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::object_store::ObjectStoreExt;
use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use datafusion::physical_plan::collect;

/// A file that rows may be fetched from.
///
/// Its `ObjectMeta` is the one that was listed when the query was planned, which is the version of the file that all of the
/// query is about: the first phase reads it, the second reads it again, and both must have read the same.
#[derive(Debug, Clone)]
pub(crate) struct LateFile {
    /// As the scan has it, with its partition values; whatever range of it was scanned.
    pub(crate) file: PartitionedFile,
    /// All of its rows.
    pub(crate) rows: usize,
}

/// Rows that were read, and where each of them is.
#[derive(Debug)]
pub(super) struct Found {
    /// The last column is the row's number in its file.
    pub(super) batches: Vec<RecordBatch>,
    /// For each row number: batch, and row in the batch.
    pub(super) places: BTreeMap<i64, (usize, usize)>,
}

/// Reads `rows`, in ascending order and each once, by the projection of `scan`.
///
/// The reader skips what is not selected: row groups without a wanted row are not touched, and of the others only pages
/// with wanted rows are decoded.
///
/// # Errors
/// Where the file cannot be read, or is not the one that was planned for, by size, time of change and tag. That is asked
/// after reading, so that it covers the time since planning.
pub(super) async fn read_rows(
    scan: &FileScanConfig,
    late: &LateFile,
    rows: &[i64],
    context: &Arc<TaskContext>,
) -> Result<Found> {
    let location = &late.file.object_meta.location;
    let mut file = late.file.clone().with_extension(ParquetRowSelection::new(selection(rows, late.rows)?));
    file.range = None;
    let config = FileScanConfigBuilder::from(scan.clone())
        .with_file_groups(vec![FileGroup::new(vec![file])])
        .with_output_ordering(Vec::new())
        .build();
    let plan = DataSourceExec::from_data_source(config);
    let batches = collect(plan, Arc::clone(context)).await.map_err(|error| changed(late, error))?;
    unchanged(scan, late, context).await?;
    let mut places = BTreeMap::new();
    for (batch, rows) in batches.iter().enumerate() {
        let Some(numbers) = rows.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>())
        else {
            return internal_err!("rows of {location} come without their numbers");
        };
        places.extend(numbers.values().iter().enumerate().map(|(row, number)| (*number, (batch, row))));
    }
    if !places.keys().eq(rows) {
        return internal_err!("{location} gave {} rows for {} that were asked for", places.len(), rows.len());
    }
    Ok(Found { batches, places })
}

/// What selects `rows`, in ascending order, of a file of `total` rows.
///
/// A selection of a whole file has to name every row of it, wanted or not. Should the file have another number of rows than
/// its statistics said, the reader refuses the selection: an error, and not other rows.
fn selection(rows: &[i64], total: usize) -> Result<RowSelection> {
    let mut selectors = Vec::new();
    let mut next = 0;
    for row in rows {
        let Some(row) = usize::try_from(*row).ok().filter(|row| (next..total).contains(row)) else {
            return internal_err!("row {row} is not in a file of {total} rows, or comes twice");
        };
        if row > next {
            selectors.push(RowSelector::skip(row - next));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    if next < total {
        selectors.push(RowSelector::skip(total - next));
    }
    Ok(selectors.into())
}

fn changed(late: &LateFile, error: DataFusionError) -> DataFusionError {
    let location = &late.file.object_meta.location;
    error.context(format!("reading chosen rows of {location}, which may have changed while the query ran"))
}

/// Fails where the file is not the planned one any more: its rows would be others.
///
/// One request a file. Tags are compared where both sides have one, without the quotes that some stores put around one of
/// them; else the time of the last change. A change within the same second that keeps the size, in a store without tags, is
/// not seen here, and by the sort keys alone.
async fn unchanged(scan: &FileScanConfig, late: &LateFile, context: &TaskContext) -> Result<()> {
    let planned = &late.file.object_meta;
    let store = context.runtime_env().object_store(&scan.object_store_url)?;
    let found = store.head(&planned.location).await.map_err(|error| changed(late, error.into()))?;
    let tag = |tag: &Option<String>| tag.as_ref().map(|tag| tag.trim_matches('"').to_owned());
    let same_version = match (tag(&found.e_tag), tag(&planned.e_tag)) {
        (Some(found), Some(planned)) => found == planned,
        // Some stores list fractions of seconds that they do not tell of a single file.
        _ => found.last_modified.timestamp() == planned.last_modified.timestamp(),
    };
    if same_version && found.size == planned.size {
        return Ok(());
    }
    exec_err!(
        "{} changed while the query ran; run the query again, or SET slipstream.late_materialization.enabled = false \
         to read each file once",
        planned.location
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_names_every_row_of_the_file() {
        let selectors: Vec<RowSelector> = selection(&[0, 3, 4, 9], 12).unwrap().into();
        let expected = [
            RowSelector::select(1),
            RowSelector::skip(2),
            RowSelector::select(2),
            RowSelector::skip(4),
            RowSelector::select(1),
            RowSelector::skip(2),
        ];
        assert_eq!(selectors, expected);
        for wrong in [vec![12], vec![-1], vec![3, 3], vec![4, 3]] {
            assert!(selection(&wrong, 12).is_err(), "{wrong:?}");
        }
    }
}
