//! The tables that a text names, and plans without and with their tables.

use std::fmt;
use std::ptr::addr_eq;
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, TableReference, internal_datafusion_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableSource};

use crate::fingerprint::Refusal;

/// A name of a statement, and the table that it meant.
#[derive(Debug, Clone)]
pub(crate) struct NamedTable {
    /// As the statement says it.
    name: TableReference,
    provider: Weak<dyn TableProvider>,
    /// Its columns. A table may come to have others and stay the same object.
    schema: SchemaRef,
}

/// The tables that `names` mean in `state` at this moment.
///
/// # Errors
/// A name means no table: it is a function's, whose rows are made when it is planned.
pub(crate) async fn resolve(
    state: &SessionState,
    names: Vec<TableReference>,
) -> Result<Vec<NamedTable>, Refusal> {
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let Some(provider) = look_up(state, &name).await else {
            return Err(Refusal::new("table", format!("{name} is no table of a catalog")));
        };
        tables.push(NamedTable { schema: provider.schema(), provider: Arc::downgrade(&provider), name });
    }
    Ok(tables)
}

/// What DataFusion's own planning would find under `name`.
async fn look_up(state: &SessionState, name: &TableReference) -> Option<Arc<dyn TableProvider>> {
    let schema = state.schema_for_ref(name.clone()).ok()?;
    schema.table(name.table()).await.ok()?
}

impl NamedTable {
    /// The table, while it is there.
    pub(super) fn provider(&self) -> Option<Arc<dyn TableProvider>> {
        self.provider.upgrade()
    }

    /// As the statement says it.
    pub(crate) fn name(&self) -> &TableReference {
        &self.name
    }

    /// Whether the name means the same table now, with the same columns.
    pub(crate) async fn is_still_meant(&self, state: &SessionState) -> bool {
        look_up(state, &self.name).await.is_some_and(|provider| {
            addr_eq(self.provider.as_ptr(), Arc::as_ptr(&provider)) && self.schema == provider.schema()
        })
    }

    /// Whether somebody still has the table.
    pub(super) fn is_alive(&self) -> bool {
        self.provider.strong_count() > 0
    }
}

/// The place of a table in a plan that is kept.
struct Place {
    at: usize,
    schema: SchemaRef,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.at)
    }
}

impl TableSource for Place {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A plan whose tables are held weakly.
#[derive(Debug)]
pub(super) struct DetachedPlan {
    pub(super) plan: LogicalPlan,
    tables: Box<[Weak<dyn TableProvider>]>,
}

impl DetachedPlan {
    /// `plan` without its tables.
    ///
    /// # Errors
    /// It reads something that is no table.
    pub(super) fn new(plan: LogicalPlan) -> Result<Self> {
        let mut tables: Vec<Weak<dyn TableProvider>> = Vec::new();
        let detached = plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            let provider = source_as_provider(&scan.source)?;
            let known = tables.iter().position(|table| addr_eq(table.as_ptr(), Arc::as_ptr(&provider)));
            let at = known.unwrap_or_else(|| {
                tables.push(Arc::downgrade(&provider));
                tables.len() - 1
            });
            scan.source = Arc::new(Place { at, schema: scan.source.schema() });
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        })?;
        Ok(Self { plan: detached.data, tables: tables.into() })
    }

    /// The plan with its tables.
    ///
    /// # Errors
    /// One of them is gone.
    pub(super) fn attached(&self) -> Result<LogicalPlan> {
        let gone = || internal_datafusion_err!("a table of a kept plan is gone");
        let tables: Vec<_> = self
            .tables
            .iter()
            .map(|table| table.upgrade().map(provider_as_source).ok_or_else(gone))
            .collect::<Result<_>>()?;
        let attached = self.plan.clone().transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            let source: &dyn std::any::Any = scan.source.as_ref();
            let place = source.downcast_ref::<Place>().and_then(|place| tables.get(place.at));
            scan.source = Arc::clone(place.ok_or_else(gone)?);
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        })?;
        Ok(attached.data)
    }
}
