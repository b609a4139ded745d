//! Filters inside the Parquet reader, where they save more than they cost.

mod benefit;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::FileSource;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

pub(super) use self::benefit::decoding;
use self::benefit::{Filter, SPARSE, Scan, Share};
use super::dynamic_filters::{DynamicFilters, Landing, Place};
use super::estimate::{ColumnEstimate, Known, selectivity, source_columns};
use super::key_filter::Prospect;
use super::lineage::{ScanId, with_source};
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;

/// Nanoseconds that a row costs the operator it reaches.
const PROBE_ROW: f64 = 20.0;
const BUILD_ROW: f64 = 60.0;
const AGGREGATE_ROW: f64 = 60.0;
const EXCHANGE_ROW: f64 = 20.0;

/// Decides for each Parquet scan whether its filters are evaluated inside the reader.
///
/// With `datafusion.execution.parquet.pushdown_filters` the reader decodes the columns of a filter first, and of
/// the other columns only the rows that it keeps. That is many times faster where few rows are kept, and slower
/// where most are: one setting for all scans is wrong for some of them. Three things make the difference:
///
/// | what | where it is taken from |
/// |---|---|
/// | the share of the rows that a filter keeps | static filters: statistics; a join's dynamic filter: the distinct keys of its build side against those of the scanned column |
/// | what the kept and the dropped rows cost | the columns to decode, and the operators up to the next join |
/// | what a test costs | a comparison, a look-up in a join's table, or a bit where `key_filter` puts one in front of it |
///
/// A dynamic filter that is expected to keep nearly all rows is not evaluated in a reader that evaluates others:
/// looking up each row in a hash table to keep it is work for nothing.
///
/// Refuses where the setting is on already (the session's owner has decided), and where no scan gains.
#[derive(Debug, Default)]
pub(crate) struct ScanFilter;

impl PhysicalRule for ScanFilter {
    fn name(&self) -> &'static str {
        "scan_filter"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.scan_filter_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        if config.execution.parquet.pushdown_filters {
            return Ok(Rewrite::refused(plan, "datafusion.execution.parquet.pushdown_filters decides"));
        }
        let min_gain =
            SlipstreamOptions::active(config).map_or(0, |options| options.scan_filter_min_gain_percent);
        let mut rewriter = Rewriter {
            known: Known::of(config),
            filters: DynamicFilters::of(&plan, Known::of(config))?,
            bits: Prospect::of(&plan, config)?,
            worth_it: 1.0 - min_gain as f64 / 100.0,
            scans: Vec::new(),
        };
        let rewritten = rewriter.rewrite(&plan, 0.0)?;
        if rewriter.scans.is_empty() {
            return Ok(Rewrite::refused(plan, "no scan is expected to gain from filters in the reader"));
        }
        Ok(Rewrite::applied(rewritten, rewriter.scans.join("; ")))
    }
}

struct Rewriter<'a> {
    known: Known<'a>,
    filters: DynamicFilters,
    bits: Option<Prospect<'a>>,
    /// The share of its cost that a scan may have left.
    worth_it: f64,
    /// What was done to which scan.
    scans: Vec<String>,
}

impl Rewriter<'_> {
    /// `row` is what a row of `plan` costs before the next join.
    fn rewrite(&mut self, plan: &Arc<dyn ExecutionPlan>, row: f64) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
            return Ok(self.scan(scan, ScanId::of(plan), row)?.unwrap_or_else(|| Arc::clone(plan)));
        }
        let join = plan.is::<HashJoinExec>();
        let mut children = Vec::new();
        for (index, child) in plan.children().into_iter().enumerate() {
            let row = match index {
                0 if join => BUILD_ROW,
                _ if join => PROBE_ROW,
                _ if plan.is::<AggregateExec>() => row + AGGREGATE_ROW,
                _ if plan.is::<RepartitionExec>() => row + EXCHANGE_ROW,
                _ => row,
            };
            children.push(self.rewrite(child, row)?);
        }
        replace_children_if_necessary(Arc::clone(plan), children)
    }

    fn scan(
        &mut self,
        scan: &DataSourceExec,
        id: ScanId,
        row: f64,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some((config, source)) = scan.downcast_to_file_source::<ParquetSource>() else {
            return Ok(None);
        };
        let Some(predicate) = source.filter() else {
            return Ok(None);
        };
        let Some((rows, columns)) = source_columns(config, self.known) else {
            return Ok(None);
        };
        let conjuncts = split_conjunction(&predicate);
        let filters: Vec<Filter> = conjuncts
            .into_iter()
            .map(|conjunct| {
                let share = self.share(conjunct, (id, source), (rows, &columns));
                Filter::new(conjunct, share, &columns)
            })
            .collect();
        let projected = source.projection().map(ProjectionExprs::column_indices);
        let scan_model = Scan { rows, row, columns: &columns, projected: projected.as_deref() };
        let Some(gain) = scan_model.gain(&filters).filter(|gain| *gain <= self.worth_it) else {
            return Ok(None);
        };
        let mut kept: Vec<_> = filters.into_iter().filter(Filter::is_useful).collect();
        kept.sort_by(|a, b| a.rank().total_cmp(&b.rank()));
        let table = config.file_groups.iter().flat_map(|group| group.iter()).next();
        let table = table.map_or_else(String::new, |file| file.object_meta.location.to_string());
        let share: f64 = kept.iter().map(|filter| filter.share).product();
        self.scans.push(format!(
            "{} keeps about {:.2} % of its rows in the reader, {:.0} % of the cost",
            table.rsplit('/').next().unwrap_or_default(),
            100.0 * share,
            100.0 * gain
        ));
        let predicate = conjunction(kept.into_iter().map(|filter| filter.expr));
        let source = source.with_predicate(predicate).with_pushdown_filters(true);
        Ok(Some(with_source(scan, config, source)))
    }

    /// What `conjunct` is expected to keep of the `rows` rows of scan `id`.
    fn share(
        &self,
        conjunct: &Arc<dyn PhysicalExpr>,
        (id, source): (ScanId, &ParquetSource),
        scanned: (f64, &[ColumnEstimate]),
    ) -> Share {
        if conjunct.expression_id().is_none() {
            let dynamic = conjunct.exists(|expr| Ok(expr.expression_id().is_some())).unwrap_or(true);
            return if dynamic { Share::Astray } else { Share::Written(selectivity(conjunct, scanned.1)) };
        }
        // What is evaluated for each row must be right; pruning alone often hides that it is not.
        if self.filters.place(conjunct, Landing::Scan(id)) != Place::Right {
            return Share::Astray;
        }
        if self.filters.build_keys(conjunct).is_none() {
            return Share::Later;
        }
        // Of several keys the best one tells: together they would have to be independent.
        let bits =
            self.bits.as_ref().and_then(|bits| bits.share(conjunct, &self.filters, (id, source), scanned));
        if let Some(share) = bits.filter(|share| *share <= SPARSE) {
            return Share::Bits(share);
        }
        // Of keys of which nothing is known all may be on the build side.
        Share::Join(self.filters.kept_share(conjunct, scanned, false).unwrap_or(1.0))
    }
}
