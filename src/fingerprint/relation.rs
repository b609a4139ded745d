//! The relations of a source, scans and joins, without the filters that were pushed into them.
//!
//! A condition on the rows that a join keeps can be looked at above the join as well, and is lifted; one on rows that a join
//! only looks at, or fills with NULL, cannot, and is written down with the source:
//!
//! | join | lifted from the left | lifted from the right |
//! |---|---|---|
//! | inner | yes | yes |
//! | left, left semi, left anti, left mark | yes | no |
//! | right, right semi, right anti, right mark | no | yes |
//! | full | no | no |
//!
//! DataFusion repeats a condition on one key of a join for the other key. Of inner joins, equal keys are one column here, so
//! that such a condition is there once; of the other joins, a repeated condition that changes no row is left out.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, TableScan};

use super::draw::{Block, Drawing, Known, add_conjuncts};
use super::term::Term;
use super::{Refusal, Token};

/// Two columns that a join compares, the left one first. Both are columns of the source, of one type whose equal values are
/// the same value: each may stand for the other in rows that match.
type Pair = (Column, Column);

impl Drawing {
    /// A table, whichever of its columns are read, without its filters.
    ///
    /// All columns of the table are among the words, with their types: a table of one identity may come to have others. A
    /// filter that the table promises to apply is a conjunct like one that a node above it applies, and one that is in both
    /// places is there once.
    pub(super) fn scan(&mut self, plan: &LogicalPlan, scan: &TableScan) -> Result<Block, Refusal> {
        let provider = source_as_provider(&scan.source)
            .map_err(|_| Refusal::new("broader shape", "a table is of a kind of its own"))?;
        if provider.is::<ViewTable>() {
            return self.opaque(plan);
        }
        let number = self.relation();
        self.fetch = self.fetch.into_iter().chain(scan.fetch).min();
        self.writer.kind("table")?;
        self.writer.table(scan, provider)?;
        for field in scan.source.schema().fields() {
            self.writer.push(Token::Field(Arc::clone(field)))?;
        }
        let fields = scan.projected_schema.fields().iter();
        let columns = fields.map(|field| Known::column(number, field.name())).collect();
        let mut conjuncts = Vec::with_capacity(scan.filters.len());
        for filter in &scan.filters {
            let filter = self.replaced(filter, |column| Some(Known::column(number, &column.name)))?;
            add_conjuncts(&mut conjuncts, &filter.expr)?;
        }
        Ok(Block::of(columns, conjuncts))
    }

    /// Two relations, and the conjuncts that can be looked at above both.
    ///
    /// The order of the two, and of the joins of several, is a part of the source: queries that join the same tables in another
    /// order are of another source, and are not compared.
    pub(super) fn join(&mut self, join: &Join) -> Result<Block, Refusal> {
        let kind = format!("{:?} {:?} {}", join.join_type, join.null_equality, join.null_aware);
        self.writer.kind("joined")?;
        self.writer.push(Token::Text(kind.into()))?;
        let mut left = self.rows(&join.left)?;
        let mut right = self.rows(&join.right)?;
        let pairs = self.keys(join, &left, &right)?;
        match join.join_type {
            JoinType::Inner => {
                let same = |column: &Column| pairs.iter().find(|(_, right)| right == column).map(|(l, _)| l);
                replace(&mut right, same)?;
            }
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                self.settle(&mut right, &left, &pairs, join)?;
            }
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                let pairs: Vec<Pair> = pairs.into_iter().map(|(left, right)| (right, left)).collect();
                self.settle(&mut left, &right, &pairs, join)?;
            }
            JoinType::Full => {
                self.settle(&mut left, &Block::default(), &[], join)?;
                self.settle(&mut right, &Block::default(), &[], join)?;
            }
        }
        self.joined(join, left, right)
    }

    /// Writes the keys of a join down; those that are two columns of one type, equal to the bit where they are equal, are
    /// given.
    fn keys(&mut self, join: &Join, left: &Block, right: &Block) -> Result<Vec<Pair>, Refusal> {
        let mut pairs = Vec::with_capacity(join.on.len());
        self.writer.number(join.on.len())?;
        for (one, other) in &join.on {
            let types = (one.get_type(join.left.schema()), other.get_type(join.right.schema()));
            let one = self.inlined(one, join.left.schema(), &left.columns)?.expr;
            let other = self.inlined(other, join.right.schema(), &right.columns)?.expr;
            self.word(&one)?;
            self.word(&other)?;
            if let (Expr::Column(one), Expr::Column(other), (Ok(of_one), Ok(of_other))) = (one, other, types)
                && of_one == of_other
                && !of_one.is_floating()
                && !of_one.is_nested()
            {
                pairs.push((one, other));
            }
        }
        Ok(pairs)
    }

    /// Writes the conditions on a side of a join that cannot be lifted down, and what its columns are, where they are
    /// computed: a value that is computed of NULL need not be NULL.
    ///
    /// `pairs` are the columns of `kept` and of this side that are equal in rows that match.
    fn settle(&mut self, side: &mut Block, kept: &Block, pairs: &[Pair], join: &Join) -> Result<(), Refusal> {
        let mut conjuncts = Vec::with_capacity(side.conjuncts.len());
        for conjunct in std::mem::take(&mut side.conjuncts) {
            let same = |column: &Column| pairs.iter().find(|(_, own)| own == column).map(|(kept, _)| kept);
            let repeated = Term::of(with_columns(conjunct.expr(), same)?)?;
            // No kept row that satisfies it matches one that does not. `NOT IN` counts rows that do not match, too.
            let changes_nothing =
                !join.null_aware && repeated != conjunct && kept.conjuncts.contains(&repeated);
            if !changes_nothing {
                conjuncts.push(conjunct);
            }
        }
        self.writer.kind("where")?;
        self.writer.number(conjuncts.len())?;
        conjuncts.iter().try_for_each(|conjunct| self.word(conjunct.expr()))?;
        let is_filled = matches!(join.join_type, JoinType::Left | JoinType::Right | JoinType::Full);
        if !is_filled || side.columns.iter().all(|known| matches!(known.expr, Expr::Column(_))) {
            return Ok(());
        }
        let number = self.relation();
        self.writer.kind("computed")?;
        for (place, known) in side.columns.iter_mut().enumerate() {
            if !matches!(known.expr, Expr::Column(_)) {
                self.writer.number(place)?;
                self.writer.expr(&known.expr, super::plan::Columns::Source)?;
                *known = Known::column(number, place.to_string());
            }
        }
        Ok(())
    }

    /// The rows of a join, and its own condition: of an inner join one like any other, of the others a part of the source,
    /// since it decides which rows match, and not which are kept.
    fn joined(&mut self, join: &Join, left: Block, right: Block) -> Result<Block, Refusal> {
        let both: Vec<Known> = left.columns.iter().chain(&right.columns).cloned().collect();
        let filter = match &join.filter {
            Some(filter) => {
                let (sides, at) = ([join.left.schema(), join.right.schema()], left.columns.len());
                let column = |column: &Column| {
                    let place = sides[0].maybe_index_of_column(column);
                    let place = place.or_else(|| Some(sides[1].maybe_index_of_column(column)? + at));
                    both.get(place?).cloned()
                };
                Some(self.replaced(filter, column)?.expr)
            }
            None => None,
        };
        let mut conjuncts = left.conjuncts;
        conjuncts
            .extend(right.conjuncts.into_iter().filter(|own| !conjuncts.contains(own)).collect::<Vec<_>>());
        match (filter, join.join_type) {
            (Some(filter), JoinType::Inner) => add_conjuncts(&mut conjuncts, &filter)?,
            (Some(filter), _) => {
                self.writer.kind("on")?;
                self.word(&filter)?;
            }
            (None, _) => {}
        }
        let columns = match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => both,
            JoinType::LeftSemi | JoinType::LeftAnti => left.columns,
            JoinType::RightSemi | JoinType::RightAnti => right.columns,
            JoinType::LeftMark | JoinType::RightMark => {
                let kept = if join.join_type == JoinType::LeftMark { left.columns } else { right.columns };
                let mark = Known::column(self.relation(), "mark");
                kept.into_iter().chain([mark]).collect()
            }
        };
        match columns.len() == join.schema.fields().len() {
            true => Ok(Block::of(columns, conjuncts)),
            false => Err(Refusal::new("broader shape", "a join has other columns than its inputs")),
        }
    }
}

/// `block` with some of its columns replaced by others, wherever they are used. Conjuncts that become equal are there once.
fn replace<'a>(block: &mut Block, same: impl Fn(&Column) -> Option<&'a Column>) -> Result<(), Refusal> {
    for known in &mut block.columns {
        *known = Known::of(with_columns(&known.expr, &same)?);
    }
    let conjuncts = std::mem::take(&mut block.conjuncts);
    conjuncts
        .iter()
        .try_for_each(|conjunct| add_conjuncts(&mut block.conjuncts, &with_columns(conjunct.expr(), &same)?))
}

/// `expr` with some of its columns replaced by others.
fn with_columns<'a>(expr: &Expr, same: impl Fn(&Column) -> Option<&'a Column>) -> Result<Expr, Refusal> {
    let replaced = expr.clone().transform_up(|node| match &node {
        Expr::Column(column) => match same(column) {
            Some(other) => Ok(Transformed::yes(Expr::Column(other.clone()))),
            None => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    });
    replaced.data().map_err(|_| Refusal::new("broader shape", "an expression cannot be rewritten"))
}
