//! The test of a key as an expression, for a reader that evaluates filters itself.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::{Result, ScalarValue, assert_eq_or_internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;

use super::keys::KeySet;

/// Whether `key` may be in `keys`: true for all rows until the keys are complete, never NULL.
///
/// DataFusion's dynamic filter says the same in a reader by a look-up in the join's table. In front of it in a predicate,
/// this leaves it the rows that are kept, and its bounds go on pruning row groups.
pub(crate) fn key_test(key: Arc<dyn PhysicalExpr>, keys: Arc<KeySet>) -> Arc<dyn PhysicalExpr> {
    Arc::new(KeyTestExpr { key, keys })
}

#[derive(Debug)]
struct KeyTestExpr {
    key: Arc<dyn PhysicalExpr>,
    keys: Arc<KeySet>,
}

/// Two tests are the same only where they test against the same set.
impl PartialEq for KeyTestExpr {
    fn eq(&self, other: &Self) -> bool {
        self.key.eq(&other.key) && Arc::ptr_eq(&self.keys, &other.keys)
    }
}

impl Eq for KeyTestExpr {}

impl Hash for KeyTestExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        Arc::as_ptr(&self.keys).hash(state);
    }
}

impl fmt::Display for KeyTestExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_filter({})", self.key)
    }
}

impl PhysicalExpr for KeyTestExpr {
    fn data_type(&self, _input_schema: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _input_schema: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let everything = || ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)));
        let Some(bits) = self.keys.complete() else { return Ok(everything()) };
        let keys = self.key.evaluate(batch)?.into_array(batch.num_rows())?;
        let kept = bits.may_contain(&keys);
        Ok(kept.map_or_else(everything, |kept| ColumnarValue::Array(Arc::new(BooleanArray::from(kept)))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.key]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        assert_eq_or_internal_err!(children.len(), 1, "key_filter has one argument");
        Ok(key_test(children.swap_remove(0), Arc::clone(&self.keys)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
