//! From a tree of joins to the graph.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result, internal_err};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, binary};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;

use super::graph::{Condition, Expr, Graph, Kind, MAX_RELATIONS, Member, Operator, Plan, RelSet, Relation};
use crate::physical::estimate::{ColumnEstimate, KeyValues, Known, estimate, selectivity};

/// Whether `plan` is the root of joins that may change their order, or a projection or filter on top of such.
pub(super) fn is_region(plan: &Plan) -> bool {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return is_movable(join);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return projection.expr().iter().all(|item| item.expr.is::<Column>())
            && is_region(projection.input());
    }
    plan.downcast_ref::<FilterExec>().is_some_and(|filter| {
        filter.fetch().is_none() && !is_volatile(filter.predicate()) && is_region(filter.input())
    })
}

/// Whether `join` may change places with other joins of its region.
///
/// A full join keeps rows of both sides, and a mark join makes a column that only exists above it: neither commutes
/// with what is around it. A null-aware anti join must keep its build side in one piece. A volatile condition must
/// be evaluated as often as it is written. A join that treats NULLs as equal makes no classes: with `a IS NOT
/// DISTINCT FROM b AND b = c` nothing follows for `a` and `c`.
fn is_movable(join: &HashJoinExec) -> bool {
    let null_equals_nothing = join.null_equality() == NullEquality::NullEqualsNothing;
    let kind = match join.join_type() {
        JoinType::Inner => null_equals_nothing,
        JoinType::Left | JoinType::Right => true,
        JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti => true,
        JoinType::Full | JoinType::LeftMark | JoinType::RightMark => false,
    };
    let volatile = join.filter().is_some_and(|filter| is_volatile(filter.expression()))
        || join.on().iter().any(|(left, right)| is_volatile(left) || is_volatile(right));
    kind && !volatile && !join.null_aware && join.fetch().is_none()
}

/// Why a region stays as it is.
pub(super) type Refusal = &'static str;

/// The graph of the region at `plan`, whose inputs were rewritten by `input`.
///
/// The first `Err` is a failure, the second the reason for which there is no graph.
pub(super) fn flatten(
    plan: &Plan,
    known: Known<'_>,
    input: &mut dyn FnMut(&Plan) -> Result<Plan>,
) -> Result<Result<(Graph, Vec<WrittenJoin>), Refusal>> {
    let (graph, written) = (Graph::default(), Vec::new());
    let mut flattener = Flattener { graph, written, known, input, refusal: None };
    let (outputs, _) = flattener.node(plan)?;
    if let Some(refusal) = flattener.refusal {
        return Ok(Err(refusal));
    }
    let Flattener { mut graph, written, .. } = flattener;
    graph.outputs = outputs;
    finish_classes(&mut graph);
    Ok(Ok((graph, written)))
}

/// A join as it stands in the plan: build side, probe side, and whether the build side is collected.
#[derive(Debug)]
pub(super) struct WrittenJoin {
    pub(super) build: RelSet,
    pub(super) probe: RelSet,
    pub(super) collected: bool,
}

/// Collects the relations and conditions of one region, from its root down.
struct Flattener<'a> {
    graph: Graph,
    written: Vec<WrittenJoin>,
    known: Known<'a>,
    input: &'a mut dyn FnMut(&Plan) -> Result<Plan>,
    refusal: Option<Refusal>,
}

/// The region columns that a node puts out, and the relations below it.
type Node = (Vec<usize>, RelSet);

impl Flattener<'_> {
    fn node(&mut self, plan: &Plan) -> Result<Node> {
        if self.refusal.is_some() {
            return Ok((Vec::new(), 0));
        }
        if !is_region(plan) {
            return self.relation(plan, None);
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            return self.join(join);
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let (columns, set) = self.node(projection.input())?;
            let place = |expr: &Expr| expr.downcast_ref::<Column>().map_or(0, Column::index);
            let picked = projection.expr().iter().map(|item| place(&item.expr));
            return Ok((pick(&columns, picked), set));
        }
        let Some(filter) = plan.downcast_ref::<FilterExec>() else {
            return self.relation(plan, None);
        };
        let (columns, set) = self.node(filter.input())?;
        if self.refusal.is_none() {
            for conjunct in split_conjunction(filter.predicate()) {
                let expr = renumber(conjunct, &columns)?;
                self.condition(expr);
            }
        }
        Ok(match filter.projection() {
            Some(projection) => (pick(&columns, projection.iter().copied()), set),
            None => (columns, set),
        })
    }

    /// An input of the region. With `operator` it may enter by that one only.
    fn relation(&mut self, plan: &Plan, operator: Option<usize>) -> Result<Node> {
        if self.refusal.is_some() {
            return Ok((Vec::new(), 0));
        }
        let index = self.graph.relations.len();
        if index == MAX_RELATIONS {
            self.refusal = Some("more than 64 relations are joined");
            return Ok((Vec::new(), 0));
        }
        let plan = (self.input)(plan)?;
        let Some(estimate) = estimate(&plan, self.known) else {
            self.refusal = Some("an input does not know how many rows it has");
            return Ok((Vec::new(), 0));
        };
        let offset = self.graph.relations.last().map_or(0, |last| last.offset + last.estimate.columns.len());
        let columns = (offset..offset + estimate.columns.len()).collect();
        self.graph.relations.push(Relation { plan, estimate, offset, operator });
        Ok((columns, 1 << index))
    }

    /// A join, and what is below it: on the side whose rows are kept the region goes on, the other is a whole.
    fn join(&mut self, join: &HashJoinExec) -> Result<Node> {
        use JoinType::{Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
        let (left, right) = (join.left(), join.right());
        let (left, right, operator) = match join.join_type() {
            Left | LeftSemi | LeftAnti => {
                let kept = self.node(left)?;
                let number = self.graph.operators.len();
                (kept, self.relation(right, Some(number))?, Some(JoinSide::Right))
            }
            Right | RightSemi | RightAnti => {
                let kept = self.node(right)?;
                let number = self.graph.operators.len();
                (self.relation(left, Some(number))?, kept, Some(JoinSide::Left))
            }
            _ => (self.node(left)?, self.node(right)?, None),
        };
        if self.refusal.is_some() {
            return Ok((Vec::new(), 0));
        }
        match operator {
            Some(side) => self.operator(join, side, &left, &right)?,
            None => self.inner(join, &left, &right)?,
        }
        let collected = *join.partition_mode() == PartitionMode::CollectLeft;
        self.written.push(WrittenJoin { build: left.1, probe: right.1, collected });
        let columns = match join.join_type() {
            LeftSemi | LeftAnti => left.0,
            RightSemi | RightAnti => right.0,
            _ => [left.0, right.0].concat(),
        };
        let columns = match &join.projection {
            Some(projection) => pick(&columns, projection.iter().copied()),
            None => columns,
        };
        Ok((columns, left.1 | right.1))
    }

    /// The keys of an inner join become equalities, its filter becomes conditions: neither belongs to the join any
    /// more, and each is applied where all that it looks at comes together.
    fn inner(&mut self, join: &HashJoinExec, left: &Node, right: &Node) -> Result<()> {
        for (l, r) in join.on() {
            let (l, r) = (renumber(l, &left.0)?, renumber(r, &right.0)?);
            self.equality(l, r)?;
        }
        if let Some(filter) = join.filter() {
            let filter = renumber_filter(filter, &left.0, &right.0)?;
            for conjunct in split_conjunction(&filter) {
                self.condition(Arc::clone(conjunct));
            }
        }
        Ok(())
    }

    /// A join that is not inner stays one thing: which rows it keeps depends on all of its condition at once.
    /// `side` is the side of the relation that it brings in.
    fn operator(&mut self, join: &HashJoinExec, side: JoinSide, left: &Node, right: &Node) -> Result<()> {
        let (kept, own) = if side == JoinSide::Right { (left, right) } else { (right, left) };
        let mut keys = Vec::new();
        for (l, r) in join.on() {
            let (l, r) = if side == JoinSide::Right { (l, r) } else { (r, l) };
            keys.push((renumber(l, &kept.0)?, renumber(r, &own.0)?));
        }
        let filter = join.filter().map(|filter| renumber_filter(filter, &left.0, &right.0)).transpose()?;
        let kind = match join.join_type() {
            JoinType::LeftSemi | JoinType::RightSemi => Kind::Semi,
            JoinType::LeftAnti | JoinType::RightAnti => Kind::Anti,
            _ => Kind::Outer,
        };
        self.graph.operators.push(Operator {
            kind,
            relation: own.1.trailing_zeros() as usize,
            key_classes: vec![None; keys.len()],
            keys,
            filter,
            null_equality: join.null_equality(),
            needs: 0,
        });
        Ok(())
    }

    /// `left = right` of an inner join.
    ///
    /// Where each side looks at one relation that is free to move, the two join a class: everything in it is equal
    /// in every row of the result, so any two of its members may serve as keys. An outer join's relation is not in
    /// a class, since its columns are NULL where nothing matched, and equal to nothing.
    fn equality(&mut self, left: Expr, right: Expr) -> Result<()> {
        let (a, b) = (self.free_relation(&left), self.free_relation(&right));
        let member = |expr: Expr, relation: usize| {
            let estimate = &self.graph.relations[relation].estimate;
            let offset = self.graph.relations[relation].offset;
            let column = expr.downcast_ref::<Column>().map(|c| c.index() - offset);
            let column = column.and_then(|index| estimate.columns.get(index));
            Member { relation, expr, values: KeyValues::of_column(column, estimate.rows) }
        };
        let (Some(a), Some(b)) = (a, b) else {
            let schema = self.schema()?;
            let both = binary(left, Op::Eq, right, &schema)?;
            self.condition(both);
            return Ok(());
        };
        let (left, right) = (member(left, a), member(right, b));
        let classes = &mut self.graph.classes;
        let find = |member: &Member, classes: &[Vec<Member>]| {
            classes.iter().position(|class| class.iter().any(|other| other.expr.eq(&member.expr)))
        };
        match (find(&left, classes), find(&right, classes)) {
            (Some(l), Some(r)) if l == r => {}
            (Some(l), Some(r)) => {
                let moved = classes.remove(l.max(r));
                classes[l.min(r)].extend(moved);
            }
            (Some(class), None) => classes[class].push(right),
            (None, Some(class)) => classes[class].push(left),
            (None, None) => classes.push(vec![left, right]),
        }
        Ok(())
    }

    /// The one relation of `expr`'s columns, where it may enter by an inner join.
    fn free_relation(&self, expr: &Expr) -> Option<usize> {
        let set = self.graph.relations_of(expr);
        let relation = set.is_power_of_two().then(|| set.trailing_zeros() as usize)?;
        self.graph.relations[relation].operator.is_none().then_some(relation)
    }

    /// What an inner join or a filter requires apart from equalities of two relations.
    fn condition(&mut self, expr: Expr) {
        let equality = expr
            .downcast_ref::<BinaryExpr>()
            .filter(|binary| *binary.op() == Op::Eq)
            .map(|binary| (Arc::clone(binary.left()), Arc::clone(binary.right())));
        let columns: Vec<ColumnEstimate> =
            self.graph.relations.iter().flat_map(|relation| relation.estimate.columns.clone()).collect();
        let selectivity = selectivity(&expr, &columns);
        let relations = self.graph.relations_of(&expr);
        if relations == 0 {
            self.refusal = Some("a condition looks at no column");
        }
        self.graph.conditions.push(Condition { expr, relations, equality, selectivity });
    }

    /// A schema of all region columns.
    fn schema(&self) -> Result<Schema> {
        let fields: Vec<_> = self
            .graph
            .relations
            .iter()
            .flat_map(|relation| relation.plan.schema().fields().iter().map(Arc::clone).collect::<Vec<_>>())
            .collect();
        Ok(Schema::new(fields))
    }
}

/// Takes values of which nothing is known to be among the others of their class: among those of the known member with the
/// most, or else of the smallest table, which is most likely the one that the others refer to. Nobody refers to a table
/// without rows.
fn contain(class: &mut [Member], relations: &[Relation]) {
    let has_rows = |member: &&Member| {
        relations.get(member.relation).is_some_and(|relation| relation.estimate.rows > 0.0)
    };
    let known = class.iter().filter(|member| !member.values.guessed).map(|member| member.values.domain);
    let least =
        class.iter().filter(has_rows).map(|member| member.values.domain).fold(f64::INFINITY, f64::min);
    let domain = known.reduce(f64::max).unwrap_or(least);
    for member in class.iter_mut() {
        member.values = member.values.at_most(domain);
    }
}

/// What is known once all equalities are: the order of members, the classes of operators' keys, and equalities
/// within one relation that only transitivity shows.
fn finish_classes(graph: &mut Graph) {
    let mut within = Vec::new();
    for class in &mut graph.classes {
        contain(class, &graph.relations);
        class.sort_by_key(|member| member.relation);
        for pair in class.windows(2) {
            if pair[0].relation == pair[1].relation {
                within.push((Arc::clone(&pair[0].expr), Arc::clone(&pair[1].expr), pair[0].relation));
            }
        }
    }
    for (left, right, relation) in within {
        let expr: Expr = Arc::new(BinaryExpr::new(Arc::clone(&left), Op::Eq, Arc::clone(&right)));
        let equality = Some((left, right));
        graph.conditions.push(Condition { expr, relations: 1 << relation, equality, selectivity: 0.1 });
    }
    for index in 0..graph.operators.len() {
        let operator = &graph.operators[index];
        let mut needs = operator.filter.as_ref().map_or(0, |filter| graph.relations_of(filter));
        let mut key_classes = Vec::with_capacity(operator.keys.len());
        for (left, _) in &operator.keys {
            let class =
                graph.classes.iter().position(|class| class.iter().any(|member| member.expr.eq(left)));
            if class.is_none() {
                needs |= graph.relations_of(left);
            }
            key_classes.push(class);
        }
        let own = 1 << operator.relation;
        let operator = &mut graph.operators[index];
        operator.needs = needs & !own;
        operator.key_classes = key_classes;
    }
}

/// The columns at `places`.
fn pick(columns: &[usize], places: impl Iterator<Item = usize>) -> Vec<usize> {
    places.filter_map(|place| columns.get(place).copied()).collect()
}

/// `expr` with each column `i` replaced by region column `columns[i]`.
///
/// Region columns have no name: the same column may have gone by several.
fn renumber(expr: &Expr, columns: &[usize]) -> Result<Expr> {
    replace_columns(expr, &|index| columns.get(index).map(|column| Column::new("", *column)))
}

/// `expr` with each column replaced.
pub(super) fn replace_columns(expr: &Expr, replacement: &dyn Fn(usize) -> Option<Column>) -> Result<Expr> {
    let replaced = Arc::clone(expr).transform(|node| {
        let Some(column) = node.downcast_ref::<Column>() else {
            return Ok(Transformed::no(node));
        };
        match replacement(column.index()) {
            Some(column) => Ok(Transformed::yes(Arc::new(column) as Expr)),
            None => internal_err!("column {column} is not an input of the join"),
        }
    });
    replaced.data()
}

/// A join's filter looks at a batch of its own, whose columns come from both sides.
fn renumber_filter(filter: &JoinFilter, left: &[usize], right: &[usize]) -> Result<Expr> {
    let columns: Vec<usize> = filter
        .column_indices()
        .iter()
        .filter_map(|column| match column.side {
            JoinSide::Left => left.get(column.index).copied(),
            JoinSide::Right => right.get(column.index).copied(),
            JoinSide::None => None,
        })
        .collect();
    renumber(filter.expression(), &columns)
}
