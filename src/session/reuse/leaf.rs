//! A part of a logical plan that is planned already, as a leaf of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchemaRef, Result, TableReference, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// Stands for a part of a query: its scan is the part's plan.
#[derive(Debug)]
struct PlannedPart {
    schema: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
}

/// A leaf in the place of `part`, with its columns under their names, that is executed as `plan`.
///
/// `number` is another for each leaf of a query: DataFusion takes scans of one name for the same, and plans one of two equal
/// scalar subqueries.
pub(super) fn leaf(part: &LogicalPlan, plan: Arc<dyn ExecutionPlan>, number: usize) -> LogicalPlan {
    leaf_with(Arc::clone(part.schema()), plan, number)
}

/// The same, whose columns have the names of `schema`.
pub(super) fn leaf_with(schema: DFSchemaRef, plan: Arc<dyn ExecutionPlan>, number: usize) -> LogicalPlan {
    let provider = PlannedPart { schema: plan.schema(), plan };
    LogicalPlan::TableScan(TableScan {
        table_name: TableReference::bare(format!("slipstream_part_{number}")),
        source: provider_as_source(Arc::new(provider)),
        projection: None,
        projected_schema: schema,
        filters: Vec::new(),
        fetch: None,
        statistics_requests: BTreeSet::new(),
    })
}

#[async_trait]
impl TableProvider for PlannedPart {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (projection, filters, limit) {
            (None, [], None) => Ok(Arc::clone(&self.plan)),
            _ => internal_err!("a planned part of a query is scanned as it is"),
        }
    }
}
