//! Expressions as text, with the columns that they speak of written out.

use std::sync::Arc;

use datafusion::logical_expr::{Operator, Volatility};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_plan::PhysicalExpr;

use super::fingerprint::Reason;
use crate::operator::NarrowDecimals;

type Expr = Arc<dyn PhysicalExpr>;

/// `expr` as text in which `columns` stand for the columns that it numbers, or why it has none.
///
/// An allow-list, since what an expression does not show of itself would be missing. Functions are known by their names:
/// who replaces a function of a session by another of the same name changes what its queries mean.
pub(super) fn expr_text(expr: &Expr, columns: &[String]) -> Result<String, Reason> {
    let inner = |expr: &Expr| expr_text(expr, columns);
    let list = |exprs: &[Expr]| exprs.iter().map(inner).collect::<Result<Vec<_>, _>>();
    if let Some(column) = expr.downcast_ref::<Column>() {
        return columns.get(column.index()).cloned().ok_or("a column is missing");
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Ok(format!("{:?}", literal.value()));
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return Ok(format!("({} {} {})", inner(binary.left())?, binary.op(), inner(binary.right())?));
    }
    if let Some(narrow) = expr.downcast_ref::<NarrowDecimals>() {
        return inner(narrow.original());
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return Ok(format!("not {}", inner(not.arg())?));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        return Ok(format!("-{}", inner(negative.arg())?));
    }
    if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        return Ok(format!("{} is null", inner(is_null.arg())?));
    }
    if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        return Ok(format!("{} is not null", inner(is_not_null.arg())?));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return Ok(format!("cast({} {:?} {:?})", inner(cast.expr())?, cast.cast_type(), cast.cast_options()));
    }
    if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        return Ok(format!("try_cast({} {:?})", inner(cast.expr())?, cast.cast_type()));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let how = (like.negated(), like.case_insensitive());
        return Ok(format!("like({} {} {how:?})", inner(like.expr())?, inner(like.pattern())?));
    }
    if let Some(among) = expr.downcast_ref::<InListExpr>() {
        let (mut values, negated) = (list(among.list())?, among.negated());
        values.sort_unstable();
        return Ok(format!("in({} {values:?} {negated})", inner(among.expr())?));
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let base = case.expr().map(inner).transpose()?;
        let branches = case.when_then_expr().iter();
        let branches = branches.map(|(when, then)| Ok((inner(when)?, inner(then)?)));
        let branches = branches.collect::<Result<Vec<_>, Reason>>()?;
        return Ok(format!("case({base:?} {branches:?} {:?})", case.else_expr().map(inner).transpose()?));
    }
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
        if function.fun().signature().volatility != Volatility::Immutable {
            return Err("a function gives other values at other times");
        }
        return Ok(format!("{}({:?})", function.name(), list(function.args())?));
    }
    Err("an expression is of a kind that has no fingerprint")
}

/// The two sides of an equality, where `expr` is one.
///
/// Equalities are kept apart from other conjuncts, since joins make use of them in any order, and of what follows from
/// them: `a = b AND b = c` joins `a` with `c` as well.
pub(super) fn equality(expr: &Expr, columns: &[String]) -> Result<Option<(String, String)>, Reason> {
    let Some(binary) = expr.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == Operator::Eq) else {
        return Ok(None);
    };
    Ok(Some((expr_text(binary.left(), columns)?, expr_text(binary.right(), columns)?)))
}
