//! Who holds memory at this moment, on all levels.

use super::governor::MemoryGovernor;
use super::query_pool::Role;

/// One row of `slipstream.memory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// `process`, `query`, `operator` or `cache`.
    pub(crate) level: &'static str,
    /// The query, where it has a record.
    pub(crate) query_id: Option<u64>,
    /// The memory consumer's name, or what else holds it.
    pub(crate) name: String,
    /// Whether it can spill; of operators only.
    pub(crate) can_spill: Option<bool>,
    /// Bytes that it holds.
    pub(crate) reserved: usize,
    /// The most bytes that it held at one time.
    pub(crate) peak: usize,
    /// Its own limit, where it has one.
    pub(crate) limit: Option<usize>,
}

impl MemoryGovernor {
    /// What the process holds, then each query and cache that holds or held something, each with its operators.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        let some = |bytes: usize| Some(bytes).filter(|bytes| *bytes > 0);
        let (reserved, peak) = self.totals();
        let mut rows = vec![Usage {
            level: "process",
            query_id: None,
            name: "all queries and caches".to_owned(),
            can_spill: None,
            reserved,
            peak: peak.max(reserved),
            limit: some(self.settings().memory_limit()),
        }];
        for pool in self.pools().into_iter().filter(|pool| pool.peak_bytes() > 0) {
            let (level, query_id, name) = match pool.role() {
                Role::Query(id) => ("query", *id, pool.role().to_string()),
                Role::Outside => ("query", None, pool.role().to_string()),
                Role::Cache(name) => ("cache", None, name.clone()),
            };
            rows.push(Usage {
                level,
                query_id,
                name,
                can_spill: None,
                reserved: pool.reserved_bytes(),
                peak: pool.peak_bytes(),
                limit: some(pool.limit()),
            });
            if level == "query" {
                rows.extend(pool.holdings().into_iter().map(|holding| Usage {
                    level: "operator",
                    query_id,
                    name: holding.name,
                    can_spill: Some(holding.can_spill),
                    reserved: holding.held,
                    peak: holding.peak,
                    limit: None,
                }));
            }
        }
        rows
    }
}
