//! Tables and versions as bytes that mean the same in another process: tables of files, and nothing else.
//!
//! | what it is | what is written down |
//! |---|---|
//! | where | the store's name for itself, the URLs, their globs, the extension |
//! | how bytes become rows | the format with its options, the schema, partition columns |
//! | what a plan may rely on | declared orders and constraints |
//! | what cannot be seen from outside | adapters of columns, defaults, keys of encryption: refused |
//!
//! A table in memory dies with its process, and a version that its owner declares may start again at one in the next. Files
//! outlive both, and the object store says of each which one it is.

use std::fmt::{self, Write};

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingTable;
use datafusion::logical_expr::Expr;
use datafusion::object_store::ObjectMeta;

use super::files::{FileTable, FileVersion};
use super::{Source, Version, VersionedTable};
use crate::fingerprint::{Refusal, Words};

/// What stores whose files outlive a process begin their name with. What wraps one of them may show other files, or other
/// bytes, to each of its owners.
const STORES: [&str; 5] =
    ["LocalFileSystem(", "AmazonS3(", "MicrosoftAzure {", "GoogleCloudStorage(", "HttpStore"];

/// The line of a listing table's picture that says that nobody adapts its rows. DataFusion has no other way to ask.
const NO_ADAPTER: &str = "    expr_adapter_factory: None,";

impl VersionedTable {
    /// Writes down which table it is: where its files are, and how their bytes become rows.
    ///
    /// # Errors
    /// It is no table of files, or has something that cannot be told from outside.
    pub(crate) fn describe(&self, words: &mut Words) -> Result<(), Refusal> {
        let refused = |what: &str| Refusal::new("table", format!("table {} {what}", self.table().name));
        let Source::Files(files) = &self.source else {
            return Err(refused("is no table of files"));
        };
        let provider = self.table().provider.as_ref();
        let table = provider.downcast_ref::<ListingTable>().ok_or_else(|| refused("is no table of files"))?;
        describe(files, table, words).map_err(|what| refused(&what))
    }
}

fn describe(files: &FileTable, table: &ListingTable, words: &mut Words) -> Result<(), String> {
    let store = files.store.to_string();
    if !STORES.iter().any(|known| store.starts_with(known)) {
        return Err(format!("is of a store that may have other files in another process: {store}"));
    }
    words.text(&store);
    words.count(files.urls.len());
    for url in files.urls.iter() {
        words.text(url.as_str());
        words.optional(url.get_glob().as_ref().map(|glob| glob.as_str()));
    }
    let options = table.options();
    words.text(&options.file_extension);
    format_of(options.format.as_ref(), words)?;
    words.count(options.table_partition_cols.len());
    for (name, data_type) in &options.table_partition_cols {
        words.text(name);
        words.data_type(data_type);
    }
    words.count(options.file_sort_order.len());
    for order in &options.file_sort_order {
        words.count(order.len());
        for sort in order {
            let Expr::Column(column) = &sort.expr else {
                return Err("is declared to be sorted by an expression".into());
            };
            words.text(&column.name);
            words.text(&format!("{} {}", sort.asc, sort.nulls_first));
        }
    }
    if options.output_partitioning.is_some() {
        return Err("is declared to be partitioned".into());
    }
    let schema = table.schema();
    words.count(schema.fields().len());
    schema.fields().iter().for_each(|field| words.field(field));
    words.metadata(schema.metadata());
    words.text(&format!("{:?}", table.constraints()));
    if schema.fields().iter().any(|field| table.get_column_default(field.name()).is_some()) {
        return Err("has columns with defaults".into());
    }
    match is_adapted(table) {
        true => Err("may have its columns adapted by its owner".into()),
        false => Ok(()),
    }
}

/// How a format's bytes become rows. Options that only writers read count too: that costs an answer, and nothing else.
fn format_of(format: &dyn FileFormat, words: &mut Words) -> Result<(), String> {
    if let Some(csv) = format.downcast_ref::<CsvFormat>() {
        words.text("csv");
        words.text(&format!("{:?}", csv.options()));
    } else if let Some(json) = format.downcast_ref::<JsonFormat>() {
        words.text("json");
        words.text(&format!("{:?}", json.options()));
    } else if let Some(parquet) = format.downcast_ref::<ParquetFormat>() {
        let options = parquet.options();
        let crypto = &options.crypto;
        // Who encrypts a table does not want its rows in another file as they are.
        if crypto.file_decryption.is_some() || crypto.file_encryption.is_some() || crypto.factory_id.is_some()
        {
            return Err("is encrypted".into());
        }
        words.text("parquet");
        words.text(&format!("{:?}", options.global));
        let mut columns: Vec<_> = options.column_specific_options.iter().collect();
        columns.sort_unstable_by_key(|(name, _)| *name);
        words.text(&format!("{columns:?}"));
    } else if format.downcast_ref::<ArrowFormat>().is_some() {
        words.text("arrow");
    } else {
        return Err("is of a format that is not on the list".into());
    }
    Ok(())
}

/// Whether the owner of `table` has put something between the columns of its files and its own: as far as its picture does not
/// say that nobody did. A line of the picture with this indentation is one of the table itself, whatever is in its strings.
fn is_adapted(table: &ListingTable) -> bool {
    /// Looks at each line as it comes, and keeps none.
    #[derive(Default)]
    struct Lines {
        line: String,
        found: bool,
    }

    impl Write for Lines {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for part in text.split_inclusive('\n') {
                if self.line.len() <= NO_ADAPTER.len() {
                    self.line.push_str(part.trim_end_matches('\n'));
                }
                if part.ends_with('\n') {
                    self.found |= self.line == NO_ADAPTER;
                    self.line.clear();
                }
            }
            Ok(())
        }
    }

    let mut lines = Lines::default();
    write!(lines, "{table:#?}").is_err() || !lines.found
}

impl Version {
    /// Writes down which files they are.
    ///
    /// # Errors
    /// It is no version of files.
    pub(crate) fn describe(&self, words: &mut Words) -> Result<(), Refusal> {
        match self {
            Self::Files(files) => {
                files.describe(words);
                Ok(())
            }
            _ => Err(Refusal::new("table", "a table is no table of files")),
        }
    }
}

impl FileVersion {
    fn describe(&self, words: &mut Words) {
        words.count(self.files.len());
        for ObjectMeta { location, last_modified, size, e_tag, version } in &self.files {
            words.text(location.as_ref());
            words.text(&format!(
                "{}.{:09}",
                last_modified.timestamp(),
                last_modified.timestamp_subsec_nanos()
            ));
            words.number(*size);
            words.optional(e_tag.as_deref());
            words.optional(version.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::listing::{ListingOptions, ListingTableConfig, ListingTableUrl};
    use datafusion::physical_expr_adapter::DefaultPhysicalExprAdapterFactory;
    use datafusion::prelude::{SessionContext, col};
    use std::sync::Arc;

    fn config(options: ListingOptions) -> ListingTableConfig {
        let url = ListingTableUrl::parse("file:///nowhere/t/").unwrap();
        let schema = Schema::new(vec![Field::new("expr_adapter_factory: None,", DataType::Int64, true)]);
        ListingTableConfig::new(url).with_listing_options(options).with_schema(Arc::new(schema))
    }

    fn described(config: ListingTableConfig) -> Result<Vec<u8>, String> {
        let table = ListingTable::try_new(config).unwrap();
        let files = FileTable::new(&table, &SessionContext::new().state()).unwrap();
        let mut words = Words::default();
        describe(&files, &table, &mut words).map(|()| words.into_bytes())
    }

    fn csv() -> ListingOptions {
        ListingOptions::new(Arc::new(CsvFormat::default()))
    }

    #[test]
    fn what_makes_other_rows_of_the_same_files_is_another_table() {
        let mut all = std::collections::HashSet::new();
        let sorted = |asc| csv().with_file_sort_order(vec![vec![col("a").sort(asc, false)]]);
        for options in [
            csv(),
            csv().with_file_extension(".txt"),
            csv().with_table_partition_cols(vec![("p".into(), DataType::Int32)]),
            csv().with_table_partition_cols(vec![("p".into(), DataType::Utf8)]),
            sorted(true),
            sorted(false),
            ListingOptions::new(Arc::new(CsvFormat::default().with_has_header(false))),
            ListingOptions::new(Arc::new(CsvFormat::default().with_delimiter(b';'))),
            ListingOptions::new(Arc::new(JsonFormat::default())),
            ListingOptions::new(Arc::new(ArrowFormat)),
            ListingOptions::new(Arc::new(ParquetFormat::default())),
            ListingOptions::new(Arc::new(ParquetFormat::default().with_force_view_types(false))),
        ] {
            let words = described(config(options.clone())).unwrap();
            assert_eq!(words, described(config(options.clone())).unwrap());
            assert!(all.insert(words), "{options:?}");
        }
        let elsewhere = ListingTableUrl::parse("file:///nowhere/t/*.csv").unwrap();
        let mut globbed = config(csv());
        globbed.table_paths = vec![elsewhere];
        assert!(all.insert(described(globbed).unwrap()));
        let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
        assert!(all.insert(described(config(csv()).with_schema(Arc::new(schema))).unwrap()));
    }

    #[test]
    fn what_cannot_be_told_from_outside_is_refused() {
        let adapted = config(csv()).with_expr_adapter_factory(Arc::new(DefaultPhysicalExprAdapterFactory));
        assert!(described(adapted).unwrap_err().contains("adapted"));
        let sorted = csv().with_file_sort_order(vec![vec![(col("a") + col("a")).sort(true, true)]]);
        assert!(described(config(sorted)).unwrap_err().contains("by an expression"));
        let mut parquet = ParquetFormat::default().options().clone();
        parquet.crypto.factory_id = Some("keys".into());
        let encrypted = ParquetFormat::default().with_options(parquet);
        assert!(
            described(config(ListingOptions::new(Arc::new(encrypted)))).unwrap_err().contains("encrypted")
        );
    }
}
