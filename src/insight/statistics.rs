//! `slipstream.statistics`: one row for each analyzed column of each version of a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::queries::micros;
use crate::store::{StatisticsStore, is_current, profile_columns, profile_fields};

/// The columns of ANALYZE's answer, and
///
/// | column | type | meaning |
/// |---|---|---|
/// | `state` | Utf8 | `current`: a query of the table uses them; `stale`: its data is another now, or it is gone |
/// | `analyzed` | Timestamp(µs, UTC) | when |
///
/// A table that was analyzed in several states of its data has the rows of each, of which one at most is `current`. Old
/// states stay until they are the least recently used, and come back to use with the data (a restored file, say).
/// Whether a table's data is another is looked up when the query is planned, in the files as the session lists them.
#[derive(Debug)]
pub(super) struct StatisticsTable {
    pub(super) store: Arc<StatisticsStore>,
}

fn schema() -> SchemaRef {
    let mut fields = profile_fields();
    fields.push(Field::new("state", DataType::Utf8, false));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    fields.push(Field::new("analyzed", time, false));
    Arc::new(Schema::new(fields))
}

impl StatisticsTable {
    /// All rows. Tables are looked up one after the other: each may list files, of which the session keeps the list.
    async fn rows(&self, session: &dyn Session) -> Result<RecordBatch> {
        let profiles = self.store.profiles();
        let (mut rows, mut states, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for profile in &profiles {
            let current = is_current(session, &profile.table, &profile.identity).await;
            for column in &profile.columns {
                rows.push((profile.as_ref(), column.as_ref()));
                states.push(if current { "current" } else { "stale" });
                times.push(micros(profile.analyzed));
            }
        }
        let mut columns = profile_columns(&rows)?;
        columns.push(Arc::new(StringArray::from(states)));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        columns.push(times);
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

#[async_trait]
impl TableProvider for StatisticsTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows(session).await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?)
    }
}
