//! Scans filtered by the keys of the joins that their rows are on their way to.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};

use super::dynamic_filters::{BuildSide, DynamicFilters, Landing, Place};
use super::estimate::{ColumnEstimate, Known, source_columns};
use super::lineage::{ScanId, column_index, with_source};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{
    KeyDomain, KeyFilterExec, KeySet, KeyTest, collect_keys, filter_of, key_test, reads_keys,
};

type Plan = Arc<dyn ExecutionPlan>;

/// A filter that is expected to keep more than this share of a scan's rows is not worth a test for each row.
const USEFUL: f64 = 0.5;

/// 16 MiB of bits. What is larger no longer fits a cache, and a test costs as much as a look-up in the join's table.
const MAX_BITS: usize = 1 << 27;

/// Puts a [`KeyFilterExec`] above scans that the dynamic filter of a hash join has reached.
///
/// DataFusion's filter has done the difficult part: where it is found in a scan's predicate, rows without a partner may
/// be dropped there, whatever is between the scan and the join. The rule takes the same way for one key of the join, the
/// one that is expected to drop the most, as a bitmap:
///
/// | taken | |
/// |---|---|
/// | joins | that drop a probe row without a partner: inner, left, left and right semi, left anti; NULL equals nothing |
/// | keys | whole numbers of up to 64 bits and dates, plain columns on both sides, of which the file's statistics know the bounds, up to 2^27 values apart |
/// | scans | of Parquet files with at least `slipstream.key_filter.min_rows` rows, of which at most half are expected to be kept |
///
/// A reader that evaluates the join's filter itself gets the test in front of it, and needs no filter above.
///
/// Refuses where no scan is like that. Whether a filter is worth its tests is watched while it runs.
#[derive(Debug, Default)]
pub(crate) struct KeyFilter;

impl PhysicalRule for KeyFilter {
    fn name(&self) -> &'static str {
        "key_filter"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.key_filter_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Plan, config: &ConfigOptions) -> Result<Rewrite> {
        if is_recursive(&plan)? {
            return Ok(Rewrite::refused(
                plan,
                "the plan is recursive: a build side has other keys each time",
            ));
        }
        let min_rows = SlipstreamOptions::active(config).map_or(0, |options| options.key_filter_min_rows);
        let known = Known::of(config);
        let mut found = Found::default();
        let (joins, filters) = (joins(&plan), DynamicFilters::of(&plan, known)?);
        plan.apply(|node| {
            if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
                found.scan(scan, ScanId::of(node), (&joins, &filters), (known, min_rows as f64));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if found.sets.is_empty() {
            return Ok(Rewrite::refused(
                plan,
                "no scan has a join that is expected to drop half of its rows",
            ));
        }
        let rewritten = found.rewrite(&plan)?;
        Ok(Rewrite::applied(rewritten, found.picture.join("; ")))
    }
}

/// What the rule will do to a plan, for those that decide before it.
///
/// Nothing, where the rule is switched off and where it refuses the plan.
pub(super) struct Prospect<'a> {
    joins: HashMap<ScanId, Join<'a>>,
    min_rows: f64,
}

impl<'a> Prospect<'a> {
    /// Of `plan`, which must stay as it is meanwhile.
    pub(super) fn of(plan: &'a Plan, config: &ConfigOptions) -> Result<Option<Self>> {
        match SlipstreamOptions::active(config).filter(|options| options.key_filter_enabled) {
            Some(options) if !is_recursive(plan)? => {
                Ok(Some(Self { joins: joins(plan), min_rows: options.key_filter_min_rows as f64 }))
            }
            _ => Ok(None),
        }
    }

    /// The share of a scan's rows that pass the test that the rule will put in front of `filter`, if it will: no less than
    /// where the scan has only values that the build side's table has.
    pub(super) fn share(
        &self,
        filter: &Arc<dyn PhysicalExpr>,
        filters: &DynamicFilters,
        (id, source): (ScanId, &ParquetSource),
        (rows, columns): (f64, &[ColumnEstimate]),
    ) -> Option<f64> {
        if rows < self.min_rows {
            return None;
        }
        let (_, key) = best_key(filter, (&self.joins, filters), (id, source, columns))?;
        Some(key.share.max(key.kept))
    }
}

/// A join whose probe rows without a partner are dropped.
struct Join<'a> {
    node: &'a HashJoinExec,
    /// Where its build side's rows are met by as many partitions as produce them.
    source: &'a Plan,
}

fn is_recursive(plan: &Plan) -> Result<bool> {
    plan.exists(|node| Ok(node.is::<RecursiveQueryExec>()))
}

/// The joins of `plan`, by their addresses.
fn joins(plan: &Plan) -> HashMap<ScanId, Join<'_>> {
    let mut joins = HashMap::new();
    let mut nodes = vec![plan];
    while let Some(node) = nodes.pop() {
        nodes.extend(node.children());
        let Some(join) = node.downcast_ref::<HashJoinExec>() else { continue };
        let drops = matches!(
            join.join_type(),
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti
        );
        if drops && !join.null_aware && join.null_equality() == NullEquality::NullEqualsNothing {
            let mut source = join.left();
            while let Some(input) = moved(source) {
                source = input;
            }
            joins.insert(ScanId::of(node), Join { node: join, source });
        }
    }
    joins
}

/// The input of a node that only moves rows from partition to partition.
fn moved(plan: &Plan) -> Option<&Plan> {
    let moves = plan.is::<CoalescePartitionsExec>() || plan.is::<RepartitionExec>();
    plan.children().first().copied().filter(|_| moves)
}

/// What is to be done, by the addresses of the nodes that it is done to.
#[derive(Default)]
struct Found {
    tests: HashMap<ScanId, Vec<KeyTest>>,
    /// Scans whose readers test, as they are to be.
    readers: HashMap<ScanId, Plan>,
    /// By the nodes whose rows are looked at: the column, and the set that it fills.
    sets: HashMap<ScanId, Vec<(usize, Arc<KeySet>)>>,
    picture: Vec<String>,
}

/// One key of a join, and what a test for it is expected to do.
struct Candidate {
    /// The column of the build side.
    build: usize,
    /// The column of the scanned table, as the filter names it.
    landed: Arc<dyn PhysicalExpr>,
    name: String,
    domain: KeyDomain,
    /// Of the scanned rows.
    share: f64,
    /// The share of its table's values that the build side has. Between keys with gaps it tells more than the bounds do.
    kept: f64,
}

impl Found {
    fn scan(
        &mut self,
        scan: &DataSourceExec,
        id: ScanId,
        (joins, filters): (&HashMap<ScanId, Join<'_>>, &DynamicFilters),
        (known, min_rows): (Known<'_>, f64),
    ) {
        let Some((config, source)) = scan.downcast_to_file_source::<ParquetSource>() else { return };
        let (Some(predicate), Some((rows, columns))) = (source.filter(), source_columns(config, known))
        else {
            return;
        };
        if rows < min_rows {
            return;
        }
        let inside = source.table_parquet_options().global.pushdown_filters;
        let (mut conjuncts, mut sets) = (Vec::new(), Vec::new());
        for filter in split_conjunction(&predicate) {
            let best = best_key(filter, (joins, filters), (id, source, &columns));
            let test = best.and_then(|(join, key)| match inside {
                true => Some((join, key, None)),
                false => output_column(source, &key.landed).map(|column| (join, key, Some(column))),
            });
            if let Some((join, key, column)) = test {
                let keys = self.collect(join, &key);
                match column {
                    Some(column) => self.tests.entry(id).or_default().push(KeyTest { column, keys }),
                    None => {
                        conjuncts.push(key_test(key.landed, Arc::clone(&keys)));
                        sets.push(keys);
                    }
                }
            }
            conjuncts.push(Arc::clone(filter));
        }
        if !sets.is_empty() {
            let source = source.with_predicate(conjunction(conjuncts));
            self.readers.insert(id, reads_keys(with_source(scan, config, source), sets));
        }
    }

    /// The set of a key's values, which the join's build side is to fill.
    fn collect(&mut self, join: &Join<'_>, key: &Candidate) -> Arc<KeySet> {
        let writers = join.source.output_partitioning().partition_count();
        let keys = Arc::new(KeySet::new(key.domain, writers));
        self.sets.entry(ScanId::of(join.source)).or_default().push((key.build, Arc::clone(&keys)));
        self.picture.push(format!("{} keeps about {:.2} % of its scan", key.name, 100.0 * key.share));
        keys
    }

    /// `plan` with filters and collectors in it.
    fn rewrite(&self, plan: &Plan) -> Result<Plan> {
        let children = plan.children();
        let rebuilt = if let Some(tests) = self.above_filter(plan) {
            filtered(Arc::clone(plan), tests)
        } else {
            let rewritten = children.into_iter().map(|child| self.rewrite(child)).collect::<Result<_>>()?;
            replace_children_if_necessary(Arc::clone(plan), rewritten)?
        };
        let id = ScanId::of(plan);
        let rebuilt = self.readers.get(&id).map_or(rebuilt, Arc::clone);
        let rebuilt = match self.tests.get(&id) {
            Some(tests) => filtered(rebuilt, tests.clone()),
            None => rebuilt,
        };
        Ok(match self.sets.get(&id) {
            Some(sets) => collect_keys(rebuilt, sets.clone()),
            None => rebuilt,
        })
    }

    /// The tests of the scan below a filter, about the columns that the filter puts out. What is written in the query is
    /// asked first: it costs less than a copy of the rows.
    fn above_filter(&self, plan: &Plan) -> Option<Vec<KeyTest>> {
        let filter = filter_of(plan.as_ref()).filter(|filter| filter.fetch().is_none())?;
        let tests = self.tests.get(&ScanId::of(filter.input()))?;
        // A scan that is the build side of a join itself is wrapped where it stands.
        if self.sets.contains_key(&ScanId::of(filter.input())) {
            return None;
        }
        let place = |column: usize| match filter.projection() {
            Some(kept) => kept.iter().position(|kept| *kept == column),
            None => Some(column),
        };
        let moved =
            |test: &KeyTest| Some(KeyTest { column: place(test.column)?, keys: Arc::clone(&test.keys) });
        tests.iter().map(moved).collect()
    }
}

fn filtered(input: Plan, tests: Vec<KeyTest>) -> Plan {
    let partitions = input.output_partitioning().partition_count();
    tests.iter().for_each(|test| test.keys.expect_readers(partitions));
    Arc::new(KeyFilterExec::new(input, tests))
}

/// The key of `filter`'s join that is expected to drop the most rows of a scan, if it drops enough.
fn best_key<'a>(
    filter: &Arc<dyn PhysicalExpr>,
    (joins, filters): (&'a HashMap<ScanId, Join<'a>>, &DynamicFilters),
    (id, source, columns): (ScanId, &ParquetSource, &[ColumnEstimate]),
) -> Option<(&'a Join<'a>, Candidate)> {
    let build = filters.build_side(filter)?;
    let join = joins.get(&build.join)?;
    if filters.place(filter, Landing::Scan(id)) != Place::Right {
        return None;
    }
    let keys = filter.children().into_iter().enumerate();
    let candidates =
        keys.filter_map(|(key, landed)| candidate(source, (landed, columns), (join.node, build, key)));
    let best = candidates.min_by(|a, b| a.share.total_cmp(&b.share))?;
    (best.share <= USEFUL).then_some((join, best))
}

/// The test for one key, where there can be one.
fn candidate(
    source: &ParquetSource,
    (landed, columns): (&Arc<dyn PhysicalExpr>, &[ColumnEstimate]),
    (join, build, key): (&HashJoinExec, &BuildSide, usize),
) -> Option<Candidate> {
    let index = column_index(landed)?;
    let column = columns.get(index).filter(|column| !column.guessed)?;
    let (build_key, _) = join.on().get(key)?;
    let build_column = column_index(build_key)?;
    let schema = source.table_schema().schema_without_virtual_columns();
    let field = schema.fields().get(index)?;
    let same_type = join.left().schema().field(build_column).data_type() == field.data_type();
    if !same_type || !KeyDomain::takes(field.data_type()) {
        return None;
    }
    let domain = domain(column.bounds?)?;
    let values = build.keys.get(key)?;
    let distinct = values.distinct.min(build.rows);
    let (share, kept) = (distinct / column.distinct.max(1.0), distinct / values.domain);
    let name = field.name().clone();
    Some(Candidate { build: build_column, landed: Arc::clone(landed), name, domain, share, kept })
}

/// Where a scan puts out a column of its table.
fn output_column(source: &ParquetSource, column: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let index = column_index(column)?;
    match source.projection() {
        Some(projection) => projection.as_ref().iter().position(|it| column_index(&it.expr) == Some(index)),
        None => Some(index),
    }
}

/// The values within bounds, if they are not too many. Rounding does no harm: what is outside of a domain is kept.
#[expect(clippy::cast_possible_truncation, reason = "the count is checked, and a cast to i64 saturates")]
fn domain((low, high): (f64, f64)) -> Option<KeyDomain> {
    let count = high - low + 1.0;
    let fits = (1.0..=MAX_BITS as f64).contains(&count);
    fits.then_some(KeyDomain { first: low as i64, count: count as usize })
}
