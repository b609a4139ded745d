//! The version of a table of files: what its object store says of every file, at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use datafusion::catalog::Session;
use datafusion::common::{Result, plan_datafusion_err};
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::execution::cache::TableScopedPath;
use datafusion::execution::cache::cache_manager::{
    CachedFileList, FileMetadataCache, FileStatisticsCache, ListFilesCache,
};
use datafusion::object_store::path::Path;
use datafusion::object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use futures::TryStreamExt;

use super::local::{self, Lists};

/// What it takes to list the files of a table past all caches, and the caches that may be stale.
#[derive(Clone)]
pub(super) struct FileTable {
    pub(super) urls: Arc<[ListingTableUrl]>,
    pub(super) store: Arc<dyn ObjectStore>,
    is_local: bool,
    file_extension: Arc<str>,
    ignore_subdirectory: bool,
    lists: Option<Arc<ListFilesCache>>,
    statistics: Option<Arc<FileStatisticsCache>>,
    footers: Arc<FileMetadataCache>,
}

impl std::fmt::Debug for FileTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileTable").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// All files of a table, by path; each with size, time of change, entity tag and version.
///
/// The store is a part of it, since another store under the same URL may have other files of the same names.
#[derive(Debug, Clone)]
pub(crate) struct FileVersion {
    store: Weak<dyn ObjectStore>,
    /// What each URL of the table lists, whether the table takes it or not, sorted by path.
    lists: Arc<Lists>,
    /// Those that the table reads, sorted by path.
    pub(super) files: Box<[ObjectMeta]>,
}

impl PartialEq for FileVersion {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.store, &other.store) && self.files == other.files
    }
}

impl FileVersion {
    /// Whether this very file is one of them.
    pub(super) fn has(&self, file: &ObjectMeta) -> bool {
        let place = self.files.binary_search_by(|known| known.location.cmp(&file.location));
        place.is_ok_and(|place| self.files[place] == *file)
    }

    /// This very file, where it is one of them.
    pub(super) fn identity(&self, file: &ObjectMeta) -> Option<FileIdentity> {
        self.has(file).then(|| FileIdentity { store: Weak::clone(&self.store), meta: file.clone() })
    }

    /// Whether it is one of them.
    pub(super) fn has_identity(&self, file: &FileIdentity) -> bool {
        Weak::ptr_eq(&self.store, &file.store) && self.has(&file.meta)
    }
}

/// One file, in one version, of one store.
#[derive(Debug, Clone)]
pub(crate) struct FileIdentity {
    store: Weak<dyn ObjectStore>,
    meta: ObjectMeta,
}

impl PartialEq for FileIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && Weak::ptr_eq(&self.store, &other.store)
    }
}

impl FileIdentity {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.meta.location
    }

    /// About how many bytes it takes beside itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.meta.location.as_ref().len() + text(&self.meta.e_tag) + text(&self.meta.version)
    }
}

/// A clock of a file system ticks some hundred times a second where it knows fractions of a second, else every other second
/// at worst.
const FINE_TICK: Duration = Duration::from_millis(100);
const COARSE_TICK: Duration = Duration::from_secs(2);

impl FileTable {
    pub(super) fn new(table: &ListingTable, session: &dyn Session) -> Result<Self> {
        let urls = table.table_paths();
        let first = urls.first().ok_or_else(|| plan_datafusion_err!("it has no location"))?;
        let runtime = session.runtime_env();
        let store = runtime.object_store(first)?;
        Ok(Self {
            is_local: local::is_local(store.as_ref()),
            store,
            urls: urls.as_slice().into(),
            file_extension: table.options().file_extension.as_str().into(),
            ignore_subdirectory: session.config_options().execution.listing_table_ignore_subdirectory,
            lists: runtime.cache_manager.get_list_files_cache(),
            statistics: runtime.cache_manager.get_file_statistic_cache(),
            footers: runtime.cache_manager.get_file_metadata_cache(),
        })
    }

    /// The files at this moment.
    pub(super) async fn version(&self) -> Result<FileVersion> {
        let lists = match self.remembered() {
            Some(lists) if local::is_still(&self.urls, &lists).await => lists,
            _ => futures::future::try_join_all(self.urls.iter().map(|url| self.list(url))).await?.into(),
        };
        let mut files: Vec<ObjectMeta> = Vec::new();
        for (url, list) in self.urls.iter().zip(lists.iter()) {
            files.extend(list.iter().filter(|file| self.takes(url, file)).cloned());
        }
        if self.urls.len() > 1 {
            files.sort_unstable_by(|one, other| one.location.cmp(&other.location));
            files.dedup_by(|one, other| one.location == other.location);
        }
        Ok(FileVersion { store: Arc::downgrade(&self.store), lists, files: files.into() })
    }

    /// What DataFusion has seen of local files: mostly still so, and sooner found to be than listed anew.
    fn remembered(&self) -> Option<Arc<Lists>> {
        let of = |url: &ListingTableUrl| -> Option<Box<[ObjectMeta]>> {
            if url.is_collection() {
                let mut files = self.lists.as_ref()?.get(&scoped(url, url.prefix()))?.files.to_vec();
                files.sort_unstable_by(|one, other| one.location.cmp(&other.location));
                return Some(files.into());
            }
            let at = scoped(url, url.prefix());
            let footer = self.footers.get(url.prefix()).map(|known| known.meta);
            let file = footer.or_else(|| self.statistics.as_ref()?.get(&at).map(|known| known.meta))?;
            Some(Box::new([file]))
        };
        self.is_local.then(|| self.urls.iter().map(of).collect())?
    }

    /// Whether the files are still those of `version`.
    pub(super) async fn is_still(&self, version: &FileVersion) -> Result<bool> {
        let same_store = std::ptr::addr_eq(version.store.as_ptr(), Arc::as_ptr(&self.store));
        if same_store && self.is_local && local::is_still(&self.urls, &version.lists).await {
            return Ok(true);
        }
        Ok(self.version().await? == *version)
    }

    /// Everything below a URL, sorted by path. One that names a single file is that file, where it is there.
    async fn list(&self, url: &ListingTableUrl) -> Result<Box<[ObjectMeta]>> {
        if !url.is_collection() {
            match self.store.head(url.prefix()).await {
                Ok(file) => return Ok(Box::new([file])),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut files: Vec<ObjectMeta> = self.store.list(Some(url.prefix())).try_collect().await?;
        files.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        Ok(files.into())
    }

    /// Whether the table reads this file of `url`, by the rules of DataFusion's own listing.
    fn takes(&self, url: &ListingTableUrl, file: &ObjectMeta) -> bool {
        file.size > 0
            && file.location.as_ref().ends_with(self.file_extension.as_ref())
            && url.contains(&file.location, self.ignore_subdirectory)
    }

    /// Whether none of the files was written so lately that it may be written again within the same tick of the clock that
    /// its time of change was read from. An entity tag that the store makes of the content, or counts up, settles a file at
    /// once; a local file's is made of its time.
    pub(super) fn is_settled(&self, version: &FileVersion, now: SystemTime) -> bool {
        version.files.iter().all(|file| self.is_settled_file(file, now))
    }

    /// The same of one file.
    pub(super) fn is_settled_file(&self, file: &ObjectMeta, now: SystemTime) -> bool {
        let local = self.urls.iter().any(|url| url.scheme() == "file");
        let tick = match file.last_modified.timestamp_subsec_nanos() {
            0 => COARSE_TICK,
            _ => FINE_TICK,
        };
        let changed = SystemTime::from(file.last_modified);
        let old = now.duration_since(changed).is_ok_and(|age| age > tick);
        old || (!local && file.e_tag.is_some())
    }

    /// Drops what DataFusion keeps of files that are others now: its lists live for ever by default, and what it knows of a
    /// file it checks by size and time alone.
    pub(super) fn forget_stale(&self, version: &FileVersion) {
        for (url, files) in self.urls.iter().zip(version.lists.iter()) {
            if let Some(lists) = &self.lists {
                let at = scoped(url, url.prefix());
                if lists.get(&at).is_some_and(|list| !is_same(&list, files)) {
                    lists.remove(&at);
                }
            }
            for file in files {
                let at = scoped(url, &file.location);
                if let Some(statistics) = &self.statistics
                    && statistics.get(&at).is_some_and(|known| known.meta != *file)
                {
                    statistics.remove(&at);
                }
                if self.footers.get(&file.location).is_some_and(|known| known.meta != *file) {
                    self.footers.remove(&file.location);
                }
            }
        }
    }
}

/// What DataFusion keeps of `path`, as part of a table, is kept under this.
fn scoped(url: &ListingTableUrl, path: &Path) -> TableScopedPath {
    TableScopedPath { table: url.get_table_ref().clone(), path: path.clone() }
}

/// Whether a list has these files, in whatever order.
fn is_same(list: &CachedFileList, files: &[ObjectMeta]) -> bool {
    let listed: HashMap<&Path, &ObjectMeta> = list.iter().map(|file| (&file.location, file)).collect();
    listed.len() == files.len() && files.iter().all(|file| listed.get(&file.location) == Some(&file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{CsvReadOptions, SessionContext};
    use tempfile::TempDir;

    async fn table(ctx: &SessionContext, name: &str) -> FileTable {
        let provider = ctx.table_provider(name).await.unwrap();
        FileTable::new(provider.downcast_ref::<ListingTable>().unwrap(), &ctx.state()).unwrap()
    }

    #[tokio::test]
    async fn what_a_query_has_seen_is_remembered_until_it_is_otherwise() {
        let folder = TempDir::with_prefix("remembered").unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let ctx = SessionContext::new();
        for (name, location) in [("one", path("b.csv")), ("all", path(""))] {
            std::fs::write(path("b.csv"), "a\n1\n").unwrap();
            std::fs::write(path("a.csv"), "a\n2\n").unwrap();
            ctx.register_csv(name, &location, CsvReadOptions::default()).await.unwrap();
            let table = table(&ctx, name).await;
            ctx.table(name).await.unwrap().collect().await.unwrap();
            let remembered = table.remembered().unwrap();
            let listed: Box<[_]> = table.list(&table.urls[0]).await.unwrap();
            assert_eq!(remembered.as_ref(), [listed], "{name}");
            std::fs::write(path("b.csv"), "a\n1\n2\n").unwrap();
            assert_eq!(table.remembered().unwrap(), remembered, "{name}");
            assert_ne!(table.version().await.unwrap().lists, remembered, "{name}");
        }
    }
}
