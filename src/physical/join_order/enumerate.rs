//! The cheapest tree of joins for a graph.
//!
//! Up to [`EXHAUSTIVE`] relations all bushy trees without cross products are weighed by dynamic programming over
//! sets of relations (Moerkotte and Neumann, VLDB 2006), within a budget of pairs; beyond, the pair of trees
//! whose join costs least is joined until one tree is left (Fegaras, 1998).

use std::collections::HashMap;

use super::cost::{Flow, collected, partitioned};
use super::flatten::WrittenJoin;
use super::graph::{Expr, Graph, Kind, Member, Operator, RelSet, columns_of};

/// Relations up to which every order is weighed.
const EXHAUSTIVE: usize = 12;

/// Pairs of sets that are weighed before the search falls back to the greedy one. A clique of ten relations has
/// 28,501.
const MAX_PAIRS: usize = 30_000;

/// Of a semi or outer join's condition beyond its keys.
const FILTER: f64 = 0.5;

/// A tree of joins over a set of relations.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) rows: f64,
    /// Bytes of the columns of one row that are needed later.
    row_bytes: f64,
    /// Distinct values of each class's members.
    distinct: Vec<f64>,
    /// The share of the rows in which they are not NULL.
    filled: Vec<f64>,
    pub(super) cost: f64,
    /// How it is joined; `None` for one relation.
    pub(super) join: Option<Join>,
}

/// The topmost join of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Join {
    pub(super) build: RelSet,
    pub(super) probe: RelSet,
    /// Whether the build side goes into one table, instead of one for each partition.
    pub(super) collected: bool,
}

/// The best trees that were found, one for each set of relations.
///
/// That a tree of a set is the best one for every tree above it (the principle of optimality) holds as far as the
/// cost does not depend on what is above. Sort orders and partitions that a later join could have used are such
/// dependencies; they are left out, as the cost of an exchange is counted for each join that needs one.
#[derive(Debug)]
pub(super) struct Trees<'a> {
    graph: &'a Graph,
    partitions: f64,
    best: HashMap<RelSet, Tree>,
    /// For each region column: its width.
    widths: Vec<f64>,
    /// For each class: the relations that have a member.
    classes: Vec<RelSet>,
}

impl<'a> Trees<'a> {
    pub(super) fn new(graph: &'a Graph, partitions: usize) -> Self {
        let columns = graph.relations.iter().flat_map(|relation| &relation.estimate.columns);
        let widths = columns.map(|column| column.bytes).collect();
        let members = |class: &Vec<Member>| class.iter().fold(0, |set, member| set | 1 << member.relation);
        let classes = graph.classes.iter().map(members).collect();
        let mut trees =
            Self { graph, partitions: partitions.max(1) as f64, best: HashMap::new(), widths, classes };
        for relation in 0..graph.relations.len() {
            let tree = trees.leaf(relation);
            trees.best.insert(1 << relation, tree);
        }
        trees
    }

    /// The tree for `set`.
    pub(super) fn get(&self, set: RelSet) -> Option<&Tree> {
        self.best.get(&set)
    }

    /// Finds a tree for all relations; `None` where they are not connected.
    pub(super) fn search(&mut self) -> Option<&Tree> {
        let all = self.graph.all();
        if self.graph.relations.len() > EXHAUSTIVE || !self.exhaustive() {
            self.best.retain(|set, _| set.is_power_of_two());
            self.greedy();
        }
        self.best.get(&all)
    }

    /// Costs the joins as they are written.
    pub(super) fn written(&mut self, joins: &[WrittenJoin]) -> Option<&Tree> {
        let mut last = 0;
        for WrittenJoin { build, probe, collected } in joins {
            let tree = self.joined(*build, *probe)?;
            last = build | probe;
            self.best.insert(last, tree);
            self.weigh(*build, *probe, Some(*collected));
        }
        self.best.get(&last)
    }

    /// All pairs of disjoint sets that have trees; `false` where they are too many.
    ///
    /// Sets are numbers, and a subset is a smaller number than the set: in ascending order all parts of a set have
    /// been dealt with before it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sets have as many bits as there are relations, a dozen"
    )]
    fn exhaustive(&mut self) -> bool {
        let all = self.graph.all();
        let mut pairs = 0;
        // Most sets have no tree, and most of the time goes into asking.
        let mut found: Vec<bool> = (0..=all).map(RelSet::is_power_of_two).collect();
        for set in 1..=all {
            if set.is_power_of_two() {
                continue;
            }
            let lowest = set & set.wrapping_neg();
            let mut left = (set - 1) & set;
            while left != 0 {
                // Each pair once; both directions are weighed together.
                let right = set & !left;
                if left & lowest != 0 && found[left as usize] && found[right as usize] {
                    pairs += 1;
                    self.consider(left, right);
                }
                left = (left - 1) & set;
            }
            found[set as usize] = self.best.contains_key(&set);
            if pairs > MAX_PAIRS {
                return false;
            }
        }
        true
    }

    /// Joins the two trees whose join adds least, until one is left or none can be joined. Ties go to the first pair, so
    /// that the same query gets the same plan.
    fn greedy(&mut self) {
        let mut sets: Vec<RelSet> = (0..self.graph.relations.len()).map(|relation| 1 << relation).collect();
        while sets.len() > 1 {
            let mut cheapest: Option<(usize, usize, f64)> = None;
            for a in 0..sets.len() {
                for b in a + 1..sets.len() {
                    self.consider(sets[a], sets[b]);
                    let Some(tree) = self.best.get(&(sets[a] | sets[b])) else {
                        continue;
                    };
                    let inputs =
                        [sets[a], sets[b]].map(|set| self.best.get(&set).map_or(0.0, |tree| tree.cost));
                    let own = tree.cost - inputs[0] - inputs[1] + tree.rows;
                    if cheapest.is_none_or(|(_, _, least)| own < least) {
                        cheapest = Some((a, b, own));
                    }
                }
            }
            let Some((a, b, _)) = cheapest else {
                return;
            };
            let right = sets.swap_remove(b);
            sets[a] |= right;
        }
    }

    /// Weighs both joins of `left` and `right`, if they may be joined.
    fn consider(&mut self, left: RelSet, right: RelSet) {
        let set = left | right;
        // The rows of a set do not depend on the order in which it was joined.
        if self.best.contains_key(&set) {
            if !self.may_join(left, right) {
                return;
            }
        } else if let Some(tree) = self.joined(left, right) {
            self.best.insert(set, tree);
        } else {
            return;
        }
        self.weigh(left, right, None);
        self.weigh(right, left, None);
    }

    /// Keeps the join of `build` and `probe` where it is cheaper than what their set has, `collect`ed or not, or
    /// whichever is cheaper.
    fn weigh(&mut self, build: RelSet, probe: RelSet, collect: Option<bool>) {
        let flow = |tree: &Tree| Flow { rows: tree.rows, row_bytes: tree.row_bytes };
        let side = |set: &RelSet| self.best.get(set).map(|tree| (flow(tree), tree.cost));
        let (Some((b, b_cost)), Some((p, p_cost))) = (side(&build), side(&probe)) else { return };
        let Some(tree) = self.best.get_mut(&(build | probe)) else { return };
        let one = collected(b, p, flow(tree), self.partitions);
        let many = partitioned(b, p, flow(tree), self.partitions);
        let collected = collect.unwrap_or(one <= many);
        let cost = b_cost + p_cost + if collected { one } else { many };
        if cost < tree.cost {
            tree.cost = cost;
            tree.join = Some(Join { build, probe, collected });
        }
    }

    /// A relation, after the conditions that look at it alone.
    fn leaf(&self, relation: usize) -> Tree {
        let set = 1 << relation;
        let own = &self.graph.relations[relation];
        let share: f64 = self.graph.conditions_on(relation).map(|condition| condition.selectivity).product();
        let rows = (own.estimate.rows * share).max(1.0);
        let distinct = self.graph.classes.iter().map(|class| {
            let here = class.iter().filter(|member| member.relation == relation);
            here.map(|member| member.values.distinct.min(rows)).fold(f64::INFINITY, f64::min)
        });
        let distinct = distinct.collect();
        let filled = self.graph.classes.iter().map(|class| {
            let here = class.iter().filter(|member| member.relation == relation);
            here.map(|member| 1.0 - member.values.nulls).fold(1.0, f64::min)
        });
        let filled = filled.collect();
        Tree { rows, row_bytes: self.needed_bytes(set), distinct, filled, cost: 0.0, join: None }
    }

    /// Whether the two sides are connected, and no relation enters by another join than its own.
    ///
    /// Cross products are never made: where the written plan has one it is an input of the region, and stays.
    fn may_join(&self, left: RelSet, right: RelSet) -> bool {
        let graph = self.graph;
        match (graph.operator_of(left), graph.operator_of(right)) {
            (Some(_), Some(_)) => false,
            (Some(operator), None) => operator.fits(graph, right),
            (None, Some(operator)) => operator.fits(graph, left),
            (None, None) => {
                self.classes.iter().any(|members| members & left != 0 && members & right != 0)
                    || graph.conditions.iter().any(|condition| {
                        graph.decides(condition, left, right)
                            && graph.key_of(condition, left, right).is_some()
                    })
            }
        }
    }

    /// What both joins of two sets put out, not weighed yet; `None` where they may not be joined.
    ///
    /// As in System R the side with fewer values of a key has a match for each. Distinct values of a class are those of
    /// its rarest member from then on; `f64::INFINITY` stands for a class that has no member in the set. Rows whose key is
    /// NULL are gone after the join.
    fn joined(&self, left: RelSet, right: RelSet) -> Option<Tree> {
        if !self.may_join(left, right) {
            return None;
        }
        let (l, r) = (self.best.get(&left)?, self.best.get(&right)?);
        let graph = self.graph;
        let conditions = graph.conditions.iter().filter(|condition| graph.decides(condition, left, right));
        let share: f64 = conditions.map(|condition| condition.selectivity).product();
        let rows = match (graph.operator_of(left), graph.operator_of(right)) {
            (_, Some(operator)) => self.operated(operator, l, r),
            (Some(operator), _) => self.operated(operator, r, l),
            _ => {
                let (mut left_distinct, mut right_distinct, mut filled) = (1.0_f64, 1.0_f64, 1.0_f64);
                for (class, (a, b)) in l.distinct.iter().zip(&r.distinct).enumerate() {
                    if a.is_finite() && b.is_finite() {
                        left_distinct *= a;
                        right_distinct *= b;
                        filled *= l.filled[class] * r.filled[class];
                    }
                }
                // Several keys together have no more values than there are rows.
                let distinct = left_distinct.min(l.rows).max(right_distinct.min(r.rows)).max(1.0);
                l.rows * r.rows / distinct * filled
            }
        };
        let rows = (rows * share).max(1.0);
        let distinct = l.distinct.iter().zip(&r.distinct).map(|(a, b)| {
            let both = a.min(*b);
            if both.is_finite() { both.min(rows) } else { f64::INFINITY }
        });
        let filled = (0..l.filled.len()).map(|class| {
            let both = l.distinct[class].is_finite() && r.distinct[class].is_finite();
            if both { 1.0 } else { l.filled[class].min(r.filled[class]) }
        });
        let (distinct, filled) = (distinct.collect(), filled.collect());
        let row_bytes = self.needed_bytes(left | right);
        Some(Tree { rows, row_bytes, distinct, filled, cost: f64::INFINITY, join: None })
    }

    /// Rows that an operator makes of `kept`, given all rows of its own relation.
    fn operated(&self, operator: &Operator, kept: &Tree, own: &Tree) -> f64 {
        let (mut kept_distinct, mut own_distinct) = (1.0_f64, 1.0_f64);
        for ((left, right), class) in operator.keys.iter().zip(&operator.key_classes) {
            kept_distinct *= match class {
                Some(class) => kept.distinct[*class],
                None => self.column_distinct(left),
            };
            own_distinct *= self.column_distinct(right);
        }
        let kept_distinct = kept_distinct.min(kept.rows).max(1.0);
        let own_distinct = own_distinct.min(own.rows).max(1.0);
        let filter = if operator.filter.is_some() { FILTER } else { 1.0 };
        let matched = (own_distinct / kept_distinct).min(1.0) * filter;
        match operator.kind {
            Kind::Semi => kept.rows * matched,
            Kind::Anti => kept.rows * (1.0 - matched).max(0.1),
            Kind::Outer => {
                let pairs = kept.rows * own.rows / kept_distinct.max(own_distinct) * filter;
                pairs.max(kept.rows)
            }
        }
    }

    /// Distinct values of an operator's key, which is in no class.
    fn column_distinct(&self, expr: &Expr) -> f64 {
        let columns = columns_of(expr);
        let Some(first) = columns.first() else {
            return 1.0;
        };
        let relation = &self.graph.relations[self.graph.relation_of(*first)];
        match columns.as_slice() {
            [column] => relation.estimate.columns.get(column - relation.offset).map_or(1.0, |c| c.distinct),
            _ => relation.estimate.rows,
        }
    }

    /// Bytes of the columns of `set` that something above still needs.
    fn needed_bytes(&self, set: RelSet) -> f64 {
        self.graph.needed(set).into_iter().map(|column| self.widths.get(column).copied().unwrap_or(0.0)).sum()
    }
}
