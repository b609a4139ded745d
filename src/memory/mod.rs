//! Memory: what one query holds of the pool.

mod query_pool;

pub use query_pool::QueryPool;
