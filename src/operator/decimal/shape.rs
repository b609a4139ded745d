//! Which part of an expression is arithmetic on decimals, and the steps that compute it.

use std::sync::Arc;

use datafusion::arrow::array::new_empty_array;
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::logical_expr::Operator as SqlOperator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;

use super::lane::Operator;
use super::program::{Program, Step};

type Expr = Arc<dyn PhysicalExpr>;

/// Where the operands of an expression stand in it.
#[derive(Debug)]
pub(super) enum Shape {
    /// An operand.
    Leaf,
    /// An operation on what is left and right of it.
    Node(Box<Self>, Box<Self>),
}

/// An expression, compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Which part of the expression it is.
    pub(super) shape: Shape,
    /// The steps that give its value.
    pub(super) program: Program,
    /// The types that the program was made for, from left to right.
    pub(super) leaf_types: Vec<DataType>,
    /// The operands, from left to right.
    pub(super) leaves: Vec<Expr>,
    /// The type of the result.
    pub(super) result: DataType,
}

impl Compiled {
    /// Compiles `expr`, over rows of `schema`, where it is such arithmetic, and more of it than sums.
    ///
    /// A sum of equal scales is as quick in DataFusion: an addition is checked by the flag that it sets. What is saved is
    /// the check of a product, which takes several multiplications, and the arrays in between.
    pub(super) fn of(expr: &Expr, schema: &Schema) -> Option<Self> {
        operation(expr, schema)?;
        let mut compiler =
            Compiler { schema, program: Program::default(), leaves: vec![], leaf_types: vec![] };
        let (shape, result, _) = compiler.compile(expr)?;
        let Compiler { program, leaves, leaf_types, .. } = compiler;
        let same = expr.data_type(schema).ok()? == result;
        (same && program.multiplies()).then_some(Self { shape, program, leaf_types, leaves, result })
    }
}

impl Shape {
    /// Computes something of `expr`, which has this shape, from the same of its operands.
    ///
    /// # Errors
    /// Those of `leaf` and `node`, and where `expr` has another shape.
    pub(super) fn fold<T>(
        &self,
        expr: &Expr,
        leaf: &mut dyn FnMut(&Expr) -> Result<T>,
        node: &mut dyn FnMut(&Expr, T, T) -> Result<T>,
    ) -> Result<T> {
        let Self::Node(left, right) = self else { return leaf(expr) };
        let binary = expr.downcast_ref::<BinaryExpr>();
        let binary =
            binary.ok_or_else(|| internal_datafusion_err!("{expr} is no operation on two values"))?;
        let left = left.fold(binary.left(), leaf, node)?;
        let right = right.fold(binary.right(), leaf, node)?;
        node(expr, left, right)
    }
}

/// The operation and its operands, where `expr` is one that is computed here.
fn operation<'a>(expr: &'a Expr, schema: &Schema) -> Option<(Operator, &'a BinaryExpr)> {
    let binary = expr.downcast_ref::<BinaryExpr>()?;
    let operator = match binary.op() {
        SqlOperator::Plus => Operator::Add,
        SqlOperator::Minus => Operator::Subtract,
        SqlOperator::Multiply => Operator::Multiply,
        _ => return None,
    };
    let is_decimal = |side: &Expr| matches!(side.data_type(schema), Ok(DataType::Decimal128(_, _)));
    (is_decimal(binary.left()) && is_decimal(binary.right())).then_some((operator, binary))
}

/// Walks an expression from left to right, and writes down what it finds.
struct Compiler<'a> {
    /// What the columns of the expression are.
    schema: &'a Schema,
    /// The steps so far: operands stand in front of what is made of them.
    program: Program,
    leaves: Vec<Expr>,
    leaf_types: Vec<DataType>,
}

impl Compiler<'_> {
    /// The shape of `expr`, its type, and the step that has its value.
    fn compile(&mut self, expr: &Expr) -> Option<(Shape, DataType, usize)> {
        let Some((operator, binary)) = operation(expr, self.schema) else {
            let ty = expr.data_type(self.schema).ok()?;
            let step = self.program.push(Step::Leaf(self.leaves.len()));
            self.leaves.push(Arc::clone(expr));
            self.leaf_types.push(ty.clone());
            return Some((Shape::Leaf, ty, step));
        };
        let (left, left_type, mut left_step) = self.compile(binary.left())?;
        let (right, right_type, mut right_step) = self.compile(binary.right())?;
        let result = result_type(operator, &left_type, &right_type)?;
        if operator != Operator::Multiply {
            left_step = self.rescaled(left_step, &left_type, &result)?;
            right_step = self.rescaled(right_step, &right_type, &result)?;
        }
        let step = self.program.push(Step::Apply(operator, left_step, right_step));
        Some((Shape::Node(Box::new(left), Box::new(right)), result, step))
    }

    /// The value of `step`, a decimal of type `from`, in the scale of `to`.
    fn rescaled(&mut self, step: usize, from: &DataType, to: &DataType) -> Option<usize> {
        let (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) = (from, to) else { return None };
        let zeros = u32::try_from(i32::from(*to) - i32::from(*from)).ok()?;
        if zeros == 0 {
            return Some(step);
        }
        let factor = self.program.push(Step::Constant(10_i128.checked_pow(zeros)?));
        Some(self.program.push(Step::Apply(Operator::Multiply, step, factor)))
    }
}

/// The type that the kernel of this operation gives, which knows the rules of precision and scale.
fn result_type(operator: Operator, left: &DataType, right: &DataType) -> Option<DataType> {
    let (left, right) = (new_empty_array(left), new_empty_array(right));
    let kernel = match operator {
        Operator::Add => numeric::add,
        Operator::Subtract => numeric::sub,
        Operator::Multiply => numeric::mul,
    };
    let result = kernel(&left.as_ref(), &right.as_ref()).ok()?;
    Some(result.data_type().clone())
}
