//! Many small spill files as parts of few large ones.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{DiskManager, SpillFile, SpillWriter, TempFileFactory};
use futures::{Stream, stream};
use parking_lot::Mutex;

/// Hands out spill files whose contents lie one behind the other in files of `disk`, which counts and limits them.
pub(super) struct PackedFiles(Arc<Packs>);

impl PackedFiles {
    /// Files of about `pack_bytes`.
    pub(super) fn new(disk: Arc<DiskManager>, pack_bytes: usize) -> Self {
        Self(Arc::new(Packs { disk, pack_bytes, open: Mutex::default() }))
    }
}

impl TempFileFactory for PackedFiles {
    fn create_temp_file(&self, _description: &str) -> Result<Arc<dyn SpillFile>> {
        Ok(Arc::new(Part { packs: Arc::clone(&self.0), place: Arc::default() }))
    }
}

/// The file that is written to, shared by all parts.
struct Packs {
    disk: Arc<DiskManager>,
    pack_bytes: usize,
    open: Mutex<Option<Pack>>,
}

struct Pack {
    file: Arc<dyn SpillFile>,
    writer: Box<dyn SpillWriter>,
    written_bytes: usize,
}

impl Packs {
    /// Writes `bytes` behind what was written before.
    ///
    /// The lock is held while a file is written, as DataFusion holds its own: the bytes go to the system's cache.
    fn append(&self, bytes: &[u8]) -> Result<Place> {
        let mut open = self.open.lock();
        // Taken out: after an error nobody knows how much of `bytes` was written, and the file must not be used.
        let mut pack = match open.take() {
            Some(pack) => pack,
            None => self.create()?,
        };
        pack.writer.write_all(bytes)?;
        pack.writer.flush()?;
        let place =
            Place { file: Arc::clone(&pack.file), begin_bytes: pack.written_bytes, bytes: bytes.len() };
        pack.written_bytes += bytes.len();
        // A file without a path is read from its beginning only, so it holds a single part.
        if pack.written_bytes < self.pack_bytes && pack.file.path().is_some() {
            *open = Some(pack);
        } else {
            pack.writer.finish()?;
        }
        Ok(place)
    }

    fn create(&self) -> Result<Pack> {
        let file = self.disk.create_tmp_file("RepartitionExec spill")?;
        let writer = file.open_writer()?;
        Ok(Pack { file, writer, written_bytes: 0 })
    }
}

/// Where a part lies. The file is deleted with the last place in it.
struct Place {
    file: Arc<dyn SpillFile>,
    begin_bytes: usize,
    bytes: usize,
}

/// A spill file that is a part of another, known once it was written.
struct Part {
    packs: Arc<Packs>,
    place: Arc<OnceLock<Result<Place, Arc<DataFusionError>>>>,
}

impl SpillFile for Part {
    fn size(&self) -> Option<u64> {
        let bytes = self.place.get()?.as_ref().map_or(0, |place| place.bytes);
        u64::try_from(bytes).ok()
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let place = match self.place.get() {
            Some(Ok(place)) => place,
            Some(Err(error)) => return Err(DataFusionError::from(error)),
            None => return internal_err!("a spilled batch is read before it was written"),
        };
        let Some(path) = place.file.path() else {
            return place.file.read_stream();
        };
        let path = path.to_owned();
        let (file, begin, bytes) = (Arc::clone(&place.file), place.begin_bytes, place.bytes);
        Ok(Box::pin(stream::once(async move {
            let read = SpawnedTask::spawn_blocking(move || {
                let contents = read_range(&path, begin, bytes);
                drop(file);
                contents
            });
            let contents = read.join().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok(Bytes::from(contents?))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let (packs, place) = (Arc::clone(&self.packs), Arc::clone(&self.place));
        Ok(Box::new(PartWriter { packs, place, contents: Vec::new() }))
    }
}

fn read_range(path: &Path, begin: usize, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(u64::try_from(begin).map_err(io::Error::other)?))?;
    let mut contents = vec![0; bytes];
    file.read_exact(&mut contents)?;
    Ok(contents)
}

/// Collects a part, one batch, and writes it at once.
struct PartWriter {
    packs: Arc<Packs>,
    place: Arc<OnceLock<Result<Place, Arc<DataFusionError>>>>,
    contents: Vec<u8>,
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.contents.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for PartWriter {
    /// Never fails: the reader, which waits for this part, is told.
    fn finish(&mut self) -> Result<()> {
        let placed = self.packs.append(&std::mem::take(&mut self.contents)).map_err(Arc::new);
        match self.place.set(placed) {
            Ok(()) => Ok(()),
            Err(_) => internal_err!("a spilled batch is written twice"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
    use futures::TryStreamExt;
    use std::path::PathBuf;

    fn disk(directory: PathBuf) -> Arc<DiskManager> {
        let mode = DiskManagerMode::Directories(vec![directory]);
        Arc::new(DiskManagerBuilder::default().with_mode(mode).build().unwrap())
    }

    fn write(files: &PackedFiles, contents: &[u8]) -> Arc<dyn SpillFile> {
        let file = files.create_temp_file("a test").unwrap();
        let mut writer = file.open_writer().unwrap();
        for half in contents.chunks(contents.len().div_ceil(2)) {
            writer.write_all(half).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    async fn read(file: &Arc<dyn SpillFile>) -> Result<Vec<u8>> {
        Ok(file.read_stream()?.try_collect::<Vec<_>>().await?.concat())
    }

    #[tokio::test]
    async fn parts_share_files_and_a_file_goes_with_its_last_part() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(directory.path().to_owned());
        let files = PackedFiles::new(Arc::clone(&disk), 100);
        let contents: Vec<Vec<u8>> = (0..10_u8).map(|part| vec![part; 30]).collect();
        let parts: Vec<_> = contents.iter().map(|contents| write(&files, contents)).collect();
        assert_eq!(
            disk.spilling_progress().active_files_count,
            3,
            "four parts fill a file of a hundred bytes"
        );
        assert_eq!(disk.used_disk_space(), 300);
        for (part, contents) in parts.iter().zip(&contents).rev() {
            assert_eq!((&read(part).await.unwrap(), part.size()), (contents, Some(30)));
        }
        drop(parts);
        assert_eq!(disk.spilling_progress().active_files_count, 1, "the one that is written to");
        drop(files);
        assert_eq!((disk.spilling_progress().active_files_count, disk.used_disk_space()), (0, 0));
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_the_reader_of_the_part_that_did_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(directory.path().to_owned());
        disk.set_max_temp_directory_size(50).unwrap();
        let files = PackedFiles::new(Arc::clone(&disk), 100);
        let fits = write(&files, &[1; 30]);
        let too_large = write(&files, &[2; 30]);
        disk.set_max_temp_directory_size(100).unwrap();
        let later = write(&files, &[3; 30]);
        assert_eq!(read(&fits).await.unwrap(), [1; 30]);
        assert!(read(&too_large).await.unwrap_err().to_string().contains("used disk space"));
        assert_eq!(read(&later).await.unwrap(), [3; 30]);
    }
}
