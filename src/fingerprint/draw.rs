//! From an optimized plan to its shape: filters, projections, groups, order and limit are lifted off, what is below is the source.
//!
//! ```text
//!   Projection                 outputs ◄── every column is replaced by what it is, down to the source's
//!     Limit, Sort              window, order
//!       Filter                 having
//!         Aggregate            group, outputs
//!           Filter, Projection conjuncts
//!             Join, TableScan  source (`relation.rs`), and the conjuncts that were pushed into it
//! ```
//!
//! Nodes that stand in another order, a filter over a limit for instance, and nodes of other kinds are a relation of the
//! source as they are, written down by the one definition of `plan.rs`.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Filter, Limit, LogicalPlan, Projection, Sort};

use super::plan::{Columns, Writer, literal};
use super::shape::{Shape, SortKey, Window};
use super::term::{Term, nodes};
use super::{Refusal, ScannedTable, Token};

/// The most nodes that all expressions of a shape may have: what is named once and used twice, level by level, would double.
const MAX_NODES: usize = 5_000;

/// A column of some node of the plan, as an expression over the source.
///
/// Where a plan has projections one above the other, a column of the highest is replaced by what it is in the next, and so on
/// down: what an optimizer has computed early, or given a name of its own, and what it has left where it was written, come
/// out as the same expression.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The expression.
    pub(super) expr: Expr,
    /// How many nodes it has, so that the nodes of what it is put into are known before that is made.
    nodes: usize,
}

impl Known {
    /// An expression over the source, whose nodes are counted here.
    pub(super) fn of(expr: Expr) -> Self {
        let nodes = nodes(&expr);
        Self { expr, nodes }
    }

    /// The column `name` of the relation `number`.
    pub(super) fn column(number: usize, name: impl Into<String>) -> Self {
        Self { expr: Expr::Column(Column::new(Some(format!("${number}")), name)), nodes: 1 }
    }
}

/// A plan whose source is written down, as far as it was lifted off. Its parts are those of a [`Shape`], and each node of the
/// plan adds one, as long as the nodes come in the order in which a query is made: rows, conditions, groups, conditions on
/// groups, order, limit.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What each of the plan's columns is.
    pub(super) columns: Vec<Known>,
    /// What its rows, or the rows that it groups, satisfy.
    pub(super) conjuncts: Vec<Term>,
    group: Option<Vec<Term>>,
    having: Vec<Term>,
    order: Vec<SortKey>,
    window: Window,
}

impl Block {
    /// Rows that satisfy these.
    pub(super) fn of(columns: Vec<Known>, conjuncts: Vec<Term>) -> Self {
        Self { columns, conjuncts, ..Self::default() }
    }

    /// Whether it is rows that satisfy conjuncts, and no more.
    pub(super) fn is_rows(&self) -> bool {
        self.group.is_none() && !self.window.cuts()
    }
}

/// Where the words of the source stood, to go back to.
struct Mark {
    words: usize,
    relations: usize,
    fetch: Option<usize>,
}

/// Draws one plan.
pub(super) struct Drawing {
    /// Holds the words of the source.
    pub(super) writer: Writer,
    /// Relations that were met.
    relations: usize,
    /// The fewest rows after which a scan was told to stop.
    pub(super) fetch: Option<usize>,
    /// Whether groups are a relation, whatever is above them: below a join, or other groups.
    rows_only: bool,
    /// Nodes of expressions that may still be made.
    left: usize,
}

/// The shape of `plan`, an optimized query that reads `tables`, and the words of its source.
///
/// # Errors
/// Why it has none.
pub(crate) fn draw(plan: &LogicalPlan, tables: Vec<ScannedTable>) -> Result<(Vec<Token>, Shape), Refusal> {
    let mut writer = Writer::new(None);
    // A table is its place among those of the whole query: their versions are in that order.
    let known = tables.len();
    writer.out.tables = tables;
    let mut drawing = Drawing { writer, relations: 0, fetch: None, rows_only: false, left: MAX_NODES };
    let Block { columns, conjuncts, group, having, order, window } = drawing.block(plan)?;
    // A scan stops early for a limit that is right above it, when it has as many rows. Any other limit is a relation's own,
    // and refused by its words; one that somebody gave the scan itself is no limit of the query.
    let needed = window.fetch.map(|fetch| fetch.saturating_add(window.skip));
    let for_limit = |fetch: usize| needed.is_some_and(|needed| fetch >= needed);
    if drawing.fetch.is_some_and(|fetch| !for_limit(fetch) || !order.is_empty() || group.is_some()) {
        return Err(Refusal::new("broader shape", "a scan stops before its end"));
    }
    if drawing.writer.out.tables.len() != known {
        return Err(Refusal::new("broader shape", "a table of its source is not a table of the query"));
    }
    let outputs = columns.into_iter().map(|known| Term::of(known.expr)).collect::<Result<_, _>>()?;
    let shape = Shape { conjuncts, group, having, order, window, outputs };
    Ok((drawing.writer.into_fingerprint().tokens, shape))
}

impl Drawing {
    /// Where the source is now: what is lifted off next may turn out not to fit.
    fn mark(&self) -> Mark {
        Mark { words: self.writer.out.tokens.len(), relations: self.relations, fetch: self.fetch }
    }

    /// Forgets what was written since. The numbers of relations are given again: they have to follow from the words alone, or
    /// equal sources would number their columns otherwise.
    fn back_to(&mut self, mark: &Mark) {
        self.writer.out.tokens.truncate(mark.words);
        self.relations = mark.relations;
        self.fetch = mark.fetch;
    }

    /// The number of another relation.
    pub(super) fn relation(&mut self) -> usize {
        self.relations += 1;
        self.relations - 1
    }

    /// `plan`, as far as it can be lifted off.
    pub(super) fn block(&mut self, plan: &LogicalPlan) -> Result<Block, Refusal> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.block(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate),
            LogicalPlan::Join(join) => self.nested(|drawing| drawing.join(join)),
            LogicalPlan::TableScan(scan) => self.scan(plan, scan),
            _ => self.opaque(plan),
        }
    }

    /// What `draw` draws, one level deeper.
    fn nested(&mut self, draw: impl FnOnce(&mut Self) -> Result<Block, Refusal>) -> Result<Block, Refusal> {
        self.writer.deeper()?;
        let drawn = draw(self);
        self.writer.higher();
        drawn
    }

    /// `plan`, where `fits` what can be lifted off; else as a relation.
    pub(super) fn input(
        &mut self,
        plan: &LogicalPlan,
        fits: impl FnOnce(&Block) -> bool,
    ) -> Result<Block, Refusal> {
        let mark = self.mark();
        let block = self.nested(|drawing| drawing.block(plan))?;
        if fits(&block) {
            return Ok(block);
        }
        self.back_to(&mark);
        self.opaque(plan)
    }

    /// `plan` as rows that satisfy conjuncts: what groups is a relation, and so is what cuts off. Conditions on the groups of a
    /// relation are conjuncts like others.
    pub(super) fn rows(&mut self, plan: &LogicalPlan) -> Result<Block, Refusal> {
        let before = std::mem::replace(&mut self.rows_only, true);
        let block = self.input(plan, Block::is_rows);
        self.rows_only = before;
        block
    }

    /// `plan` as a relation of the source.
    pub(super) fn opaque(&mut self, plan: &LogicalPlan) -> Result<Block, Refusal> {
        let number = self.relation();
        self.writer.kind("relation")?;
        self.writer.plan(plan)?;
        let columns = (0..plan.schema().fields().len()).map(|place| Known::column(number, place.to_string()));
        Ok(Block { columns: columns.collect(), ..Block::default() })
    }

    /// A projection says what the columns above it are, and nothing of the rows.
    fn projection(&mut self, projection: &Projection) -> Result<Block, Refusal> {
        let mut block = self.input(&projection.input, |_| true)?;
        let input = projection.input.schema();
        let columns = projection.expr.iter().map(|expr| self.inlined(expr, input, &block.columns));
        block.columns = columns.collect::<Result<_, _>>()?;
        Ok(block)
    }

    /// A filter above groups is on groups. One above a limit is on the rows that the limit has let through, which other
    /// conditions would have changed: there the limit is a relation.
    fn filter(&mut self, filter: &Filter) -> Result<Block, Refusal> {
        let mut block = self.input(&filter.input, |block| !block.window.cuts())?;
        let schema = filter.input.schema();
        let predicate = self.inlined(&filter.predicate, schema, &block.columns)?.expr;
        let conjuncts = if block.group.is_some() { &mut block.having } else { &mut block.conjuncts };
        add_conjuncts(conjuncts, &predicate)?;
        Ok(block)
    }

    /// A limit of what a limit below lets through is one limit. An optimizer may also have put it into the sort.
    fn limit(&mut self, limit: &Limit) -> Result<Block, Refusal> {
        let no_number = || Refusal::new("broader shape", "a limit is no number");
        let skip = literal(limit.skip.as_deref(), 0).ok_or_else(no_number)?;
        let fetch = match &limit.fetch {
            Some(fetch) => Some(literal(Some(fetch), 0).ok_or_else(no_number)?),
            None => None,
        };
        let mut block = self.input(&limit.input, |_| true)?;
        block.window = block.window.then(skip, fetch);
        Ok(block)
    }

    /// A sort makes an order that was there before one among its equal rows, at best: it is forgotten.
    fn sort(&mut self, sort: &Sort) -> Result<Block, Refusal> {
        let mut block = self.input(&sort.input, |block| !block.window.cuts())?;
        let schema = sort.input.schema();
        let mut order: Vec<SortKey> = Vec::with_capacity(sort.expr.len());
        for key in &sort.expr {
            let term = Term::of(self.inlined(&key.expr, schema, &block.columns)?.expr)?;
            order.push(SortKey { term, asc: key.asc, nulls_first: key.nulls_first });
        }
        block.order = order;
        block.window = Window { skip: 0, fetch: sort.fetch };
        Ok(block)
    }

    /// An aggregate of rows is lifted off; of groups, or of the first rows, it is left with a relation below it. Grouping sets
    /// have rows of several sizes of groups, and are a relation, too.
    fn aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Block, Refusal> {
        let has_sets = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
        if self.rows_only || has_sets {
            return self.opaque(plan);
        }
        let block = self.rows(&aggregate.input)?;
        let input = aggregate.input.schema();
        let mut columns = Vec::with_capacity(plan.schema().fields().len());
        for expr in aggregate.group_expr.iter().chain(&aggregate.aggr_expr) {
            columns.push(self.inlined(expr, input, &block.columns)?);
        }
        let keys = columns.iter().take(aggregate.group_expr.len());
        let mut group: Vec<Term> = Vec::with_capacity(keys.len());
        for key in keys {
            let key = Term::of(key.expr.clone())?;
            if !group.contains(&key) {
                group.push(key);
            }
        }
        Ok(Block { columns, conjuncts: block.conjuncts, group: Some(group), ..Block::default() })
    }

    /// `expr`, over the columns of `schema`, as an expression over the source.
    pub(super) fn inlined(
        &mut self,
        expr: &Expr,
        schema: &DFSchema,
        columns: &[Known],
    ) -> Result<Known, Refusal> {
        self.replaced(expr, |column| columns.get(schema.maybe_index_of_column(column)?).cloned())
    }

    /// `expr` with its columns replaced. Names that it gave to its parts are left out: a name is for whoever looks at the
    /// columns of a node, and here nobody does any more.
    pub(super) fn replaced(
        &mut self,
        expr: &Expr,
        column: impl Fn(&Column) -> Option<Known>,
    ) -> Result<Known, Refusal> {
        let mut nodes = 0;
        // Counted before it is made.
        let counted = expr.apply(|node| {
            nodes += match node {
                Expr::Column(name) => column(name).map_or(1, |known| known.nodes),
                _ => 1,
            };
            Ok(TreeNodeRecursion::Continue)
        });
        self.left = self.left.checked_sub(nodes).filter(|_| counted.is_ok()).ok_or_else(|| {
            Refusal::new("broader shape", "its expressions are too long when they are written out")
        })?;
        let mut unknown = false;
        let replaced = expr.clone().transform_up(|node| match &node {
            Expr::Column(name) => match column(name) {
                Some(known) => Ok(Transformed::yes(known.expr)),
                None => {
                    unknown = true;
                    Ok(Transformed::no(node))
                }
            },
            _ => Ok(Transformed::no(node)),
        });
        match replaced.data() {
            Ok(replaced) if !unknown => Ok(Known { expr: replaced.unalias_nested().data, nodes }),
            _ => Err(Refusal::new("broader shape", "a column is not one of its input's")),
        }
    }

    /// Writes an expression over the source into the words of the source.
    pub(super) fn word(&mut self, expr: &Expr) -> Result<(), Refusal> {
        self.writer.expr(expr, Columns::Source)
    }
}

/// Adds the conjuncts of `predicate`, each once.
pub(super) fn add_conjuncts(conjuncts: &mut Vec<Term>, predicate: &Expr) -> Result<(), Refusal> {
    for conjunct in split_conjunction(predicate) {
        let conjunct = Term::of(conjunct.clone())?;
        if !conjuncts.contains(&conjunct) {
            conjuncts.push(conjunct);
        }
    }
    Ok(())
}
