//! The queries as typed trees: what is generated, shrunk, counted and printed.
//!
//! Relations and output columns have names that no other one of the statement has. A column is thus the same
//! column wherever it stands, and shrinking may move and drop parts without a name changing its meaning.

use super::types::Type;

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) ctes: Vec<Cte>,
    pub(super) query: Query,
}

#[derive(Debug, Clone)]
pub(super) struct Cte {
    pub(super) name: String,
    pub(super) query: Query,
}

#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) body: Body,
    pub(super) order: Vec<Key>,
    /// Only under a total order: `order` has all columns of the body.
    pub(super) limit: Option<Limit>,
}

/// One sort key: a column of the result by its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) column: usize,
    pub(super) descending: bool,
    pub(super) nulls_first: Option<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) count: usize,
    pub(super) offset: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Select(Box<Select>),
    /// `UNION ALL`, `EXCEPT`…
    Set {
        operation: &'static str,
        left: Box<Self>,
        right: Box<Self>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Select {
    pub(super) distinct: bool,
    pub(super) items: Vec<Item>,
    /// What commas separate.
    pub(super) from: Vec<Tree>,
    /// The conjuncts of WHERE.
    pub(super) filters: Vec<Expr>,
    pub(super) having: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) expr: Expr,
    pub(super) name: String,
    /// Whether it is one of the keys of GROUP BY.
    pub(super) key: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Tree {
    Relation(Relation),
    Join { kind: JoinKind, left: Box<Self>, right: Box<Self>, on: Vec<Expr> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
    LeftSemi,
    RightSemi,
    LeftAnti,
    RightAnti,
}

#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) source: Source,
    pub(super) alias: String,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Table { name: &'static str, in_files: bool },
    Cte(String),
    Derived(Box<Query>),
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) relation: String,
    pub(super) name: String,
    pub(super) ty: Type,
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    Column(Column),
    /// `None` is NULL.
    Literal {
        sql: Option<String>,
        ty: Type,
    },
    /// Arithmetic, and `||`.
    Arithmetic {
        operator: &'static str,
        operands: Vec<Self>,
        ty: Type,
    },
    Compare {
        operator: &'static str,
        operands: Vec<Self>,
    },
    /// `operator` is AND or OR.
    Logic {
        operator: &'static str,
        operands: Vec<Self>,
    },
    Not(Box<Self>),
    /// `what` is NULL, NOT NULL, TRUE, NOT FALSE…
    Is {
        operand: Box<Self>,
        what: &'static str,
    },
    /// The first operand is looked for among the others.
    InList {
        operands: Vec<Self>,
        negated: bool,
    },
    /// The first operand between the second and the third.
    Between {
        operands: Vec<Self>,
        negated: bool,
    },
    Like {
        operand: Box<Self>,
        /// LIKE, NOT LIKE, ILIKE…
        operator: &'static str,
        pattern: &'static str,
    },
    /// When the first operand holds, the second, else the third.
    Case {
        operands: Vec<Self>,
        ty: Type,
    },
    Cast {
        operand: Box<Self>,
        ty: Type,
    },
    Call {
        function: &'static str,
        operands: Vec<Self>,
        ty: Type,
    },
    Aggregate(Box<Aggregate>),
    Window(Box<Window>),
    InQuery {
        operand: Box<Self>,
        query: Box<Query>,
        negated: bool,
    },
    Exists {
        query: Box<Query>,
        negated: bool,
    },
    Scalar {
        query: Box<Query>,
        ty: Type,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Aggregate {
    pub(super) function: &'static str,
    pub(super) distinct: bool,
    /// `None` is `*`.
    pub(super) argument: Option<Expr>,
    pub(super) filter: Option<Expr>,
    pub(super) ty: Type,
}

#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) function: &'static str,
    pub(super) argument: Option<Expr>,
    pub(super) partition: Vec<Expr>,
    pub(super) order: Option<Expr>,
    pub(super) ty: Type,
}

impl JoinKind {
    /// Which sides' columns the join shows.
    pub(super) fn shows(self) -> (bool, bool) {
        match self {
            Self::LeftSemi | Self::LeftAnti => (true, false),
            Self::RightSemi | Self::RightAnti => (false, true),
            Self::Inner | Self::Left | Self::Right | Self::Full | Self::Cross => (true, true),
        }
    }
}

impl Body {
    /// The columns of the result: those of the leftmost SELECT.
    pub(super) fn items(&self) -> &[Item] {
        match self {
            Self::Select(select) => &select.items,
            Self::Set { left, .. } => left.items(),
        }
    }
}

impl Query {
    pub(super) fn unordered(body: Body) -> Self {
        Self { body, order: vec![], limit: None }
    }

    /// Whether rows that the sort keys hold equal are equal in all columns.
    pub(super) fn is_total(&self) -> bool {
        (0..self.body.items().len()).all(|column| self.order.iter().any(|key| key.column == column))
    }
}

impl Expr {
    pub(super) fn null(ty: Type) -> Self {
        Self::Literal { sql: None, ty }
    }

    pub(super) fn compare(left: Self, operator: &'static str, right: Self) -> Self {
        Self::Compare { operator, operands: vec![left, right] }
    }

    pub(super) fn ty(&self) -> Type {
        match self {
            Self::Column(column) => column.ty,
            Self::Literal { ty, .. }
            | Self::Arithmetic { ty, .. }
            | Self::Case { ty, .. }
            | Self::Cast { ty, .. }
            | Self::Call { ty, .. }
            | Self::Scalar { ty, .. } => *ty,
            Self::Aggregate(aggregate) => aggregate.ty,
            Self::Window(window) => window.ty,
            Self::Compare { .. }
            | Self::Logic { .. }
            | Self::Not(_)
            | Self::Is { .. }
            | Self::InList { .. }
            | Self::Between { .. }
            | Self::Like { .. }
            | Self::InQuery { .. }
            | Self::Exists { .. } => Type::Bool,
        }
    }

    /// The expressions directly below, subqueries aside.
    pub(super) fn children_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Column(_) | Self::Literal { .. } | Self::Exists { .. } | Self::Scalar { .. } => vec![],
            Self::Arithmetic { operands, .. }
            | Self::Compare { operands, .. }
            | Self::Logic { operands, .. }
            | Self::InList { operands, .. }
            | Self::Between { operands, .. }
            | Self::Case { operands, .. }
            | Self::Call { operands, .. } => operands.iter_mut().collect(),
            Self::Not(operand)
            | Self::Is { operand, .. }
            | Self::Like { operand, .. }
            | Self::Cast { operand, .. }
            | Self::InQuery { operand, .. } => vec![&mut **operand],
            Self::Aggregate(aggregate) => {
                aggregate.argument.iter_mut().chain(&mut aggregate.filter).collect()
            }
            Self::Window(window) => {
                window.argument.iter_mut().chain(&mut window.partition).chain(&mut window.order).collect()
            }
        }
    }

    pub(super) fn query_mut(&mut self) -> Option<&mut Query> {
        match self {
            Self::InQuery { query, .. } | Self::Exists { query, .. } | Self::Scalar { query, .. } => {
                Some(&mut **query)
            }
            _ => None,
        }
    }
}
