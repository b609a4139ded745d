//! Inputs and plans of unusual shapes: batches of one row, and very many partitions.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{Partitioning, PhysicalExpr, collect};
use datafusion::prelude::SessionContext;

use super::tables::{TABLES, Table};
use super::{Outcome, Session, TIME_LIMIT, WORK, Work, is_exhausted, small_batches};
use crate::support::{sorted_rows, sql};

/// So few rows, in batches of so many each.
fn register(ctx: &SessionContext, rows: i64, batch_rows: i64) {
    for table in &TABLES {
        let partitions = vec![table.batches(rows, batch_rows)];
        let table_of_rows = MemTable::try_new(Table::schema(), partitions).unwrap();
        ctx.register_table(table.name, Arc::new(table_of_rows)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_one_row_give_all_rows() {
    for work in WORK {
        let plain = SessionContext::new_with_config(small_batches(256));
        register(&plain, 300, 1);
        let expected = sorted_rows(&sql(&plain, work.query).await.unwrap());
        let mut answers = 0;
        for limit in [64 << 20, 400 << 10, 150 << 10, 60 << 10] {
            let session = Session::new(limit, small_batches(1));
            register(&session.ctx, 300, 1);
            let work = Work { may_fail: true, ..work };
            let outcome = session.run(&work).await;
            answers += usize::from(matches!(outcome, Outcome::Rows(_)));
            let what = format!("{} within {limit}", work.name);
            let error = outcome.error(&what, &work, &expected);
            assert!(error.is_none(), "{what}: {error:?}");
        }
        assert!(answers > 1, "{}: {answers} answers", work.name);
    }
}

/// A table of three partitions.
fn register_in_three(ctx: &SessionContext) {
    let batches = TABLES[0].batches(900, 300);
    let partitions = batches.into_iter().map(|batch| vec![batch]).collect();
    ctx.register_table("l", Arc::new(MemTable::try_new(Table::schema(), partitions).unwrap())).unwrap();
}

/// The plain engine takes time and memory with the square of the partitions: 3 seconds of unoptimised code for 1000, 5
/// minutes for 10,000, and a terabyte for 100,000.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_partitions_requested_are_one_error_or_rows() {
    let session = Session::new(64 << 20, small_batches(256).with_target_partitions(100_000));
    register_in_three(&session.ctx);
    for query in [
        "SELECT k, s, count(*), max(v) FROM l GROUP BY k, s",
        "SELECT v, count(*) OVER (PARTITION BY k) FROM (SELECT k, max(v) AS v FROM l GROUP BY k) g",
    ] {
        let work = Work { query, ..WORK[5] };
        let Outcome::Failed(error) = session.run(&work).await else { panic!("{query} has an answer") };
        let text = error.to_string();
        assert!(is_exhausted(&error) && text.contains("by 100000 partitions takes"), "{text}");
        assert!(text.contains("Lower datafusion.execution.target_partitions"), "{text}");
    }
    // What exchanges nothing is not touched.
    let work = Work { query: "SELECT k, v FROM l ORDER BY v", ..WORK[4] };
    let Outcome::Rows(rows) = session.run(&work).await else { panic!("no rows") };
    assert_eq!(rows.len(), 900);
}

/// As many as the limit has room for. The plain engine needs as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_of_many_partitions_give_all_rows() {
    for (partitions, limit) in [(2000, 64 << 20), (100_000, 1 << 30)] {
        let session = Session::new(limit, small_batches(256));
        register_in_three(&session.ctx);
        let table = session.ctx.table("l").await.unwrap().create_physical_plan().await.unwrap();
        let keys: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("k", 0))];
        for partitioning in [Partitioning::Hash(keys, partitions), Partitioning::RoundRobinBatch(partitions)]
        {
            let exchange = RepartitionExec::try_new(Arc::clone(&table), partitioning).unwrap();
            let all = Arc::new(CoalescePartitionsExec::new(Arc::new(exchange)));
            let rows = tokio::time::timeout(TIME_LIMIT, collect(all, session.ctx.task_ctx())).await;
            let rows: usize = rows.unwrap().unwrap().iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows, 900);
            session.assert_all_given_back("an exchange").await;
        }
    }
    let session = Session::new(64 << 20, small_batches(256).with_target_partitions(3000));
    register(&session.ctx, 900, 300);
    let plain = SessionContext::new_with_config(small_batches(256));
    register(&plain, 900, 300);
    let expected = sorted_rows(&sql(&plain, WORK[0].query).await.unwrap());
    let error = session.run(&WORK[0]).await.error("a join", &WORK[0], &expected);
    assert!(error.is_none(), "{error:?}");
}
