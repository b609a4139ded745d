//! The two tables, whose rows come as a stream that does something of its own half way.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};

/// Rows in a batch of a table.
const BATCH_ROWS: i64 = 300;

pub(super) struct Table {
    pub(super) name: &'static str,
    rows: i64,
    /// Keys, of which each third or so occurs in the other table.
    domain: i64,
}

/// About a megabyte, and a third of it.
pub(super) const TABLES: [Table; 2] =
    [Table { name: "l", rows: 9000, domain: 4500 }, Table { name: "r", rows: 3000, domain: 9000 }];

/// What a table does before it gives one of its batches.
#[derive(Clone)]
pub(super) struct Script {
    /// Of how many hundredths of its batches it does it behind.
    pub(super) percent: usize,
    pub(super) act: Act,
}

/// Something to do meanwhile.
pub(super) type Deed = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
pub(super) enum Act {
    Nothing,
    Fail,
    Panic,
    Do(Deed),
}

impl Script {
    pub(super) const NONE: Self = Self { percent: 0, act: Act::Nothing };
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} %", self.percent)
    }
}

impl Table {
    pub(super) fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            // Nullable: with filters, a merge join of DataFusion 55.2 gives NULLs in columns that have none, and fails.
            Field::new("v", DataType::Int64, true),
            Field::new("s", DataType::Utf8, true),
        ]))
    }

    /// Some keys are NULL, and some are frequent.
    pub(super) fn batches(&self, rows: i64, batch_rows: i64) -> Vec<RecordBatch> {
        let key = |row: i64| match row % 40 {
            7 => None,
            9 => Some(11),
            _ => Some(row * 7919 % self.domain),
        };
        let batch = |begin: i64| {
            let rows = || begin..(begin + batch_rows).min(rows);
            let columns: [ArrayRef; 3] = [
                Arc::new(Int64Array::from_iter(rows().map(key))),
                Arc::new(Int64Array::from_iter_values(rows())),
                Arc::new(StringArray::from_iter_values(
                    rows().map(|row| format!("{:>80}", row * 31 % 10_007)),
                )),
            ];
            RecordBatch::try_new(Self::schema(), columns.to_vec()).unwrap()
        };
        (0..rows).step_by(usize::try_from(batch_rows).unwrap()).map(batch).collect()
    }

    /// One partition, of which nothing is known before it is read.
    pub(super) fn scripted(&self, script: Script) -> Arc<dyn TableProvider> {
        let batches = self.batches(self.rows, BATCH_ROWS);
        let rows: Arc<dyn PartitionStream> = Arc::new(Scripted { schema: Self::schema(), batches, script });
        Arc::new(StreamingTable::try_new(Self::schema(), vec![rows]).unwrap())
    }
}

#[derive(Debug)]
struct Scripted {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    script: Script,
}

impl PartitionStream for Scripted {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let at = (self.batches.len() - 1) * self.script.percent / 100;
        let act = self.script.act.clone();
        let rows = stream::iter(self.batches.clone()).enumerate().then(move |(number, batch)| {
            let act = if number == at { act.clone() } else { Act::Nothing };
            async move { acted(act).await.map(|()| batch) }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

async fn acted(act: Act) -> Result<()> {
    match act {
        Act::Nothing => Ok(()),
        Act::Fail => exec_err!("the input broke"),
        Act::Panic => panic!("the input panicked"),
        Act::Do(deed) => {
            deed().await;
            Ok(())
        }
    }
}
