//! Round trips of every type, and what becomes of files that are wrong.

mod arrays;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::arrow::array::*;
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::*;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::fingerprint::Token;
use crate::memory::MemoryGovernor;
use crate::store::results::{Answer, Limits, Tier};

/// A tier in a directory of its own.
struct World {
    folder: tempfile::TempDir,
    governor: Arc<MemoryGovernor>,
    results: Arc<ResultStore>,
    tier: Arc<DiskTier>,
}

const LIMITS: Limits = Limits { bytes: 1 << 30, rows: 1 << 30, min_cost: Duration::ZERO };

impl World {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// Another process that finds what this one left.
    fn at(folder: tempfile::TempDir) -> Self {
        let governor: Arc<MemoryGovernor> = Arc::default();
        governor.settings().set_cache_disk_directory(folder.path().to_str().unwrap().into());
        let results = ResultStore::new(&governor);
        let tier = DiskTier::new(governor.settings(), &results);
        Self { folder, governor, results, tier }
    }

    fn restarted(self) -> Self {
        drop(self.tier);
        Self::at(self.folder)
    }

    /// Keeps an answer, in memory and on disk.
    fn put(&self, number: u64, schema: &SchemaRef, batches: &[RecordBatch]) -> Arc<CachedResult> {
        self.put_with(number, schema, batches, None)
    }

    fn put_with(
        &self,
        number: u64,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        ttl: Option<Duration>,
    ) -> Arc<CachedResult> {
        let answer = Answer {
            tier: Tier::Result,
            key: self.results.key(vec![Token::Number(usize::try_from(number).unwrap())]),
            schema: Arc::clone(schema),
            batches: batches.to_vec(),
            bytes: batches.iter().map(RecordBatch::get_array_memory_size).sum(),
            cost: Duration::from_millis(number),
            tables: vec![format!("t{number}")],
            versions: Vec::new(),
            aging: false,
            pins: Vec::new(),
            tag: "tag".into(),
            ttl,
            files: Vec::new(),
            shape: None,
            on_disk: None,
            aged: Duration::ZERO,
        };
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let result = self.results.put(answer, LIMITS, &pool, &SystemClock).unwrap();
        self.tier.write(&Arc::new(key(number)), b"versions", &result);
        self.tier.shared.queue.finish(PATIENCE);
        result
    }

    fn find_at(&self, number: u64, versions: &[u8], now: SystemTime) -> Option<DiskAnswer> {
        let key = key(number);
        self.tier.find(&Sought { key: &key, versions, now, max_age: None }).unwrap()
    }

    fn find(&self, number: u64) -> Option<DiskAnswer> {
        self.find_at(number, b"versions", SystemClock.system_time())
    }

    fn counted(&self, name: &str, reason: Option<&str>) -> f64 {
        let rows = self.tier.stats().rows();
        let is = |row: &&(&str, Option<&str>, f64)| row.0 == name && row.1 == reason;
        rows.iter().find(is).map_or(0.0, |row| row.2)
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn file(&self, number: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.answer", key(number).name()))
    }
}

fn key(number: u64) -> DiskKey {
    let mut words = Words::default();
    words.number(number);
    DiskKey::new(words)
}

fn numbers(rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap()
}

fn put_numbers(world: &World, number: u64) {
    let batch = numbers(100);
    world.put(number, &batch.schema(), &[batch]);
}

/// Metadata of the schema and of the column, and a name that is not one of SQL's.
fn schema_of(array: &ArrayRef, nullable: bool) -> SchemaRef {
    let told = [("key".to_owned(), "value".to_owned())];
    let field =
        Field::new("a \"b\".c", array.data_type().clone(), nullable).with_metadata(told.clone().into());
    Arc::new(Schema::new_with_metadata(vec![field], told.into()))
}

#[test]
fn every_type_comes_back_as_it_was() {
    let world = World::new();
    let (mut number, mut refused) = (0, Vec::new());
    for array in arrays::arrays() {
        let schema = schema_of(&array, true);
        let whole = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
        // A slice in the middle, and the whole, so that dictionaries and offsets do not begin at the first value.
        let batches = [whole.slice(1, 2), whole.clone()];
        number += 1;
        world.put(number, &schema, &batches);
        let Some(answer) = world.find(number) else {
            refused.push(whole.schema().field(0).data_type().clone());
            continue;
        };
        assert_eq!(answer.schema, schema);
        let read: Vec<_> = answer.batches().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, batches, "{}", schema.field(0).data_type());
        assert_eq!(read[0].schema(), schema);
    }
    assert!(number > 45, "{number}");
    // Not on disk, and so computed: what does not come back as it was is found by reading it back.
    assert_eq!(refused, [], "{:?}", world.tier.stats().rows());
}

#[test]
fn answers_without_rows_columns_or_nulls_come_back() {
    let world = World::new();
    let empty = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(7));
    let no_columns = RecordBatch::try_new_with_options(Arc::clone(&empty), vec![], &options).unwrap();
    let some = numbers(3);
    let never_null = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let strict = schema_of(&never_null, false);
    let never_null = RecordBatch::try_new(Arc::clone(&strict), vec![never_null]).unwrap();
    for (number, (schema, batches)) in [
        (Arc::clone(&empty), vec![]),
        (empty, vec![no_columns.clone(), no_columns]),
        (some.schema(), vec![]),
        (some.schema(), vec![some.clone(), some]),
        (strict, vec![never_null]),
    ]
    .into_iter()
    .enumerate()
    {
        world.put(number as u64, &schema, &batches);
        let answer = world.find(number as u64).unwrap();
        assert_eq!(answer.schema, schema);
        assert_eq!(answer.header.rows, batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
        let read: Vec<_> = answer.batches().unwrap().map(Result::unwrap).collect();
        assert_eq!(read, batches);
        // As often as it is executed.
        assert_eq!(answer.batches().unwrap().count(), batches.len());
    }
}

#[test]
fn dictionaries_that_change_from_batch_to_batch_come_back() {
    let world = World::new();
    let batch = |values: [&str; 2]| {
        let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let keys = Int32Array::from(vec![Some(0), None, Some(1)]);
        RecordBatch::try_from_iter_with_nullable([(
            "d",
            Arc::new(DictionaryArray::new(keys, values)) as ArrayRef,
            true,
        )])
        .unwrap()
    };
    let batches = [batch(["a", "b"]), batch(["c", "a"]), batch(["a", "b"])];
    world.put(1, &batches[0].schema(), &batches);
    let read: Vec<_> = world.find(1).unwrap().batches().unwrap().map(Result::unwrap).collect();
    assert_eq!(read, batches);
}

/// An encoder that loses something is found out before anybody is given the file.
#[test]
fn a_batch_of_another_schema_than_the_answers_is_not_kept() {
    let world = World::new();
    let batch = numbers(3);
    let named = batch.schema().field(0).clone().with_metadata([("k".into(), "v".into())].into());
    world.put(1, &Arc::new(Schema::new(vec![named])), &[batch]);
    assert!(world.find(1).is_none());
    assert_eq!(world.counted("refused", Some("type")), 1.0);
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn what_was_written_is_there_after_a_restart_with_its_age() {
    let world = World::new();
    put_numbers(&world, 5);
    let world = world.restarted();
    let answer = world.find_at(5, b"versions", SystemClock.system_time() + Duration::from_secs(60)).unwrap();
    assert!((60..120).contains(&answer.age.as_secs()), "{:?}", answer.age);
    assert_eq!((answer.cost(), answer.header.rows), (Duration::from_millis(5), 100));
    let entries = world.tier.entries();
    assert_eq!(entries[0].1.header.tables, ["t5"]);
    assert_eq!(world.tier.size().0, 1);
}

#[test]
fn other_versions_another_key_and_another_time_are_no_answer() {
    let world = World::new();
    put_numbers(&world, 1);
    assert!(world.find_at(1, b"other", SystemClock.system_time()).is_none());
    assert_eq!(world.counted("evicted", Some("stale")), 1.0);
    assert!(!world.file(1).exists());
    // A file of the right name with another key in it.
    put_numbers(&world, 1);
    fs::rename(world.file(1), world.file(2)).unwrap();
    assert!(world.find(2).is_none() && !world.file(2).exists());
    let batch = numbers(1);
    let ttl = Some(Duration::from_secs(60));
    world.put_with(3, &batch.schema(), &[batch], ttl);
    let now = SystemClock.system_time();
    assert!(world.find_at(3, b"versions", now + Duration::from_secs(50)).is_some());
    let hour = Some(Duration::from_secs(1));
    let young =
        Sought { key: &key(3), versions: b"versions", now: now + Duration::from_secs(50), max_age: hour };
    assert!(world.tier.find(&young).unwrap().is_none() && world.file(3).exists(), "another may allow more");
    assert!(world.find_at(3, b"versions", now + Duration::from_secs(70)).is_none());
    assert_eq!(world.counted("evicted", Some("expired")), 1.0);
    assert!(!world.file(3).exists());
}

#[test]
fn a_clock_that_was_set_back_ends_what_has_an_end() {
    let world = World::new();
    let batch = numbers(1);
    world.put_with(1, &batch.schema(), std::slice::from_ref(&batch), Some(Duration::from_secs(60)));
    world.put(2, &batch.schema(), &[batch]);
    let before = SystemClock.system_time() - Duration::from_secs(3600);
    assert!(world.find_at(1, b"versions", before).is_none());
    assert!(world.find_at(2, b"versions", before).is_some());
}

/// Every place of a file, by classes: each makes it another file, which is deleted and counted.
#[test]
fn a_corrupt_byte_anywhere_is_a_miss_and_the_file_goes() {
    let world = World::new();
    put_numbers(&world, 1);
    let whole = fs::read(world.file(1)).unwrap();
    let places = (0..whole.len()).step_by(7).chain([whole.len() - 1, whole.len() - 9]);
    let mut corrupt = 0.0;
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        fs::write(world.file(1), &bytes).unwrap();
        assert!(world.find(1).is_none(), "{place}");
        assert!(!world.file(1).exists(), "{place}");
        corrupt += 1.0;
    }
    for length in [0, 1, 8, 15, 16, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(world.file(1), &whole[..length]).unwrap();
        assert!(world.find(1).is_none() && !world.file(1).exists(), "{length}");
        corrupt += 1.0;
    }
    assert_eq!(world.counted("evicted", Some("corrupt")), corrupt);
    fs::write(world.file(1), &whole).unwrap();
    assert!(world.find(1).is_some());
}

#[test]
fn a_directory_is_read_once_and_what_is_not_ours_stays() {
    let world = World::new();
    put_numbers(&world, 1);
    let at = |name: &str| world.folder.path().join(name);
    let digits = "0123456789abcdef0123456789abcdef";
    fs::write(at(&format!("{digits}.answer")), "no answer").unwrap();
    fs::write(at(&format!("{digits}-1-2.tmp")), "half an ans").unwrap();
    let held = File::create(at(&format!("{digits}-1-3.tmp"))).unwrap();
    held.lock().unwrap();
    for foreign in ["notes.txt", "x.answer", "a.tmp", "thesis.tmp", &format!("{digits}.tmp")] {
        fs::write(at(foreign), "somebody's").unwrap();
    }
    let mut other = fs::read(world.file(1)).unwrap();
    let build = other.windows(8).position(|part| part == b"datafusi").unwrap();
    other[build] = b'D';
    let length = usize::try_from(u64::from_le_bytes(other[8..16].try_into().unwrap())).unwrap();
    let sum = XxHash64::oneshot(length as u64, &other[16..16 + length]);
    other[16 + length..24 + length].copy_from_slice(&sum.to_le_bytes());
    fs::write(world.file(2), other).unwrap();
    let world = world.restarted();
    assert_eq!(world.tier.entries().len(), 1);
    let mut files = world.files();
    files.sort_unstable();
    let mut expected = vec![
        format!("{digits}-1-3.tmp"),
        format!("{digits}.tmp"),
        "a.tmp".into(),
        format!("{}.answer", key(1).name()),
        "notes.txt".into(),
        "thesis.tmp".into(),
        "x.answer".into(),
    ];
    expected.sort_unstable();
    assert_eq!(files, expected);
    for reason in ["corrupt", "version", "leftover"] {
        assert_eq!(world.counted("evicted", Some(reason)), 1.0, "{reason}");
    }
}

#[test]
fn the_bound_holds_and_what_is_used_and_dear_stays() {
    let world = World::new();
    put_numbers(&world, 1000);
    let bytes = world.tier.size().1;
    world.governor.settings().set_cache_disk_max_bytes(usize::try_from(bytes).unwrap() * 12);
    for number in 1..40 {
        put_numbers(&world, number);
        assert!(world.tier.size().1 <= bytes * 12);
        world.tier.gave(&world.find(1000).unwrap());
    }
    let on_disk: u64 =
        fs::read_dir(world.folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(world.tier.size().1, on_disk);
    assert!(world.counted("evicted", Some("size")) >= 27.0);
    // Of those that are about as old, the cheap one goes.
    assert!(world.find(39).is_some() && world.find(1).is_none());
    world.governor.settings().set_cache_disk_max_bytes(100);
    put_numbers(&world, 50);
    assert_eq!(world.counted("refused", Some("size")), 1.0);
    assert!(world.find(50).is_none());
}

#[test]
fn what_is_dropped_is_gone_from_disk_and_from_the_queue() {
    let world = World::new();
    put_numbers(&world, 1);
    put_numbers(&world, 2);
    assert_eq!(world.tier.drop_where(|_, tables, tag| tables == ["t1"] && tag == "tag"), 1);
    assert!(world.find(1).is_none() && world.find(2).is_some());
    let world = world.restarted();
    assert_eq!(world.tier.drop_where(|_, _, _| true), 1, "those of a process before, too");
    assert_eq!(world.files(), Vec::<String>::new());
}

#[test]
fn a_directory_that_cannot_be_used_says_so() {
    let world = World::new();
    let file = world.folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let place =
        |path: &Path| world.governor.settings().set_cache_disk_directory(path.to_str().unwrap().into());
    place(&file.join("below"));
    assert_eq!(world.tier.problem(), None, "nobody asked yet");
    let asked = key(1);
    let sought = Sought { key: &asked, versions: b"", now: SystemClock.system_time(), max_age: None };
    let refusal = world.tier.find(&sought).unwrap_err();
    assert!(refusal.reason.contains("a file/below' cannot be used: "), "{}", refusal.reason);
    assert_eq!(world.tier.problem().unwrap(), refusal.reason);
    // A directory that is missing is created, for this user alone.
    let missing = world.folder.path().join("some/where");
    place(&missing);
    assert!(world.tier.find(&sought).unwrap().is_none());
    assert!(missing.is_dir());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o777, 0o700);
        put_numbers(&world, 1);
        let file = missing.join(format!("{}.answer", key(1).name()));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_answer_that_left_memory_is_not_written() {
    let world = World::new();
    let batch = numbers(10);
    let result = world.put(1, &batch.schema(), &[batch]);
    let gone = Arc::downgrade(&result);
    world.results.drop_where(|_| true);
    drop(result);
    Queue::write(&world.tier.shared, Job { key: Arc::new(key(2)), versions: Vec::new(), result: gone });
    world.tier.shared.queue.finish(PATIENCE);
    assert!(!world.file(2).exists());
    assert_eq!(world.counted("refused", Some("gone")), 1.0);
}

#[test]
fn a_list_of_offsets_beyond_one_is_no_trouble() {
    let values: ArrayRef = Arc::new(Int32Array::from_iter_values(0..10));
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let list = ListArray::new(item, OffsetBuffer::new(vec![2, 5, 5, 9].into()), values, None);
    let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();
    let world = World::new();
    world.put(1, &batch.schema(), std::slice::from_ref(&batch));
    assert_eq!(world.find(1).unwrap().batches().unwrap().next().unwrap().unwrap(), batch);
}
