//! One plan, and what it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::environment::Environment;
use super::tables::{DetachedPlan, NamedTable};

/// A statement that was just planned.
#[derive(Debug)]
pub(crate) struct PlannedStatement {
    /// Who asked: a session, or a tag.
    pub(crate) owner: String,
    /// The text, as it is asked again.
    pub(crate) text: String,
    /// The statement in it, as the query log shows it.
    pub(crate) statement: String,
    /// What it was planned with.
    pub(crate) environment: Arc<Environment>,
    /// The tables that it names.
    pub(crate) tables: Vec<NamedTable>,
    /// The optimized plan.
    pub(crate) plan: LogicalPlan,
    /// How long it took from text to plan.
    pub(crate) cost: Duration,
    /// `slipstream.cache.tag`
    pub(crate) tag: String,
}

/// A plan in the cache.
#[derive(Debug)]
pub(crate) struct CachedPlan {
    pub(super) owner: String,
    pub(super) text: String,
    pub(super) statement: String,
    pub(super) environment: Arc<Environment>,
    pub(super) tables: Vec<NamedTable>,
    pub(super) plan: DetachedPlan,
    pub(super) cost: Duration,
    pub(super) tag: String,
    /// What finds it, and which of all that were found by that it is.
    pub(super) hash: u64,
    /// Counts up in each cache.
    pub(super) id: u64,
    /// What is reserved for it.
    pub(crate) bytes: usize,
    /// When it was put in.
    pub(crate) created: Instant,
    /// The same for people.
    pub(crate) created_at: SystemTime,
    pub(super) hits: AtomicU64,
    /// Given back with it.
    pub(super) _reservation: MemoryReservation,
}

impl CachedPlan {
    /// What it is known by to people.
    pub(crate) fn name(&self) -> String {
        format!("{:016x}-p{}", self.hash, self.id)
    }

    /// The statement, without comments around it.
    pub(crate) fn statement(&self) -> &str {
        &self.statement
    }

    /// The tables that its text names.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.name().to_string()).collect()
    }

    /// Its tag.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// How long it took to make.
    pub(crate) fn cost(&self) -> Duration {
        self.cost
    }

    /// How often it was used.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Whether all of its tables are still there.
    pub(crate) fn is_reachable(&self) -> bool {
        self.tables.iter().all(NamedTable::is_alive)
    }

    /// The plan, where `state` would plan its text in the same way now.
    pub(crate) async fn plan_in(&self, state: &SessionState, settings: &str) -> Option<LogicalPlan> {
        if !self.environment.is_of(state, settings) {
            return None;
        }
        for table in &self.tables {
            if !table.is_still_meant(state).await {
                return None;
            }
        }
        let plan = self.plan.attached();
        plan.inspect_err(|error| log::debug!("slipstream: a kept plan is of no use: {error}")).ok()
    }

    /// It was used once more.
    pub(super) fn used(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// About what one node, one expression and one column of a schema take, their allocations included. A test holds the sum
/// against what an allocator counts.
const NODE: usize = 320;
const EXPR: usize = 160;
const COLUMN: usize = 64;

/// About how many bytes `plan` takes.
///
/// # Errors
/// It cannot be walked.
pub(super) fn plan_bytes(plan: &LogicalPlan) -> Result<usize> {
    let mut bytes = 0;
    plan.apply_with_subqueries(|node| {
        bytes += NODE + schema_bytes(node.schema());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                bytes += EXPR;
                if let Expr::Literal(value, _) = expr {
                    bytes += value.size();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}

fn schema_bytes(schema: &DFSchema) -> usize {
    schema.fields().len() * COLUMN
}
