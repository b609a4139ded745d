//! Bytes of a row, from the inputs of a node upwards.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

/// What a value of varying width takes where nothing is known of it.
pub(super) const UNKNOWN: f64 = 32.0;

/// Bytes of a value whose type says how many they are; `None` for text and lists.
pub(super) fn fixed_width(data_type: &DataType) -> Option<f64> {
    match data_type {
        DataType::Null => Some(0.0),
        DataType::Boolean => Some(0.125),
        DataType::FixedSizeBinary(bytes) => Some(f64::from(*bytes)),
        DataType::FixedSizeList(item, len) => Some(fixed_width(item.data_type())? * f64::from(*len)),
        DataType::Struct(fields) => fields.iter().map(|field| fixed_width(field.data_type())).sum(),
        // The values are shared by all rows.
        DataType::Dictionary(key, _) => fixed_width(key),
        other => other.primitive_width().map(|bytes| bytes as f64),
    }
}

/// Bytes of a row with columns of these widths.
pub(super) fn row_width(columns: &[f64]) -> f64 {
    columns.iter().sum()
}

/// Bytes of a value of each column of `node`, whose inputs have columns of these widths.
///
/// A column of a projection is one of its input, or computed. Other nodes hand most columns on under their names; a column of
/// varying width that is none of the inputs' (the greatest text of a group) is taken to be as wide as the widest of those. A
/// wrong guess costs time or memory, and no row.
pub(super) fn widths(node: &dyn ExecutionPlan, inputs: &[&[f64]]) -> Vec<f64> {
    if let (Some(projection), [input]) = (node.downcast_ref::<ProjectionExec>(), inputs) {
        let schema = projection.input().schema();
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        let output = node.schema();
        let exprs = projection.expr().iter().zip(output.fields());
        return exprs.map(|(item, field)| computed(&item.expr, field.data_type(), &types, input)).collect();
    }
    let children = node.children();
    let schemas: Vec<_> = children.iter().map(|child| child.schema()).collect();
    let known = || {
        let sides = schemas.iter().zip(inputs);
        sides.flat_map(|(schema, widths)| schema.fields().iter().zip(widths.iter().copied()))
    };
    let widest = known()
        .filter(|(field, _)| fixed_width(field.data_type()).is_none())
        .map(|(_, width)| width)
        .fold(0.0, f64::max);
    let output = node.schema();
    let column = |field: &Arc<datafusion::arrow::datatypes::Field>| {
        fixed_width(field.data_type()).unwrap_or_else(|| {
            let named = known()
                .filter(|(other, _)| other.name() == field.name() && other.data_type() == field.data_type());
            let named = named.map(|(_, width)| width).reduce(f64::max);
            named.unwrap_or_else(|| widest.max(UNKNOWN))
        })
    };
    output.fields().iter().map(column).collect()
}

/// Bytes of the value of `expr`, of type `data_type`, over columns of these types and widths: what its columns and literals
/// take together.
pub(super) fn computed(
    expr: &Arc<dyn PhysicalExpr>,
    data_type: &DataType,
    types: &[&DataType],
    input: &[f64],
) -> f64 {
    if let Some(width) = fixed_width(data_type) {
        return width;
    }
    let mut width = 0.0;
    // Neither closure fails.
    let _ = expr.apply(|part| {
        if let Some(column) = part.downcast_ref::<Column>() {
            let varies = types.get(column.index()).is_some_and(|kind| fixed_width(kind).is_none());
            width += input.get(column.index()).filter(|_| varies).copied().unwrap_or(0.0);
        } else if let Some(literal) = part.downcast_ref::<Literal>() {
            width += literal.value().size() as f64;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if width > 0.0 { width } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::{col, lit};
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::projection::ProjectionExpr;
    use datafusion::physical_plan::union::UnionExec;

    #[test]
    fn widths_follow_columns_through_projections_and_by_name() {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let list = DataType::new_list(DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![
            field("n", DataType::Int64),
            field("t", DataType::Utf8View),
            field("l", list.clone()),
        ]));
        let input: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        let exprs = [("t", col("t", &schema)), ("m", col("n", &schema)), ("x", Ok(lit("abc")))];
        let exprs =
            exprs.map(|(alias, expr)| ProjectionExpr { expr: expr.unwrap(), alias: alias.to_owned() });
        let projection = ProjectionExec::try_new(exprs, Arc::clone(&input)).unwrap();
        let found = widths(&projection, &[&[8.0, 1e6, 100.0]]);
        assert_eq!(&found[..2], [1e6, 8.0]);
        assert!(found[2] < 100.0, "{found:?}");

        let union = UnionExec::try_new(vec![Arc::clone(&input), input]).unwrap();
        assert_eq!(widths(union.as_ref(), &[&[8.0, 10.0, 100.0], &[8.0, 1e6, 50.0]]), [8.0, 1e6, 100.0]);
        assert_eq!(fixed_width(&list), None);
        assert_eq!(fixed_width(&DataType::FixedSizeBinary(4096)), Some(4096.0));
    }
}
