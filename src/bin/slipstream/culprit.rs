//! Finds the file that an error is about: DataFusion's errors on reading Parquet say what is wrong, not where.

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::error::{DataFusionError, Result};
use datafusion::object_store::ObjectMeta;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use futures::{StreamExt, TryStreamExt};

/// How the names of files end that a table may be made of.
const FILE_EXTENSIONS: [&str; 5] = [".parquet", ".csv", ".json", ".avro", ".arrow"];

/// Files that are looked into; reading the footers of more would keep the user waiting for the error.
const FILE_LIMIT: usize = 1_000;

/// Puts the file's name in front of an error that a Parquet file of this statement is the reason for. Only the
/// files' footers are read: damage behind them stays without a name.
pub(crate) async fn name_file(
    ctx: &SessionContext,
    statement: &Statement,
    error: DataFusionError,
) -> DataFusionError {
    let about_files = match error.find_root() {
        DataFusionError::Plan(message) if message.contains("not found") => {
            return name_missing_file(ctx, statement, error);
        }
        DataFusionError::ParquetError(_) => true,
        DataFusionError::ArrowError(arrow, _) => matches!(arrow.as_ref(), ArrowError::SchemaError(_)),
        _ => false,
    };
    if !about_files {
        return error;
    }
    for location in locations(ctx, statement).await {
        if let Ok(Some(finding)) = look_into(ctx, &location).await {
            return error.context(finding);
        }
    }
    error
}

/// A table that was not found may be a file that is not there.
fn name_missing_file(ctx: &SessionContext, statement: &Statement, error: DataFusionError) -> DataFusionError {
    let message = error.strip_backtrace();
    let tables = ctx.state().resolve_table_references(statement).unwrap_or_default();
    let missing = tables.iter().map(TableReference::table).find(|name| {
        let looks_like_a_path = name.contains('/') || FILE_EXTENSIONS.iter().any(|end| name.ends_with(end));
        looks_like_a_path && message.contains(*name)
    });
    match missing {
        Some(name) if name.contains("://") => error.context(format!("nothing can be read from {name}")),
        Some(name) => error.context(format!("there is no file {name}")),
        None => error,
    }
}

/// The places that the statement's tables are read from.
async fn locations(ctx: &SessionContext, statement: &Statement) -> Vec<ListingTableUrl> {
    let mut locations = vec![];
    if let Statement::CreateExternalTable(create) = statement {
        locations
            .extend(create.locations.iter().filter_map(|location| ListingTableUrl::parse(location).ok()));
    }
    for table in ctx.state().resolve_table_references(statement).unwrap_or_default() {
        locations.extend(locations_of(ctx, table).await);
    }
    locations
}

async fn locations_of(ctx: &SessionContext, table: TableReference) -> Vec<ListingTableUrl> {
    let path = table.table().to_owned();
    match ctx.table_provider(table).await {
        Ok(provider) => match provider.downcast_ref::<ListingTable>() {
            Some(listing) => listing.table_paths().clone(),
            None => vec![],
        },
        // A table whose schema cannot be read from its files is no table yet, but its name is their path.
        Err(_) => ListingTableUrl::parse(path).into_iter().collect(),
    }
}

/// What is wrong with the first file that cannot be read, or does not go with the ones before it.
async fn look_into(ctx: &SessionContext, location: &ListingTableUrl) -> Result<Option<String>> {
    let state = ctx.state();
    let store = ctx.runtime_env().object_store(location)?;
    let files = location.list_all_files(&state, store.as_ref(), ".parquet").await?;
    let mut files: Vec<ObjectMeta> = files.take(FILE_LIMIT).try_collect().await?;
    files.sort_by(|one, other| one.location.cmp(&other.location));
    let format = ParquetFormat::default();
    let mut before: Option<(String, SchemaRef)> = None;
    for file in files {
        let name = format!("{}{}", location.object_store().as_str(), file.location);
        let name = name.strip_prefix("file://").unwrap_or(&name).to_owned();
        let Ok(schema) = format.infer_schema(&state, &store, &[file]).await else {
            return Ok(Some(name));
        };
        if let Some((first, other)) = &before
            && Schema::try_merge([other.as_ref().clone(), schema.as_ref().clone()]).is_err()
        {
            return Ok(Some(format!("{first} and {name} have different columns")));
        }
        before.get_or_insert((name, schema));
    }
    Ok(None)
}
