//! Makes the places that a statement names readable and writable: object stores, web servers, stdin.
//!
//! Only `CREATE EXTERNAL TABLE` and `COPY TO` pass here, since both may carry credentials and other options.
//! A location in `FROM '…'` is registered by datafusion-cli's catalog.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Read};
use std::sync::Arc;

use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::config::{ConfigFileType, TableOptions};
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::object_store::http::HttpBuilder;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::{ClientOptions, Error as StoreError, ObjectStore, ObjectStoreExt};
use datafusion::prelude::SessionContext;
use datafusion_cli::object_storage::{
    AwsOptions, GcpOptions, StdinCarriesCommands, get_cos_object_store_builder, get_gcs_object_store_builder,
    get_oss_object_store_builder, get_s3_object_store_builder, is_stdin_location,
};

/// The scheme that stands for stdin in the registry of object stores.
const STDIN_SCHEME: &str = "stdin";

/// Whether the region of an S3 bucket is taken from the options or asked from S3, which is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    /// As configured.
    Configured,
    /// As the bucket says.
    Detected,
}

/// Registers what the plan reads from or writes to, with the options that its statement gave.
pub(crate) async fn register(ctx: &SessionContext, plan: &mut LogicalPlan, region: Region) -> Result<()> {
    match plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
            let format = file_format(&table.file_type);
            for location in &mut table.locations {
                if is_stdin_location(location) {
                    *location = stdin_url(format.as_ref());
                }
                register_one(ctx, location, &table.options, format.as_ref(), region).await?;
            }
            Ok(())
        }
        LogicalPlan::Copy(copy) => {
            let format = file_format(&copy.file_type.get_ext());
            register_one(ctx, &copy.output_url, &copy.options, format.as_ref(), region).await
        }
        _ => Ok(()),
    }
}

/// Whether a failed `CREATE EXTERNAL TABLE` may succeed in the bucket's own region.
pub(crate) fn may_be_wrong_region(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ObjectStore(error) => {
            matches!(error.as_ref(), StoreError::Generic { store, .. } if store.eq_ignore_ascii_case("s3"))
        }
        _ => false,
    }
}

/// The formats that have options of their own; another one may be the user's, and is not refused here.
fn file_format(name: &str) -> Option<ConfigFileType> {
    match name.to_ascii_lowercase().as_str() {
        "csv" => Some(ConfigFileType::CSV),
        "json" => Some(ConfigFileType::JSON),
        "parquet" => Some(ConfigFileType::PARQUET),
        _ => None,
    }
}

async fn register_one(
    ctx: &SessionContext,
    location: &str,
    options: &HashMap<String, String>,
    format: Option<&ConfigFileType>,
    region: Region,
) -> Result<()> {
    let url = ListingTableUrl::parse(location)?;
    // The option names of a cloud are known to the session from the first of its locations on.
    match url.scheme() {
        "s3" | "oss" | "cos" => ctx.register_table_options_extension(AwsOptions::default()),
        "gs" | "gcs" => ctx.register_table_options_extension(GcpOptions::default()),
        _ => {}
    }
    let mut table_options = ctx.state().default_table_options();
    if let Some(format) = format {
        table_options.set_config_format(format.clone());
    }
    table_options.alter_with_string_hash_map(options)?;
    if let Some(store) = open_store(ctx, &url, &table_options, region).await? {
        ctx.register_object_store(url.as_ref(), store);
    }
    Ok(())
}

/// Opens the store of a location. `None`: it is registered already, and options do not change it.
async fn open_store(
    ctx: &SessionContext,
    url: &ListingTableUrl,
    options: &TableOptions,
    region: Region,
) -> Result<Option<Arc<dyn ObjectStore>>> {
    let aws = || options.extensions.get::<AwsOptions>().cloned().unwrap_or_default();
    let gcp = || options.extensions.get::<GcpOptions>().cloned().unwrap_or_default();
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "s3" => {
            let detect = region == Region::Detected;
            Arc::new(get_s3_object_store_builder(url.as_ref(), &aws(), detect).await?.build()?)
        }
        "oss" => Arc::new(get_oss_object_store_builder(url.as_ref(), &aws())?.build()?),
        "cos" => Arc::new(get_cos_object_store_builder(url.as_ref(), &aws())?.build()?),
        "gs" | "gcs" => Arc::new(get_gcs_object_store_builder(url.as_ref(), &gcp())?.build()?),
        "http" | "https" => {
            let client = ClientOptions::new().with_allow_http(true);
            let server = url.object_store();
            Arc::new(HttpBuilder::new().with_client_options(client).with_url(server.as_str()).build()?)
        }
        STDIN_SCHEME => return open_stdin(ctx, url).await,
        scheme => {
            return match ctx.runtime_env().object_store_registry.get_store(url.as_ref()) {
                Ok(_) => Ok(None),
                Err(_) => exec_err!("there is no object store for '{scheme}://'"),
            };
        }
    };
    Ok(Some(store))
}

/// Stdin as a file. Its name ends as the format wants it, and so records what stdin was read as.
fn stdin_url(format: Option<&ConfigFileType>) -> String {
    let extension = match format {
        Some(ConfigFileType::CSV) => ".csv",
        Some(ConfigFileType::JSON) => ".json",
        Some(ConfigFileType::PARQUET) => ".parquet",
        None => "",
    };
    format!("{STDIN_SCHEME}:///stdin{extension}")
}

/// Reads all of stdin at the first table that is made of it; later tables see the same bytes.
async fn open_stdin(ctx: &SessionContext, url: &ListingTableUrl) -> Result<Option<Arc<dyn ObjectStore>>> {
    if let Ok(store) = ctx.runtime_env().object_store_registry.get_store(url.as_ref()) {
        return match store.head(url.prefix()).await {
            Ok(_) => Ok(None),
            Err(_) => exec_err!("stdin was read as another format before; it can only be read once"),
        };
    }
    if ctx.state().config().get_extension::<StdinCarriesCommands>().is_some() {
        return exec_err!(
            "stdin carries the statements, so it cannot carry rows; give the statements with -c or -f, \
             for example: slipstream -f query.sql < rows.csv"
        );
    }
    if io::stdin().is_terminal() {
        return exec_err!(
            "stdin is a terminal; redirect it, for example: slipstream -f query.sql < rows.csv"
        );
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| exec_datafusion_err!("stdin cannot be read: {error}"))?;
    let store = InMemory::new();
    store.put(url.prefix(), bytes.into()).await?;
    Ok(Some(Arc::new(store)))
}
