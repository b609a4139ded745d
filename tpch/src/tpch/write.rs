//! One table as one Parquet file, its row groups encoded in parallel, byte layout as of `tpchgen-cli` 4.0.0.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves,
};
use datafusion::parquet::arrow::{
    ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY, add_encoded_arrow_schema_to_metadata,
};
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use futures::{StreamExt, TryStreamExt};

use super::layout::{PartReader, open_part, row_groups};
use crate::error::cannot_write;
use crate::generate::manifest::TableEntry;
use crate::tables::Table;

/// Bytes gathered before they go to the file.
const WRITE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Writes a table to `path`, at most `jobs` row groups in memory; `written` is called after each row group.
///
/// The file is on disk when this returns: whoever renames it may rely on its being whole.
pub(super) async fn write_table(
    table: Table,
    scale_factor: f64,
    path: &Path,
    jobs: usize,
    mut written: impl FnMut() + Send,
) -> Result<TableEntry> {
    let parts = row_groups(table, scale_factor);
    let schema = with_field_ids(&open_part(table, scale_factor, 1, parts).schema());
    let file = File::create(path).map_err(|e| cannot_write(path, &e))?;
    let mut writer = file_writer(BufWriter::with_capacity(WRITE_BUFFER_BYTES, file), &schema)?;
    let columns = Arc::new(ArrowRowGroupWriterFactory::new(&writer, Arc::clone(&schema)));

    let mut encoded = futures::stream::iter(1..=parts)
        .map(|part| {
            let (columns, schema) = (Arc::clone(&columns), Arc::clone(&schema));
            let task = SpawnedTask::spawn_blocking(move || {
                encode(&columns, &schema, part, open_part(table, scale_factor, part, parts))
            });
            async { task.join_unwind().await.map_err(|e| DataFusionError::External(Box::new(e)))? }
        })
        // In order, so that the same scale factor gives the same file whatever the number of cores.
        .buffered(jobs);

    let mut rows = 0;
    while let Some(chunks) = encoded.try_next().await? {
        let mut group = writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        rows += group.close()?.num_rows();
        written();
    }
    drop(encoded);
    let file = writer.into_inner()?.into_inner().map_err(|e| cannot_write(path, e.error()))?;
    file.sync_all().map_err(|e| cannot_write(path, &e))?;
    let bytes = file.metadata().map_err(|e| cannot_write(path, &e))?.len();
    Ok(TableEntry { rows, row_groups: parts, bytes })
}

/// Numbers the columns from 1 in their Parquet field ids.
fn with_field_ids(schema: &Schema) -> SchemaRef {
    let with_id = |(id, field): (usize, &Arc<Field>)| {
        let mut metadata = field.metadata().clone();
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), (id + 1).to_string());
        field.as_ref().clone().with_metadata(metadata)
    };
    let fields: Vec<_> = schema.fields().iter().enumerate().map(with_id).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Opens a Parquet writer: Snappy, and all else at the defaults of the crate `parquet`.
fn file_writer(out: BufWriter<File>, schema: &SchemaRef) -> Result<SerializedFileWriter<BufWriter<File>>> {
    let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    // Without it a reader would see Utf8 and not the Utf8View that was written.
    add_encoded_arrow_schema_to_metadata(schema, &mut properties);
    let parquet_schema = ArrowSchemaConverter::new().convert(schema)?;
    Ok(SerializedFileWriter::new(out, parquet_schema.root_schema_ptr(), Arc::new(properties))?)
}

/// Encodes one part as the columns of a row group.
fn encode(
    columns: &ArrowRowGroupWriterFactory,
    schema: &Schema,
    part: i32,
    reader: PartReader,
) -> Result<Vec<ArrowColumnChunk>> {
    let ordinal = usize::try_from(part - 1).unwrap_or_default();
    let mut writers = columns.create_column_writers(ordinal)?;
    for batch in reader {
        let batch = batch?;
        for ((writer, field), array) in writers.iter_mut().zip(schema.fields()).zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                writer.write(&leaf)?;
            }
        }
    }
    writers.into_iter().map(|writer| Ok(writer.close()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};

    /// The footer of a generated file: rows and compression of its row groups, and their size near the target.
    #[tokio::test]
    async fn footer_holds_the_layout_of_tpchgen_cli() {
        let dir = tempfile::tempdir().unwrap();
        let path = Table::Orders.path(dir.path());
        let mut calls = 0;
        let entry = write_table(Table::Orders, 0.1, &path, 2, || calls += 1).await.unwrap();

        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let metadata = reader.metadata();
        let rows: Vec<i64> = metadata.row_groups().iter().map(|g| g.num_rows()).collect();
        assert_eq!(rows, [75_000, 75_000]);
        assert_eq!(calls, 2);
        assert_eq!(entry.rows, 150_000);
        assert_eq!(Some(entry.rows), Table::Orders.rows(0.1));
        assert_eq!(entry.bytes, std::fs::metadata(&path).unwrap().len());
        for group in metadata.row_groups() {
            let bytes = group.total_byte_size();
            assert!((4 << 20..=8 << 20).contains(&bytes), "a row group has {bytes} bytes");
            assert!(group.columns().iter().all(|c| c.compression() == Compression::SNAPPY));
        }
        let ids: Vec<i32> =
            metadata.file_metadata().schema().get_fields().iter().map(|f| f.get_basic_info().id()).collect();
        assert_eq!(ids, (1..=9).collect::<Vec<_>>());
        let keys = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(keys.iter().any(|k| k.key == "ARROW:schema"));
    }
}
