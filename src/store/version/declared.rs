//! Versions that the owner of a kind of tables declares.

use std::fmt::Debug;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;

/// Says which version of its data a table has, for tables of kinds that the layer does not know: table formats with
/// snapshots, databases, streams with positions.
///
/// ```
/// use async_trait::async_trait;
/// use datafusion::catalog::TableProvider;
/// use datafusion::common::Result;
/// use datafusion::datasource::empty::EmptyTable;
/// use datafusion_slipstream::{Slipstream, TableVersions};
/// use std::sync::Arc;
///
/// #[derive(Debug)]
/// struct Constants;
///
/// #[async_trait]
/// impl TableVersions for Constants {
///     fn table(&self, table: &dyn TableProvider) -> Option<String> {
///         table.is::<EmptyTable>().then(|| "empty".to_owned())
///     }
///
///     async fn version(&self, _table: &dyn TableProvider) -> Result<String> {
///         Ok("1".to_owned())
///     }
/// }
///
/// let slipstream = Slipstream::default().with_table_versions(Arc::new(Constants));
/// ```
#[async_trait]
pub trait TableVersions: Debug + Send + Sync {
    /// Which table this is; `None` for tables of other kinds. Providers with one name are the same table: where a provider
    /// shows other rows to other users, the name says to whom.
    fn table(&self, table: &dyn TableProvider) -> Option<String>;

    /// The version of its data that a scan would read now. It must be another whenever the rows are others, and must not
    /// come back. It is asked for at each query, so it should be quick.
    ///
    /// # Errors
    /// The version cannot be found; the query then runs without the cache.
    async fn version(&self, table: &dyn TableProvider) -> Result<String>;
}
