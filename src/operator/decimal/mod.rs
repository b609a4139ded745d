//! Arithmetic on decimals without a check for each value.
//!
//! ```text
//!   price * (1 - discount) * (1 + tax)     one expression: columns in, a column out
//!
//!   1,024 rows ─► the largest magnitude of each column ─► bounds of all steps ─► 64 bits, or 128, unchecked
//!                                                              └─► may overflow: the expression as it was
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `shape` | which part of an expression is computed here, and the steps for it |
//! | `program` | the steps, block by block, and the bounds of their values |
//! | `lane` | the loops |

mod lane;
mod program;
mod shape;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::ExprProperties;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr_common::physical_expr::is_volatile;

use self::program::Leaf;
use self::shape::Compiled;

type Expr = Arc<dyn PhysicalExpr>;

/// Additions, subtractions and multiplications of `Decimal128`, as one expression.
///
/// DataFusion 55.2 computes each operation with a check for each row, and an array in between. What can overflow is
/// decided here for a block of rows, from the largest magnitudes that are in it, not from declared precisions, which
/// data need not keep to. A batch in which something might overflow is left to the expression that this one replaces:
/// values, types, NULLs and errors are those of DataFusion.
///
/// Its children are the operands; what it looks like, what is known of its order and range, and which type it has says
/// the expression that it replaces.
#[derive(Debug)]
pub(crate) struct NarrowDecimals {
    original: Expr,
    compiled: Arc<Compiled>,
    /// The operands that `original` has now.
    leaves: Vec<Expr>,
    /// Whether the expression around it would print it in parentheses.
    parentheses: bool,
    /// How many batches in a row were too large, so that operands are not evaluated twice for ever.
    misses: Arc<AtomicU32>,
}

/// After so many misses in a row there are no more attempts.
const MISSES: u32 = 16;

/// `expr`, on rows of `schema`, with arithmetic on decimals replaced; nothing where there is none that gains.
///
/// # Errors
/// If an expression refuses its new operands.
pub(crate) fn narrow_decimals(expr: &Expr, schema: &Schema) -> Result<Option<Expr>> {
    narrow(expr, schema, 0)
}

/// `precedence` is that of the operation around `expr`.
fn narrow(expr: &Expr, schema: &Schema, precedence: u8) -> Result<Option<Expr>> {
    let narrowed = match Compiled::of(expr, schema) {
        // How often a volatile operand is evaluated can be seen.
        Some(compiled) if !is_volatile(expr) => {
            let own = expr.downcast_ref::<BinaryExpr>().map_or(0, |binary| binary.op().precedence());
            let narrowed = NarrowDecimals {
                original: Arc::clone(expr),
                leaves: compiled.leaves.clone(),
                compiled: Arc::new(compiled),
                parentheses: own < precedence,
                misses: Arc::default(),
            };
            Some(Arc::new(narrowed) as Expr)
        }
        _ => None,
    };
    let outer = narrowed.as_ref().unwrap_or(expr);
    let precedence = outer.downcast_ref::<BinaryExpr>().map_or(0, |binary| binary.op().precedence());
    let mut children = vec![];
    let mut changed = false;
    for child in outer.children() {
        let new = narrow(child, schema, precedence)?;
        changed |= new.is_some();
        children.push(new.unwrap_or_else(|| Arc::clone(child)));
    }
    if changed { Ok(Some(Arc::clone(outer).with_new_children(children)?)) } else { Ok(narrowed) }
}

impl NarrowDecimals {
    /// The expression in whose place it stands.
    pub(crate) fn original(&self) -> &Expr {
        &self.original
    }

    /// The values, unless some of them might overflow, or an operand is not what it was declared to be.
    fn narrow(&self, batch: &RecordBatch) -> Option<ArrayRef> {
        let rows = batch.num_rows();
        let misses = self.misses.load(Ordering::Relaxed);
        if misses >= MISSES {
            return None;
        }
        // An error here is told by the original, which may have one in front of it.
        let values = self.leaves.iter().map(|leaf| leaf.evaluate(batch));
        let values = values.collect::<Result<Vec<_>>>().ok()?;
        let mut nulls: Option<NullBuffer> = None;
        let mut constant = true;
        let mut leaves = Vec::with_capacity(values.len());
        for (value, declared) in values.iter().zip(&self.compiled.leaf_types) {
            if value.data_type() != *declared {
                return None;
            }
            leaves.push(match value {
                ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), _, _)) => Leaf::Scalar(*value),
                ColumnarValue::Scalar(_) => return None,
                ColumnarValue::Array(array) => {
                    constant = false;
                    let array = array.as_primitive_opt::<Decimal128Type>()?;
                    if array.null_count() > 0 {
                        nulls = NullBuffer::union(nulls.as_ref(), array.nulls());
                    }
                    Leaf::Values(array.values())
                }
            });
        }
        if constant || rows == 0 {
            return None;
        }
        let computed = self.compiled.program.run(&leaves, rows);
        self.misses.store(if computed.is_some() { 0 } else { misses + 1 }, Ordering::Relaxed);
        let mut values = computed?;
        if let Some(nulls) = &nulls {
            // As DataFusion's kernels leave them.
            values.iter_mut().zip(nulls).filter(|(_, valid)| !valid).for_each(|(value, _)| *value = 0);
        }
        let array = PrimitiveArray::<Decimal128Type>::try_new(values.into(), nulls).ok()?;
        Some(Arc::new(array.with_data_type(self.compiled.result.clone())))
    }
}

impl PartialEq for NarrowDecimals {
    fn eq(&self, other: &Self) -> bool {
        self.original.eq(&other.original) && self.parentheses == other.parentheses
    }
}

impl Eq for NarrowDecimals {}

impl Hash for NarrowDecimals {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.original.hash(state);
    }
}

impl Display for NarrowDecimals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.parentheses { write!(f, "({})", self.original) } else { self.original.fmt(f) }
    }
}

impl PhysicalExpr for NarrowDecimals {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.original.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.original.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.original.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        match self.narrow(batch) {
            Some(array) => Ok(ColumnarValue::Array(array)),
            None => self.original.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Expr> {
        self.leaves.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Expr>) -> Result<Expr> {
        let mut leaves = children.iter();
        let original = self.compiled.shape.fold(
            &self.original,
            &mut |_| {
                let leaf = leaves.next().map(Arc::clone);
                leaf.ok_or_else(|| internal_datafusion_err!("{self} misses an operand"))
            },
            &mut |node, left, right| Arc::clone(node).with_new_children(vec![left, right]),
        )?;
        Ok(Arc::new(Self {
            original,
            leaves: children,
            compiled: Arc::clone(&self.compiled),
            parentheses: self.parentheses,
            misses: Arc::clone(&self.misses),
        }))
    }

    fn evaluate_bounds(&self, children: &[&Interval]) -> Result<Interval> {
        let mut children = children.iter();
        self.compiled.shape.fold(
            &self.original,
            &mut |leaf| {
                let range = children.next().map(|range| Interval::clone(range));
                range.ok_or_else(|| internal_datafusion_err!("the range of {leaf} is missing"))
            },
            &mut |node, left, right| node.evaluate_bounds(&[&left, &right]),
        )
    }

    fn get_properties(&self, children: &[ExprProperties]) -> Result<ExprProperties> {
        let mut children = children.iter();
        self.compiled.shape.fold(
            &self.original,
            &mut |leaf| {
                let properties = children.next().cloned();
                properties.ok_or_else(|| internal_datafusion_err!("the order of {leaf} is missing"))
            },
            &mut |node, left, right| node.get_properties(&[left, right]),
        )
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.original.fmt_sql(f)
    }
}
