//! The tables in a session, each as its storage demands.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext, col};

use super::tables::{Storage, TABLES, Table};
use crate::engine::utf8;

/// Registers all tables from `dir`.
pub(super) async fn register(ctx: &SessionContext, dir: &Path) -> Result<()> {
    for table in &TABLES {
        let path = table.path(dir);
        match table.storage {
            Storage::Csv => {
                let schema = table.schema()?;
                let options = CsvReadOptions::new().schema(&schema);
                ctx.register_csv(table.name, utf8(&path)?, options).await?;
            }
            Storage::Memory => {
                ctx.register_table(table.name, Arc::new(load(table, &path)?))?;
            }
            Storage::SortedParquet(column) => {
                let order = vec![vec![col(column).sort(true, false)]];
                let options = ParquetReadOptions::default().file_sort_order(order);
                ctx.register_parquet(table.name, utf8(&path)?, options).await?;
            }
            Storage::Parquet | Storage::ParquetFiles(_) | Storage::ParquetWithoutStatistics => {
                ctx.register_parquet(table.name, utf8(&path)?, ParquetReadOptions::default()).await?;
            }
        }
    }
    Ok(())
}

/// Reads a table into memory; not by the session, which would count it as a query.
fn load(table: &Table, path: &Path) -> Result<MemTable> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    let rows: Vec<RecordBatch> = reader.collect::<Result<_, ArrowError>>()?;
    MemTable::try_new(table.schema()?, vec![rows])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineOptions, context};
    use crate::star::Star;
    use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
    use datafusion::physical_plan::displayable;

    /// The tables differ in how the engine sees them, which is what they are there for.
    #[tokio::test]
    async fn storage_is_what_the_engine_sees() {
        let dir = tempfile::tempdir().unwrap();
        crate::generate::ensure(&Star, dir.path(), 0.002).await.unwrap();
        let ctx = context(Engine::Plain, &EngineOptions::default()).unwrap();
        register(&ctx, dir.path()).await.unwrap();
        for (sql, seen, unseen) in [
            ("select day from calendar order by day", "output_ordering=[day@0 ASC NULLS LAST]", "SortExec"),
            ("select name from plan", "partition_sizes=[1]", "parquet"),
            ("select percent_off from voucher", "file_type=csv", "parquet"),
            ("select play_id from play", "play-5.parquet", "play-6.parquet"),
            ("select reason from takedown", "takedown.parquet", "EmptyExec"),
        ] {
            let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let plan = displayable(plan.as_ref()).indent(false).to_string();
            assert!(plan.contains(seen) && !plan.contains(unseen), "{plan}");
        }

        let statistics = |file: &str| {
            let file = SerializedFileReader::new(File::open(dir.path().join(file)).unwrap()).unwrap();
            let groups = file.metadata().row_groups();
            (
                groups.len(),
                groups.iter().flat_map(|g| g.columns()).filter(|c| c.statistics().is_some()).count(),
            )
        };
        assert_eq!(statistics("refund.parquet"), (1, 0));
        assert_eq!(statistics("play/play-2.parquet"), (1, 15));
        assert_eq!(statistics("track.parquet"), (2, 18));
    }

    /// NULL, commas and quotes survive the CSV file.
    #[tokio::test]
    async fn csv_has_the_rows_that_were_drawn() {
        let dir = tempfile::tempdir().unwrap();
        crate::generate::ensure(&Star, dir.path(), 0.001).await.unwrap();
        let ctx = context(Engine::Plain, &EngineOptions::default()).unwrap();
        register(&ctx, dir.path()).await.unwrap();
        let read = ctx.sql("select * from voucher").await.unwrap().collect().await.unwrap();
        let table = TABLES.iter().find(|table| table.name == "voucher").unwrap();
        let drawn = table.draw(&crate::star::sizes::Sizes::at(0.001), 0..1_000).unwrap();
        let read = datafusion::arrow::compute::concat_batches(&drawn.schema(), &read).unwrap();
        assert!(drawn.column_by_name("valid_to").unwrap().null_count() > 50);
        assert_eq!(read, drawn);
    }
}
