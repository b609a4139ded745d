//! What goes wrong: rows, or one clear error; and always all memory and files given back.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::{exec_err, internal_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, lit};
use datafusion::physical_plan::Partitioning;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, stream};

use crate::operator::spill_join::slots::InputSlots;

const TINY: usize = 100_000;

fn sides() -> (Side, Side) {
    (
        Side::ints((0..4000).map(|row| Some(row % 3000)), 128),
        Side::ints((0..4000).map(|row| Some(row % 5000)), 128),
    )
}

fn case(join_type: JoinType) -> Case {
    let (left, right) = sides();
    let mut case = Case::new(left, right, join_type);
    case.partitions = 1;
    case
}

/// An input of one partition.
fn input(
    schema: &SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> Arc<dyn ExecutionPlan> {
    let rows: SendableRecordBatchStream =
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), batches));
    InputSlots::filled(schema, rows)
}

/// The rows of `side`, and then what `last` does.
fn then(side: &Side, last: impl FnOnce() -> Result<RecordBatch> + Send + 'static) -> Arc<dyn ExecutionPlan> {
    let batches: Vec<Result<RecordBatch>> = side.batches.iter().cloned().map(Ok).collect();
    input(&side.schema, stream::iter(batches).chain(stream::once(async move { last() })))
}

/// Runs `plan`, which is to fail, and checks that nothing stays behind.
async fn error_of(
    case: &Case,
    plan: Arc<dyn ExecutionPlan>,
    runtime: &Arc<RuntimeEnv>,
    directory: &Path,
) -> String {
    let running = collect(plan, case.context(Arc::clone(runtime)));
    let error = tokio::time::timeout(TIMEOUT, running).await.unwrap().unwrap_err().to_string();
    freed(runtime, directory).await;
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_fails_half_way() {
    for join_type in [JoinType::Inner, JoinType::Full] {
        for build_fails in [true, false] {
            let case = case(join_type);
            let failing = |side| then(side, || exec_err!("the input broke"));
            let (left, right) = case.sources();
            let (left, right) =
                if build_fails { (failing(&case.left), right) } else { (left, failing(&case.right)) };
            let directory = TempDir::new().unwrap();
            let runtime = case.runtime(TINY, directory.path());
            let plan = Arc::new(SpillJoinExec::try_new(case.join(left, right).unwrap()).unwrap());
            let error = error_of(&case, plan, &runtime, directory.path()).await;
            assert!(error.contains("the input broke"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_panics_half_way() {
    for build_panics in [true, false] {
        let case = case(JoinType::Left);
        let panicking = |side| then(side, || panic!("the input panicked"));
        let (left, right) = case.sources();
        let (left, right) =
            if build_panics { (panicking(&case.left), right) } else { (left, panicking(&case.right)) };
        let directory = TempDir::new().unwrap();
        let runtime = case.runtime(TINY, directory.path());
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(SpillJoinExec::try_new(case.join(left, right).unwrap()).unwrap());
        let context = case.context(Arc::clone(&runtime));
        // A task of its own, as a server has for each query.
        let running = datafusion::common::runtime::SpawnedTask::spawn(collect(plan, context));
        let ended = tokio::time::timeout(TIMEOUT, running).await.unwrap();
        assert!(ended.is_err(), "a panic is not an answer");
        freed(&runtime, directory.path()).await;
    }
}

/// Drops the rows after each number of polls that makes a difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_while_it_builds_probes_and_joins_what_is_on_disk() {
    let case = case(JoinType::Full);
    let mut with_files = 0;
    for polls in (0..400).step_by(13) {
        let directory = TempDir::new().unwrap();
        let runtime = case.runtime(TINY, directory.path());
        let mut rows = case.spilling().execute(0, case.context(Arc::clone(&runtime))).unwrap();
        let mut over = false;
        for _ in 0..polls {
            let next = futures::future::poll_fn(|cx| std::task::Poll::Ready(rows.poll_next_unpin(cx))).await;
            if let std::task::Poll::Ready(None) = next {
                over = true;
                break;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        with_files += usize::from(!files(directory.path()).is_empty());
        drop(rows);
        freed(&runtime, directory.path()).await;
        if over {
            break;
        }
    }
    // How many depends on how fast files are written.
    assert!(with_files > 1, "{with_files} were dropped with files");
}

/// Partitions of a shared build side that are dropped, or never polled, do not keep the others from their rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_nobody_polls() {
    let (left, right) = sides();
    let mut case = Case::new(left, right, JoinType::RightAnti);
    case.partitions = 3;
    let directory = TempDir::new().unwrap();
    let runtime = case.runtime(TINY, directory.path());
    let context = case.context(Arc::clone(&runtime));
    let plan = case.spilling();
    drop(plan.execute(0, Arc::clone(&context)).unwrap());
    let never_polled = plan.execute(1, Arc::clone(&context)).unwrap();
    let rows: Vec<_> = plan.execute(2, context).unwrap().collect().await;
    let rows: usize = rows.into_iter().map(|batch| batch.unwrap().num_rows()).sum();
    assert!(rows > 0);
    assert!(plan.metrics().unwrap().spilled_bytes().unwrap() > 0);
    drop((never_polled, plan));
    freed(&runtime, directory.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    let case = case(JoinType::Right);
    let mut purposes = Vec::new();
    for kilobytes in [10, 60, 150, 200, 250, 300] {
        let directory = TempDir::new().unwrap();
        let manager = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![directory.path().to_owned()]))
            .with_max_temp_directory_size(kilobytes << 10);
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(TINY));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(manager);
        let runtime = runtime.build_arc().unwrap();
        let running = collect(case.spilling(), case.context(Arc::clone(&runtime)));
        if let Err(error) = tokio::time::timeout(TIMEOUT, running).await.unwrap() {
            let error = error.to_string();
            assert!(error.contains("max_temp_directory_size"), "{error}");
            purposes.push(error.split(" does not fit").next().unwrap().to_owned());
        }
        freed(&runtime, directory.path()).await;
        assert_eq!(runtime.disk_manager.used_disk_space(), 0);
    }
    purposes.dedup();
    assert!(purposes.len() > 1, "during the build and during the probe: {purposes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_temporary_files_are_allowed() {
    let case = case(JoinType::Inner);
    let manager = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(TINY));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(manager);
    let runtime = runtime.build_arc().unwrap();
    let error = error_of(&case, case.spilling(), &runtime, Path::new("/nowhere")).await;
    assert!(error.contains("temporary files are disabled"), "{error}");
    assert!(error.contains("Resources exhausted"), "{error}");
}

/// A probe side that does `harm` to the spill files of the build side when it is read first.
fn harming(
    case: &Case,
    directory: &Path,
    harm: impl Fn(&Path) + Send + Sync + 'static,
) -> Arc<dyn ExecutionPlan> {
    let directory = directory.to_owned();
    let batches = case.right.batches.clone();
    let rows = stream::once(async move {
        files(&directory).iter().for_each(|file| harm(file));
        stream::iter(batches.into_iter().map(Ok))
    });
    input(&case.right.schema, rows.flatten())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_file_that_is_not_what_was_written() {
    fn change(file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(file, bytes).unwrap();
    }
    fn cut(file: &Path) {
        let length = std::fs::metadata(file).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2).unwrap();
    }
    fn lengthen(file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        bytes.extend_from_slice(&[0; 8]);
        std::fs::write(file, bytes).unwrap();
    }
    fn empty(file: &Path) {
        std::fs::write(file, []).unwrap();
    }
    fn remove(file: &Path) {
        std::fs::remove_file(file).unwrap();
    }
    for harm in [change, cut, lengthen, empty, remove] {
        let case = case(JoinType::Inner);
        let directory = TempDir::new().unwrap();
        let runtime = case.runtime(TINY, directory.path());
        let (left, _) = case.sources();
        let right = harming(&case, directory.path(), harm);
        let plan = Arc::new(SpillJoinExec::try_new(case.join(left, right).unwrap()).unwrap());
        let error = error_of(&case, plan, &runtime, directory.path()).await;
        assert!(error.contains("was changed, cut off or removed"), "{error}");
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_directory_that_is_removed() {
    let case = case(JoinType::Left);
    let directory = TempDir::new().unwrap();
    let inside = directory.path().join("spill");
    std::fs::create_dir(&inside).unwrap();
    let runtime = case.runtime(TINY, &inside);
    // The disk manager makes its directory with its first file.
    drop(runtime.disk_manager.create_tmp_file("first").unwrap());
    std::fs::remove_dir_all(&inside).unwrap();
    let error = error_of(&case, case.spilling(), &runtime, directory.path()).await;
    assert!(error.contains("could not be written to disk"), "{error}");
}

/// Every input is executed once, whatever the join then does with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_input_is_read_once() {
    for limit in [64 << 20, TINY] {
        let case = case(JoinType::Full);
        let read = Arc::new(AtomicUsize::new(0));
        let counted = |side: &Side| {
            let read = Arc::clone(&read);
            let batches: Vec<_> = side.batches.clone();
            let rows = stream::iter(batches).map(move |batch| {
                read.fetch_add(batch.num_rows(), Ordering::Relaxed);
                Ok(batch)
            });
            input(&side.schema, rows)
        };
        let join = case.join(counted(&case.left), counted(&case.right)).unwrap();
        let directory = TempDir::new().unwrap();
        let plan = Arc::new(SpillJoinExec::try_new(join).unwrap());
        let rows = collect(plan, case.context(case.runtime(limit, directory.path()))).await.unwrap();
        assert_eq!(sorted(&rows), case.expected().await);
        assert_eq!(read.load(Ordering::Relaxed), 8000);
    }
}

/// What remains of memory when a query fails is what was there before, also where the failure is the pool's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_side_that_fails_before_its_first_batch() {
    let case = case(JoinType::LeftMark);
    let directory = TempDir::new().unwrap();
    let runtime = case.runtime(TINY, directory.path());
    let left = input(&case.left.schema, stream::once(async { internal_err!("nothing came") }));
    let (_, right) = case.sources();
    let plan = Arc::new(SpillJoinExec::try_new(case.join(left, right).unwrap()).unwrap());
    let error = error_of(&case, plan, &runtime, directory.path()).await;
    assert!(error.contains("nothing came"), "{error}");
}

/// A join of two hash partitions with a dynamic filter that its probe side reads. One partition has nearly all build rows.
fn filtered(case: &Case) -> Arc<dyn ExecutionPlan> {
    let key: Arc<dyn PhysicalExpr> = Arc::new(Column::new("k", 0));
    let hashed = |side: &Side| {
        let partitions = Partitioning::Hash(vec![Arc::clone(&key)], 2);
        Arc::new(RepartitionExec::try_new(side.source(1, &[]), partitions).unwrap())
    };
    let filter = Arc::new(DynamicFilterPhysicalExpr::new(vec![Arc::clone(&key)], lit(true)));
    let right = FilterExec::try_new(Arc::clone(&filter) as _, hashed(&case.right)).unwrap();
    let join = case.join(hashed(&case.left), Arc::new(right)).unwrap();
    let join = join.downcast_ref::<HashJoinExec>().unwrap().builder().build().unwrap();
    Arc::new(SpillJoinExec::try_new(Arc::new(join.with_dynamic_filter_expr(filter).unwrap())).unwrap())
}

/// A partition that fits waits until the others have told their keys; those that spill, or that are dropped before they
/// begin, never do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dynamic_filter_is_waited_for_by_partitions_that_fit_only() {
    let left = Side::ints((0..4000).map(|row| Some(if row % 20 == 0 { row } else { 7 })), 128);
    let right = Side::ints((0..900).map(|row| Some(row * 5)), 128);
    let mut case = Case::new(left, right, JoinType::Inner);
    case.mode = PartitionMode::Partitioned;
    for dropped in [None, Some(0), Some(1)] {
        let directory = TempDir::new().unwrap();
        let runtime = case.runtime(400_000, directory.path());
        let (plan, context) = (filtered(&case), case.context(Arc::clone(&runtime)));
        let Some(dropped) = dropped else {
            let rows = tokio::time::timeout(TIMEOUT, collect(Arc::clone(&plan), context)).await;
            assert_eq!(sorted(&rows.unwrap().unwrap()), case.expected().await);
            let metrics = plan.metrics().unwrap();
            assert!(metrics.spilled_bytes().unwrap() > 0);
            let built = metrics.sum_by_name("build_input_rows").unwrap().as_usize();
            assert!(built > 0, "the other partition fits");
            continue;
        };
        let first = plan.execute(dropped, Arc::clone(&context)).unwrap();
        let rows = plan.execute(1 - dropped, context).unwrap();
        drop(first);
        let rows: Vec<_> = tokio::time::timeout(TIMEOUT, rows.collect()).await.unwrap();
        assert!(rows.into_iter().all(|batch| batch.is_ok()));
        drop(plan);
        freed(&runtime, directory.path()).await;
    }
}
