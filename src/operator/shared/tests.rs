//! The operator by itself: consumers of all speeds, over a source that counts, fails, panics and waits.

#[cfg(test)]
mod consumers {
    use std::collections::VecDeque;
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringViewArray};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
    use datafusion::common::{Result, exec_err};
    use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, UnboundedMemoryPool};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::execution::{SendableRecordBatchStream, TaskContext};
    use datafusion::physical_plan::execution_plan::{replace_children_if_necessary, reset_plan_states};
    use datafusion::physical_plan::repartition::RepartitionExec;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use datafusion::physical_plan::union::UnionExec;
    use datafusion::physical_plan::{ExecutionPlan, Partitioning, collect};
    use futures::{FutureExt, StreamExt, TryStreamExt, stream};
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    use super::super::share;

    /// What a partition of the source does.
    #[derive(Debug, Clone)]
    enum Act {
        /// Gives these numbers.
        Rows(Vec<i64>),
        Fail(&'static str),
        Panic,
        /// Polls another consumer while the source is polled, and waits for ever.
        PollAnother(Another),
        /// Says that it has been polled, and waits until the other one has.
        Meet(Arc<Notify>, Arc<Notify>),
    }

    /// A consumer, and the waker that it is polled with.
    #[derive(Clone, Default)]
    struct Another(Arc<Mutex<Option<(SendableRecordBatchStream, Waker)>>>);

    impl fmt::Debug for Another {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Another")
        }
    }

    #[derive(Debug)]
    struct Source {
        acts: Vec<Act>,
        executed: Arc<AtomicUsize>,
    }

    fn schema() -> SchemaRef {
        let fields =
            vec![Field::new("n", DataType::Int64, false), Field::new("s", DataType::Utf8View, false)];
        Arc::new(Schema::new(fields))
    }

    fn batch(numbers: &[i64]) -> RecordBatch {
        let texts = numbers.iter().map(|n| format!("a text too long to be kept in a view: {n}"));
        let texts = StringViewArray::from_iter_values(texts);
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(texts)])
            .unwrap()
    }

    impl PartitionStream for Source {
        fn schema(&self) -> &SchemaRef {
            static SCHEMA: std::sync::OnceLock<SchemaRef> = std::sync::OnceLock::new();
            SCHEMA.get_or_init(schema)
        }

        fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
            self.executed.fetch_add(1, Ordering::SeqCst);
            let acts: VecDeque<Act> = self.acts.clone().into();
            let rows = stream::unfold(acts, |mut acts| async {
                loop {
                    return match acts.pop_front()? {
                        Act::Rows(numbers) => {
                            tokio::task::yield_now().await;
                            Some((Ok(batch(&numbers)), acts))
                        }
                        Act::Fail(message) => Some((exec_err!("{message}"), acts)),
                        Act::PollAnother(another) => {
                            if let Some((rows, waker)) = another.0.lock().as_mut() {
                                assert!(rows.poll_next_unpin(&mut Context::from_waker(waker)).is_pending());
                            }
                            futures::future::pending().await
                        }
                        Act::Panic => panic!("the source panics"),
                        Act::Meet(own, other) => {
                            own.notify_one();
                            other.notified().await;
                            continue;
                        }
                    };
                }
            });
            Box::pin(RecordBatchStreamAdapter::new(schema(), rows))
        }
    }

    /// A plan with a partition for each list of acts, and how often partitions of it were executed.
    fn source(partitions: Vec<Vec<Act>>) -> (Arc<dyn ExecutionPlan>, Arc<AtomicUsize>) {
        let executed = Arc::new(AtomicUsize::new(0));
        let partition =
            |acts| Arc::new(Source { acts, executed: Arc::clone(&executed) }) as Arc<dyn PartitionStream>;
        let partitions = partitions.into_iter().map(partition).collect();
        let plan = StreamingTableExec::try_new(schema(), partitions, None, None, false, None).unwrap();
        (Arc::new(plan), executed)
    }

    /// Batches of 8 numbers: `from..from + 8 * count`.
    fn numbers(from: i64, count: i64) -> Vec<Act> {
        (0..count).map(|i| Act::Rows((from + 8 * i..from + 8 * (i + 1)).collect())).collect()
    }

    fn context(pool: impl MemoryPool + 'static) -> Arc<TaskContext> {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().unwrap();
        Arc::new(TaskContext::default().with_runtime(runtime))
    }

    fn unbounded() -> Arc<TaskContext> {
        context(UnboundedMemoryPool::default())
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    /// The numbers, and that each has its text.
    async fn read(rows: SendableRecordBatchStream) -> Vec<i64> {
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        for batch in &batches {
            let (numbers, texts) =
                (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string_view());
            for row in 0..texts.len() {
                assert!(texts.value(row).ends_with(&format!(": {}", numbers.value(row))));
            }
        }
        values(&batches)
    }

    fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
        let metrics = plan.metrics().unwrap();
        match name {
            "output_rows" => metrics.output_rows().unwrap_or(0),
            "spilled_bytes" => metrics.spilled_bytes().unwrap_or(0),
            _ => metrics.sum_by_name(name).map_or(0, |value| value.as_usize()),
        }
    }

    const SECONDS: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_consumer_gets_all_rows_and_each_partition_runs_once() {
        let (plan, executed) = source(vec![numbers(0, 5), numbers(1000, 7)]);
        let consumers = share(&plan, 1, 3);
        let context = unbounded();
        let mut streams = Vec::new();
        for consumer in &consumers {
            for partition in 0..2 {
                streams.push((partition, consumer.execute(partition, Arc::clone(&context)).unwrap()));
            }
        }
        assert_eq!(executed.load(Ordering::SeqCst), 0, "nothing runs before it is polled");
        let reads = streams.into_iter().map(|(partition, rows)| async move { (partition, read(rows).await) });
        for (partition, rows) in futures::future::join_all(reads).await {
            let expected: Vec<i64> = if partition == 0 { (0..40).collect() } else { (1000..1056).collect() };
            assert_eq!(rows, expected);
        }
        assert_eq!(executed.load(Ordering::SeqCst), 2);
        assert_eq!(context.memory_pool().reserved(), 0);
    }

    #[tokio::test]
    async fn a_slow_consumer_finds_what_a_fast_one_has_read() {
        let (plan, executed) = source(vec![numbers(0, 50)]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        let mut slow = consumers[1].execute(0, Arc::clone(&context)).unwrap();
        let first = slow.next().await.unwrap().unwrap();
        let fast = consumers[0].execute(0, Arc::clone(&context)).unwrap();
        assert_eq!(read(fast).await, (0..400).collect::<Vec<_>>());
        let kept = context.memory_pool().reserved();
        assert!(kept > 49 * 8 * 8, "{kept}");
        assert_eq!(values(&[first]), (0..8).collect::<Vec<_>>());
        assert_eq!(read(slow).await, (8..400).collect::<Vec<_>>());
        assert_eq!(executed.load(Ordering::SeqCst), 1);
        assert_eq!(context.memory_pool().reserved(), 0);
        assert_eq!(metric(&consumers[0], "buffered_rows_peak"), 392);
        assert!(metric(&consumers[0], "buffered_bytes_peak") >= kept);
        assert_eq!(metric(&consumers[0], "spilled_bytes"), 0);
        assert_eq!(metric(&consumers[1], "output_rows"), 400);
    }

    #[tokio::test]
    async fn dropped_and_never_polled_consumers_hold_nobody_up() {
        let (plan, _) = source(vec![numbers(0, 50)]);
        let consumers = share(&plan, 1, 3);
        let context = unbounded();
        let never = consumers[2].execute(0, Arc::clone(&context)).unwrap();
        let mut limited = consumers[1].execute(0, Arc::clone(&context)).unwrap();
        limited.next().await.unwrap().unwrap();
        drop(limited);
        let all = consumers[0].execute(0, Arc::clone(&context)).unwrap();
        assert_eq!(read(all).await.len(), 400);
        assert!(context.memory_pool().reserved() > 0, "rows are kept for the one that may still be polled");
        drop(never);
        assert_eq!(context.memory_pool().reserved(), 0);
    }

    #[tokio::test]
    async fn the_source_stops_when_the_last_consumer_goes() {
        let (plan, _) = source(vec![numbers(0, 50)]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        let mut streams: Vec<_> =
            consumers.iter().map(|consumer| consumer.execute(0, Arc::clone(&context)).unwrap()).collect();
        streams[0].next().await.unwrap().unwrap();
        assert!(context.memory_pool().reserved() > 0);
        streams.clear();
        assert_eq!(context.memory_pool().reserved(), 0);
        tokio::task::yield_now().await;
        assert_eq!(metric(&consumers[0], "buffered_rows_peak"), 8, "nobody reads on");
    }

    /// One waits for the turn of another, who goes away: it has to be told.
    #[tokio::test]
    async fn who_waits_for_a_consumer_that_goes_is_woken() {
        struct Woken(AtomicUsize);

        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }

        let another = Another::default();
        let (plan, _) = source(vec![vec![Act::PollAnother(another.clone())]]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        let mut first = consumers[0].execute(0, Arc::clone(&context)).unwrap();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let second = consumers[1].execute(0, Arc::clone(&context)).unwrap();
        *another.0.lock() = Some((second, Waker::from(Arc::clone(&woken))));
        assert!(first.next().now_or_never().is_none());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        drop(first);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let second = another.0.lock().take();
        drop(second);
    }

    #[tokio::test]
    async fn without_memory_rows_wait_in_files() {
        for pool in [1, 4096] {
            let directory = tempfile::TempDir::new().unwrap();
            let runtime = RuntimeEnvBuilder::new()
                .with_memory_pool(Arc::new(FairSpillPool::new(pool)))
                .with_temp_file_path(directory.path())
                .build_arc()
                .unwrap();
            let context = Arc::new(TaskContext::default().with_runtime(runtime));
            let (plan, executed) = source(vec![numbers(0, 60)]);
            let consumers = share(&plan, 1, 4);
            let mut streams: VecDeque<_> =
                consumers.iter().map(|consumer| consumer.execute(0, Arc::clone(&context)).unwrap()).collect();
            // The second is in the middle of what is written, the third comes with the first for a while.
            let mut begun = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
            for (consumer, batches) in [(0, 3), (1, 13), (2, 1), (0, 20), (2, 24), (0, 9)] {
                for _ in 0..batches {
                    begun[consumer].extend(values(&[streams[consumer].next().await.unwrap().unwrap()]));
                }
            }
            for mut rows in begun {
                rows.extend(read(streams.pop_front().unwrap()).await);
                assert_eq!(rows, (0..480).collect::<Vec<_>>());
            }
            assert_eq!(executed.load(Ordering::SeqCst), 1);
            assert!(metric(&consumers[0], "spilled_bytes") > 0, "pool of {pool}");
            assert_eq!(metric(&consumers[0], "buffered_bytes_peak") > 0, pool > 1);
            assert_eq!(context.memory_pool().reserved(), 0);
            assert_eq!(files(directory.path()), 0);
        }
    }

    fn files(directory: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        entries.map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }

    #[tokio::test]
    async fn an_error_reaches_every_consumer_behind_the_rows_before_it() {
        let mut acts = numbers(0, 3);
        acts.push(Act::Fail("the disk is on fire"));
        acts.extend(numbers(24, 1));
        let (plan, _) = source(vec![acts]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        for consumer in &consumers {
            let mut rows = consumer.execute(0, Arc::clone(&context)).unwrap();
            for _ in 0..3 {
                rows.next().await.unwrap().unwrap();
            }
            let error = rows.next().await.unwrap().unwrap_err().to_string();
            assert!(error.contains("the disk is on fire"), "{error}");
            assert!(rows.next().await.is_none());
        }
        assert_eq!(context.memory_pool().reserved(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_the_others() {
        let (plan, _) = source(vec![vec![Act::Rows(vec![1]), Act::Panic]]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        let first = consumers[0].execute(0, Arc::clone(&context)).unwrap();
        let second = consumers[1].execute(0, Arc::clone(&context)).unwrap();
        let panicked = std::panic::AssertUnwindSafe(read(first)).catch_unwind().await;
        assert!(panicked.is_err());
        let second: Result<Vec<RecordBatch>> =
            tokio::time::timeout(SECONDS, second.try_collect()).await.unwrap();
        let error = second.unwrap_err().to_string();
        assert!(error.contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn a_plan_that_was_reset_or_runs_again_gives_all_its_rows_again() {
        let (plan, executed) = source(vec![numbers(0, 3), numbers(100, 3)]);
        // An exchange cannot be executed twice.
        let exchange = RepartitionExec::try_new(plan, Partitioning::RoundRobinBatch(2)).unwrap();
        let plan: Arc<dyn ExecutionPlan> = Arc::new(exchange);
        let union = UnionExec::try_new(share(&plan, 1, 2)).unwrap();
        let context = unbounded();
        let mut expected: Vec<i64> = (0..24).chain(100..124).flat_map(|n| [n, n]).collect();
        expected.sort_unstable();
        let mut plan: Arc<dyn ExecutionPlan> = union;
        for times in 1..4 {
            let mut rows = values(&collect(Arc::clone(&plan), Arc::clone(&context)).await.unwrap());
            rows.sort_unstable();
            assert_eq!(rows, expected);
            assert_eq!(executed.load(Ordering::SeqCst), 4 * times - 2);
            // Once more as it is.
            assert_eq!(
                collect(Arc::clone(&plan), Arc::clone(&context))
                    .await
                    .unwrap()
                    .iter()
                    .map(RecordBatch::num_rows)
                    .sum::<usize>(),
                96
            );
            assert_eq!(executed.load(Ordering::SeqCst), 4 * times);
            plan = reset_plan_states(plan).unwrap();
        }
        // Some consumers of one execution may be those of a part of the plan that was reset alone.
        let part = Arc::clone(plan.children()[1]);
        let rows = collect(reset_plan_states(part).unwrap(), Arc::clone(&context)).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 48);
    }

    #[tokio::test]
    async fn a_rewritten_subplan_is_what_all_consumers_run() {
        let (plan, executed) = source(vec![numbers(0, 3)]);
        let (other, other_executed) = source(vec![numbers(0, 3)]);
        let consumers = share(&plan, 1, 2);
        let rewritten = replace_children_if_necessary(Arc::clone(&consumers[0]), vec![other]).unwrap();
        let context = unbounded();
        for consumer in [&consumers[1], &rewritten] {
            assert_eq!(read(consumer.execute(0, Arc::clone(&context)).unwrap()).await.len(), 24);
        }
        assert_eq!((executed.load(Ordering::SeqCst), other_executed.load(Ordering::SeqCst)), (0, 1));
    }

    /// Partitions of a subplan may wait for each other: those of a join for its whole build side. A consumer that drops one
    /// of them unread must not keep the other one from coming to its end.
    #[tokio::test]
    async fn partitions_that_wait_for_each_other_are_read_on() {
        let (a, b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let meet = |own: &Arc<Notify>, other: &Arc<Notify>| Act::Meet(Arc::clone(own), Arc::clone(other));
        let (plan, _) =
            source(vec![vec![meet(&a, &b), Act::Rows(vec![1])], vec![meet(&b, &a), Act::Rows(vec![2])]]);
        let consumers = share(&plan, 1, 2);
        let context = unbounded();
        let first = consumers[0].execute(0, Arc::clone(&context)).unwrap();
        drop(consumers[0].execute(1, Arc::clone(&context)).unwrap());
        let rows = tokio::time::timeout(SECONDS, read(first))
            .await
            .expect("waits for a partition that nobody reads");
        assert_eq!(rows, [1]);
        // The other consumer is executed only now.
        assert_eq!(read(consumers[1].execute(1, Arc::clone(&context)).unwrap()).await, [2]);
        assert_eq!(read(consumers[1].execute(0, Arc::clone(&context)).unwrap()).await, [1]);
        assert_eq!(context.memory_pool().reserved(), 0);
    }
}
