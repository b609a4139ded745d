//! A table by its name, and a scan of it as it is now.

use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{ResolvedTableReference, Result};

use super::identity::Identity;

/// The table of this name in the catalogs of `session`; `None` where catalog, schema or table is missing.
pub(crate) async fn find_table(
    session: &dyn Session,
    name: &ResolvedTableReference,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let catalog = session.catalog_list().catalog(&name.catalog);
    match catalog.and_then(|catalog| catalog.schema(&name.schema)) {
        Some(schema) => schema.table(&name.table).await,
        None => Ok(None),
    }
}

/// Whether the table of this name now has the data that `identity` speaks of, as far as the session's listing of its
/// files is up to date. A table that is gone, or that cannot be scanned, has not.
pub(crate) async fn is_current(
    session: &dyn Session,
    name: &ResolvedTableReference,
    identity: &Identity,
) -> bool {
    let Ok(Some(table)) = find_table(session, name).await else {
        return false;
    };
    match table.scan(session, Some(&Vec::new()), &[], None).await {
        Ok(scan) => Identity::of(scan.as_ref()).is_ok_and(|now| now == *identity),
        Err(_) => false,
    }
}
