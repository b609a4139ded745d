//! Which data a scan reads: the version of every file, or the very buffers of a table in memory.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

/// The version of all data that a scan reads, whatever it makes of it: columns, filters and limits are left out.
///
/// ```text
///   file:/// csv (Some(true), 44, 34, None, None) None Some(false)
///   "k" Int64
///   "data/a.csv" 12 2026-11-21T17:00:00Z Some("1f-64e-c") None []
/// ```
///
/// Two scans of one identity read the same table in the same state. It holds, as text, of files: object store, path,
/// size, time of the last change, entity tag and version of each, their partition values, the table's schema, and how
/// text files are written; of a table in memory: the address and length of every column of every batch.
///
/// A file that is rewritten between planning and reading cannot be told apart here; nor can a store that changes a
/// file without changing any of these. What is learned under an identity may therefore be wrong, and decides about
/// estimates only.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    text: Arc<str>,
    /// Keep the addresses of a table in memory from being used again, without keeping its data.
    pins: Arc<[Weak<dyn Array>]>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Identity {
    /// The identity of what the leaf `node` reads, or why it has none.
    pub(crate) fn of(node: &dyn ExecutionPlan) -> Result<Self, &'static str> {
        let Some(scan) = node.downcast_ref::<DataSourceExec>() else {
            return Err("it is not read from files or from memory");
        };
        if let Some(files) = scan.data_source().downcast_ref::<FileScanConfig>() {
            return Self::of_files(files);
        }
        match scan.data_source().downcast_ref::<MemorySourceConfig>() {
            Some(memory) => Ok(Self::of_memory(memory)),
            None => Err("it is read from a source of a kind that has no version"),
        }
    }

    /// The identity of the files of `scan`.
    ///
    /// A scan may have its files cut into ranges, which together must make up each file; one that reads parts of a
    /// file only, or selects rows by an access plan of its own, is not the table.
    pub(crate) fn of_files(scan: &FileScanConfig) -> Result<Self, &'static str> {
        let mut files: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
            if !file.extensions.is_empty() {
                return Err("some rows of its files are selected by the table itself");
            }
            let size = file.object_meta.size;
            let read = file.range.as_ref().map_or(size, |range| range.end.abs_diff(range.start));
            files.entry(file_text(file)).or_insert((size, 0)).1 += read;
        }
        if files.is_empty() {
            return Err("it has no files");
        }
        if files.values().any(|(size, read)| size != read) {
            return Err("its files are read in part, or more than once");
        }
        let mut text = format!("{} {}", scan.object_store_url.as_str(), scan.file_source().file_type());
        if let Some(csv) = scan.file_source().downcast_ref::<CsvSource>() {
            let how = (csv.has_header(), csv.delimiter(), csv.quote(), csv.escape(), csv.comment());
            // Writing to a String cannot fail.
            let _ = write!(text, " {how:?} {:?} {}", csv.terminator(), csv.truncate_rows());
        }
        schema_text(&mut text, scan.file_source().table_schema().table_schema());
        for file in files.into_keys() {
            text.push_str(&file);
        }
        Ok(Self { text: text.into(), pins: Arc::new([]) })
    }

    /// The identity of batches. A table to which rows are added has more of them; one whose rows are changed others.
    fn of_memory(scan: &MemorySourceConfig) -> Self {
        let mut text = "memory".to_owned();
        schema_text(&mut text, &scan.original_schema());
        let mut pins = Vec::new();
        for batch in scan.partitions().iter().flatten() {
            let _ = write!(text, "\n{}", batch.num_rows());
            for column in batch.columns() {
                let _ = write!(text, " {:x}", Arc::as_ptr(column).cast::<()>() as usize);
                pins.push(Arc::downgrade(column));
            }
        }
        Self { text: text.into(), pins: pins.into() }
    }

    /// Whether the data may still be there: a table in memory that was dropped cannot come back.
    pub(crate) fn may_return(&self) -> bool {
        self.pins.iter().all(|pin| pin.strong_count() > 0)
    }

    /// The identity as text: equal where the identities are.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val::<[Weak<dyn Array>]>(&self.pins)
    }
}

/// Times are taken in full: some stores know seconds alone, which the entity tag makes up for.
fn file_text(file: &PartitionedFile) -> String {
    let meta = &file.object_meta;
    format!(
        "\n{:?} {} {:?} {:?} {:?} {:?}",
        meta.location.as_ref(),
        meta.size,
        meta.last_modified,
        meta.e_tag,
        meta.version,
        file.partition_values
    )
}

/// Names and types: the same files read under another schema have other values.
fn schema_text(text: &mut String, schema: &Schema) {
    for field in schema.fields() {
        let _ = write!(text, "\n{:?} {:?}", field.name(), field.data_type());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};

    fn identity(batches: &[RecordBatch]) -> Identity {
        let scan = MemorySourceConfig::try_new_exec(&[batches.to_vec()], batches[0].schema(), None).unwrap();
        Identity::of(scan.as_ref()).unwrap()
    }

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    }

    #[test]
    fn a_table_in_memory_is_its_buffers() {
        let (one, same_values) = (batch(&[1, 2]), batch(&[1, 2]));
        let before = identity(std::slice::from_ref(&one));
        assert_eq!(before, identity(std::slice::from_ref(&one)));
        assert_ne!(before, identity(std::slice::from_ref(&same_values)));
        assert_ne!(before, identity(&[one.clone(), same_values]));
        assert!(before.may_return());
        drop(one);
        assert!(!before.may_return(), "an identity does not keep the data");
    }
}
