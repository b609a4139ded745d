//! The allow-list of expressions.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::{
    AggregateUDF, Case, Expr, GroupingSet, Like, ScalarUDF, SortExpr, Subquery, Volatility,
    WindowFunctionDefinition, WindowUDF,
};

use super::Refusal;
use super::plan::{Columns, Writer};
use super::token::{Pin, Token, address};

impl Writer {
    pub(super) fn exprs(&mut self, exprs: &[Expr], columns: Columns<'_>) -> Result<(), Refusal> {
        self.number(exprs.len())?;
        exprs.iter().try_for_each(|expr| self.expr(expr, columns))
    }

    pub(super) fn optional(&mut self, expr: Option<&Expr>, columns: Columns<'_>) -> Result<(), Refusal> {
        match expr {
            Some(expr) => self.expr(expr, columns),
            None => self.kind("none"),
        }
    }

    pub(super) fn sort_exprs(&mut self, exprs: &[SortExpr], columns: Columns<'_>) -> Result<(), Refusal> {
        self.number(exprs.len())?;
        for sort in exprs {
            self.number(usize::from(sort.asc) * 2 + usize::from(sort.nulls_first))?;
            self.expr(&sort.expr, columns)?;
        }
        Ok(())
    }

    pub(super) fn expr(&mut self, expr: &Expr, columns: Columns<'_>) -> Result<(), Refusal> {
        self.nested(|writer| writer.node_of(expr, columns))
    }

    /// One operand.
    fn unary(&mut self, kind: &'static str, expr: &Expr, columns: Columns<'_>) -> Result<(), Refusal> {
        self.kind(kind)?;
        self.expr(expr, columns)
    }

    fn node_of(&mut self, expr: &Expr, columns: Columns<'_>) -> Result<(), Refusal> {
        match expr {
            // A name matters where it is shown: the query's own columns are written down with their names.
            Expr::Alias(alias) if alias.metadata.is_none() => self.expr(&alias.expr, columns),
            Expr::Column(column) => {
                self.kind("column")?;
                self.push(columns.token(column)?)
            }
            Expr::Literal(value, metadata) => {
                self.literal(value)?;
                match metadata {
                    Some(metadata) => {
                        self.kind("metadata")?;
                        self.push(Token::Text(format!("{metadata:?}").into()))
                    }
                    None => Ok(()),
                }
            }
            Expr::Like(like) => self.like("like", like, columns),
            Expr::SimilarTo(like) => self.like("similar", like, columns),
            Expr::BinaryExpr(binary) => {
                self.kind("binary")?;
                self.push(Token::Text(format!("{:?}", binary.op).into()))?;
                self.expr(&binary.left, columns)?;
                self.expr(&binary.right, columns)
            }
            Expr::Between(between) => {
                self.kind("between")?;
                self.number(usize::from(between.negated))?;
                self.expr(&between.expr, columns)?;
                self.expr(&between.low, columns)?;
                self.expr(&between.high, columns)
            }
            Expr::Case(case) => self.case(case, columns),
            Expr::Cast(cast) => {
                self.kind("cast")?;
                self.push(Token::Field(Arc::clone(&cast.field)))?;
                self.expr(&cast.expr, columns)
            }
            Expr::TryCast(cast) => {
                self.kind("try_cast")?;
                self.push(Token::Field(Arc::clone(&cast.field)))?;
                self.expr(&cast.expr, columns)
            }
            Expr::InList(list) => {
                self.kind("in")?;
                self.number(usize::from(list.negated))?;
                self.expr(&list.expr, columns)?;
                self.exprs(&list.list, columns)
            }
            Expr::ScalarFunction(call) => {
                self.scalar(&call.func)?;
                self.arguments(&call.args, columns)
            }
            Expr::AggregateFunction(call) => {
                self.aggregate(&call.func)?;
                self.aggregate_params(&call.params, columns)
            }
            Expr::WindowFunction(call) => {
                match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => self.aggregate(function)?,
                    WindowFunctionDefinition::WindowUDF(function) => self.window(function)?,
                }
                self.window_params(&call.params, columns)
            }
            Expr::GroupingSet(set) => self.grouping_set(set, columns),
            Expr::ScalarSubquery(subquery) => {
                self.kind("scalar subquery")?;
                self.subquery(subquery)
            }
            _ => self.test(expr, columns),
        }
    }

    /// What has one operand and no name.
    fn test(&mut self, expr: &Expr, columns: Columns<'_>) -> Result<(), Refusal> {
        match expr {
            Expr::Not(inner) => self.unary("not", inner, columns),
            Expr::IsNotNull(inner) => self.unary("is not null", inner, columns),
            Expr::IsNull(inner) => self.unary("is null", inner, columns),
            Expr::IsTrue(inner) => self.unary("is true", inner, columns),
            Expr::IsFalse(inner) => self.unary("is false", inner, columns),
            Expr::IsUnknown(inner) => self.unary("is unknown", inner, columns),
            Expr::IsNotTrue(inner) => self.unary("is not true", inner, columns),
            Expr::IsNotFalse(inner) => self.unary("is not false", inner, columns),
            Expr::IsNotUnknown(inner) => self.unary("is not unknown", inner, columns),
            Expr::Negative(inner) => self.unary("negative", inner, columns),
            _ => Err(unlisted(expr)),
        }
    }

    fn literal(&mut self, value: &ScalarValue) -> Result<(), Refusal> {
        if self.started.is_some_and(|started| comes_from(started, value)) {
            return Err(Refusal::new("now", "now() is another time at each execution"));
        }
        self.push(Token::Value(Box::new(value.clone())))
    }

    fn like(&mut self, kind: &'static str, like: &Like, columns: Columns<'_>) -> Result<(), Refusal> {
        self.kind(kind)?;
        self.number(usize::from(like.negated) * 2 + usize::from(like.case_insensitive))?;
        self.number(like.escape_char.map_or(0, |c| c as usize + 1))?;
        self.expr(&like.expr, columns)?;
        self.expr(&like.pattern, columns)
    }

    fn case(&mut self, case: &Case, columns: Columns<'_>) -> Result<(), Refusal> {
        self.kind("case")?;
        self.optional(case.expr.as_deref(), columns)?;
        self.number(case.when_then_expr.len())?;
        for (when, then) in &case.when_then_expr {
            self.expr(when, columns)?;
            self.expr(then, columns)?;
        }
        self.optional(case.else_expr.as_deref(), columns)
    }

    /// Arguments of a function, which may see the names of the columns that it is given.
    fn arguments(&mut self, arguments: &[Expr], columns: Columns<'_>) -> Result<(), Refusal> {
        self.exprs(arguments, columns)?;
        for argument in arguments {
            if let Expr::Column(column) = argument {
                self.push(Token::Text(column.name.as_str().into()))?;
            }
        }
        Ok(())
    }

    fn aggregate_params(
        &mut self,
        params: &AggregateFunctionParams,
        columns: Columns<'_>,
    ) -> Result<(), Refusal> {
        self.push(Token::Text(format!("{} {:?}", params.distinct, params.null_treatment).into()))?;
        self.arguments(&params.args, columns)?;
        self.optional(params.filter.as_deref(), columns)?;
        self.sort_exprs(&params.order_by, columns)
    }

    fn window_params(&mut self, params: &WindowFunctionParams, columns: Columns<'_>) -> Result<(), Refusal> {
        self.push(Token::Text(format!("{} {:?}", params.distinct, params.null_treatment).into()))?;
        self.push(Token::Frame(Box::new(params.window_frame.clone())))?;
        self.arguments(&params.args, columns)?;
        self.exprs(&params.partition_by, columns)?;
        self.sort_exprs(&params.order_by, columns)?;
        self.optional(params.filter.as_deref(), columns)
    }

    fn grouping_set(&mut self, set: &GroupingSet, columns: Columns<'_>) -> Result<(), Refusal> {
        match set {
            GroupingSet::Rollup(exprs) => {
                self.kind("rollup")?;
                self.exprs(exprs, columns)
            }
            GroupingSet::Cube(exprs) => {
                self.kind("cube")?;
                self.exprs(exprs, columns)
            }
            GroupingSet::GroupingSets(sets) => {
                self.kind("grouping sets")?;
                self.number(sets.len())?;
                sets.iter().try_for_each(|exprs| self.exprs(exprs, columns))
            }
        }
    }

    /// A query inside an expression. One that depends on the outer row has been made a join by now.
    pub(super) fn subquery(&mut self, subquery: &Subquery) -> Result<(), Refusal> {
        match subquery.outer_ref_columns.is_empty() {
            true => self.plan(&subquery.subquery),
            false => Err(Refusal::new("plan", "a subquery depends on the rows around it")),
        }
    }

    fn scalar(&mut self, function: &Arc<ScalarUDF>) -> Result<(), Refusal> {
        if function.as_async().is_some() {
            return Err(Refusal::new("function", format!("{}() asks somebody else", function.name())));
        }
        self.immutable(function.name(), function.signature().volatility)?;
        self.out.pins.push(Pin::Scalar(Arc::downgrade(function.inner())));
        self.function("function", function.name(), address(function.inner()))
    }

    fn aggregate(&mut self, function: &Arc<AggregateUDF>) -> Result<(), Refusal> {
        self.immutable(function.name(), function.signature().volatility)?;
        self.out.pins.push(Pin::Aggregate(Arc::downgrade(function.inner())));
        self.function("aggregate function", function.name(), address(function.inner()))
    }

    fn window(&mut self, function: &Arc<WindowUDF>) -> Result<(), Refusal> {
        self.immutable(function.name(), function.signature().volatility)?;
        self.out.pins.push(Pin::Window(Arc::downgrade(function.inner())));
        self.function("window function", function.name(), address(function.inner()))
    }

    /// A function is the object that was registered: one that is registered again under the same name is another.
    fn function(&mut self, kind: &'static str, name: &str, at: Token) -> Result<(), Refusal> {
        self.kind(kind)?;
        self.push(Token::Text(name.into()))?;
        self.push(at)
    }

    /// A stable function whose value is known has been replaced by the value; one that is left has a value for each row, or
    /// arguments that are not constant.
    fn immutable(&self, name: &str, volatility: Volatility) -> Result<(), Refusal> {
        let what = match volatility {
            Volatility::Immutable => return Ok(()),
            Volatility::Stable => "has another value in another statement",
            Volatility::Volatile => "has another value each time",
        };
        Err(Refusal::new("function", format!("{name}() {what}")))
    }
}

/// Whether `value` is the time at which the statement began, or that time and some whole seconds: it has the same fraction of
/// a second.
fn comes_from(started: i64, value: &ScalarValue) -> bool {
    const NANOS: i64 = 1_000_000_000;
    const MICROS: i64 = 1_000_000;
    let fraction = started.rem_euclid(NANOS);
    match value {
        ScalarValue::TimestampNanosecond(Some(at), _) => fraction > 0 && at.rem_euclid(NANOS) == fraction,
        ScalarValue::TimestampMicrosecond(Some(at), _) => {
            fraction >= 1000 && at.rem_euclid(MICROS) == fraction / 1000
        }
        _ => false,
    }
}

/// What cannot be written down, and why.
fn unlisted(expr: &Expr) -> Refusal {
    let why = match expr {
        Expr::ScalarVariable(..) => "a session variable may change",
        Expr::Placeholder(_) => "a parameter has no value",
        Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
            "a subquery was not made a join, and may depend on the rows around it"
        }
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => {
            "functions of functions are not on the list"
        }
        _ => "an expression is not on the list",
    };
    Refusal::new("expression", why)
}
