//! What a subtree computes, from which version of which data: one text for all plans that give the same rows.
//!
//! | node | part of the fingerprint |
//! |---|---|
//! | scan | the identity of its data; row filters inside the Parquet reader count as filters |
//! | filter, inner and cross join | a set of inputs, a set of conjuncts, classes of equal expressions: their order does not matter |
//! | semi and anti join | a conjunct on the rows that are kept |
//! | outer join, union, aggregate | an input of its own kind; of an aggregate the two phases are one |
//! | projection | says what the columns above mean |
//! | exchange, sort without limit | nothing |
//!
//! ```text
//!   SELECT … FROM shop JOIN sale ON s = shop WHERE city = 3        SELECT … FROM sale, shop WHERE shop = s AND city = 3
//!
//!   {1f3c…: file:/// parquet … "shop.parquet" …                    the same text: names are those of the inputs' data, and
//!    92ab…: file:/// parquet … "sale.parquet" …                    columns are their places in them
//!     where {"(1f3c….1 = Int64(3))"}
//!     equal {{"1f3c….0", "92ab….2"}}}
//! ```
//!
//! This is an allow-list. A node, an expression or a source that is not on it, a limit, a volatile function, and whatever
//! else makes a subtree's rows depend on more than the subtree, leave it without a fingerprint, and the reason is said.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::expr_text::{equality, expr_text};
use super::lineage::keeps_all_rows;
use crate::store::Identity;

/// An expression, and what each of its columns is.
type Condition<'a> = (&'a Arc<dyn PhysicalExpr>, Vec<String>);

/// Why a plan has no fingerprint.
pub(super) type Reason = &'static str;

/// The longest fingerprint: of queries with long lists, and of tables of thousands of files, nothing is kept.
const MAX_BYTES: usize = 256 << 10;

/// The fingerprint of the rows that `plan` gives, or why it has none. It does not say which columns they have, nor in
/// what order the rows come: plans that differ in nothing else have as many rows.
pub(super) fn fingerprint(plan: &dyn ExecutionPlan) -> Result<String, Reason> {
    let text = relation(plan)?.finish()?;
    if text.len() > MAX_BYTES { Err("its description is too long") } else { Ok(text) }
}

/// Rows, described so that plans which give the same ones have the same description.
#[derive(Debug, Default)]
struct Relation {
    /// What is joined: descriptions, by short names that columns are qualified with.
    units: BTreeMap<String, String>,
    /// What the rows have to meet.
    conjuncts: BTreeSet<String>,
    /// Expressions that are equal and not NULL.
    equal: Vec<(String, String)>,
    /// What each column is.
    columns: Vec<String>,
    /// What a scan may have dropped rows by that do not meet it. It must be met before the rows are known.
    pruned: BTreeSet<String>,
    /// Dynamic filters that drop rows, and are made further up.
    foreign: BTreeSet<u64>,
}

impl Relation {
    /// Rows of a single unit, whose columns are named by the unit's name.
    ///
    /// The name is a hash, to keep columns short. A fingerprint holds the whole text beside it, so equal names of two
    /// units make two fingerprints all the same; within one they would be refused as the same input twice.
    fn of_unit(text: String, columns: impl Fn(&str) -> Vec<String>) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let name = format!("{:016x}", hasher.finish());
        let columns = columns(&name);
        Self { units: BTreeMap::from([(name, text)]), columns, ..Self::default() }
    }

    /// The description of the rows.
    fn finish(self) -> Result<String, Reason> {
        if !self.foreign.is_empty() {
            return Err("a dynamic filter from further up drops some of its rows");
        }
        if !self.pruned.is_subset(&self.conjuncts) {
            return Err("its scan leaves out rows by a filter that is applied further up");
        }
        let units: Vec<String> =
            self.units.into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
        Ok(format!("{{{}\n where {:?}\n equal {:?}}}", units.join("\n"), self.conjuncts, classes(self.equal)))
    }

    /// Adds what `predicate` requires of the rows.
    fn filter(&mut self, predicate: &Arc<dyn PhysicalExpr>) -> Result<(), Reason> {
        for conjunct in split_conjunction(predicate) {
            if let Some(id) = conjunct.expression_id() {
                self.foreign.insert(id);
            } else if let Some((left, right)) = equality(conjunct, &self.columns)? {
                self.pruned.remove(&expr_text(conjunct, &self.columns)?);
                self.equal.push((left, right));
            } else {
                self.conjuncts.insert(expr_text(conjunct, &self.columns)?);
            }
        }
        Ok(())
    }

    /// The rows of both, paired. `Err` where they have an input in common: its columns could not be told apart.
    fn joined(mut self, other: Self) -> Result<Self, Reason> {
        if other.units.keys().any(|name| self.units.contains_key(name)) {
            return Err("an input occurs twice");
        }
        self.units.extend(other.units);
        self.conjuncts.extend(other.conjuncts);
        self.equal.extend(other.equal);
        self.columns.extend(other.columns);
        self.pruned.extend(other.pruned);
        self.foreign.extend(other.foreign);
        Ok(self)
    }

    /// Keeps the columns at these places, in this order.
    fn project(&mut self, kept: Option<&[usize]>) -> Result<(), Reason> {
        if let Some(kept) = kept {
            let columns = kept.iter().map(|index| self.columns.get(*index).cloned());
            self.columns = columns.collect::<Option<_>>().ok_or("a column is missing")?;
        }
        Ok(())
    }
}

/// Equalities closed under transitivity: `a = b AND b = c` and `a = c AND c = b` are the same class.
fn classes(equal: Vec<(String, String)>) -> BTreeSet<BTreeSet<String>> {
    let mut classes: Vec<BTreeSet<String>> = Vec::new();
    for (left, right) in equal {
        let mut merged = BTreeSet::from([left, right]);
        classes.retain_mut(|class| {
            let apart = class.is_disjoint(&merged);
            if !apart {
                merged.append(class);
            }
            apart
        });
        classes.push(merged);
    }
    classes.into_iter().collect()
}

/// The rows of `plan`, from the leaves up.
///
/// A dynamic filter drops rows that the node which makes it does not need. Above that node they are of no matter; below
/// it they are missing.
fn relation(plan: &dyn ExecutionPlan) -> Result<Relation, Reason> {
    if plan.fetch().is_some() {
        return Err("it has a limit");
    }
    let mut described = if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let mut input = relation(filter.input().as_ref())?;
        input.filter(filter.predicate())?;
        input.project(filter.projection().as_deref())?;
        input
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let mut input = relation(projection.input().as_ref())?;
        let columns = projection.expr().iter().map(|item| expr_text(&item.expr, &input.columns));
        input.columns = columns.collect::<Result<_, _>>()?;
        input
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        of_join(join)?
    } else if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
        relation(join.left().as_ref())?.joined(relation(join.right().as_ref())?)?
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        of_aggregate(aggregate)?
    } else if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        of_scan(plan, scan)?
    } else if plan.is::<UnionExec>() {
        of_union(plan)?
    } else if keeps_all_rows(plan) {
        relation(plan.children().first().ok_or("it has no input")?.as_ref())?
    } else {
        return Err("a node is of a kind that has no fingerprint");
    };
    for id in plan.dynamic_expressions_produced().iter().filter_map(|filter| filter.expression_id()) {
        described.foreign.remove(&id);
    }
    Ok(described)
}

/// A scan is its data, whatever it makes of it by row filters.
///
/// A filter that a Parquet scan is given without being told to apply it row by row drops whole row groups and pages: the
/// rows are then between those of the table and those that the filter leaves, until it is applied above.
fn of_scan(plan: &dyn ExecutionPlan, scan: &DataSourceExec) -> Result<Relation, Reason> {
    let identity = Identity::of(plan)?;
    let columns = |table: usize| {
        move |name: &str| (0..table).map(|index| format!("{name}.{index}")).collect::<Vec<_>>()
    };
    if let Some(memory) = scan.data_source().downcast_ref::<MemorySourceConfig>() {
        let table = memory.original_schema().fields().len();
        let mut described = Relation::of_unit(identity.text().to_owned(), columns(table));
        described.project(memory.projection().as_deref())?;
        return Ok(described);
    }
    let files = scan.data_source().downcast_ref::<FileScanConfig>().ok_or("its source is not known")?;
    let source = files.file_source();
    let table = source.table_schema().table_schema().fields().len();
    let mut described = Relation::of_unit(identity.text().to_owned(), columns(table));
    if let Some(predicate) = source.filter() {
        let parquet = source.downcast_ref::<ParquetSource>().ok_or("its source has filters of its own")?;
        if parquet.table_parquet_options().global.pushdown_filters {
            described.filter(&predicate)?;
        } else {
            for conjunct in split_conjunction(&predicate) {
                match conjunct.expression_id() {
                    Some(id) => described.foreign.insert(id),
                    None => described.pruned.insert(expr_text(conjunct, &described.columns)?),
                };
            }
        }
    }
    if let Some(projection) = source.projection() {
        let columns = projection.iter().map(|item| expr_text(&item.expr, &described.columns));
        described.columns = columns.collect::<Result<_, _>>()?;
    }
    Ok(described)
}

/// A join of two descriptions. Of a semi or anti join the kept side stays open to further joins, as the join order may put
/// them on either side of it; an outer join is closed.
fn of_join(join: &HashJoinExec) -> Result<Relation, Reason> {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
    if join.null_aware {
        return Err("a null-aware anti join depends on all rows of both sides");
    }
    let (left, right) = (relation(join.left().as_ref())?, relation(join.right().as_ref())?);
    if right.units.keys().any(|name| left.units.contains_key(name)) {
        return Err("an input occurs twice");
    }
    let mut keys = Vec::new();
    for (l, r) in join.on() {
        keys.push((expr_text(l, &left.columns)?, expr_text(r, &right.columns)?));
    }
    let filter = filter_of(join, &left, &right)?;
    let nulls = join.null_equality() == NullEquality::NullEqualsNull;
    let mut described = match join.join_type() {
        Inner => {
            let mut both = left.joined(right)?;
            if nulls {
                both.conjuncts.extend(keys.iter().map(|(l, r)| format!("{} <=> {}", l.min(r), l.max(r))));
            } else {
                both.equal.extend(keys);
            }
            if let Some((expr, columns)) = filter {
                let own = std::mem::replace(&mut both.columns, columns);
                both.filter(expr)?;
                both.columns = own;
            }
            both
        }
        kind => {
            let condition = filter.map(|(expr, columns)| expr_text(expr, &columns)).transpose()?;
            let flipped = matches!(kind, RightSemi | RightAnti | Right);
            let (kept, other) = if flipped { (right, left) } else { (left, right) };
            if flipped {
                keys = keys.into_iter().map(|(l, r)| (r, l)).collect();
            }
            keys.sort_unstable();
            let on = format!("{keys:?} {nulls} {condition:?}");
            match kind {
                LeftSemi | RightSemi => beside(kept, other, &format!("exists {on}"))?,
                LeftAnti | RightAnti => beside(kept, other, &format!("no {on}"))?,
                Left | Right => outer(kept, other, &format!("left {on}"), flipped)?,
                Full => outer(kept, other, &format!("full {on}"), false)?,
                _ => return Err("a mark join has no fingerprint"),
            }
        }
    };
    described.project(join.projection.as_deref())?;
    Ok(described)
}

/// A join's condition beyond its keys, and what its columns are.
fn filter_of<'a>(
    join: &'a HashJoinExec,
    left: &Relation,
    right: &Relation,
) -> Result<Option<Condition<'a>>, Reason> {
    let Some(filter) = join.filter() else {
        return Ok(None);
    };
    let columns = filter.column_indices().iter().map(|column| match column.side {
        JoinSide::Left => left.columns.get(column.index).cloned(),
        JoinSide::Right => right.columns.get(column.index).cloned(),
        JoinSide::None => None,
    });
    Ok(Some((filter.expression(), columns.collect::<Option<_>>().ok_or("a column is missing")?)))
}

/// The rows of `kept` for which there is, or is not, a row of `other`.
fn beside(mut kept: Relation, mut other: Relation, how: &str) -> Result<Relation, Reason> {
    // Filters of the join's own keep rows that it needs; others do not, on either side.
    kept.foreign.append(&mut other.foreign);
    kept.conjuncts.insert(format!("{how} in {}", other.finish()?));
    Ok(kept)
}

/// An outer join, as a unit: its columns may be NULL where those of its inputs are not.
fn outer(mut kept: Relation, mut other: Relation, how: &str, flipped: bool) -> Result<Relation, Reason> {
    let mut foreign = std::mem::take(&mut kept.foreign);
    foreign.append(&mut other.foreign);
    let (a, b) = (std::mem::take(&mut kept.columns), std::mem::take(&mut other.columns));
    let columns = if flipped { [b, a].concat() } else { [a, b].concat() };
    let text = format!("{how} of {} and {}", kept.finish()?, other.finish()?);
    let joined = Relation::of_unit(text, |name| columns.iter().map(|c| format!("{name}({c})")).collect());
    Ok(Relation { foreign, ..joined })
}

/// The groups of an aggregate. Its two phases are one, and a first phase alone has no fingerprint, since it gives a group
/// once for each partition that has it.
fn of_aggregate(aggregate: &AggregateExec) -> Result<Relation, Reason> {
    let source = match aggregate.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned => aggregate,
        AggregateMode::Final | AggregateMode::FinalPartitioned => first_phase(aggregate)?,
        _ => return Err("the first phase of an aggregate depends on the partitions"),
    };
    let limited = aggregate.limit_options().is_some() || source.limit_options().is_some();
    if limited || source.fetch().is_some() {
        return Err("it has a limit");
    }
    if source.group_expr().has_grouping_set() {
        return Err("grouping sets have no fingerprint");
    }
    let mut input = relation(source.input().as_ref())?;
    for id in source.dynamic_expressions_produced().iter().filter_map(|filter| filter.expression_id()) {
        input.foreign.remove(&id);
    }
    let keys = source.group_expr().expr().iter().map(|(expr, _)| expr_text(expr, &input.columns));
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    let mut columns = keys.clone();
    for (function, filter) in source.aggr_expr().iter().zip(source.filter_expr()) {
        let arguments = function.expressions();
        let arguments = arguments.iter().map(|argument| expr_text(argument, &input.columns));
        let arguments: Vec<String> = arguments.collect::<Result<_, _>>()?;
        let filter = filter.as_ref().map(|filter| expr_text(filter, &input.columns)).transpose()?;
        if !function.order_bys().is_empty() {
            return Err("an aggregate depends on an order");
        }
        let how = (function.is_distinct(), function.ignore_nulls());
        columns.push(format!("{} {arguments:?} {filter:?} {how:?}", function.fun().name()));
    }
    let foreign = std::mem::take(&mut input.foreign);
    let groups: BTreeSet<String> = keys.into_iter().collect();
    let text = format!("groups {groups:?} of {}", input.finish()?);
    let grouped = Relation::of_unit(text, |name| columns.iter().map(|c| format!("{name}({c})")).collect());
    Ok(Relation { foreign, ..grouped })
}

/// The first phase below the second, exchanges aside.
fn first_phase(last: &AggregateExec) -> Result<&AggregateExec, Reason> {
    let mut node: &dyn ExecutionPlan = last.input().as_ref();
    while keeps_all_rows(node) && node.fetch().is_none() {
        node = node.children().into_iter().next().ok_or("it has no input")?.as_ref();
    }
    node.downcast_ref::<AggregateExec>()
        .filter(|first| *first.mode() == AggregateMode::Partial)
        .ok_or("the phases of an aggregate are apart")
}

/// The rows of all inputs, whatever their order. Which columns an input gives matters, since they get new names here.
fn of_union(plan: &dyn ExecutionPlan) -> Result<Relation, Reason> {
    let mut foreign = BTreeSet::new();
    let mut inputs = Vec::new();
    for child in plan.children() {
        let mut input = relation(child.as_ref())?;
        foreign.append(&mut input.foreign);
        let columns = input.columns.join(", ");
        inputs.push(format!("{columns} of {}", input.finish()?));
    }
    inputs.sort_unstable();
    let width = plan.schema().fields().len();
    let text = format!("union {}", inputs.join(" and "));
    let union = Relation::of_unit(text, |name| (0..width).map(|index| format!("{name}.{index}")).collect());
    Ok(Relation { foreign, ..union })
}
