//! Files that are overwritten, added and removed, by whomever, with lists that are stale.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::path::Path as StorePath;
use datafusion::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{age, anew, ask, cached, external, plain, warm, write_aged};
use crate::support::{query, sql};

#[tokio::test]
async fn files_that_change_are_seen_with_the_list_warm() {
    let (ctx, slipstream) = cached().await;
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name);
    write_aged(&file("1.csv"), "1\n2\n", 100);
    external(&ctx, "f", folder.path()).await;
    for text in ["SELECT a FROM f", "SELECT count(*), sum(a) FROM f"] {
        warm(&ctx, &slipstream, text).await;
        write_aged(&file("2.csv"), "30\n", 50);
        anew(&ctx, &slipstream, text).await;
        warm(&ctx, &slipstream, text).await;
        // As many bytes.
        write_aged(&file("2.csv"), "31\n", 40);
        anew(&ctx, &slipstream, text).await;
        warm(&ctx, &slipstream, text).await;
        std::fs::remove_file(file("2.csv")).unwrap();
        anew(&ctx, &slipstream, text).await;
    }
}

/// The plain engine reads what DataFusion's own list says, which is stale for ever by default. A query through the cache must
/// not: it drops the stale list.
#[tokio::test]
async fn a_file_of_another_process_is_found_though_the_list_does_not_have_it() {
    let (ctx, slipstream) = cached().await;
    let folder = TempDir::new().unwrap();
    write_aged(&folder.path().join("1.csv"), "1\n", 100);
    external(&ctx, "f", folder.path()).await;
    let text = "SELECT sum(a) FROM f";
    warm(&ctx, &slipstream, text).await;
    let path = folder.path().join("2.csv");
    let written = Command::new("sh").arg("-c").arg(format!("echo 41 > '{}'", path.display())).status();
    assert!(written.unwrap().success());
    age(&path, 50);
    assert_eq!(
        plain(&ctx, text).await,
        ["1"],
        "DataFusion's list is not stale any more: this test checks nothing"
    );
    assert_eq!(ask(&ctx, &slipstream, text).await, ("stored".to_owned(), vec!["42".to_owned()]));
    assert_eq!(ask(&ctx, &slipstream, text).await.0, "hit");
}

#[tokio::test]
async fn a_file_that_was_written_this_moment_is_not_trusted() {
    let (ctx, slipstream) = cached().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("1.csv"), "1\n").unwrap();
    // A time without fractions of a second, as coarse clocks have.
    age(&folder.path().join("1.csv"), 0);
    external(&ctx, "f", folder.path()).await;
    let (outcome, rows) = ask(&ctx, &slipstream, "SELECT a FROM f").await;
    assert!(outcome.contains("a moment ago"), "{outcome}");
    assert_eq!(rows, ["1"]);
    age(&folder.path().join("1.csv"), 10);
    warm(&ctx, &slipstream, "SELECT a FROM f").await;
}

#[tokio::test]
async fn inserts_into_files_and_copies_over_them_are_seen() {
    let (ctx, slipstream) = cached().await;
    let folder = TempDir::new().unwrap();
    write_aged(&folder.path().join("1.csv"), "1\n", 100);
    external(&ctx, "f", folder.path()).await;
    let text = "SELECT a FROM f";
    warm(&ctx, &slipstream, text).await;
    query(&ctx, "INSERT INTO f VALUES (2)").await.unwrap();
    anew(&ctx, &slipstream, text).await;
    let target = folder.path().join("3.csv");
    let target = target.to_str().unwrap();
    age_all(folder.path());
    warm(&ctx, &slipstream, text).await;
    query(
        &ctx,
        &format!("COPY (SELECT 3) TO '{target}' STORED AS CSV OPTIONS ('format.has_header' 'false')"),
    )
    .await
    .unwrap();
    let (outcome, rows) = ask(&ctx, &slipstream, text).await;
    assert_ne!(outcome, "hit");
    assert_eq!(rows, ["1", "2", "3"]);
}

fn age_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        age(&entry.unwrap().path(), 30);
    }
}

/// A store whose times of change are always the same: only the entity tag tells one content from another.
#[derive(Debug)]
struct SameTime {
    inner: InMemory,
    first: Mutex<Option<ObjectMeta>>,
}

impl SameTime {
    fn again(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let mut first = self.first.lock();
        let first = first.get_or_insert_with(|| meta.clone());
        meta.last_modified = first.last_modified;
        meta
    }
}

impl fmt::Display for SameTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SameTime")
    }
}

#[async_trait]
impl ObjectStore for SameTime {
    async fn put_opts(&self, at: &StorePath, load: PutPayload, how: PutOptions) -> StoreResult<PutResult> {
        self.inner.put_opts(at, load, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &StorePath,
        how: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &StorePath, how: GetOptions) -> StoreResult<GetResult> {
        let mut result = self.inner.get_opts(at, how).await?;
        result.meta = self.again(result.meta);
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<StorePath>>,
    ) -> BoxStream<'static, StoreResult<StorePath>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let first = self.first.lock().clone();
        let same = move |mut meta: ObjectMeta| {
            if let Some(first) = &first {
                meta.last_modified = first.last_modified;
            }
            meta
        };
        self.inner.list(prefix).map(move |meta| meta.map(&same)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, how: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[tokio::test]
async fn the_same_size_and_time_with_another_tag_is_another_file() {
    let (ctx, slipstream) = cached().await;
    let store = Arc::new(SameTime { inner: InMemory::new(), first: Mutex::default() });
    let url = "same://bucket".parse().unwrap();
    ctx.register_object_store(&url, Arc::clone(&store) as _);
    let path = StorePath::from("f/1.csv");
    let put = async |text: &'static str| {
        store.put(&path, PutPayload::from_static(text.as_bytes())).await.unwrap();
        store.head(&path).await.unwrap();
    };
    put("1\n").await;
    let text = "CREATE EXTERNAL TABLE f (a BIGINT) STORED AS CSV LOCATION 'same://bucket/f/' \
                OPTIONS ('format.has_header' 'false')";
    sql(&ctx, text).await.unwrap();
    for text in ["SELECT sum(a) FROM f", "SELECT a FROM f"] {
        put("1\n").await;
        assert_eq!(ask(&ctx, &slipstream, text).await, ("stored".to_owned(), vec!["1".to_owned()]));
        assert_eq!(ask(&ctx, &slipstream, text).await.0, "hit");
        put("2\n").await;
        assert_eq!(ask(&ctx, &slipstream, text).await, ("stored".to_owned(), vec!["2".to_owned()]));
    }
}

#[tokio::test]
async fn an_answer_is_looked_at_again_only_after_the_staleness_that_is_allowed() {
    let (ctx, slipstream) = cached().await;
    let folder = TempDir::new().unwrap();
    write_aged(&folder.path().join("1.csv"), "1\n", 100);
    external(&ctx, "f", folder.path()).await;
    let text = "SELECT a FROM f";
    sql(&ctx, "SET slipstream.cache.max_staleness_ms = 3600000").await.unwrap();
    warm(&ctx, &slipstream, text).await;
    write_aged(&folder.path().join("1.csv"), "2\n", 50);
    assert_eq!(ask(&ctx, &slipstream, text).await, ("hit".to_owned(), vec!["1".to_owned()]));
    sql(&ctx, "SET slipstream.cache.max_staleness_ms = 0").await.unwrap();
    assert_eq!(ask(&ctx, &slipstream, text).await.1, ["2"]);
}
