//! The one integration-test binary: each further one would link DataFusion again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod accounting;
mod bad_input;
mod batch_size;
mod cancel;
mod clustered_aggregate;
mod compact_views;
mod configuration;
mod front_door;
mod fused_filter;
mod hints;
mod key_filter;
mod late_materialization;
mod layering;
mod memory_faults;
mod memory_pool;
mod narrow_decimals;
mod nested_loop_join;
mod operator_metrics;
mod operators_within_limit;
mod outer_join_guard;
mod plan_cache;
mod plans;
mod random;
mod result_cache;
mod shared_subplan;
#[cfg(feature = "cli")]
mod shell;
mod slt;
mod small_query;
mod spill_join;
mod statistics;
mod stress;
mod support;
mod visible;
