//! Local files, looked at without the road through the object store, which opens every file and changes threads for it.
//!
//! What is said here is "certainly the same", or nothing: then the store is asked. So the entity tag may be made by the rules
//! of `object_store` as they are today; where it makes others one day, nothing is the same here, and the store says what is.

use std::fmt::Write;
use std::fs::{self, Metadata};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use datafusion::datasource::listing::ListingTableUrl;
use datafusion::object_store::{ObjectMeta, ObjectStore, path::Path};
use tokio::runtime::Handle;

/// What a table's URLs list, one list for each.
pub(super) type Lists = [Box<[ObjectMeta]>];

/// As many files are looked at where the query is planned: about a microsecond for each.
const FEW: usize = 32;

/// A look at a few files that takes longer than this is not at a local disk (or a disk that has gone to sleep).
const SLOW: Duration = Duration::from_millis(1);

/// So many looks after a slow one are made by another thread.
const DETOUR: u32 = 1000;

/// Looks that are still to be made by another thread, of this process.
static DETOURS: AtomicU32 = AtomicU32::new(0);

/// Whether `store` is that of the local files, and no wrapper around it. A store has no type to ask for; it has a name.
pub(super) fn is_local(store: &dyn ObjectStore) -> bool {
    cfg!(unix) && store.to_string() == "LocalFileSystem(file:///)"
}

/// Whether every file below `urls` certainly is as in `lists`, and there is no other one.
///
/// A disk that answers at once is asked on the thread that asks. Many files, and disks that once were slow (a network's), are
/// left to tokio's blocking threads, so that no other query waits for them.
pub(super) async fn is_still(urls: &Arc<[ListingTableUrl]>, lists: &Arc<Lists>) -> bool {
    let files: usize = lists.iter().map(|list| list.len()).sum();
    if let Ok(runtime) = Handle::try_current()
        && (files > FEW || take_detour())
    {
        let (urls, lists) = (Arc::clone(urls), Arc::clone(lists));
        return runtime.spawn_blocking(move || look(&urls, &lists)).await.unwrap_or(false);
    }
    let begun = now();
    let same = look(urls, lists);
    if begun.elapsed() > SLOW {
        DETOURS.store(DETOUR, Ordering::Relaxed);
    }
    same
}

/// Whether this look is one of those that go to another thread.
fn take_detour() -> bool {
    let left = DETOURS.load(Ordering::Relaxed);
    if left > 0 {
        DETOURS.store(left - 1, Ordering::Relaxed);
    }
    left > 0
}

#[expect(clippy::disallowed_methods, reason = "what a test's clock says is nothing about the disk")]
fn now() -> Instant {
    Instant::now()
}

fn look(urls: &[ListingTableUrl], lists: &Lists) -> bool {
    urls.len() == lists.len() && urls.iter().zip(lists).all(|(url, files)| is_list_of(url, files))
}

fn is_list_of(url: &ListingTableUrl, files: &[ObjectMeta]) -> bool {
    let mut name = Name::default();
    files.iter().all(|file| name.is(file))
        && match files {
            // The location names a file.
            [file] if !url.is_collection() && file.location == *url.prefix() => true,
            // All that are known are there; as many as there are, they are all.
            _ => name.of(url.prefix()).is_some_and(|folder| files_below(folder) == Some(files.len())),
        }
}

/// Room for names and tags, used again from file to file.
#[derive(Default)]
struct Name {
    path: String,
    tag: String,
}

impl Name {
    /// The local path of `location`, where the two are written alike: the store would decode other letters.
    fn of(&mut self, location: &Path) -> Option<&str> {
        let location = location.as_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.=".contains(&byte);
        if !location.bytes().all(plain) {
            return None;
        }
        self.path.clear();
        self.path.push('/');
        self.path.push_str(location);
        Some(&self.path)
    }

    /// Whether the file that is there now is `file`.
    fn is(&mut self, file: &ObjectMeta) -> bool {
        let Some(now) = self.of(&file.location).and_then(|path| fs::metadata(path).ok()) else {
            return false;
        };
        let Ok(changed) = now.modified() else { return false };
        now.is_file()
            && now.len() == file.size
            && changed == SystemTime::from(file.last_modified)
            && file.version.is_none()
            && file.e_tag.as_deref().is_some_and(|tag| self.tag_of(&now, changed) == Some(tag))
    }

    /// The tag that the store makes of a file: inode, microseconds and bytes, in hexadecimal.
    fn tag_of(&mut self, file: &Metadata, changed: SystemTime) -> Option<&str> {
        let micros = changed.duration_since(UNIX_EPOCH).ok()?.as_micros();
        self.tag.clear();
        write!(self.tag, "{:x}-{micros:x}-{:x}", inode(file)?, file.len()).ok()?;
        Some(&self.tag)
    }
}

#[cfg(unix)]
fn inode(file: &Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(file))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<u64> {
    None
}

/// How many files are below `folder`; `None` where that is not certain, as behind symbolic links, which the store follows.
fn files_below(folder: &str) -> Option<usize> {
    let mut files = 0;
    let mut open = vec![fs::read_dir(folder).ok()?];
    while let Some(entries) = open.last_mut() {
        let Some(entry) = entries.next() else {
            open.pop();
            continue;
        };
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        match () {
            () if kind.is_dir() => open.push(fs::read_dir(entry.path()).ok()?),
            // The store leaves out what it has begun to write: a name, '#', and digits.
            () if kind.is_file() && !entry.file_name().to_str()?.contains('#') => files += 1,
            () => return None,
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::object_store::local::LocalFileSystem;
    use futures::{TryStreamExt, executor::block_on};
    use std::fs::File;
    use tempfile::TempDir;

    /// A folder of files, as the store lists it.
    struct Folder {
        place: TempDir,
        url: ListingTableUrl,
        files: Box<[ObjectMeta]>,
    }

    impl Folder {
        fn new(names: &[&str]) -> Self {
            let place = TempDir::with_prefix("local").unwrap();
            for name in names {
                write(&place.path().join(name), "12345", 0);
            }
            let url = ListingTableUrl::parse(format!("{}/", place.path().display())).unwrap();
            let files = list(&url);
            Self { place, url, files }
        }

        /// What is said of the folder once `change` was made there; the store never finds the same where that is "yes".
        fn after(&self, change: impl FnOnce(&std::path::Path)) -> bool {
            change(self.place.path());
            let said = is_list_of(&self.url, &self.files);
            assert!(!said || list(&self.url) == self.files, "the store lists others");
            said
        }
    }

    fn list(url: &ListingTableUrl) -> Box<[ObjectMeta]> {
        let listed = LocalFileSystem::new().list(Some(url.prefix())).try_collect();
        let mut files: Vec<ObjectMeta> = block_on(listed).unwrap();
        files.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        files.into()
    }

    fn write(path: &std::path::Path, text: &str, seconds: u64) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)).unwrap();
    }

    type Change = fn(&std::path::Path);

    const NAMES: &[&str] = &["a.csv", "b=1/c=2/d.csv", "b=1/e_f-g.csv", ".hidden"];

    #[test]
    fn what_is_the_same_is_known_to_be() {
        assert!(is_local(&LocalFileSystem::new()));
        assert!(Folder::new(NAMES).after(|_| ()));
        assert!(Folder::new(NAMES).after(|place| fs::create_dir(place.join("empty")).unwrap()));
        assert!(Folder::new(NAMES).after(|place| write(&place.join("a.csv"), "54321", 0)));
    }

    #[test]
    fn what_changes_is_seen() {
        let changes: [(&str, Change); 9] = [
            ("one more", |place| write(&place.join("new.csv"), "12345", 0)),
            ("one more, deep down", |place| write(&place.join("b=1/c=2/new.csv"), "12345", 0)),
            ("one less", |place| fs::remove_file(place.join("a.csv")).unwrap()),
            ("another name", |place| fs::rename(place.join("a.csv"), place.join("z.csv")).unwrap()),
            ("another size", |place| write(&place.join("a.csv"), "123456", 0)),
            ("another time", |place| write(&place.join("a.csv"), "12345", 1)),
            ("a time that is another by nanoseconds", |place| {
                let changed = UNIX_EPOCH + Duration::new(1_700_000_000, 100);
                let file = File::options().write(true).open(place.join("a.csv")).unwrap();
                file.set_modified(changed).unwrap();
            }),
            ("another file of the same size and time", |place| {
                write(&place.join("n"), "54321", 0);
                fs::rename(place.join("n"), place.join("a.csv")).unwrap();
            }),
            ("a folder in its place", |place| {
                fs::remove_file(place.join("a.csv")).unwrap();
                fs::create_dir(place.join("a.csv")).unwrap();
            }),
        ];
        for (what, change) in changes {
            assert!(!Folder::new(NAMES).after(change), "{what}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_the_store() {
        for name in ["a b.csv", "ä.csv", "100%.csv", "a#1", "x:y"] {
            assert!(!Folder::new(&["a.csv", name]).after(|_| ()), "{name}");
        }
        #[cfg(unix)]
        for place in ["a.csv", "b=1"] {
            let linked = |at: &std::path::Path| std::os::unix::fs::symlink(at.join(place), at.join("l.csv"));
            assert!(!Folder::new(NAMES).after(|at| linked(at).unwrap()), "{place}");
        }
        let missing = ListingTableUrl::parse("/certainly/not/there/").unwrap();
        assert!(!is_list_of(&missing, &[]));
    }

    #[test]
    fn a_single_file_is_looked_at_by_itself() {
        let folder = Folder::new(&["a.csv", "b.csv"]);
        let url = ListingTableUrl::parse(folder.place.path().join("a.csv").to_string_lossy()).unwrap();
        let file = std::slice::from_ref(&folder.files[0]);
        assert!(is_list_of(&url, file));
        // What the location lists as a folder is more than that.
        assert!(!is_list_of(&folder.url, file));
        write(&folder.place.path().join("a.csv"), "1234", 0);
        assert!(!is_list_of(&url, file));
    }
}
