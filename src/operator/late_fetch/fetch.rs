//! Rows picked by their sort keys, made whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::{concat_batches, interleave_record_batch};
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::Count;
use futures::{StreamExt, TryStreamExt, stream};

use super::read::{Found, LateFile, read_rows};
use crate::operator::compact::compacted_whole;

/// Files that are read at the same time: enough to hide a remote store's latency, few enough for its limits.
const FILES_AT_ONCE: usize = 8;

/// What is read of the rows that were picked, and from where.
///
/// ```text
///   picked (k rows, sorted)        read, file by file           put out
///   key │ file │ row               file a: rows 17, 4031        row 0 ◄─ file b, 9
///    3  │  b   │    9        ─►      file b: row  9         ─►   row 1 ◄─ file a, 4031
///    5  │  a   │ 4031                                           row 2 ◄─ file a, 17
///    8  │  a   │   17
/// ```
///
/// All k rows are in memory at once, as they are in the sort of whole rows that this replaces; the setting that bounds k
/// bounds them too.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// A scan without files, whose columns are those of `schema`, and the row number.
    pub(crate) scan: FileScanConfig,
    /// By their locations.
    pub(crate) files: HashMap<String, LateFile>,
    /// What comes out.
    pub(crate) schema: SchemaRef,
    /// The sort keys, as they were computed of the picked rows, and as they are of `schema`.
    pub(crate) keys: Vec<[Arc<dyn PhysicalExpr>; 2]>,
}

/// What a fetch has cost.
#[derive(Debug)]
pub(super) struct Counts {
    /// Files that rows were read from.
    pub(super) files: Count,
}

impl Fetch {
    /// The rows that `picked` names by file and number, its last two columns, in its order.
    ///
    /// # Errors
    /// Where a file has changed since it was planned, and then never wrong rows: sort keys are read again and compared.
    pub(super) async fn rows(
        &self,
        picked: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
        counts: &Counts,
    ) -> Result<RecordBatch> {
        let picked_schema = picked.schema();
        let batches: Vec<RecordBatch> = picked.try_collect().await?;
        let picked = concat_batches(&picked_schema, &batches)?;
        if picked.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let rows = locations(&picked)?;
        let found = self.read(&rows, context, counts).await?;
        let fetched = self.in_order(&rows, &found)?;
        for [before, after] in &self.keys {
            let before = before.evaluate(&picked)?.into_array(picked.num_rows())?;
            let after = after.evaluate(&fetched)?.into_array(fetched.num_rows())?;
            if before.to_data() != after.to_data() {
                return exec_err!(
                    "rows that were picked by their sort keys have other ones now: a file was changed while the query \
                     ran, or is not read alike twice. SET slipstream.late_materialization.enabled = false reads each \
                     file once"
                );
            }
        }
        compacted_whole(&fetched)
    }

    /// Reads the rows of each file, several files at a time.
    async fn read<'a>(
        &self,
        rows: &[(&'a str, i64)],
        context: &Arc<TaskContext>,
        counts: &Counts,
    ) -> Result<BTreeMap<&'a str, Found>> {
        let mut wanted = BTreeMap::<&str, Vec<i64>>::new();
        for (file, row) in rows {
            wanted.entry(file).or_default().push(*row);
        }
        let mut reads = Vec::new();
        for (name, mut rows) in wanted {
            let Some(late) = self.files.get(name) else {
                return internal_err!("rows of a file that the scan does not have: {name}");
            };
            rows.sort_unstable();
            reads.push(async move {
                let found = read_rows(&self.scan, late, &rows, context).await?;
                Ok::<_, DataFusionError>((name, found))
            });
        }
        let found: BTreeMap<&str, Found> =
            stream::iter(reads).buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        counts.files.add(found.len());
        Ok(found)
    }

    /// The found rows in the order of `rows`, without their numbers.
    ///
    /// By places and not by sorting again: rows with equal keys keep the order in which they were picked, and a merge of
    /// several files' rows needs no comparison.
    fn in_order(&self, rows: &[(&str, i64)], found: &BTreeMap<&str, Found>) -> Result<RecordBatch> {
        let mut first_batch = HashMap::new();
        let mut batches = Vec::new();
        for (name, found) in found {
            first_batch.insert(*name, batches.len());
            batches.extend(&found.batches);
        }
        let mut places = Vec::with_capacity(rows.len());
        for (name, row) in rows {
            let place = found.get(name).and_then(|found| found.places.get(row));
            let (Some((batch, row)), Some(first)) = (place, first_batch.get(name)) else {
                return internal_err!("row {row} of {name} was not read");
            };
            places.push((first + batch, *row));
        }
        let ordered = interleave_record_batch(&batches, &places)?;
        let columns = ordered.columns()[..self.schema.fields().len()].to_vec();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// File and row number of each picked row.
///
/// Both are made up by the reader, so that neither is ever NULL; a row without a place would be lost silently, which is why
/// that is checked and not assumed.
fn locations(picked: &RecordBatch) -> Result<Vec<(&str, i64)>> {
    let [.., names, numbers] = picked.columns() else {
        return internal_err!("picked rows come without their places");
    };
    match (names.as_string_opt::<i32>(), numbers.as_primitive_opt::<Int64Type>()) {
        (Some(names), Some(numbers)) if names.null_count() + numbers.null_count() == 0 => {
            Ok(names.iter().flatten().zip(numbers.values().iter().copied()).collect())
        }
        _ => internal_err!(
            "the places of picked rows have types {} and {}",
            names.data_type(),
            numbers.data_type()
        ),
    }
}
