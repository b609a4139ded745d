//! Grouped aggregates: what is refused while they read they spill, and what they ask for afterwards they get.

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::catalog::MemTable;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::{Limited, expected, small_batches};
use crate::support::{picture, query, single, sql};

/// 30,000 groups of texts.
const GROUPS: &str = "SELECT concat('name ', v % 30000) AS name, concat('a rather long address ', v % 30000) AS address, \
    count(*), min(v), max(concat('a comment ', v)) FROM generate_series(1, 90000) AS t(v) GROUP BY name, address";

async fn limited(megabytes: usize) -> Limited {
    let limited = Limited::new(1 << 40, small_batches(1024));
    query(&limited.ctx, &format!("SET slipstream.memory.limit = '{megabytes}MB'")).await.unwrap();
    limited
}

/// The smallest limit spills and the largest does not; between them is every way to run out when the input ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_the_same_at_every_limit() {
    let expected = expected(small_batches(1024), &[], GROUPS).await;
    let mut spilled = Vec::new();
    for megabytes in (3..=36).step_by(3) {
        let limited = limited(megabytes).await;
        let rows = limited.rows(GROUPS).await.unwrap_or_else(|error| panic!("in {megabytes} MB: {error}"));
        assert_eq!(rows, expected, "in {megabytes} MB");
        let last = "SELECT spilled_bytes > 0 FROM slipstream.queries WHERE status = 'finished' ORDER BY id DESC LIMIT 1";
        spilled.push(single(&sql(&limited.ctx, last).await.unwrap()));
    }
    assert_eq!(
        (spilled.first().unwrap().as_str(), spilled.last().unwrap().as_str()),
        ("true", "false"),
        "{spilled:?}"
    );
}

#[tokio::test]
async fn explain_says_which_aggregates_are_guarded() {
    let limited = limited(64).await;
    let text = picture(&sql(&limited.ctx, &format!("EXPLAIN {GROUPS}")).await.unwrap());
    assert!(text.contains("aggregates that get what they cannot spill: 2"), "{text}");
    let ungrouped = "EXPLAIN SELECT count(*), max(v) FROM generate_series(1, 9) AS t(v)";
    let text = picture(&sql(&limited.ctx, ungrouped).await.unwrap());
    assert!(!text.contains("aggregates that get"), "{text}");
}

/// A partial aggregate that is refused memory when it has no group, as after a batch without rows, has nothing to give early.
#[tokio::test]
async fn a_table_without_groups_is_not_refused_in_hardly_any_memory() {
    let query_text = "SELECT k, count(*), min(v) FROM t GROUP BY k";
    let limited = Limited::new(1 << 40, small_batches(1024));
    let rows = |numbers: Vec<i64>| {
        let column = || Arc::new(Int64Array::from(numbers.clone())) as _;
        RecordBatch::try_from_iter([("k", column()), ("v", column())]).unwrap()
    };
    let partitions = vec![vec![rows(vec![]), rows(vec![1, 2])], vec![rows(vec![]), rows(vec![2])]];
    let table = MemTable::try_new(rows(vec![]).schema(), partitions).unwrap();
    limited.ctx.register_table("t", Arc::new(table)).unwrap();
    let expected = limited.rows(query_text).await.unwrap();
    assert_eq!(expected.len(), 2);
    query(&limited.ctx, "SET slipstream.memory.limit = '1KB'").await.unwrap();
    assert_eq!(limited.rows(query_text).await.unwrap(), expected);
}

/// A partial aggregate gives its groups early, and leaves the memory to what has to keep them: some groups come more than once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_table_takes_a_small_part_of_the_memory() {
    let limited = limited(256).await;
    let expected = limited.rows(GROUPS).await.unwrap();
    let rows = async || {
        let plan = limited.ctx.sql(GROUPS).await.unwrap().create_physical_plan().await.unwrap();
        collect(Arc::clone(&plan), limited.ctx.task_ctx()).await.unwrap();
        let mut partial = plan;
        while !is_partial(&partial) {
            partial = Arc::clone(partial.children()[0]);
        }
        partial.metrics().unwrap().output_rows().unwrap()
    };
    let groups = rows().await;
    query(&limited.ctx, "SET slipstream.memory.limit = '32MB'").await.unwrap();
    let some_twice = rows().await;
    assert!(some_twice > groups, "{some_twice} of {groups}");
    assert_eq!(limited.rows(GROUPS).await.unwrap(), expected);
}

fn is_partial(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<AggregateExec>().is_some_and(|node| *node.mode() == AggregateMode::Partial)
}
