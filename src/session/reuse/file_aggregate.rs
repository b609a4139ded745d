//! Aggregates over tables of several files: what is kept of each file is given, and the others are read.
//!
//! ```text
//!   the part ─► its key, its table's version, what is kept of its files        (kept_files)
//!            ─► translated without rules: Final ◄─ Partial ◄─ … ◄─ scan        (two_steps)
//!            ─► each file of the scan: kept in its present version, or read    (split, tasks)
//!            ─► Partial, planned for one file                                  (one_file)
//!            ─► Final ◄─ FileAggregateExec, as a leaf
//! ```
//!
//! Which files a scan reads is DataFusion's to say (partitions that a filter leaves out are not among them); which version each
//! has is the object store's. A file that both do not agree about ends it: the plain plan stays.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::path::Path;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::aggregate_statistics::AggregateStatistics;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_planner::DefaultPhysicalPlanner;

use super::Parts;
use super::aggregates::why_not;
use super::leaf::leaf;
use crate::config::CacheMode;
use crate::fingerprint::Refusal;
use crate::operator::{
    FileAggregateExec, FileRecorder, FileTask, GivenFile, OneFilePlan, files_of, same_types,
};
use crate::scope::QueryScope;
use crate::session::cache::{Asked, millis};
use crate::session::scoped_session::ScopedSession;
use crate::store::{CachedResult, Limits, Version, VersionedTable};

/// The most files of a table: each has its entry in a list that is compared at each query.
const MAX_FILES: usize = 10_000;

/// How much longer than its share of all bytes the slowest partition may read.
const MAX_SKEW: f64 = 1.25;

type Plan = Arc<dyn ExecutionPlan>;

/// An aggregate as it is translated: two steps over one scan.
struct TwoSteps {
    last: Plan,
    partial: Plan,
    files: Vec<PartitionedFile>,
}

/// Files that are kept, and files that are read.
#[derive(Default)]
struct Split {
    given: Vec<GivenFile>,
    read: Vec<FileTask>,
    bytes: u64,
}

impl Parts<'_> {
    /// A leaf in the place of `part`, an aggregate, and what EXPLAIN says of it.
    ///
    /// # Errors
    /// Where DataFusion fails to rebuild a plan; `Ok(Err(..))` says why there is no leaf.
    pub(super) async fn file_aggregate(
        &mut self,
        part: &LogicalPlan,
    ) -> Result<Result<(LogicalPlan, String), Refusal>> {
        let found = match self.kept_files(part).await {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (asked, table, version, entry, keeps) = found;
        let steps = match self.two_steps(part).await {
            Ok(steps) => steps,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let split = match self.split(&steps, &table, &version, entry.as_ref()) {
            Ok(split) => split,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (given, files) = (split.given.len(), steps.files.len());
        let name = table.table().name.to_string();
        let tasks = match self.tasks(&split) {
            Ok(tasks) => tasks,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let one = match self.one_file(&steps).await? {
            Ok(one) => one,
            Err(why) => return Ok(Err(Refusal::new("plan", why))),
        };
        if !self.explains
            && let Some(entry) = &entry
            && given > 0
        {
            let saved: Duration = split.given.iter().map(|file| file.part().cost).sum();
            self.slipstream.results().used_for_part(entry, saved);
        }
        let schema = steps.partial.schema();
        let recorder = keeps.then(|| self.recorder(asked, table, &schema, split.given));
        let node = FileAggregateExec::new(one, schema, tasks, recorder, name.clone());
        let plan = replace_children_if_necessary(steps.last, vec![Arc::new(node)])?;
        self.leaves += 1;
        let said = format!("{given} of {files} files of {name} are kept");
        Ok(Ok((leaf(part, plan, self.leaves), said)))
    }

    /// The key of `part`, its table and the table's version, what is kept of it, and whether more is to be kept.
    async fn kept_files(
        &mut self,
        part: &LogicalPlan,
    ) -> Result<(Asked, VersionedTable, Version, Option<Arc<CachedResult>>, bool), Refusal> {
        if !is_over_one_scan(part) {
            return Err(Refusal::new(
                "plan",
                "the aggregate is over more than filters and projections of a table",
            ));
        }
        let asked = self.ask(part, "file aggregate")?;
        let [table] = &asked.tables[..] else {
            return Err(Refusal::new("plan", "the aggregate is over several tables, or none"));
        };
        let table = table.clone();
        if !table.is_of_files() {
            return Err(Refusal::new("table", format!("table {} is not one of files", table.table().name)));
        }
        let version = self.version(&table).await?;
        let store = self.slipstream.results();
        let entry = match self.options.cache_mode {
            CacheMode::Refresh => None,
            _ => store.get(&asked.key),
        };
        let often = self.explains || store.asked(&asked.key) > self.options.cache_min_repeats;
        let keeps = often && matches!(self.options.cache_mode, CacheMode::Use | CacheMode::Refresh);
        match entry.is_some() || keeps {
            true => Ok((asked, table, version, entry, keeps)),
            false => Err(Refusal::new("repeats", "it was not asked often enough to be kept file by file")),
        }
    }

    /// `part` as it is translated, where that is two steps over whole files.
    async fn two_steps(&self, part: &LogicalPlan) -> Result<TwoSteps, Refusal> {
        let failed =
            |error: datafusion::common::DataFusionError| Refusal::new("plan", error.strip_backtrace());
        let session = self.scoped().bare();
        let last = self.base.plan(part, &session).await.map_err(failed)?;
        let unlike = || Refusal::new("plan", "the aggregate is not planned in two steps");
        let of_mode = |plan: &Plan, modes: &[AggregateMode]| {
            plan.downcast_ref::<AggregateExec>().is_some_and(|node| modes.contains(node.mode()))
        };
        if !of_mode(&last, &[AggregateMode::Final, AggregateMode::FinalPartitioned]) {
            return Err(unlike());
        }
        let [partial] = last.children()[..] else { return Err(unlike()) };
        let partial = Arc::clone(partial);
        if !of_mode(&partial, &[AggregateMode::Partial]) {
            return Err(unlike());
        }
        let node = partial.downcast_ref::<AggregateExec>().ok_or_else(unlike)?;
        let partitions = self.session.config().target_partitions();
        if let Some(why) = why_not(node, partitions) {
            return Err(Refusal::new("function", why));
        }
        let config = self.session.config_options();
        let known = AggregateStatistics::new().optimize(Arc::clone(&last), config).map_err(failed)?;
        if !known.is::<AggregateExec>() {
            return Err(Refusal::new("cost", "statistics of the files answer it"));
        }
        let files = files_of(&partial).map_err(|why| Refusal::new("plan", why))?;
        match files.len() {
            0 | 1 => Err(Refusal::new("plan", "the table has no more than one file")),
            2..=MAX_FILES => Ok(TwoSteps { last, partial, files }),
            _ => Err(Refusal::new("plan", "the table has too many files")),
        }
    }

    /// Which files are kept in their present version, and which are read.
    fn split(
        &self,
        steps: &TwoSteps,
        table: &VersionedTable,
        version: &Version,
        entry: Option<&Arc<CachedResult>>,
    ) -> Result<Split, Refusal> {
        let clock = self.slipstream.clock();
        let ttl = Some(self.options.cache_ttl_ms).filter(|ttl| *ttl > 0).map(millis);
        let now = clock.now();
        let schema = steps.partial.schema();
        let entry = entry.filter(|entry| same_types(entry.schema(), &schema));
        let kept: Vec<GivenFile> = entry.into_iter().flat_map(GivenFile::all_of).collect();
        let kept: HashMap<&Path, &GivenFile> =
            kept.iter().map(|file| (file.part().file.path(), file)).collect();
        let mut split = Split::default();
        for file in &steps.files {
            split.bytes += file.object_meta.size;
            let Some((identity, settled)) = table.file(version, &file.object_meta, clock.as_ref()) else {
                return Err(Refusal::new(
                    "changed",
                    "files of a table were changed while the query was planned",
                ));
            };
            let is_current = |given: &&&GivenFile| {
                let young = ttl.is_none_or(|ttl| now.saturating_duration_since(given.part().created) <= ttl);
                given.part().file == identity && young
            };
            match kept.get(&file.object_meta.location).filter(is_current) {
                Some(given) => split.given.push(GivenFile::clone(given)),
                None => split.read.push(FileTask::Read(Box::new(file.clone()), settled.then_some(identity))),
            }
        }
        Ok(split)
    }

    /// Who reads which files: the largest first, each by the partition that has the least to read.
    ///
    /// # Errors
    /// Where a plain plan, which cuts large files into pieces, would be faster.
    fn tasks(&self, split: &Split) -> Result<Vec<Vec<FileTask>>, Refusal> {
        let config = self.session.config_options();
        let all = self.session.config().target_partitions().max(1);
        let partitions = all.min(split.read.len()).max(1);
        let mut tasks: Vec<(u64, Vec<FileTask>)> = vec![(0, Vec::new()); partitions];
        for (index, file) in split.given.iter().enumerate() {
            tasks[index % partitions].1.push(FileTask::Give(file.clone()));
        }
        let size = |task: &FileTask| match task {
            FileTask::Read(file, _) => file.object_meta.size,
            FileTask::Give(_) => 0,
        };
        let mut read = split.read.clone();
        read.sort_by_key(|task| Reverse(size(task)));
        for task in read {
            if let Some((bytes, tasks)) = tasks.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                *bytes += size(&task);
                tasks.push(task);
            }
        }
        let slowest = tasks.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
        let share = split.bytes as f64 / all as f64;
        // Smaller files are not cut into pieces.
        let small = config.optimizer.repartition_file_min_size as u64;
        match slowest > small && slowest as f64 > MAX_SKEW * share {
            true => Err(Refusal::new("cost", "one file is so large that several partitions should read it")),
            false => Ok(tasks.into_iter().map(|(_, tasks)| tasks).collect()),
        }
    }

    /// The partial aggregate of one file, by the rules of the session, without what depends on other files.
    async fn one_file(&self, steps: &TwoSteps) -> Result<Result<OneFilePlan, &'static str>> {
        let one = match OneFilePlan::new(&steps.partial, steps.files.clone())? {
            Ok(one) => one,
            Err(why) => return Ok(Err(why)),
        };
        let session = self.scoped().secluded();
        let planner = DefaultPhysicalPlanner::default();
        let optimized = planner.optimize_physical_plan(Arc::clone(one.plan()), &session, |_, _| {})?;
        if optimized.schema() != steps.partial.schema() {
            return Ok(Err("the rules of the session change its columns"));
        }
        OneFilePlan::new(&optimized, steps.files.clone())
    }

    fn recorder(
        &self,
        asked: Asked,
        table: VersionedTable,
        schema: &datafusion::arrow::datatypes::SchemaRef,
        given: Vec<GivenFile>,
    ) -> FileRecorder {
        let options = self.options;
        FileRecorder {
            store: Arc::clone(self.slipstream.results()),
            clock: Arc::clone(self.slipstream.clock()),
            pool: Arc::clone(&self.session.runtime_env().memory_pool),
            key: asked.key,
            pins: asked.print.pins,
            table,
            limits: Limits {
                bytes: options.cache_max_entry_bytes,
                rows: options.cache_max_entry_rows,
                min_cost: millis(options.cache_min_cost_ms),
            },
            tag: options.cache_tag.clone(),
            schema: Arc::clone(schema),
            given,
        }
    }

    /// The session for a plan of its own: what its rules report is not the query's.
    pub(super) fn scoped(&self) -> ScopedSession<'_> {
        let knowledge = self.slipstream.knowledge().for_query();
        ScopedSession::new(self.session, self.base, QueryScope::default(), &knowledge)
    }
}

/// Whether an aggregate is over nothing but filters and projections of one scan.
fn is_over_one_scan(part: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(aggregate) = part else { return false };
    let mut node = aggregate.input.as_ref();
    loop {
        node = match node {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::Filter(filter) => &filter.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::TableScan(_) => return true,
            _ => return false,
        }
    }
}
