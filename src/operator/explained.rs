//! EXPLAIN with one row more: what the layer did to the plan.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use super::passthrough::{Passthrough, Wrap};
use crate::scope::QueryScope;

/// Adds the row `slipstream` behind the plans that an EXPLAIN node prints.
///
/// The reports are read when the plans have been printed, so that EXPLAIN ANALYZE also shows what rules and
/// operators said while the query ran.
pub(crate) fn explained(plan: Arc<dyn ExecutionPlan>, scope: QueryScope) -> Arc<dyn ExecutionPlan> {
    Passthrough::around(plan, Explained { scope })
}

#[derive(Debug)]
struct Explained {
    scope: QueryScope,
}

impl Wrap for Explained {
    fn execute(
        self: &Arc<Self>,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let plans = inner.execute(partition, context)?;
        let schema = plans.schema();
        let scope = self.scope.clone();
        let row_schema = Arc::clone(&schema);
        let own = stream::once(async move { row(&scope, &row_schema) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, plans.chain(own))))
    }
}

fn row(scope: &QueryScope, schema: &SchemaRef) -> Result<RecordBatch> {
    let [kind, plan] = schema.fields().as_ref() else {
        return internal_err!("EXPLAIN has {} columns where two were expected", schema.fields().len());
    };
    let column = |text: &str, field: &Arc<datafusion::arrow::datatypes::Field>| -> Result<ArrayRef> {
        Ok(cast(&StringArray::from(vec![text]), field.data_type())?)
    };
    let columns = vec![column("slipstream", kind)?, column(&picture(scope), plan)?];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// One line a rule. Times are left out: a picture of the same plan should be the same picture.
fn picture(scope: &QueryScope) -> String {
    let mut lines = String::new();
    for report in scope.reports() {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{report}");
    }
    lines
}
