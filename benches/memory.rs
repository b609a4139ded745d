//! What counting costs: a batch's worth of reserving and giving back, by DataFusion's pools and through the layer's.
//!
//! `cargo bench --workspace --all-features --bench memory`. Operators reserve a few times for each batch of 8192 rows, which
//! takes them from some ten to some hundred microseconds: a difference of a hundred nanoseconds is less than one percent.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool,
};
use datafusion::prelude::SessionContext;
use datafusion_slipstream::{QueryPool, Slipstream, SlipstreamContextExt};

const LIMIT: usize = 1 << 30;

/// A runtime's pool with the limit of the layer, as the shell and the harness have it.
fn limited() -> Arc<dyn MemoryPool> {
    let ctx = SessionContext::new();
    let slipstream = Slipstream::default().with_memory_limit(LIMIT);
    ctx.install_slipstream(slipstream).unwrap_or_else(|error| panic!("{error}"));
    Arc::clone(&ctx.runtime_env().memory_pool)
}

fn grow_and_shrink(c: &mut Criterion) {
    let unbounded: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let pools: [(&str, Arc<dyn MemoryPool>); 5] = [
        ("unbounded", Arc::clone(&unbounded)),
        ("layer, no limit", Arc::new(QueryPool::new(&unbounded))),
        ("greedy", Arc::new(GreedyMemoryPool::new(LIMIT))),
        ("fair", Arc::new(FairSpillPool::new(LIMIT))),
        ("layer, limit", limited()),
    ];
    let mut group = c.benchmark_group("grow_and_shrink");
    for (name, pool) in &pools {
        // As many as a query of some operators in two partitions has.
        let others: Vec<_> =
            (0..20).map(|i| MemoryConsumer::new(format!("other {i}")).register(pool)).collect();
        let reservation = MemoryConsumer::new("sort").with_can_spill(true).register(pool);
        for other in &others {
            other.grow(1000);
        }
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                reservation.try_grow(black_box(65_536)).unwrap_or_else(|error| panic!("{error}"));
                reservation.shrink(65_536);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, grow_and_shrink);
criterion_main!(benches);
