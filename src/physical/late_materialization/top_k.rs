//! One sort with a limit, and the plan in two phases that does the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, ParquetRowSelection};
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::functions::core::{file_row_index, input_file_name};
use datafusion::physical_expr::expressions::{LambdaExpr, LambdaVariable, lit};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};

use super::chain::{Chain, column, substitute};
use super::gain::TopRows;
use crate::config::SlipstreamOptions;
use crate::operator::{Fetch, LateFile, late_fetch};
use crate::physical::estimate::{Known, source_columns};
use crate::physical::lineage::column_index;

type Plan = Arc<dyn ExecutionPlan>;
type Expr = Arc<dyn PhysicalExpr>;
/// `Err` is a reason to refuse.
type Refusable<T> = std::result::Result<T, String>;

/// A sort with a limit whose rows come out in one partition.
#[derive(Debug)]
pub(super) struct TopK<'a> {
    /// The sort, or what merges its partitions.
    root: &'a Plan,
    sort: &'a SortExec,
    /// The sort's keys in terms of what `root` puts out.
    ordering: &'a LexOrdering,
    /// What `root` puts out, of the sort's columns: DataFusion has a projection between the two where it can.
    outputs: Vec<Expr>,
    fetch: usize,
}

/// The plan that takes its place, and what to tell of it.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) plan: Plan,
    pub(super) detail: String,
}

impl<'a> TopK<'a> {
    /// The one whose uppermost node is `root`.
    pub(super) fn at(root: &'a Plan) -> Result<Option<Self>> {
        let schema = root.schema();
        let outputs = schema.fields().iter().enumerate().map(|(index, field)| column(field, index));
        let mut outputs: Vec<Expr> = outputs.collect();
        if let Some(sort) = root.downcast_ref::<SortExec>() {
            let one = root.output_partitioning().partition_count() == 1;
            let fetch = sort.fetch().filter(|_| one);
            return Ok(fetch.map(|fetch| Self { root, sort, ordering: sort.expr(), outputs, fetch }));
        }
        let Some(merge) = root.downcast_ref::<SortPreservingMergeExec>() else {
            return Ok(None);
        };
        let mut input = merge.input();
        while let Some(projection) = input.downcast_ref::<ProjectionExec>() {
            let exprs: Vec<Expr> =
                projection.expr().iter().map(|projected| Arc::clone(&projected.expr)).collect();
            outputs = outputs.iter().map(|output| substitute(output, &exprs)).collect::<Result<_>>()?;
            input = projection.input();
        }
        let sort = input.downcast_ref::<SortExec>();
        let (Some(sort), Some(fetch)) = (sort.filter(|sort| sort.fetch().is_some()), merge.fetch()) else {
            return Ok(None);
        };
        // A merge may go by fewer keys where its input is known to be sorted by the rest: that is not told again.
        let merged_by = merge.expr().iter().map(|key| Ok((substitute(&key.expr, &outputs)?, key.options)));
        let merged_by: Vec<_> = merged_by.collect::<Result<_>>()?;
        let sorted_by = sort.expr().iter().map(|key| (Arc::clone(&key.expr), key.options));
        let same = merged_by.into_iter().eq(sorted_by);
        Ok(same.then_some(Self { root, sort, ordering: merge.expr(), outputs, fetch }))
    }

    /// The plan in two phases.
    ///
    /// Everything is first put in terms of the scan's columns, through the projections between: then a narrow scan needs no
    /// projections, and the second phase computes the result's expressions where it reads their columns.
    pub(super) fn late(
        &self,
        options: &SlipstreamOptions,
        config: &ConfigOptions,
    ) -> Result<Refusable<Late>> {
        let most = options.late_materialization_max_rows;
        if self.fetch > most {
            return Ok(Err(format!("{} rows are wanted, and max_rows is {most}", self.fetch)));
        }
        let chain = match Chain::follow(self.sort.input())? {
            Ok(chain) => chain,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some((scan, source)) = scan_of(&chain.scan) else {
            return internal_err!("a chain ends at a Parquet scan");
        };
        let sort_keys = self.sort.expr().iter().map(|key| substitute(&key.expr, &chain.outputs));
        let keys: Vec<Expr> = sort_keys.collect::<Result<_>>()?;
        let outputs = self.outputs.iter().map(|output| substitute(output, &chain.outputs));
        let outputs: Vec<Expr> = outputs.collect::<Result<_>>()?;
        if let Some(reason) = outputs.iter().chain(&keys).chain(&scanned(source)).find_map(unfit) {
            return Ok(Err(reason));
        }
        if outputs.iter().chain(&keys).chain(chain.predicates()).any(has_lambda) {
            return Ok(Err("a lambda counts the columns around it".to_owned()));
        }
        let files = match files(scan) {
            Ok(files) => files,
            Err(reason) => return Ok(Err(reason)),
        };
        let early: BTreeSet<usize> = keys.iter().chain(chain.predicates()).flat_map(columns).collect();
        let detail = match self.gain(options, (scan, source, files.len()), &outputs, &early) {
            Ok(detail) => detail,
            Err(reason) => return Ok(Err(reason)),
        };
        let config = Arc::new(config.clone());
        let (picked, own_keys) = self.picked(&chain, source, &keys, &early, &config)?;
        let Some(fetch_scan) = fetch_scan(scan, source, &outputs, &self.root.schema(), &config)? else {
            return Ok(Err("the rows would be read with other types".to_owned()));
        };
        let root_keys = self.ordering.iter().map(|key| Arc::clone(&key.expr));
        let keys = own_keys.into_iter().zip(root_keys).map(|(own, root)| [own, root]).collect();
        let fetch = Fetch { scan: fetch_scan, files, schema: self.root.schema(), keys };
        let plan = late_fetch(picked, fetch, Arc::clone(self.root.properties()));
        Ok(Ok(Late { plan, detail }))
    }

    /// What is saved, in words; `Err` where that is too little.
    ///
    /// `early` are places in what the scan puts out; what counts are the columns of the files behind them, since the scan
    /// may compute several of its columns from one.
    fn gain(
        &self,
        options: &SlipstreamOptions,
        (scan, source, files): (&FileScanConfig, &ParquetSource, usize),
        outputs: &[Expr],
        early: &BTreeSet<usize>,
    ) -> Refusable<String> {
        let projected = scanned(source);
        let of_table = |outputs: &mut dyn Iterator<Item = usize>| -> BTreeSet<usize> {
            outputs.filter_map(|index| projected.get(index)).flat_map(columns).collect()
        };
        let mut early = of_table(&mut early.iter().copied());
        // Reading late is of no use to columns that the reader's own filters need.
        early.extend(source.filter().iter().flat_map(columns));
        let mut all = of_table(&mut outputs.iter().flat_map(columns));
        all.extend(&early);
        let late = all.difference(&early).count();
        if late == 0 {
            return Err("the order and the filters need all columns".to_owned());
        }
        let Some((rows, columns)) = source_columns(scan, Known::nothing()) else {
            return Err("the scan does not know how many rows it has".to_owned());
        };
        let wanted = self.fetch as f64;
        let top = TopRows { rows, wanted, files: files as f64, columns: &columns, all: &all, early: &early };
        let percent = 100.0 * top.remaining();
        let min_gain = options.late_materialization_min_gain_percent;
        if min_gain > 0 && percent > 100.0 - min_gain as f64 {
            return Err(format!(
                "{late} of {} columns could be read after the sort, at {percent:.0} % of the cost",
                all.len()
            ));
        }
        Ok(format!(
            "{late} of {} columns are read of {} rows, {percent:.0} % of the cost",
            all.len(),
            self.fetch
        ))
    }

    /// The sort over what it needs and where each row is, and its keys in terms of what it puts out.
    ///
    /// The file's name is a constant of each file, and its rows are numbered by the reader whatever row groups it skips and
    /// in whatever order it takes them. Both are functions that DataFusion replaces inside the scan; nothing else may
    /// evaluate them, which is why they stand in the scan's own projection and nowhere above.
    fn picked(
        &self,
        chain: &Chain,
        source: &ParquetSource,
        keys: &[Expr],
        early: &BTreeSet<usize>,
        config: &Arc<ConfigOptions>,
    ) -> Result<(Plan, Vec<Expr>)> {
        let schema = chain.scan.schema();
        let mut exprs = Vec::new();
        // Columns that are not read have no place; nothing refers to them.
        let mut places: Vec<Expr> = vec![lit(false); schema.fields().len()];
        for index in early {
            let field = schema.field(*index);
            places[*index] = column(field, exprs.len());
            exprs.push(ProjectionExpr::new(column(field, *index), field.name()));
        }
        exprs.push(ProjectionExpr::new(function(input_file_name(), config)?, "__slipstream_file"));
        exprs.push(ProjectionExpr::new(function(file_row_index(), config)?, "__slipstream_row"));
        let Some(narrow) = source.try_pushdown_projection(&ProjectionExprs::new(exprs))? else {
            return internal_err!("a Parquet source takes every projection");
        };
        let Some(scan) = chain.scan.downcast_ref::<DataSourceExec>() else {
            return internal_err!("a chain ends at a scan");
        };
        let Some((scan_config, _)) = scan.downcast_to_file_source::<ParquetSource>() else {
            return internal_err!("a chain ends at a Parquet scan");
        };
        let narrow = FileScanConfigBuilder::from(scan_config.clone()).with_source(narrow).build();
        let input = chain.over(Arc::new(scan.clone().with_data_source(Arc::new(narrow))), &places)?;
        let keys: Vec<Expr> = keys.iter().map(|key| substitute(key, &places)).collect::<Result<_>>()?;
        let ordered = keys.iter().zip(self.sort.expr().iter());
        let ordering =
            LexOrdering::new(ordered.map(|(key, old)| PhysicalSortExpr::new(Arc::clone(key), old.options)));
        let Some(ordering) = ordering else {
            return internal_err!("a sort has keys");
        };
        let sort = SortExec::new(ordering.clone(), input)
            .with_preserve_partitioning(self.sort.preserve_partitioning())
            .with_fetch(self.sort.fetch());
        if self.root.is::<SortExec>() {
            return Ok((Arc::new(sort), keys));
        }
        let merge = SortPreservingMergeExec::new(ordering, Arc::new(sort)).with_fetch(Some(self.fetch));
        Ok((Arc::new(merge), keys))
    }
}

fn scan_of(plan: &Plan) -> Option<(&FileScanConfig, &ParquetSource)> {
    plan.downcast_ref::<DataSourceExec>()?.downcast_to_file_source::<ParquetSource>()
}

/// What the scan puts out, of the table's columns.
fn scanned(source: &ParquetSource) -> Vec<Expr> {
    source.projection().map_or_else(Vec::new, |projection| projection.expr_iter().collect())
}

/// A scan without files and filters that computes `outputs`, which `schema` names, and row numbers; `None` where their
/// types are others.
///
/// Filters are left out because the rows have passed them, and to evaluate some again may prune or drop.
fn fetch_scan(
    scan: &FileScanConfig,
    source: &ParquetSource,
    outputs: &[Expr],
    schema: &SchemaRef,
    config: &Arc<ConfigOptions>,
) -> Result<Option<FileScanConfig>> {
    let named = outputs.iter().zip(schema.fields());
    let mut exprs: Vec<_> =
        named.map(|(expr, field)| ProjectionExpr::new(Arc::clone(expr), field.name())).collect();
    exprs.push(ProjectionExpr::new(function(file_row_index(), config)?, "__slipstream_row"));
    let source = source.with_predicate(lit(true)).with_pushdown_filters(false);
    let Some(source) = source.try_pushdown_projection(&ProjectionExprs::new(exprs))? else {
        return internal_err!("a Parquet source takes every projection");
    };
    let fetch = FileScanConfigBuilder::from(scan.clone())
        .with_source(source)
        .with_file_groups(Vec::new())
        .with_output_ordering(Vec::new())
        .build();
    let fetched = fetch.projected_schema()?;
    let same = fetched.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
    Ok((same && fetched.fields().len() == schema.fields().len() + 1).then_some(fetch))
}

/// A call of a function without arguments, which the reader replaces.
fn function(function: Arc<datafusion::logical_expr::ScalarUDF>, config: &Arc<ConfigOptions>) -> Result<Expr> {
    Ok(Arc::new(ScalarFunctionExpr::try_new(function, Vec::new(), &Schema::empty(), Arc::clone(config))?))
}

/// The files of the scan by their locations.
///
/// A large file is scanned in several ranges, each with a `PartitionedFile` of its own; the whole file is one entry here.
/// What makes a row of a file ambiguous is refused: the same file under two partition values, or a reader that was told
/// to take a part of it.
fn files(scan: &FileScanConfig) -> Refusable<HashMap<String, LateFile>> {
    if scan.limit.is_some() {
        return Err("the scan has a limit of its own".to_owned());
    }
    let mut files = HashMap::<String, LateFile>::new();
    for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
        let location = file.object_meta.location.to_string();
        if file.extension::<ParquetAccessPlan>().is_some()
            || file.extension::<ParquetRowSelection>().is_some()
        {
            return Err(format!("{location} is read by an access plan of its own"));
        }
        let rows = file.statistics.as_ref().map(|statistics| statistics.num_rows);
        let Some(Precision::Exact(rows)) = rows else {
            return Err(format!("the number of rows of {location} is not known"));
        };
        if file.object_meta.e_tag.is_none() && file.object_meta.last_modified.timestamp() == 0 {
            return Err(format!("it is not known when {location} was changed last"));
        }
        let late = LateFile { file: file.clone(), rows };
        if let Some(other) = files.insert(location, late)
            && (other.file.partition_values != file.partition_values || other.rows != rows)
        {
            return Err("a file is scanned as two tables".to_owned());
        }
    }
    Ok(files)
}

/// Why `expr` must not be computed in a second place.
fn unfit(expr: &Expr) -> Option<String> {
    if is_volatile(expr) {
        return Some(format!("{expr} has another value each time"));
    }
    let shared = expr.exists(|node| Ok(node.is::<ScalarSubqueryExpr>() || node.expression_id().is_some()));
    shared.unwrap_or(true).then(|| format!("{expr} shares its value with other places of the plan"))
}

/// Whether `expr` has a lambda, whose variables are numbered behind the columns of the input.
fn has_lambda(expr: &Expr) -> bool {
    expr.exists(|node| Ok(node.is::<LambdaExpr>() || node.is::<LambdaVariable>())).unwrap_or(true)
}

/// The columns that `expr` reads.
fn columns(expr: &Expr) -> Vec<usize> {
    let mut found = Vec::new();
    // The closure never fails.
    let _ = expr.apply(|node| {
        found.extend(column_index(node));
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
