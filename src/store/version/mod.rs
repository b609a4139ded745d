//! Which version of their data the tables of a query have: looked up in the data itself, never in a cache of it.
//!
//! | table | its version |
//! |---|---|
//! | files (`ListingTable`) | path, size, time of change, entity tag and version of every file, from the object store itself |
//! | in memory (`MemTable`) | the very arrays that it holds, whoever put them there |
//! | declared ([`TableVersions`]) | what the owner says |
//! | a view | none of its own: its plan is a part of the query's |
//! | anything else | none: not kept, unless `slipstream.cache.max_age_ms` allows an age |
//!
//! A version is taken before a query is planned, again before its answer is kept, and again whenever the answer is given.

mod declared;
mod files;
mod local;
mod memory;
mod portable;

use std::sync::Arc;

use datafusion::catalog::{MemTable, Session};
use datafusion::common::Result;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::listing::{ListingTable, PartitionedFile};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::object_store::ObjectMeta;
use datafusion::physical_plan::ExecutionPlan;

pub use declared::TableVersions;
pub(crate) use files::FileIdentity;
use files::{FileTable, FileVersion};
use memory::MemoryVersion;

use crate::clock::Clock;
use crate::fingerprint::{Pin, Refusal, ScannedTable, Token};

/// A table of a query, with what it takes to look up its version. It holds nothing of the session.
#[derive(Debug, Clone)]
pub(crate) struct VersionedTable {
    table: ScannedTable,
    source: Source,
}

/// How a table's version is found.
#[derive(Debug, Clone)]
enum Source {
    Files(FileTable),
    Memory,
    /// It never has rows.
    Empty,
    Declared {
        id: String,
        by: Arc<dyn TableVersions>,
    },
    /// It has none, and the user allows answers of some age.
    Aging,
}

/// The data of one table at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Version {
    Files(FileVersion),
    Memory(MemoryVersion),
    Declared(String),
    /// The same at any time, as far as anybody can tell.
    Unknown,
}

impl Version {
    /// Whether this very file is one of its files.
    pub(crate) fn has_file(&self, file: &FileIdentity) -> bool {
        matches!(self, Self::Files(files) if files.has_identity(file))
    }
}

impl VersionedTable {
    /// How the version of `table` is found in `session`.
    ///
    /// # Errors
    /// It has none, or its object store is missing.
    pub(crate) fn new(
        table: ScannedTable,
        session: &dyn Session,
        declared: &[Arc<dyn TableVersions>],
        aging: bool,
    ) -> Result<Self, Refusal> {
        let source = Self::source(&table, session, declared, aging)?;
        Ok(Self { table, source })
    }

    fn source(
        table: &ScannedTable,
        session: &dyn Session,
        declared: &[Arc<dyn TableVersions>],
        aging: bool,
    ) -> Result<Source, Refusal> {
        let provider = table.provider.as_ref();
        for by in declared {
            if let Some(id) = by.table(provider) {
                return Ok(Source::Declared { id, by: Arc::clone(by) });
            }
        }
        if let Some(listing) = provider.downcast_ref::<ListingTable>() {
            return FileTable::new(listing, session).map(Source::Files).map_err(|error| {
                Refusal::new("table", format!("table {}: {}", table.name, error.strip_backtrace()))
            });
        }
        match () {
            () if provider.is::<MemTable>() => Ok(Source::Memory),
            () if provider.is::<EmptyTable>() => Ok(Source::Empty),
            () if aging => Ok(Source::Aging),
            () => Err(Refusal::new("table", format!("table {} has no version of its data", table.name))),
        }
    }

    /// The table as the query calls it.
    pub(crate) fn table(&self) -> &ScannedTable {
        &self.table
    }

    /// Which table it is, as a word of the key.
    pub(crate) fn token(&self) -> Token {
        match &self.source {
            Source::Declared { id, .. } => Token::Text(id.as_str().into()),
            _ => self.table.address(),
        }
    }

    /// What keeps the address in that word, where it is one.
    pub(crate) fn pin(&self) -> Option<Pin> {
        match &self.source {
            Source::Declared { .. } => None,
            _ => Some(self.table.pin()),
        }
    }

    /// Whether its version says nothing, so that only the age of an answer counts.
    pub(crate) fn is_aging(&self) -> bool {
        matches!(self.source, Source::Aging)
    }

    /// Its version at this moment.
    ///
    /// # Errors
    /// The store, or the owner of the table, does not say.
    pub(crate) async fn version(&self) -> Result<Version> {
        Ok(match &self.source {
            Source::Files(files) => Version::Files(files.version().await?),
            Source::Memory => match self.memory() {
                Some(table) => Version::Memory(MemoryVersion::of(table).await),
                None => Version::Unknown,
            },
            Source::Declared { by, .. } => Version::Declared(by.version(self.table.provider.as_ref()).await?),
            Source::Empty | Source::Aging => Version::Unknown,
        })
    }

    /// Whether its version is still `version`.
    ///
    /// # Errors
    /// As [`version`](Self::version).
    pub(crate) async fn is_still(&self, version: &Version) -> Result<bool> {
        match (version, &self.source, self.memory()) {
            (Version::Memory(version), _, Some(table)) => Ok(version.is_of(table).await),
            (Version::Files(version), Source::Files(files), _) => files.is_still(version).await,
            _ => Ok(self.version().await? == *version),
        }
    }

    fn memory(&self) -> Option<&MemTable> {
        self.table.provider.downcast_ref::<MemTable>()
    }

    /// Whether data of `version` cannot change without that its version changes. A file that was written a moment ago can be
    /// written again within the tick of its file system's clock.
    pub(crate) fn is_settled(&self, version: &Version, clock: &dyn Clock) -> bool {
        match (&self.source, version) {
            (Source::Files(files), Version::Files(version)) => files.is_settled(version, clock.system_time()),
            _ => true,
        }
    }

    /// Whether it is a table of files, each of which has a version.
    pub(crate) fn is_of_files(&self) -> bool {
        matches!(self.source, Source::Files(_))
    }

    /// `file` as one of `version`, where it is one of them; and whether it cannot be written again without that this shows.
    pub(crate) fn file(
        &self,
        version: &Version,
        file: &ObjectMeta,
        clock: &dyn Clock,
    ) -> Option<(FileIdentity, bool)> {
        match (&self.source, version) {
            (Source::Files(files), Version::Files(version)) => {
                let settled = files.is_settled_file(file, clock.system_time());
                Some((version.identity(file)?, settled))
            }
            _ => None,
        }
    }

    /// Drops what DataFusion keeps of this table's files, where it is of another version than `version`.
    pub(crate) fn forget_stale(&self, version: &Version) {
        if let (Source::Files(files), Version::Files(version)) = (&self.source, version) {
            files.forget_stale(version);
        }
    }
}

/// The versions of all of `tables`, looked up side by side.
///
/// # Errors
/// The first table whose version cannot be found.
pub(crate) async fn versions_of(tables: &[VersionedTable]) -> Result<Vec<Version>> {
    futures::future::try_join_all(tables.iter().map(VersionedTable::version)).await
}

/// Whether all of `tables` still have these versions. A table that does not say has not.
pub(crate) async fn are_current(tables: &[VersionedTable], versions: &[Version]) -> bool {
    if tables.len() != versions.len() {
        return false;
    }
    let looks = tables.iter().zip(versions).map(|(table, version)| table.is_still(version));
    match futures::future::try_join_all(looks).await {
        Ok(current) => current.into_iter().all(|current| current),
        Err(error) => {
            log::debug!("slipstream: the version of a table was not found: {error}");
            false
        }
    }
}

/// Whether every file that `plan` reads is a file of these versions. A list that somebody else's query left behind between the
/// look at the store and the plan may have others.
pub(crate) fn reads_these(plan: &dyn ExecutionPlan, tables: &[VersionedTable], versions: &[Version]) -> bool {
    // Who declares a version says what its files are.
    if tables.iter().any(|table| matches!(table.source, Source::Declared { .. } | Source::Aging)) {
        return true;
    }
    let known = |file: &PartitionedFile| {
        versions
            .iter()
            .any(|version| matches!(version, Version::Files(files) if files.has(&file.object_meta)))
    };
    let scan = plan.downcast_ref::<DataSourceExec>();
    let files = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    files.is_none_or(|files| files.file_groups.iter().flat_map(|group| group.iter()).all(known))
        && plan.children().into_iter().all(|child| reads_these(child.as_ref(), tables, versions))
}
