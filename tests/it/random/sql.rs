//! The trees as SQL.

use std::fmt::{Display, Formatter, Result};

use super::ast::{
    Aggregate, Body, Column, Expr, Item, JoinKind, Query, Relation, Select, Source, Statement, Tree, Window,
};
use super::types::Type;

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (at, cte) in self.ctes.iter().enumerate() {
            write!(f, "{}{} AS ({})", if at == 0 { "WITH " } else { ", " }, cte.name, cte.query)?;
        }
        if !self.ctes.is_empty() {
            f.write_str(" ")?;
        }
        self.query.fmt(f)
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.body.fmt(f)?;
        for (at, key) in self.order.iter().enumerate() {
            f.write_str(if at == 0 { " ORDER BY " } else { ", " })?;
            f.write_str(&self.body.items()[key.column].name)?;
            f.write_str(if key.descending { " DESC" } else { "" })?;
            f.write_str(match key.nulls_first {
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
                None => "",
            })?;
        }
        let Some(limit) = &self.limit else { return Ok(()) };
        write!(f, " LIMIT {}", limit.count)?;
        if limit.offset > 0 { write!(f, " OFFSET {}", limit.offset) } else { Ok(()) }
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let operand = |f: &mut Formatter<'_>, body: &Self| match body {
            Self::Select(select) => select.fmt(f),
            Self::Set { .. } => write!(f, "({body})"),
        };
        match self {
            Self::Select(select) => select.fmt(f),
            Self::Set { operation, left, right } => {
                operand(f, left)?;
                write!(f, " {operation} ")?;
                operand(f, right)
            }
        }
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.distinct { "SELECT DISTINCT " } else { "SELECT " })?;
        list(f, "", &self.items, ", ")?;
        list(f, " FROM ", &self.from, ", ")?;
        list(f, " WHERE ", &self.filters, " AND ")?;
        let keys: Vec<String> = self.items.iter().enumerate().filter_map(group_key).collect();
        list(f, " GROUP BY ", &keys, ", ")?;
        list(f, " HAVING ", self.having.as_slice(), "")
    }
}

/// A key of GROUP BY. A literal there would be read as a place in the list, so it is named by its own.
fn group_key((at, item): (usize, &Item)) -> Option<String> {
    match item.expr {
        _ if !item.key => None,
        Expr::Literal { .. } => Some((at + 1).to_string()),
        _ => Some(item.expr.to_string()),
    }
}

/// `prefix` and the items, or nothing when there are none.
fn list(f: &mut Formatter<'_>, prefix: &str, items: &[impl Display], separator: &str) -> Result {
    for (at, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if at == 0 { prefix } else { separator })?;
    }
    Ok(())
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} AS {}", self.expr, self.name)
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Relation(relation) => relation.fmt(f),
            Self::Join { kind, left, right, on } => {
                write!(f, "{left} {kind} ")?;
                match &**right {
                    Self::Relation(relation) => relation.fmt(f)?,
                    Self::Join { .. } => write!(f, "({right})")?,
                }
                match (kind, on.is_empty()) {
                    (JoinKind::Cross, _) => Ok(()),
                    (_, true) => f.write_str(" ON TRUE"),
                    (_, false) => list(f, " ON ", on, " AND "),
                }
            }
        }
    }
}

impl Display for JoinKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Inner => "JOIN",
            Self::Left => "LEFT JOIN",
            Self::Right => "RIGHT JOIN",
            Self::Full => "FULL JOIN",
            Self::Cross => "CROSS JOIN",
            Self::LeftSemi => "LEFT SEMI JOIN",
            Self::RightSemi => "RIGHT SEMI JOIN",
            Self::LeftAnti => "LEFT ANTI JOIN",
            Self::RightAnti => "RIGHT ANTI JOIN",
        })
    }
}

impl Display for Relation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.source {
            Source::Table { name, in_files: true } => write!(f, "{name}_f")?,
            Source::Table { name, in_files: false } => write!(f, "{name}_m")?,
            Source::Cte(name) => f.write_str(name)?,
            Source::Derived(query) => write!(f, "({query})")?,
        }
        write!(f, " AS {}", self.alias)
    }
}

impl Display for Column {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}.{}", self.relation, self.name)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self {
            Self::Column(column) => column.fmt(f),
            Self::Literal { sql: Some(sql), .. } => f.write_str(sql),
            Self::Literal { sql: None, ty } => write!(f, "CAST(NULL AS {})", ty.sql()),
            Self::Arithmetic { operator, operands, .. }
            | Self::Compare { operator, operands }
            | Self::Logic { operator, operands } => {
                list(f, "(", operands, &format!(" {operator} "))?;
                f.write_str(")")
            }
            Self::Not(operand) => write!(f, "(NOT {operand})"),
            Self::Is { operand, what } => write!(f, "({operand} IS {what})"),
            Self::InList { operands, negated } => {
                write!(f, "({} {}IN", operands[0], not(negated))?;
                list(f, " (", &operands[1..], ", ")?;
                f.write_str("))")
            }
            Self::Between { operands, negated } => {
                write!(f, "({} {}BETWEEN {} AND {})", operands[0], not(negated), operands[1], operands[2])
            }
            Self::Like { operand, operator, pattern } => write!(f, "({operand} {operator} '{pattern}')"),
            Self::Case { operands, .. } => {
                write!(f, "CASE WHEN {} THEN {} ELSE {} END", operands[0], operands[1], operands[2])
            }
            Self::Cast { operand, ty } => write!(f, "CAST({operand} AS {})", cast_type(*ty)),
            Self::Call { function, operands, .. } => {
                write!(f, "{function}(")?;
                list(f, "", operands, ", ")?;
                f.write_str(")")
            }
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Window(window) => window.fmt(f),
            Self::InQuery { operand, query, negated } => {
                write!(f, "({operand} {}IN ({query}))", not(negated))
            }
            Self::Exists { query, negated } => write!(f, "({}EXISTS ({query}))", not(negated)),
            Self::Scalar { query, .. } => write!(f, "({query})"),
        }
    }
}

/// Wider than the columns', so that no value of an expression fails to be cast.
fn cast_type(ty: Type) -> &'static str {
    match ty {
        Type::Decimal => "DECIMAL(20, 2)",
        other => other.sql(),
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}({}", self.function, if self.distinct { "DISTINCT " } else { "" })?;
        match &self.argument {
            Some(argument) => write!(f, "{argument})")?,
            None => f.write_str("*)")?,
        }
        match &self.filter {
            Some(filter) => write!(f, " FILTER (WHERE {filter})"),
            None => Ok(()),
        }
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}(", self.function)?;
        list(f, "", self.argument.as_slice(), "")?;
        f.write_str(") OVER (")?;
        list(f, "PARTITION BY ", &self.partition, ", ")?;
        list(
            f,
            if self.partition.is_empty() { "ORDER BY " } else { " ORDER BY " },
            self.order.as_slice(),
            "",
        )?;
        f.write_str(")")
    }
}
