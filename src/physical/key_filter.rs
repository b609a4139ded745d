//! Scans filtered by the keys of the joins that their rows are on their way to.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};

use super::dynamic_filters::{BuildSide, DynamicFilters, Place};
use super::estimate::{ColumnEstimate, Known, source_columns};
use super::lineage::{ScanId, column_index};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::operator::{KeyDomain, KeyFilterExec, KeySet, KeyTest, collect_keys, filter_of};

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
/// | scans | of Parquet files with at least `slipstream.key_filter.min_rows` rows, of which at most half are expected to be kept; not where the reader evaluates the filter itself |
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

    fn rewrite(&self, plan: Plan, config: &ConfigOptions) -> Result<Rewrite> {
        if plan.exists(|node| Ok(node.is::<RecursiveQueryExec>()))? {
            return Ok(Rewrite::refused(
                plan,
                "the plan is recursive: a build side has other keys each time",
            ));
        }
        let min_rows = SlipstreamOptions::active(config).map_or(0, |options| options.key_filter_min_rows);
        let known = Known::of(config);
        let mut found = Found::default();
        let (joins, filters) = (joins(&plan)?, DynamicFilters::of(&plan, known)?);
        plan.apply(|node| {
            if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
                found.scan(scan, ScanId::of(node), (&joins, &filters), (known, min_rows as f64));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if found.tests.is_empty() {
            return Ok(Rewrite::refused(
                plan,
                "no scan has a join that is expected to drop half of its rows",
            ));
        }
        let rewritten = found.rewrite(&plan)?;
        Ok(Rewrite::applied(rewritten, found.picture.join("; ")))
    }
}

/// A join whose probe rows without a partner are dropped.
struct Join<'a> {
    node: &'a HashJoinExec,
    /// Where its build side's rows are met by as many partitions as produce them.
    source: &'a Plan,
}

/// The joins of `plan`, by their addresses.
fn joins(plan: &Plan) -> Result<HashMap<ScanId, Join<'_>>> {
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
    Ok(joins)
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
    /// By the nodes whose rows are looked at: the column, and the set that it fills.
    sets: HashMap<ScanId, Vec<(usize, Arc<KeySet>)>>,
    picture: Vec<String>,
}

/// One key of a join, and what a test for it is expected to do.
struct Candidate {
    /// The column in the build side and in what the scan puts out.
    build: usize,
    probe: usize,
    domain: KeyDomain,
    share: f64,
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
        if rows < min_rows || source.table_parquet_options().global.pushdown_filters {
            return;
        }
        for filter in split_conjunction(&predicate) {
            let Some(build) = filters.build_side(filter) else { continue };
            let Some(join) = joins.get(&build.join) else { continue };
            if filters.place(filter, id) != Place::Right {
                continue;
            }
            let keys = filter.children().into_iter().enumerate();
            let candidates = keys.filter_map(|(key, landed)| {
                candidate((scan, source), (landed, &columns), (join.node, build, key))
            });
            let best = candidates.min_by(|a, b| a.share.total_cmp(&b.share));
            if let Some(best) = best.filter(|best| best.share <= USEFUL) {
                self.add(scan, id, join, &best);
            }
        }
    }

    fn add(&mut self, scan: &DataSourceExec, id: ScanId, join: &Join<'_>, key: &Candidate) {
        let writers = join.source.output_partitioning().partition_count();
        let keys = Arc::new(KeySet::new(key.domain, writers));
        self.sets.entry(ScanId::of(join.source)).or_default().push((key.build, Arc::clone(&keys)));
        self.tests.entry(id).or_default().push(KeyTest { column: key.probe, keys });
        let schema = scan.schema();
        let name = schema.field(key.probe).name();
        self.picture.push(format!("{name} keeps about {:.2} % of its scan", 100.0 * key.share));
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

/// The test for one key, where there can be one.
fn candidate(
    (scan, source): (&DataSourceExec, &ParquetSource),
    (landed, columns): (&Arc<dyn PhysicalExpr>, &[ColumnEstimate]),
    (join, build, key): (&HashJoinExec, &BuildSide, usize),
) -> Option<Candidate> {
    let table_column = column_index(landed)?;
    let column = columns.get(table_column).filter(|column| !column.guessed)?;
    let probe = match source.projection() {
        Some(projection) => {
            projection.as_ref().iter().position(|it| column_index(&it.expr) == Some(table_column))?
        }
        None => table_column,
    };
    let (build_key, _) = join.on().get(key)?;
    let build_column = column_index(build_key)?;
    let schema = scan.schema();
    let data_type = schema.field(probe).data_type();
    if !KeyDomain::takes(data_type) || join.left().schema().field(build_column).data_type() != data_type {
        return None;
    }
    let domain = domain(column.bounds?)?;
    let share = build.keys.get(key)?.distinct.min(build.rows) / column.distinct.max(1.0);
    Some(Candidate { build: build_column, probe, domain, share })
}

/// The values within bounds, if they are not too many. Rounding does no harm: what is outside of a domain is kept.
#[expect(clippy::cast_possible_truncation, reason = "the count is checked, and a cast to i64 saturates")]
fn domain((low, high): (f64, f64)) -> Option<KeyDomain> {
    let count = high - low + 1.0;
    let fits = (1.0..=MAX_BITS as f64).contains(&count);
    fits.then_some(KeyDomain { first: low as i64, count: count as usize })
}
