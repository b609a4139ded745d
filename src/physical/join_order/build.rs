//! From a tree of joins back to a plan.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result, internal_datafusion_err};
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::enumerate::{Join, Trees};
use super::flatten::replace_columns;
use super::graph::{Expr, Graph, Kind, Operator, Plan, RelSet, columns_of};

/// A plan and the region columns that it puts out.
struct Built {
    plan: Plan,
    columns: Vec<usize>,
}

impl Built {
    /// `expr` of region columns as one of this plan's columns.
    fn local(&self, expr: &Expr) -> Result<Expr> {
        let schema = self.plan.schema();
        replace_columns(expr, &|region| {
            let place = self.columns.iter().position(|column| *column == region)?;
            Some(Column::new(schema.field(place).name(), place))
        })
    }
}

/// The plan of the best tree of `trees`, with the columns of `original`.
///
/// # Errors
/// Where an expression looks at a column that its input does not have, which would be a defect of this module: the
/// query fails with an internal error rather than with other rows.
pub(super) fn build(graph: &Graph, trees: &Trees<'_>, original: &Plan) -> Result<Plan> {
    let built = Builder::new(graph, trees).set(graph.all())?;
    let schema = original.schema();
    if built.columns == graph.outputs && built.plan.schema() == schema {
        return Ok(built.plan);
    }
    let fields = built.plan.schema();
    let exprs = graph.outputs.iter().zip(schema.fields()).map(|(column, field)| {
        let place = built.columns.iter().position(|other| other == column);
        let place =
            place.ok_or_else(|| internal_datafusion_err!("join order lost column {}", field.name()))?;
        let expr: Expr = Arc::new(Column::new(fields.field(place).name(), place));
        Ok(ProjectionExpr { expr, alias: field.name().clone() })
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(exprs, built.plan)?))
}

/// Makes plan nodes of a tree that was chosen, from the leaves up.
struct Builder<'a> {
    graph: &'a Graph,
    trees: &'a Trees<'a>,
    /// For each column name the first region column that has it.
    names: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, trees: &'a Trees<'a>) -> Self {
        let mut names = HashMap::new();
        for relation in &graph.relations {
            for (place, field) in relation.plan.schema().fields().iter().enumerate() {
                names.entry(field.name().clone()).or_insert(relation.offset + place);
            }
        }
        Self { graph, trees, names }
    }
}

impl Builder<'_> {
    /// The plan of the best tree for `set`.
    fn set(&self, set: RelSet) -> Result<Built> {
        let tree = self.trees.get(set).ok_or_else(|| internal_datafusion_err!("join order has no tree"))?;
        match tree.join {
            Some(join) => self.join(join),
            None => self.relation(set.trailing_zeros() as usize),
        }
    }

    /// An input, filtered by what looks at nothing else.
    fn relation(&self, index: usize) -> Result<Built> {
        let relation = &self.graph.relations[index];
        let width = relation.estimate.columns.len();
        let mut built = Built {
            plan: Arc::clone(&relation.plan),
            columns: (relation.offset..relation.offset + width).collect(),
        };
        let conditions: Vec<Expr> =
            self.graph.conditions_on(index).map(|condition| Arc::clone(&condition.expr)).collect();
        if !conditions.is_empty() {
            let predicate = built.local(&conjunction(conditions))?;
            built.plan = Arc::new(FilterExec::try_new(predicate, built.plan)?);
        }
        self.renamed(built, relation.operator)
    }

    /// The input with column names that no other input has.
    ///
    /// DataFusion 55.2 pushes filters down by column names, and takes the first of two columns of one name
    /// (apache/datafusion issue 25244). The joins above keep their names apart, whatever their order.
    fn renamed(&self, built: Built, operator: Option<usize>) -> Result<Built> {
        let hidden = operator.is_some_and(|index| self.graph.operators[index].kind != Kind::Outer);
        let schema = built.plan.schema();
        let mut changed = false;
        let names = schema.fields().iter().zip(&built.columns).map(|(field, column)| {
            let taken = self.names.get(field.name()).is_some_and(|first| first != column);
            changed |= taken;
            if taken { format!("{}#{column}", field.name()) } else { field.name().clone() }
        });
        let names: Vec<String> = names.collect();
        if hidden || !changed {
            return Ok(built);
        }
        let exprs = schema.fields().iter().zip(names).enumerate().map(|(place, (field, alias))| {
            let expr: Expr = Arc::new(Column::new(field.name(), place));
            ProjectionExpr { expr, alias }
        });
        let plan = ProjectionExec::try_new(exprs.collect::<Vec<_>>(), built.plan)?;
        Ok(Built { plan: Arc::new(plan), columns: built.columns })
    }

    /// The join of two trees. It puts out the columns that something above it needs, and no others: what is not
    /// gathered need not be copied.
    fn join(&self, join: Join) -> Result<Built> {
        let (build, probe) = (self.set(join.build)?, self.set(join.probe)?);
        let graph = self.graph;
        let (of_build, of_probe) = (graph.operator_of(join.build), graph.operator_of(join.probe));
        let parts = match (of_build, of_probe) {
            (Some(operator), _) => self.operator(operator, join, true),
            (_, Some(operator)) => self.operator(operator, join, false),
            _ => self.inner(join),
        };
        let on = parts
            .keys
            .iter()
            .map(|(b, p)| Ok((build.local(b)?, probe.local(p)?)))
            .collect::<Result<Vec<_>>>()?;
        let filter = parts.filter.map(|filter| join_filter(&filter, &build, &probe)).transpose()?;
        let joined: Vec<usize> = match parts.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => build.columns.clone(),
            JoinType::RightSemi | JoinType::RightAnti => probe.columns.clone(),
            _ => [build.columns.as_slice(), &probe.columns].concat(),
        };
        // What a filter above the join looks at is needed as well.
        let mut needed = graph.needed(join.build | join.probe);
        needed.extend(parts.after.iter().flat_map(columns_of));
        let mut kept: Vec<usize> =
            (0..joined.len()).filter(|place| needed.contains(&joined[*place])).collect();
        if kept.is_empty() {
            // Rows without columns would lose their number.
            kept.push(0);
        }
        let columns = kept.iter().map(|place| joined[*place]).collect();
        let projection = (kept.len() < joined.len()).then_some(kept);
        let mode = if join.collected { PartitionMode::CollectLeft } else { PartitionMode::Partitioned };
        let plan = HashJoinExecBuilder::new(build.plan, probe.plan, on, parts.join_type)
            .with_filter(filter)
            .with_projection(projection)
            .with_partition_mode(mode)
            .with_null_equality(parts.null_equality)
            .build_exec()?;
        let mut built = Built { plan, columns };
        if let Some(after) = parts.after {
            let predicate = built.local(&after)?;
            built.plan = Arc::new(FilterExec::try_new(predicate, built.plan)?);
        }
        Ok(built)
    }

    /// One key for each class that both sides have a member of, and all conditions that can be decided now.
    ///
    /// One is enough: the members of a class that are together in a tree were made equal when they came together.
    fn inner(&self, join: Join) -> Parts {
        let graph = self.graph;
        let (build, probe) = (join.build, join.probe);
        let mut keys: Vec<(Expr, Expr)> = Vec::new();
        for class in 0..graph.classes.len() {
            if let (Some(b), Some(p)) = (graph.member(class, build), graph.member(class, probe)) {
                keys.push((Arc::clone(&b.expr), Arc::clone(&p.expr)));
            }
        }
        let mut conditions = Vec::new();
        for condition in graph.conditions.iter().filter(|condition| graph.decides(condition, build, probe)) {
            match graph.key_of(condition, build, probe) {
                Some(key) => keys.push(key),
                None => conditions.push(Arc::clone(&condition.expr)),
            }
        }
        let filter = (!conditions.is_empty()).then(|| conjunction(conditions));
        let null_equality = NullEquality::NullEqualsNothing;
        Parts { join_type: JoinType::Inner, keys, filter, after: None, null_equality }
    }

    /// The operator's own keys and filter. What else becomes decidable is decided on its result: within an outer join's
    /// condition it would make rows unmatched instead of dropping them.
    fn operator(&self, operator: &Operator, join: Join, own_is_build: bool) -> Parts {
        let graph = self.graph;
        let kept = if own_is_build { join.probe } else { join.build };
        let keys = operator.keys.iter().zip(&operator.key_classes).map(|((left, right), class)| {
            let left = class.and_then(|class| graph.member(class, kept)).map_or(left, |member| &member.expr);
            let (left, right) = (Arc::clone(left), Arc::clone(right));
            if own_is_build { (right, left) } else { (left, right) }
        });
        let conditions =
            graph.conditions.iter().filter(|condition| graph.decides(condition, join.build, join.probe));
        let conditions: Vec<Expr> = conditions.map(|condition| Arc::clone(&condition.expr)).collect();
        let join_type = match (operator.kind, own_is_build) {
            (Kind::Semi, true) => JoinType::RightSemi,
            (Kind::Semi, false) => JoinType::LeftSemi,
            (Kind::Anti, true) => JoinType::RightAnti,
            (Kind::Anti, false) => JoinType::LeftAnti,
            (Kind::Outer, true) => JoinType::Right,
            (Kind::Outer, false) => JoinType::Left,
        };
        Parts {
            join_type,
            keys: keys.collect(),
            filter: operator.filter.clone(),
            after: (!conditions.is_empty()).then(|| conjunction(conditions)),
            null_equality: operator.null_equality,
        }
    }
}

/// What a join is made of, in region columns.
struct Parts {
    join_type: JoinType,
    /// Build side and probe side.
    keys: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    /// What the join's result is filtered by.
    after: Option<Expr>,
    null_equality: NullEquality,
}

/// A join's filter looks at a batch of its own, with the columns that it needs of both sides.
fn join_filter(filter: &Expr, build: &Built, probe: &Built) -> Result<JoinFilter> {
    let mut needed = columns_of(filter);
    needed.sort_unstable();
    needed.dedup();
    let mut fields: Vec<Field> = Vec::new();
    let mut indices = Vec::new();
    for column in &needed {
        let sides = [(JoinSide::Left, build), (JoinSide::Right, probe)];
        let found = sides.into_iter().find_map(|(side, built)| {
            let index = built.columns.iter().position(|other| other == column)?;
            Some((ColumnIndex { index, side }, built.plan.schema().field(index).clone()))
        });
        let (index, field) = found
            .ok_or_else(|| internal_datafusion_err!("join order lost column {column} of a join filter"))?;
        fields.push(field);
        indices.push(index);
    }
    let filter = replace_columns(filter, &|region| {
        let place = needed.binary_search(&region).ok()?;
        Some(Column::new(fields[place].name(), place))
    })?;
    Ok(JoinFilter::new(filter, indices, Arc::new(Schema::new(fields))))
}
