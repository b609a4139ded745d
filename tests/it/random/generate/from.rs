//! FROM: relations, join trees, and lists of them.

use super::super::ast::{Expr, Relation, Source, Tree};
use super::super::tables::{TABLES, Table};
use super::{Generator, Output, Scope, Yields};

/// A WHERE-less FROM and what it needs of WHERE.
pub(super) struct From {
    pub(super) trees: Vec<Tree>,
    pub(super) scope: Scope,
    /// What joins the trees that commas separate.
    pub(super) filters: Vec<Expr>,
}

/// A join tree and what it shows.
pub(super) struct Part {
    pub(super) tree: Tree,
    pub(super) scope: Scope,
}

/// Which tables, and how often: empty ones make everything empty, and large ones most of the work.
const TABLE_WEIGHTS: &[(u32, usize)] = &[(2, 0), (4, 1), (24, 2), (27, 3), (24, 4), (10, 5), (9, 6)];

impl Generator {
    /// A FROM of so many relations.
    pub(super) fn from(&mut self, relations: usize, level: usize) -> From {
        let groups =
            if relations > 1 && self.dice.chance(25) { 2 + self.dice.below(relations - 1) } else { 1 };
        let mut from = From { trees: vec![], scope: Scope::default(), filters: vec![] };
        let mut left = relations;
        for group in (0..groups).rev() {
            let size = if group == 0 { left } else { 1 + self.dice.below(left - group) };
            left -= size;
            let part = self.tree(size, level);
            if from.trees.is_empty() {
                from.scope = part.scope;
                from.trees.push(part.tree);
            } else if let Some((filters, scope)) = self.comma_join(&from.scope, &part.scope) {
                from.filters.extend(filters);
                from.scope = scope;
                from.trees.push(part.tree);
            }
        }
        from
    }

    fn tree(&mut self, relations: usize, level: usize) -> Part {
        if relations <= 1 {
            return self.relation(level);
        }
        // Left-deep more often than bushy.
        let right = if self.dice.chance(60) { 1 } else { 1 + self.dice.below(relations - 1) };
        let left = self.tree(relations - right, level);
        let right = self.tree(right, level);
        self.join(left, right)
    }

    fn relation(&mut self, level: usize) -> Part {
        self.relations = self.relations.saturating_sub(1);
        let unused = self.ctes.iter().any(|cte| cte.uses == 0);
        let cte = if level > 0 && unused {
            5
        } else if unused {
            45
        } else {
            12
        };
        let derived = if level < 2 && self.relations > 1 { 13 } else { 0 };
        match self.dice.weighted(&[(cte, 0), (derived, 1), (75, 2)]) {
            0 => self.cte().unwrap_or_else(|| self.table()),
            1 => {
                let Yields { part: query, outputs, rows } = self.query(level + 1);
                self.named(Source::Derived(Box::new(query)), &outputs, rows)
            }
            _ => self.table(),
        }
    }

    /// One of the CTEs, each three times at most.
    fn cte(&mut self) -> Option<Part> {
        let usable: Vec<usize> = (0..self.ctes.len()).filter(|at| self.ctes[*at].uses < 3).collect();
        if usable.is_empty() {
            return None;
        }
        let cte = *self.dice.pick(&usable);
        let cte = &mut self.ctes[cte];
        cte.uses += 1;
        let (name, outputs, rows) = (cte.name.clone(), cte.outputs.clone(), cte.rows);
        Some(self.named(Source::Cte(name), &outputs, rows))
    }

    pub(super) fn table(&mut self) -> Part {
        let table = &TABLES[self.dice.weighted(TABLE_WEIGHTS)];
        let in_files = self.dice.chance(50);
        self.named(Source::Table { name: table.name, in_files }, &outputs(table), table.rows as f64)
    }

    fn named(&mut self, source: Source, outputs: &[Output], rows: f64) -> Part {
        let alias = self.name("r");
        let scope = Scope::of(&alias, outputs, rows);
        Part { tree: Tree::Relation(Relation { source, alias }), scope }
    }
}

fn outputs(table: &Table) -> Vec<Output> {
    let columns = table.columns.iter();
    columns
        .map(|(name, ty, values)| Output {
            name: (*name).to_owned(),
            ty: *ty,
            distinct: table.distinct(*values) as f64,
            origin: (*name).to_owned(),
        })
        .collect()
}
