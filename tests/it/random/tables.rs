//! The tables of the random queries: small, with many NULLs and duplicates, in Parquet files and in memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{ParquetReadOptions, SessionContext, col};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tempfile::TempDir;

use super::types::Type;

/// How the values of a column are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// A unique key: 1, 2, 3…
    Serial,
    /// One of so many values, or NULL.
    Domain(usize),
    /// NULL in every row.
    Null,
}

pub(super) type ColumnSpec = (&'static str, Type, Values);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) rows: usize,
    null_percent: u32,
    /// Whether its files are declared to be sorted by the unique key.
    sorted: bool,
    pub(super) columns: &'static [ColumnSpec],
}

use Type::{BigInt, Bool, Date, Decimal, Double, Int, Text};
use Values::{Domain, Null, Serial};

pub(super) const TABLES: &[Table] = &[
    Table {
        name: "nothing",
        rows: 0,
        null_percent: 0,
        sorted: false,
        columns: &[
            ("id", Int, Serial),
            ("k", BigInt, Domain(5)),
            ("s", Text, Domain(5)),
            ("d", Date, Domain(5)),
            ("f", Bool, Domain(2)),
        ],
    },
    Table {
        name: "single",
        rows: 1,
        null_percent: 0,
        sorted: false,
        columns: &[
            ("id", Int, Serial),
            ("k", Int, Domain(4)),
            ("m", Decimal, Domain(6)),
            ("x", Double, Domain(6)),
            ("s", Text, Domain(5)),
            ("d", Date, Domain(5)),
            ("f", Bool, Domain(2)),
        ],
    },
    Table {
        name: "items",
        rows: 14,
        null_percent: 15,
        sorted: false,
        columns: &[
            ("id", Int, Serial),
            ("k", Int, Domain(5)),
            ("m", Decimal, Domain(6)),
            ("s", Text, Domain(8)),
            ("f", Bool, Domain(2)),
            ("z", Int, Null),
        ],
    },
    Table {
        name: "orders",
        rows: 60,
        null_percent: 12,
        sorted: false,
        columns: &[
            ("id", BigInt, Serial),
            ("item", Int, Domain(16)),
            ("k", BigInt, Domain(7)),
            ("x", Double, Domain(9)),
            ("d", Date, Domain(10)),
            ("s", Text, Domain(6)),
            ("f", Bool, Domain(2)),
        ],
    },
    Table {
        name: "visits",
        rows: 45,
        null_percent: 8,
        sorted: true,
        columns: &[
            ("id", Int, Serial),
            ("item", BigInt, Domain(18)),
            ("k", Int, Domain(12)),
            ("m", Decimal, Domain(14)),
            ("x", Double, Domain(5)),
            ("d", Date, Domain(12)),
        ],
    },
    Table {
        name: "tags",
        rows: 22,
        null_percent: 20,
        sorted: false,
        columns: &[
            ("k", Int, Domain(4)),
            ("s", Text, Domain(4)),
            ("f", Bool, Domain(2)),
            ("x", Double, Domain(4)),
            ("d", Date, Domain(3)),
        ],
    },
    Table {
        name: "sparse",
        rows: 30,
        null_percent: 50,
        sorted: false,
        columns: &[
            ("id", BigInt, Serial),
            ("k", Int, Domain(8)),
            ("m", Decimal, Domain(8)),
            ("x", Double, Domain(8)),
            ("s", Text, Domain(10)),
            ("d", Date, Domain(8)),
            ("f", Bool, Domain(2)),
            ("z", Text, Null),
        ],
    },
];

impl Table {
    /// How many values a column has; NULL is one.
    pub(super) fn distinct(&self, values: Values) -> usize {
        match values {
            Serial => self.rows,
            Domain(values) => (values + 1).min(self.rows),
            Null => 1,
        }
        .max(1)
    }

    fn schema(&self, views: bool) -> SchemaRef {
        let fields = self.columns.iter().map(|(name, ty, _)| Field::new(*name, ty.arrow(views), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The rows as the numbers of their values, column by column. The same in every run.
    fn draw(&self) -> Vec<Vec<Option<usize>>> {
        let mut seed = [0; 32];
        seed[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut value = |row: usize, values: Values| match values {
            Serial => Some(row + 2),
            // The lower of two, so that some values are far more frequent than others.
            Domain(count) => (rng.random_range(0..100) >= self.null_percent)
                .then(|| rng.random_range(0..count).min(rng.random_range(0..count))),
            Null => None,
        };
        self.columns
            .iter()
            .map(|(_, _, values)| (0..self.rows).map(|row| value(row, *values)).collect())
            .collect()
    }

    /// The rows in batches of at most `batch_rows`; one empty batch where there are none.
    fn batches(&self, batch_rows: usize, views: bool) -> Vec<RecordBatch> {
        let columns = self.draw();
        let batch = |begin: usize| {
            let end = (begin + batch_rows).min(self.rows);
            let arrays = self.columns.iter().zip(&columns);
            let arrays = arrays.map(|((_, ty, _), values)| ty.array(&values[begin..end], views)).collect();
            RecordBatch::try_new(self.schema(views), arrays).unwrap()
        };
        (0..self.rows.max(1)).step_by(batch_rows).map(batch).collect()
    }

    /// Files of several row groups, and these of several pages, so that statistics of all levels prune.
    fn write(&self, directory: &Path) {
        std::fs::create_dir(directory).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(6))
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(1)
            .set_bloom_filter_enabled(true)
            .build();
        for (part, batches) in self.batches(10, true).chunks(2).enumerate() {
            let file = File::create(directory.join(format!("{part}.parquet"))).unwrap();
            let mut writer = ArrowWriter::try_new(file, self.schema(true), Some(properties.clone())).unwrap();
            for batch in batches {
                writer.write(batch).unwrap();
            }
            writer.close().unwrap();
        }
    }

    /// Three partitions: unequal ones, and an empty one.
    fn in_memory(&self, views: bool) -> Arc<MemTable> {
        let mut partitions = vec![vec![]; 3];
        for (at, batch) in self.batches(4, views).into_iter().enumerate() {
            partitions[at * at % 3].push(batch);
        }
        Arc::new(MemTable::try_new(self.schema(views), partitions).unwrap())
    }
}

/// All tables in both forms.
pub(super) struct Data {
    files: TempDir,
    memory: Vec<Arc<MemTable>>,
    /// The rows and types of the files.
    copies: Vec<Arc<MemTable>>,
}

impl Data {
    pub(super) fn create() -> Self {
        let files = TempDir::new().unwrap();
        for table in TABLES {
            table.write(&files.path().join(table.name));
        }
        let in_memory = |views| TABLES.iter().map(|table| table.in_memory(views)).collect();
        Self { files, memory: in_memory(false), copies: in_memory(true) }
    }

    /// Gives a session every table twice: `items_f` in files, `items_m` in memory.
    pub(super) async fn register(&self, ctx: &SessionContext) -> Result<()> {
        for (table, memory) in TABLES.iter().zip(&self.memory) {
            ctx.register_table(format!("{}_m", table.name), Arc::<MemTable>::clone(memory))?;
            let path = self.files.path().join(table.name);
            let schema = table.schema(true);
            let mut options = ParquetReadOptions::default().schema(&schema);
            if table.sorted {
                options = options.file_sort_order(vec![vec![col("id").sort(true, false)]]);
            }
            ctx.register_parquet(format!("{}_f", table.name), path.to_str().unwrap(), options).await?;
        }
        Ok(())
    }

    /// The same names, rows and types as [`Self::register`] gives, and no file: tables in memory take no
    /// filter, and have nothing to prune by.
    pub(super) fn register_copies(&self, ctx: &SessionContext) -> Result<()> {
        for ((table, memory), copy) in TABLES.iter().zip(&self.memory).zip(&self.copies) {
            ctx.register_table(format!("{}_m", table.name), Arc::<MemTable>::clone(memory))?;
            ctx.register_table(format!("{}_f", table.name), Arc::<MemTable>::clone(copy))?;
        }
        Ok(())
    }
}
