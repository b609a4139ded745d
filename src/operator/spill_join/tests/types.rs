//! Each type of join, in both modes, under limits from ample to far too small.

use super::*;

/// 3000 build rows with some duplicate and NULL keys, about 270 kB; 2500 probe rows, half of which match.
fn sides() -> (Side, Side) {
    let key = |row: i64, domain: i64| (row % 17 != 3).then_some(row * 31 % domain);
    let side = |rows, domain| Side::ints((0..rows).map(|row| key(row, domain)), 256);
    (side(3000, 2000), side(2500, 4000))
}

const AMPLE: usize = 64 << 20;
/// Less than half of what a hash join of the build side needs, and less than what one of two partitions needs.
const HALF: usize = 250_000;
const TINY: usize = 100_000;

async fn every_type_within(limit: usize, spills: bool, change: impl Fn(&mut Case)) {
    let (left, right) = sides();
    for join_type in TYPES {
        for mode in MODES {
            let mut case = Case::new(left.clone(), right.clone(), join_type);
            case.mode = mode;
            change(&mut case);
            let ran = case.check(limit).await;
            assert_eq!(ran.spilled_bytes > 0, spills, "{join_type:?} {mode:?}: {}", ran.spilled_bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ample_memory_nothing_is_written() {
    every_type_within(AMPLE, false, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_the_memory_is_needed() {
    every_type_within(HALF, true, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_more_than_the_memory_is_needed() {
    every_type_within(TINY, true, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_and_a_projection_and_a_fair_pool() {
    every_type_within(TINY, true, |case| {
        case.filter = true;
        case.fair = true;
        case.projection = Some(vec![1]);
        case.batch_size = 100;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_column_at_all_is_projected() {
    let (left, right) = sides();
    for join_type in TYPES {
        let mut case = Case::new(left.clone(), right.clone(), join_type);
        case.projection = Some(Vec::new());
        case.check(TINY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_partition_and_many() {
    let (left, right) = sides();
    for join_type in TYPES {
        for (mode, partitions) in [(PartitionMode::CollectLeft, 1), (PartitionMode::CollectLeft, 7)] {
            let mut case = Case::new(left.clone(), right.clone(), join_type);
            (case.mode, case.partitions) = (mode, partitions);
            assert!(case.check(HALF).await.spilled_bytes > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_side() {
    let (left, right) = sides();
    let none = Side::ints(Vec::new(), 1);
    for join_type in TYPES {
        for mode in MODES {
            for (left, right, spills) in [(&none, &right, false), (&left, &none, true), (&none, &none, false)]
            {
                let mut case = Case::new(left.clone(), right.clone(), join_type);
                case.mode = mode;
                let ran = case.check(TINY).await;
                assert_eq!(ran.spilled_bytes > 0, spills, "{join_type:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_gives_that_many_rows_of_the_join() {
    let (left, right) = sides();
    for join_type in TYPES {
        for fetch in [0, 1, 700] {
            let mut case = Case::new(left.clone(), right.clone(), join_type);
            case.partitions = 1;
            let all = case.expected().await;
            case.fetch = Some(fetch);
            let ran = case.within(TINY).await;
            assert_eq!(ran.rows.len(), fetch.min(all.len()), "{join_type:?}");
            assert!(ran.rows.iter().all(|row| all.binary_search(row).is_ok()), "{join_type:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_is_the_plain_join_with_its_metrics_and_its_picture() {
    let (left, right) = sides();
    let case = Case::new(left, right, JoinType::Inner);
    let plan = case.spilling();
    let shown = |plan: &Arc<dyn ExecutionPlan>| {
        datafusion::physical_plan::displayable(plan.as_ref()).one_line().to_string()
    };
    assert_eq!(shown(&plan), shown(&case.plain()).replacen("Hash", "Spill", 1));
    let rows = collect(Arc::clone(&plan), case.context(Arc::default())).await.unwrap();
    let metrics = plan.metrics().unwrap();
    assert_eq!(metrics.sum_by_name("build_input_rows").unwrap().as_usize(), 3000);
    assert_eq!(metrics.output_rows(), Some(rows.iter().map(RecordBatch::num_rows).sum()));
    assert!(metrics.spilled_bytes().is_none());
}
