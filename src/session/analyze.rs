//! `ANALYZE TABLE`, as a statement and as a table function: both are a scan of a table that analyzes another one.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, TableReference, plan_datafusion_err, plan_err};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Analyze, Ident, ObjectNamePart, Statement as SqlStatement};

use super::Slipstream;
use crate::config::SlipstreamOptions;
use crate::error::suggestion;
use crate::operator::{AnalyzeTableExec, AnalyzeTarget, analyze_schema};
use crate::store::{Identity, find_table};

/// The table function that does what the statement does.
pub(super) const ANALYZE_FUNCTION: &str = "slipstream_analyze";

/// The ANALYZE that `statement` is. `EXPLAIN ANALYZE` is another statement.
pub(super) fn analyze_of(statement: &Statement) -> Option<&Analyze> {
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            SqlStatement::Analyze(analyze) => Some(analyze),
            _ => None,
        },
        _ => None,
    }
}

/// `ANALYZE [TABLE] t [(a, b)]` as a plan.
///
/// sqlparser takes what Hive and Spark write behind it, too (`PARTITION`, `NOSCAN`, `CACHE METADATA`). What changes which
/// rows are read is refused rather than ignored; `COMPUTE STATISTICS` and `FOR COLUMNS a, b` say what is done anyway.
pub(super) fn plan_analyze(
    slipstream: &Slipstream,
    state: &SessionState,
    analyze: &Analyze,
) -> Result<LogicalPlan> {
    let other = analyze.partitions.is_some() || analyze.cache_metadata || analyze.noscan;
    let Some(name) = analyze.table_name.as_ref().filter(|_| !other) else {
        return plan_err!(
            "ANALYZE takes a table, and columns if not all: ANALYZE TABLE t, ANALYZE TABLE t (a, b)"
        );
    };
    let normalize = state.config_options().sql_parser.enable_ident_normalization;
    let text = |ident: &Ident| match ident.quote_style {
        None if normalize => ident.value.to_lowercase(),
        _ => ident.value.clone(),
    };
    let parts = name.0.iter().map(|part| match part {
        ObjectNamePart::Identifier(ident) => Ok(text(ident)),
        ObjectNamePart::Function(_) => plan_err!("ANALYZE takes the name of a table, not '{name}'"),
    });
    let parts: Vec<String> = parts.collect::<Result<_>>()?;
    let table = match parts.as_slice() {
        [table] => TableReference::bare(table.as_str()),
        [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
        [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
        _ => return plan_err!("'{name}' has more parts than catalog, schema and table"),
    };
    let columns = analyze.columns.iter().map(text).collect();
    let analysis = Arc::new(Analysis { table, columns, slipstream: slipstream.clone() });
    LogicalPlanBuilder::scan("analyze", provider_as_source(analysis), None)?.build()
}

/// `slipstream_analyze('table' [, 'column', …])`: the statement, for those who do not use the layer's front door.
#[derive(Debug)]
pub(super) struct AnalyzeFunction {
    slipstream: Slipstream,
}

impl AnalyzeFunction {
    /// The function of the sessions of `slipstream`, whose store it writes.
    pub(super) fn new(slipstream: Slipstream) -> Self {
        Self { slipstream }
    }
}

impl TableFunctionImpl for AnalyzeFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let text = |expr: &Expr| match expr {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let texts: Option<Vec<String>> = args.exprs().iter().map(text).collect();
        let usage = || {
            plan_datafusion_err!(
                "{ANALYZE_FUNCTION}('table', 'column', …) takes names as text, the table's first"
            )
        };
        let mut texts = texts.ok_or_else(usage)?.into_iter();
        let table = TableReference::parse_str(&texts.next().ok_or_else(usage)?);
        let slipstream = self.slipstream.clone();
        Ok(Arc::new(Analysis { table, columns: texts.collect(), slipstream }))
    }
}

/// A table whose rows are made by analyzing another, each time that it is scanned.
///
/// Being a table, an ANALYZE is planned, recorded, shown by EXPLAIN, cancelled and limited like any other query, and both
/// of its forms are one.
#[derive(Debug)]
struct Analysis {
    table: TableReference,
    /// All where empty.
    columns: Vec<String>,
    slipstream: Slipstream,
}

impl Analysis {
    /// The places in `schema` of the columns that are asked for, in the order of the table.
    ///
    /// Names are looked up as they are: the statement has folded those without quotes already, and the function takes texts.
    fn places(&self, schema: &SchemaRef) -> Result<Vec<usize>> {
        if self.columns.is_empty() {
            return Ok((0..schema.fields().len()).collect());
        }
        let place = |name: &String| {
            schema.index_of(name).map_err(|_| {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let nearest = suggestion(name, names);
                plan_datafusion_err!("table '{}' has no column '{name}'. {nearest}", self.table)
            })
        };
        let mut places = self.columns.iter().map(place).collect::<Result<Vec<_>>>()?;
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }
}

#[async_trait]
impl TableProvider for Analysis {
    fn schema(&self) -> SchemaRef {
        analyze_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let config = session.config_options();
        let catalog = &config.catalog;
        let name = self.table.clone().resolve(&catalog.default_catalog, &catalog.default_schema);
        let Some(table) = find_table(session, &name).await? else {
            return plan_err!("there is no table '{}' to analyze", self.table);
        };
        if table.table_type() == TableType::View {
            return plan_err!("'{}' is a view: analyze the tables that it reads", self.table);
        }
        let places = self.places(&table.schema())?;
        let input = table.scan(session, Some(&places), &[], None).await?;
        let identity = Identity::of(input.as_ref())
            .map_err(|reason| plan_datafusion_err!("table '{}' cannot be analyzed: {reason}", self.table))?;
        let options = SlipstreamOptions::active(config).cloned().unwrap_or_default();
        let target = AnalyzeTarget {
            table: name,
            identity,
            columns: places,
            store: Arc::clone(self.slipstream.knowledge().statistics()),
            max_entries: options.statistics_max_entries,
            max_bytes: options.statistics_max_bytes,
            clock: Arc::clone(self.slipstream.clock()),
        };
        let analyze: Arc<dyn ExecutionPlan> = Arc::new(AnalyzeTableExec::new(input, Arc::new(target)));
        let Some(projection) = projection else {
            return Ok(analyze);
        };
        let schema = analyze_schema();
        let columns = projection.iter().map(|index| {
            let name = schema.field(*index).name();
            let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, *index));
            ProjectionExpr { expr, alias: name.clone() }
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), analyze)?))
    }
}
