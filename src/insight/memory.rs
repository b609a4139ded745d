//! `slipstream.memory`: one row for each holder of memory, while it holds some.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;

use super::system_table::SystemTable;
use crate::memory::{MemoryGovernor, Usage};

/// | column | type | meaning |
/// |---|---|---|
/// | `level` | Utf8 | `process`, `query`, `operator`, `cache` |
/// | `query_id` | UInt64 | of queries and operators; as in `slipstream.queries` |
/// | `name` | Utf8 | the memory consumer, or what else it is |
/// | `spillable` | Boolean | whether the operator can spill; NULL for other levels |
/// | `reserved_bytes`, `peak_bytes` | UInt64 | what it holds, and the most it held at one time |
/// | `limit_bytes` | UInt64 | its own limit; NULL for none |
#[derive(Debug)]
pub(super) struct MemoryTable {
    pub(super) governor: Arc<MemoryGovernor>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("level", DataType::Utf8, false),
        Field::new("query_id", DataType::UInt64, true),
        Field::new("name", DataType::Utf8, false),
        Field::new("spillable", DataType::Boolean, true),
        Field::new("reserved_bytes", DataType::UInt64, false),
        Field::new("peak_bytes", DataType::UInt64, false),
        Field::new("limit_bytes", DataType::UInt64, true),
    ]))
}

impl SystemTable for MemoryTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn rows(&self) -> Result<RecordBatch> {
        let rows = self.governor.usage();
        let bytes = |get: fn(&Usage) -> Option<u64>| -> ArrayRef {
            Arc::new(UInt64Array::from_iter(rows.iter().map(get)))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.level))),
            bytes(|row| row.query_id),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.name))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.can_spill))),
            bytes(|row| Some(row.reserved as u64)),
            bytes(|row| Some(row.peak as u64)),
            bytes(|row| row.limit.map(|bytes| bytes as u64)),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}
