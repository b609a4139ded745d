//! The same join with and without a memory limit: rows, memory and files.

mod faults;
mod keys;
mod random;
mod types;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect};
use datafusion::prelude::SessionConfig;
use tempfile::TempDir;

use super::SpillJoinExec;

/// No test waits longer for a join.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One side of a join.
#[derive(Debug, Clone)]
struct Side {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Side {
    /// Columns `k`, which `keys` are, `v`, the number of the row, and some text.
    fn of(keys: ArrayRef, batch_rows: usize) -> Self {
        let rows = keys.len();
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", keys.data_type().clone(), true),
            Field::new("v", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
        ]));
        let numbers: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row * 7 % 1000)));
        let text: ArrayRef = Arc::new(StringArray::from_iter(
            (0..rows).map(|row| (!row.is_multiple_of(11)).then(|| format!("{row:>60}"))),
        ));
        let all = RecordBatch::try_new(Arc::clone(&schema), vec![keys, numbers, text]).unwrap();
        Self::cut(&all, batch_rows)
    }

    /// `all` in batches.
    fn cut(all: &RecordBatch, batch_rows: usize) -> Self {
        let starts = (0..all.num_rows()).step_by(batch_rows);
        // Copies: a slice would take the memory of the whole.
        let copied = |start: usize| {
            let rows = batch_rows.min(all.num_rows() - start);
            let rows = UInt64Array::from_iter_values((start..start + rows).map(|row| row as u64));
            take_record_batch(all, &rows).unwrap()
        };
        Self { schema: all.schema(), batches: starts.map(copied).collect() }
    }

    /// Keys of integers, `None` for NULL.
    fn ints(keys: impl IntoIterator<Item = Option<i64>>, batch_rows: usize) -> Self {
        Self::of(Arc::new(Int64Array::from_iter(keys)), batch_rows)
    }

    /// In `partitions` partitions, by the hash of the columns `keys`, or in turns where there are none.
    fn source(&self, partitions: usize, keys: &[usize]) -> Arc<dyn ExecutionPlan> {
        let mut parts = vec![Vec::new(); partitions];
        for (index, batch) in self.batches.iter().enumerate() {
            if keys.is_empty() || partitions == 1 {
                parts[index % partitions].push(batch.clone());
                continue;
            }
            let columns: Vec<ArrayRef> = keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
            let mut hashes = vec![0; batch.num_rows()];
            create_hashes(&columns, &RandomState::with_seed(0), &mut hashes).unwrap();
            for (part, batches) in parts.iter_mut().enumerate() {
                let rows =
                    (0..batch.num_rows()).filter(|row| hashes[*row] % partitions as u64 == part as u64);
                let rows = UInt64Array::from_iter_values(rows.map(|row| row as u64));
                batches.push(take_record_batch(batch, &rows).unwrap());
            }
        }
        MemorySourceConfig::try_new_exec(&parts, Arc::clone(&self.schema), None).unwrap()
    }
}

/// One join.
#[derive(Debug, Clone)]
struct Case {
    left: Side,
    right: Side,
    on: Vec<usize>,
    join_type: JoinType,
    mode: PartitionMode,
    /// Of the probe side, and of the build side where the mode is `Partitioned`.
    partitions: usize,
    /// `left.v < right.v` as well.
    filter: bool,
    projection: Option<Vec<usize>>,
    null_equality: NullEquality,
    null_aware: bool,
    fetch: Option<usize>,
    batch_size: usize,
    fair: bool,
}

impl Case {
    fn new(left: Side, right: Side, join_type: JoinType) -> Self {
        Self {
            left,
            right,
            on: vec![0],
            join_type,
            mode: PartitionMode::CollectLeft,
            partitions: 2,
            filter: false,
            projection: None,
            null_equality: NullEquality::NullEqualsNothing,
            null_aware: false,
            fetch: None,
            batch_size: 512,
            fair: false,
        }
    }

    fn sources(&self) -> (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) {
        match self.mode {
            PartitionMode::Partitioned => {
                (self.left.source(self.partitions, &self.on), self.right.source(self.partitions, &self.on))
            }
            _ => (self.left.source(1, &[]), self.right.source(self.partitions, &[])),
        }
    }

    /// The plain join of `left` and `right`.
    fn join(
        &self,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let key = |schema: &SchemaRef, index: usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(Column::new(schema.field(index).name(), index))
        };
        let on =
            self.on.iter().map(|index| (key(&self.left.schema, *index), key(&self.right.schema, *index)));
        HashJoinExecBuilder::new(left, right, on.collect(), self.join_type)
            .with_filter(self.filter.then(less))
            .with_projection(self.projection.clone())
            .with_partition_mode(self.mode)
            .with_null_equality(self.null_equality)
            .with_null_aware(self.null_aware)
            .with_fetch(self.fetch)
            .build_exec()
    }

    fn plain(&self) -> Arc<dyn ExecutionPlan> {
        let (left, right) = self.sources();
        self.join(left, right).unwrap()
    }

    fn spilling(&self) -> Arc<dyn ExecutionPlan> {
        Arc::new(SpillJoinExec::try_new(self.plain()).unwrap())
    }

    fn context(&self, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
        let config = SessionConfig::new().with_batch_size(self.batch_size);
        Arc::new(TaskContext::default().with_session_config(config).with_runtime(runtime))
    }

    fn runtime(&self, limit: usize, directory: &Path) -> Arc<RuntimeEnv> {
        let pool: Arc<dyn MemoryPool> = if self.fair {
            Arc::new(FairSpillPool::new(limit))
        } else {
            Arc::new(GreedyMemoryPool::new(limit))
        };
        RuntimeEnvBuilder::new().with_memory_pool(pool).with_temp_file_path(directory).build_arc().unwrap()
    }

    /// What the plain engine gives with all the memory it wants.
    async fn expected(&self) -> Vec<String> {
        let context = self.context(Arc::new(RuntimeEnv::default()));
        sorted(&collect(self.plain(), context).await.unwrap())
    }

    /// What the spilling join gives within `limit` bytes, which it leaves as it found them.
    async fn within(&self, limit: usize) -> Ran {
        let directory = TempDir::new().unwrap();
        let runtime = self.runtime(limit, directory.path());
        let plan = self.spilling();
        let rows =
            tokio::time::timeout(TIMEOUT, collect(Arc::clone(&plan), self.context(Arc::clone(&runtime))));
        let rows = sorted(&rows.await.unwrap().unwrap());
        let metrics = plan.metrics().unwrap();
        let sum = |name| metrics.sum_by_name(name).map_or(0, |value| value.as_usize());
        let ran = Ran {
            rows,
            spilled_bytes: metrics.spilled_bytes().unwrap_or(0),
            depth: sum("recursion_depth"),
            passes: sum("block_passes"),
            output_rows: metrics.output_rows().unwrap_or(0),
        };
        // The plan is still there: what has ended holds nothing.
        freed(&runtime, directory.path()).await;
        drop(plan);
        ran
    }

    /// Checks the rows within `limit`, and what was spilled for them.
    async fn check(&self, limit: usize) -> Ran {
        let (expected, ran) = (self.expected().await, self.within(limit).await);
        assert_eq!(expected.len(), ran.rows.len(), "{:?} {:?} within {limit}", self.join_type, self.mode);
        assert_eq!(expected, ran.rows, "{:?} {:?} within {limit}", self.join_type, self.mode);
        assert_eq!(ran.output_rows, ran.rows.len(), "what is counted is what is given");
        ran
    }
}

/// What came of an execution.
#[derive(Debug)]
struct Ran {
    rows: Vec<String>,
    spilled_bytes: usize,
    depth: usize,
    passes: usize,
    output_rows: usize,
}

/// `left.v < right.v`.
fn less() -> JoinFilter {
    let field = |name| Field::new(name, DataType::Int64, false);
    let schema = Schema::new(vec![field("left"), field("right")]);
    let column = |name, index| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(name, index)) };
    let less = BinaryExpr::new(column("left", 0), Operator::Lt, column("right", 1));
    let indices =
        vec![ColumnIndex { index: 1, side: JoinSide::Left }, ColumnIndex { index: 1, side: JoinSide::Right }];
    JoinFilter::new(Arc::new(less), indices, Arc::new(schema))
}

/// Memory and files are given back; a blocking write that is under way is waited for.
async fn freed(runtime: &Arc<RuntimeEnv>, directory: &Path) {
    for _ in 0..500 {
        if runtime.memory_pool.reserved() == 0 && files(directory).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "{} bytes are still reserved, and there are {:?}",
        runtime.memory_pool.reserved(),
        files(directory)
    );
}

/// All files below `directory`.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// The rows as text, in an order of their own.
fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let Some(first) = batches.first() else { return Vec::new() };
    let all = concat_batches(&first.schema(), batches).unwrap();
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> =
        all.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let mut rows: Vec<String> = (0..all.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect();
    rows.sort_unstable();
    rows
}

/// All join types.
const TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

const MODES: [PartitionMode; 2] = [PartitionMode::CollectLeft, PartitionMode::Partitioned];
