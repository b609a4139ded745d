//! The allow-list of plan nodes.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{
    Aggregate, Distinct, EmptyRelation, Join, Limit, LogicalPlan, Projection, Sort, TableScan, Union, Values,
    Window,
};

use super::token::{Pin, Token, address};
use super::{Fingerprint, Refusal, ScannedTable};

/// The most words of one key: of queries with very long lists nothing is kept.
const MAX_TOKENS: usize = 20_000;

/// The deepest plan: a deeper one could use up the stack.
const MAX_DEPTH: usize = 200;

/// What the columns of an expression are looked up in.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    /// The output of one or two inputs, side by side: a column is its place.
    Of(&'a [&'a DFSchema]),
    /// A table: a column is its name, since tables of one identity may come to have other columns.
    Table,
    /// A source, as `Term` knows it: a column is the number of its relation, and its name in it.
    Source,
}

impl Columns<'_> {
    /// The column as a word.
    pub(super) fn token(&self, column: &Column) -> Result<Token, Refusal> {
        let schemas = match self {
            Self::Of(schemas) => schemas,
            Self::Table => return Ok(Token::Text(column.name.as_str().into())),
            Self::Source => return Ok(Token::Text(column.flat_name().into())),
        };
        let mut before = 0;
        for schema in *schemas {
            if let Some(index) = schema.maybe_index_of_column(column) {
                return Ok(Token::Number(before + index));
            }
            before += schema.fields().len();
        }
        Err(Refusal::new("plan", format!("column {column} is not one of its input's")))
    }
}

/// Writes a plan down, word by word.
pub(super) struct Writer {
    pub(super) out: Fingerprint,
    pub(super) started: Option<i64>,
    depth: usize,
}

impl Writer {
    pub(super) fn new(started: Option<i64>) -> Self {
        Self { out: Fingerprint::default(), started, depth: 0 }
    }

    pub(super) fn into_fingerprint(self) -> Fingerprint {
        self.out
    }

    /// The whole query: its nodes, then the names and types of its columns.
    pub(super) fn root(&mut self, plan: &LogicalPlan) -> Result<(), Refusal> {
        let mut node = plan;
        // Below a projection that does not change the number of rows, a limit is still the query's last.
        while let LogicalPlan::Projection(Projection { input, .. }) = node {
            node = input.as_ref();
        }
        if let LogicalPlan::Limit(limit) = node
            && !is_determined(limit)
        {
            let (skip, fetch) =
                (literal(limit.skip.as_deref(), 0), literal(limit.fetch.as_deref(), usize::MAX));
            match (skip, fetch) {
                (Some(0), Some(fetch)) => self.out.determined_below = Some(fetch),
                _ => return Err(undetermined()),
            }
        }
        self.plan(plan)?;
        let schema = plan.schema();
        for field in schema.fields() {
            self.push(Token::Field(Arc::clone(field)))?;
        }
        self.metadata(schema)
    }

    fn metadata(&mut self, schema: &DFSchema) -> Result<(), Refusal> {
        let mut metadata: Vec<_> = schema.metadata().iter().collect();
        metadata.sort_unstable();
        for (name, value) in metadata {
            self.push(Token::Text(name.as_str().into()))?;
            self.push(Token::Text(value.as_str().into()))?;
        }
        Ok(())
    }

    /// A part of a query: its nodes, then the types of its columns.
    pub(super) fn part(&mut self, plan: &LogicalPlan) -> Result<(), Refusal> {
        self.plan(plan)?;
        for field in plan.schema().fields() {
            let unnamed = field.as_ref().clone().with_name("");
            self.push(Token::Field(Arc::new(unnamed)))?;
        }
        self.metadata(plan.schema())
    }

    pub(super) fn push(&mut self, token: Token) -> Result<(), Refusal> {
        self.out.tokens.push(token);
        match self.out.tokens.len() > MAX_TOKENS {
            true => Err(Refusal::new("plan", "its plan is too long")),
            false => Ok(()),
        }
    }

    pub(super) fn kind(&mut self, kind: &'static str) -> Result<(), Refusal> {
        self.push(Token::Kind(kind))
    }

    pub(super) fn number(&mut self, number: usize) -> Result<(), Refusal> {
        self.push(Token::Number(number))
    }

    /// A level deeper, for nodes and expressions alike.
    pub(super) fn nested(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.deeper()?;
        let written = write(self);
        self.higher();
        written
    }

    /// Counts a level, which [`higher`](Self::higher) takes back.
    pub(super) fn deeper(&mut self) -> Result<(), Refusal> {
        if self.depth >= MAX_DEPTH {
            return Err(Refusal::new("plan", "its plan is too deep"));
        }
        self.depth += 1;
        Ok(())
    }

    /// Back from a level.
    pub(super) fn higher(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn plan(&mut self, plan: &LogicalPlan) -> Result<(), Refusal> {
        self.nested(|writer| writer.node(plan))
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<(), Refusal> {
        match plan {
            // Rows are the input's, in names of their own or on other threads.
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Subquery(subquery) => self.subquery(subquery),
            LogicalPlan::Repartition(repartition) => self.plan(&repartition.input),
            LogicalPlan::Projection(projection) => {
                self.kind("projection")?;
                self.exprs(&projection.expr, Columns::Of(&[projection.input.schema()]))?;
                self.plan(&projection.input)
            }
            LogicalPlan::Filter(filter) => {
                self.kind("filter")?;
                self.expr(&filter.predicate, Columns::Of(&[filter.input.schema()]))?;
                self.plan(&filter.input)
            }
            LogicalPlan::Window(Window { input, window_expr, .. }) => {
                self.kind("window")?;
                self.exprs(window_expr, Columns::Of(&[input.schema()]))?;
                self.plan(input)
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => {
                self.kind("aggregate")?;
                self.exprs(group_expr, Columns::Of(&[input.schema()]))?;
                self.exprs(aggr_expr, Columns::Of(&[input.schema()]))?;
                self.plan(input)
            }
            LogicalPlan::Sort(Sort { expr, input, fetch }) => {
                self.kind("sort")?;
                self.number(fetch.unwrap_or(usize::MAX))?;
                self.sort_exprs(expr, Columns::Of(&[input.schema()]))?;
                self.plan(input)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                self.kind("distinct")?;
                self.plan(input)
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(Union { inputs, .. }) => {
                self.kind("union")?;
                self.number(inputs.len())?;
                inputs.iter().try_for_each(|input| self.plan(input))
            }
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Values(Values { schema, values }) => {
                self.kind("values")?;
                self.number(values.len())?;
                schema.fields().iter().try_for_each(|field| self.push(Token::Field(Arc::clone(field))))?;
                values.iter().try_for_each(|row| self.exprs(row, Columns::Of(&[])))
            }
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, schema }) => {
                self.kind("empty")?;
                self.number(usize::from(*produce_one_row))?;
                schema.fields().iter().try_for_each(|field| self.push(Token::Field(Arc::clone(field))))
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            _ => Err(unlisted(plan)),
        }
    }

    fn join(&mut self, join: &Join) -> Result<(), Refusal> {
        self.kind("join")?;
        self.push(Token::Text(format!("{:?} {:?}", join.join_type, join.null_equality).into()))?;
        self.number(usize::from(join.null_aware))?;
        self.number(join.on.len())?;
        for (left, right) in &join.on {
            self.expr(left, Columns::Of(&[join.left.schema()]))?;
            self.expr(right, Columns::Of(&[join.right.schema()]))?;
        }
        let both = [join.left.schema().as_ref(), join.right.schema().as_ref()];
        self.optional(join.filter.as_ref(), Columns::Of(&both))?;
        self.plan(&join.left)?;
        self.plan(&join.right)
    }

    fn limit(&mut self, limit: &Limit) -> Result<(), Refusal> {
        // The query's last limit was looked at by `root`; below it, rows that nobody determines become others' input.
        let nested = || self.out.tokens.contains(&Token::Kind("limit"));
        if !is_determined(limit) && (self.out.determined_below.is_none() || nested()) {
            return Err(undetermined());
        }
        self.kind("limit")?;
        self.optional(limit.skip.as_deref(), Columns::Of(&[]))?;
        self.optional(limit.fetch.as_deref(), Columns::Of(&[]))?;
        self.plan(&limit.input)
    }

    fn scan(&mut self, scan: &TableScan) -> Result<(), Refusal> {
        let provider = source_as_provider(&scan.source).map_err(|_| {
            Refusal::new("table", format!("table {} is of a kind of its own", scan.table_name))
        })?;
        // Limits are handed down to scans from limits above; one that comes from nowhere is its own.
        if scan.fetch.is_some() && self.out.determined_below.is_none() {
            return Err(undetermined());
        }
        self.kind("scan")?;
        match provider.downcast_ref::<ViewTable>() {
            Some(view) => {
                self.kind("view")?;
                self.plan(view.logical_plan())?;
            }
            None => self.table(scan, provider)?,
        }
        scan.projected_schema
            .fields()
            .iter()
            .try_for_each(|field| self.push(Token::Field(Arc::clone(field))))?;
        match &scan.projection {
            Some(columns) => columns.iter().try_for_each(|column| self.number(*column))?,
            None => self.kind("all")?,
        }
        self.number(scan.fetch.unwrap_or(usize::MAX))?;
        self.exprs(&scan.filters, Columns::Table)
    }

    /// A table is its place among those that the plan reads; the key says which they are.
    pub(super) fn table(
        &mut self,
        scan: &TableScan,
        provider: Arc<dyn datafusion::catalog::TableProvider>,
    ) -> Result<(), Refusal> {
        let known = self.out.tables.iter().position(|table| Arc::ptr_eq(&table.provider, &provider));
        let place = known.unwrap_or_else(|| {
            self.out.tables.push(ScannedTable { name: scan.table_name.clone(), provider });
            self.out.tables.len() - 1
        });
        self.number(place)
    }
}

impl ScannedTable {
    /// What keeps its address.
    pub(crate) fn pin(&self) -> Pin {
        Pin::Table(Arc::downgrade(&self.provider))
    }

    /// The table as a word of the key, where nobody declares which it is.
    pub(crate) fn address(&self) -> Token {
        address(&self.provider)
    }
}

/// Whether the rows that a limit lets through are the same at each execution: there is an order, or nothing to cut.
fn is_determined(limit: &Limit) -> bool {
    let fetch = literal(limit.fetch.as_deref(), usize::MAX);
    let skips = literal(limit.skip.as_deref(), 0) != Some(0);
    if !skips && fetch.is_some_and(|fetch| most_rows(&limit.input).is_some_and(|rows| rows <= fetch)) {
        return true;
    }
    let mut node = limit.input.as_ref();
    loop {
        node = match node {
            LogicalPlan::Sort(_) => return true,
            LogicalPlan::Projection(Projection { input, .. }) => input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            _ => return false,
        }
    }
}

/// The most rows that `plan` can have, by itself. (DataFusion's `max_rows` counts limits that were handed down, too.)
fn most_rows(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(Projection { input, .. }) => most_rows(input),
        LogicalPlan::SubqueryAlias(alias) => most_rows(&alias.input),
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) if group_expr.is_empty() => Some(1),
        LogicalPlan::EmptyRelation(empty) => Some(usize::from(empty.produce_one_row)),
        LogicalPlan::Values(Values { values, .. }) => Some(values.len()),
        _ => None,
    }
}

/// The value of a limit; `None` where it is no number.
pub(super) fn literal(expr: Option<&datafusion::logical_expr::Expr>, absent: usize) -> Option<usize> {
    match expr {
        None => Some(absent),
        Some(datafusion::logical_expr::Expr::Literal(value, _)) => value.to_string().parse().ok(),
        Some(_) => None,
    }
}

fn undetermined() -> Refusal {
    Refusal::new("limit", "LIMIT without ORDER BY: which rows it returns is not determined")
}

/// What cannot be written down, and why.
fn unlisted(plan: &LogicalPlan) -> Refusal {
    let why = match plan {
        LogicalPlan::Extension(_) => "an extension node may do anything",
        LogicalPlan::RecursiveQuery(_) => "recursive queries are not on the list",
        LogicalPlan::Unnest(_) => "UNNEST is not on the list",
        LogicalPlan::Distinct(_) => "DISTINCT ON picks any of the rows that agree",
        _ => "only queries are kept",
    };
    Refusal::new("plan", why)
}
