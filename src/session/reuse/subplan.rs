//! Aggregates, joins and windows whose rows are kept, or are to be kept, for other queries.
//!
//! ```text
//!   first query    counts the part                                         nothing else changes
//!   second query   Leaf { PlannedPartExec { Recorder { the part's plan }}} computed apart, kept when it is read to its end
//!   third query    Leaf { CachedResultExec }                               under the names that its columns have there
//! ```
//!
//! Queries are told apart by the key of the whole: one that is repeated is answered as a whole, and would keep its parts for
//! nobody. Materializing what queries have in common by how often it occurs is an old idea; see Zhou, Larson, Freytag and
//! Lehner, *Efficient Exploitation of Similar Subexpressions for Query Processing*, SIGMOD 2007, and, over time, the recycler
//! of `MonetDB` (Ivanova, Kersten, Nes, Gonçalves: *An Architecture for Recycling Intermediates in a Column-Store*, 2009).

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;

use super::leaf::leaf;
use super::{Parts, Top};
use crate::config::CacheMode;
use crate::fingerprint::Refusal;
use crate::operator::{CachedResultExec, PlannedPartExec, Recorder, recorded};
use crate::session::cache::{Asked, millis, time_to_live};
use crate::store::{CachedResult, Evicted, Limits, Tier, Version, VersionedTable};

/// A part with its key, and the versions of its tables from before it is planned.
pub(super) struct Subplan {
    asked: Asked,
    versions: Vec<Version>,
    /// In how many different queries it occurred, this one included.
    occurrences: usize,
}

impl Parts<'_> {
    /// `part` with its key and versions.
    ///
    /// # Errors
    /// It is not on the list, or one of its tables has no version.
    pub(super) async fn subplan(&mut self, part: &LogicalPlan) -> Result<Subplan, Refusal> {
        let asked = self.ask(part, "subplan")?;
        if asked.tables.is_empty() {
            return Err(Refusal::new("plan", "it reads no table"));
        }
        let mut versions = Vec::with_capacity(asked.tables.len());
        for table in &asked.tables {
            versions.push(self.version(table).await?);
        }
        let occurrences = match self.explains {
            true => 0,
            false => self.slipstream.results().occurs(&asked.key, self.query),
        };
        Ok(Subplan { asked, versions, occurrences })
    }

    /// A leaf that gives the rows of `part`, where they are kept.
    pub(super) fn kept_subplan(&mut self, part: &LogicalPlan, subplan: &Subplan) -> Option<LogicalPlan> {
        let store = self.slipstream.results();
        let entry =
            store.get(&subplan.asked.key).filter(|_| self.options.cache_mode != CacheMode::Refresh)?;
        let now = self.slipstream.clock().now();
        if entry.is_expired(now) {
            store.remove(&entry, Evicted::Expired);
            return None;
        }
        let ttl = time_to_live(self.options, entry.is_aging());
        if ttl.is_some_and(|ttl| entry.age(now) > ttl) {
            return None;
        }
        if entry.versions() != subplan.versions {
            store.remove(&entry, Evicted::Stale);
            return None;
        }
        let schema = named_as(&entry, part)?;
        if !self.explains {
            store.used_for_part(&entry, entry.cost());
        }
        self.said.subplans.push(format!("{} ({} rows) is kept", what(part, &subplan.asked), entry.rows));
        self.leaves += 1;
        Some(leaf(part, Arc::new(CachedResultExec::named(entry, schema)), self.leaves))
    }

    /// A leaf that computes `part` apart and keeps its rows, where other queries have asked for it.
    ///
    /// # Errors
    /// Where `part` has no plan.
    pub(super) async fn recorded_subplan(
        &mut self,
        part: &LogicalPlan,
        subplan: Subplan,
    ) -> Result<Option<LogicalPlan>> {
        let Subplan { asked, versions, occurrences } = subplan;
        let store = Arc::clone(self.slipstream.results());
        let keeps = matches!(self.options.cache_mode, CacheMode::Use | CacheMode::Refresh);
        let often = occurrences > self.options.cache_min_repeats.max(1);
        let settled = asked
            .tables
            .iter()
            .zip(&versions)
            .all(|(table, version)| table.is_settled(version, self.slipstream.clock().as_ref()));
        if self.explains || !keeps || !often || !settled || !store.may_attempt(&asked.key) {
            return Ok(None);
        }
        // Its plan is executed once: a second occurrence is planned with the rest.
        if self.recording.contains(&asked.key) {
            return Ok(None);
        }
        self.recording.push(Arc::clone(&asked.key));
        self.said.subplans.push(format!("{} is computed apart, to be kept", what(part, &asked)));
        let inner = Box::pin(self.rewrite(part, Top::Part)).await?;
        let session = self.scoped();
        let plan = self.base.plan(inner.as_ref().unwrap_or(part), &session).await?;
        store.attempt(&asked.key);
        let plan = recorded(plan, self.recorder_of(asked, versions));
        self.leaves += 1;
        Ok(Some(leaf(part, Arc::new(PlannedPartExec::new(plan)), self.leaves)))
    }

    fn recorder_of(&self, asked: Asked, versions: Vec<Version>) -> Recorder {
        let options = self.options;
        let aging = asked.tables.iter().any(VersionedTable::is_aging);
        Recorder {
            tier: Tier::Subplan,
            store: Arc::clone(self.slipstream.results()),
            clock: Arc::clone(self.slipstream.clock()),
            pool: Arc::clone(&self.session.runtime_env().memory_pool),
            key: asked.key,
            pins: asked.print.pins,
            tables: asked.tables,
            versions,
            limits: Limits {
                bytes: options.cache_max_entry_bytes,
                rows: options.cache_max_entry_rows,
                min_cost: millis(options.cache_min_cost_ms),
            },
            determined_below: None,
            tag: options.cache_tag.clone(),
            ttl: time_to_live(options, aging),
            shares: options.cache_mode == CacheMode::Use,
            keeps: true,
            on_disk: None,
            shape: None,
            derived: false,
            scope: self.scope.clone(),
        }
    }
}

/// The columns of `entry` with the names that `part` has for them; `None` where they are others.
fn named_as(entry: &CachedResult, part: &LogicalPlan) -> Option<SchemaRef> {
    let (kept, asked) = (entry.schema(), part.schema());
    let fields = kept.fields().iter().zip(asked.fields()).map(|(kept, asked)| {
        let same = kept.data_type() == asked.data_type() && (asked.is_nullable() || !kept.is_nullable());
        same.then(|| kept.as_ref().clone().with_name(asked.name()))
    });
    let fields: Vec<Field> = fields.collect::<Option<_>>()?;
    let all = fields.len() == kept.fields().len() && fields.len() == asked.fields().len();
    all.then(|| Arc::new(Schema::new_with_metadata(fields, kept.metadata().clone())))
}

/// `part` in a few words.
fn what(part: &LogicalPlan, asked: &Asked) -> String {
    let kind = match part {
        LogicalPlan::Aggregate(_) => "an aggregate",
        LogicalPlan::Join(_) => "a join",
        LogicalPlan::Window(_) => "a window",
        _ => "a part",
    };
    let tables: Vec<String> = asked.tables.iter().map(|table| table.table().name.to_string()).collect();
    format!("{kind} of {}", tables.join(", "))
}
