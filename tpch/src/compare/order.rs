//! What a query promises about the order of its rows.

use datafusion::arrow::datatypes::Schema;
use datafusion::error::Result;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, LimitClause, OrderByKind, Query, Statement as SqlStatement, Value, ValueWithSpan,
};

/// The sort keys of a result, as far as they are columns of it, and the limit on its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResultOrder {
    /// Leading keys of ORDER BY.
    pub(crate) keys: Vec<SortColumn>,
    /// LIMIT, where it is a literal.
    pub(crate) limit: Option<usize>,
}

/// A column of the result which ORDER BY names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SortColumn {
    /// By its name.
    Name(String),
    /// By its position, from 0.
    Position(usize),
}

impl SortColumn {
    /// The column's place in a result.
    fn index(&self, schema: &Schema) -> Option<usize> {
        match self {
            Self::Name(name) => schema.fields().iter().position(|f| f.name() == name),
            Self::Position(at) => (*at < schema.fields().len()).then_some(*at),
        }
    }

    /// Reads an ORDER BY expression; `None` when it is not simply a column.
    fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Identifier(name) if name.quote_style.is_some() => Some(Self::Name(name.value.clone())),
            Expr::Identifier(name) => Some(Self::Name(name.value.to_lowercase())),
            _ => usize::checked_sub(number(expr)?, 1).map(Self::Position),
        }
    }
}

impl ResultOrder {
    /// Reads order and limit from the text of a query.
    pub(crate) fn of(sql: &str) -> Result<Self> {
        let statements = DFParser::parse_sql(sql)?;
        Ok(match statements.back() {
            Some(Statement::Statement(statement)) => match statement.as_ref() {
                SqlStatement::Query(query) => Self::of_query(query),
                _ => Self::default(),
            },
            _ => Self::default(),
        })
    }

    /// The places of the sort keys in a result, up to the first one that it does not show.
    pub(crate) fn columns(&self, schema: &Schema) -> Vec<usize> {
        self.keys.iter().map_while(|key| key.index(schema)).collect()
    }

    /// Reads order and limit from the outermost query.
    fn of_query(query: &Query) -> Self {
        let keys = match query.order_by.as_ref().map(|o| &o.kind) {
            // Rows are in order by the keys up to the first one that we cannot see in the result.
            Some(OrderByKind::Expressions(keys)) => {
                keys.iter().map_while(|k| SortColumn::of(&k.expr)).collect()
            }
            _ => vec![],
        };
        let limit = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit: Some(limit), .. }) => number(limit),
            _ => None,
        };
        Self { keys, limit }
    }
}

/// The value of a literal number.
fn number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::QUERIES;

    #[test]
    fn keys_end_where_the_result_does_not_show_them() {
        let name = |name: &str| SortColumn::Name(name.to_owned());
        let order =
            ResultOrder::of("select a, \"B\" from t order by A desc, \"B\", 1, a + 1, c limit 7").unwrap();
        assert_eq!(order.keys, [name("a"), name("B"), SortColumn::Position(0)]);
        assert_eq!(order.limit, Some(7));
        assert_eq!(ResultOrder::of("select a from t").unwrap(), ResultOrder::default());
    }

    /// All sort keys of the 22 queries are seen, and the limits of the specification.
    #[test]
    fn orders_of_tpch() {
        let orders = QUERIES.map(|q| ResultOrder::of(q.sql).unwrap());
        let keys = orders.each_ref().map(|o| o.keys.len());
        assert_eq!(keys, [2, 4, 2, 1, 1, 0, 3, 1, 2, 1, 1, 1, 2, 0, 1, 4, 0, 2, 0, 1, 2, 1]);
        let limits: Vec<_> =
            QUERIES.iter().zip(&orders).filter_map(|(q, o)| Some((q.number, o.limit?))).collect();
        assert_eq!(limits, [(2, 100), (3, 10), (10, 20), (18, 100), (21, 100)]);
    }
}
