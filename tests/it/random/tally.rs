//! Counts what the drawn queries are made of, and how they ended, so that a generator that degenerates is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};

use super::ast::{Body, Expr, JoinKind, Source, Statement, Tree};
use super::case::Case;
use super::check::Verdict;
use super::walk::Node;

/// How many cases there are, have succeeded, and have had rows.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) cases: usize,
    pub(super) succeeded: usize,
    pub(super) with_rows: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) all: Counts,
    pub(super) timed_out: usize,
    pub(super) unstable: usize,
    pub(super) plain_wrong: usize,
    pub(super) exhausted: usize,
    pub(super) by_construct: BTreeMap<&'static str, Counts>,
    /// The beginnings of the plain engine's errors.
    errors: BTreeMap<String, usize>,
}

impl Tally {
    pub(super) fn add(&mut self, case: &Case, verdict: &Verdict) {
        match verdict {
            Verdict::TimedOut => self.timed_out += 1,
            Verdict::Unstable => self.unstable += 1,
            Verdict::PlainWrong => self.plain_wrong += 1,
            Verdict::Exhausted => self.exhausted += 1,
            Verdict::BothFail(message) => {
                *self.errors.entry(message.chars().take(110).collect()).or_default() += 1;
            }
            Verdict::Same(_) => {}
        }
        self.all.add(verdict);
        for construct in constructs(&case.statement) {
            self.by_construct.entry(construct).or_default().add(verdict);
        }
    }

    pub(super) fn percent(&self, count: usize) -> usize {
        count * 100 / self.all.cases.max(1)
    }

    pub(super) fn construct(&self, name: &str) -> Counts {
        self.by_construct.get(name).copied().unwrap_or_default()
    }
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        self.cases += 1;
        self.succeeded += usize::from(matches!(verdict, Verdict::Same(_)));
        self.with_rows += usize::from(matches!(verdict, Verdict::Same(1..)));
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Counts { cases, succeeded, with_rows } = self.all;
        writeln!(
            f,
            "{cases} cases: {}% succeed, {}% have rows, {}% have 3 or more joins; {} timed out, {} unstable, \
             {} wrong on the plain engine, {} without memory",
            self.percent(succeeded),
            self.percent(with_rows),
            self.percent(self.construct(MANY_JOINS).cases),
            self.timed_out,
            self.unstable,
            self.plain_wrong,
            self.exhausted,
        )?;
        for (construct, counts) in &self.by_construct {
            let Counts { cases, succeeded, with_rows } = counts;
            writeln!(
                f,
                "  {construct:<28} {cases:>6} cases {succeeded:>6} succeed {with_rows:>6} have rows"
            )?;
        }
        for (error, count) in &self.errors {
            writeln!(f, "  {count} × {error}")?;
        }
        Ok(())
    }
}

pub(super) const MANY_JOINS: &str = "3 or more joins";

/// What a statement is made of. Most names are SQL's own.
pub(super) fn constructs(statement: &Statement) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut joins = 0;
    let mut uses = BTreeMap::<String, usize>::new();
    statement.clone().walk(&mut |node| match node {
        Node::Query(query) => {
            found.extend((!query.order.is_empty()).then_some("ORDER BY"));
            found.extend(query.limit.as_ref().map(|_| "LIMIT"));
        }
        Node::Body(Body::Set { operation, .. }) => drop(found.insert(*operation)),
        Node::Body(Body::Select(_)) => {}
        Node::Select(select) => {
            joins += select.from.len() - 1;
            found.extend((select.from.len() > 1).then_some("comma join"));
            found.extend(select.distinct.then_some("SELECT DISTINCT"));
            found.extend(select.having.as_ref().map(|_| "HAVING"));
            found.extend(select.items.iter().any(|item| item.key).then_some("GROUP BY"));
        }
        Node::Tree(tree) => {
            joins += usize::from(matches!(tree, Tree::Join { .. }));
            found.extend(of_join(tree));
        }
        Node::Relation(relation) => match &relation.source {
            Source::Table { in_files, .. } => {
                found.insert(if *in_files { "table in files" } else { "table in memory" });
            }
            Source::Cte(name) => *uses.entry(name.clone()).or_default() += 1,
            Source::Derived(query) => {
                found.insert("derived table");
                let aggregate = |body: &Body| {
                    body.items().iter().any(|item| item.key || matches!(item.expr, Expr::Aggregate(_)))
                };
                found.extend(aggregate(&query.body).then_some("derived table, aggregated"));
            }
        },
        Node::Expr(expr) => found.extend(of_expr(expr)),
    });
    found.extend((joins >= 3).then_some(MANY_JOINS));
    found.extend((!uses.is_empty()).then_some("CTE"));
    found.extend(uses.values().any(|uses| *uses > 1).then_some("CTE used more than once"));
    found
}

fn of_join(tree: &Tree) -> Vec<&'static str> {
    let Tree::Join { kind, left: _, right, on } = tree else { return vec![] };
    let mut found = vec![match kind {
        JoinKind::Inner => "INNER JOIN",
        JoinKind::Left => "LEFT JOIN",
        JoinKind::Right => "RIGHT JOIN",
        JoinKind::Full => "FULL JOIN",
        JoinKind::Cross => "CROSS JOIN",
        JoinKind::LeftSemi => "LEFT SEMI JOIN",
        JoinKind::RightSemi => "RIGHT SEMI JOIN",
        JoinKind::LeftAnti => "LEFT ANTI JOIN",
        JoinKind::RightAnti => "RIGHT ANTI JOIN",
    }];
    let is_key = |on: &Expr| matches!(on, Expr::Compare { operator, .. } if ["=", "IS NOT DISTINCT FROM"].contains(operator));
    let keys = on.iter().filter(|on| is_key(on)).count();
    found.extend(matches!(&**right, Tree::Join { .. }).then_some("join, bushy"));
    found.extend((keys > 1).then_some("join on several keys"));
    found.extend((keys > 0 && keys < on.len()).then_some("join with residual condition"));
    found.extend((keys == 0 && *kind != JoinKind::Cross).then_some("join without keys"));
    let null_safe =
        |on: &Expr| matches!(on, Expr::Compare { operator, .. } if *operator == "IS NOT DISTINCT FROM");
    found.extend(on.iter().any(null_safe).then_some("join on IS NOT DISTINCT FROM"));
    let computed = |on: &Expr| match on {
        Expr::Compare { operands, .. } => operands.iter().any(|operand| !matches!(operand, Expr::Column(_))),
        _ => false,
    };
    found.extend(on.iter().any(|on| is_key(on) && computed(on)).then_some("join on an expression"));
    found
}

fn of_expr(expr: &Expr) -> Option<&'static str> {
    Some(match expr {
        Expr::InQuery { negated: false, .. } => "IN (subquery)",
        Expr::InQuery { negated: true, .. } => "NOT IN (subquery)",
        Expr::Exists { negated: false, .. } => "EXISTS",
        Expr::Exists { negated: true, .. } => "NOT EXISTS",
        Expr::Scalar { .. } => "scalar subquery",
        Expr::Aggregate(aggregate) if aggregate.distinct => "aggregate, DISTINCT",
        Expr::Aggregate(aggregate) => aggregate.function,
        Expr::Window(_) => "window function",
        Expr::Logic { operator: "OR", .. } => "OR",
        Expr::Not(_) => "NOT",
        Expr::InList { .. } => "IN (list)",
        Expr::Between { .. } => "BETWEEN",
        Expr::Like { .. } => "LIKE",
        Expr::Is { .. } => "IS",
        Expr::Case { .. } => "CASE",
        Expr::Cast { .. } => "CAST",
        _ => return None,
    })
}
