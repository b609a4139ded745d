//! Rows on their way into groups: evaluated once, then cut into pieces.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::{cast, filter};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::aggregates::AggregateExec;

/// What an aggregate evaluates for its input.
#[derive(Debug)]
pub(super) struct Expressions {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Which of the keys is the clustered one.
    clustered: usize,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
}

impl Expressions {
    /// The expressions of `aggregate`, whose group key number `clustered` is the clustered one.
    pub(super) fn new(aggregate: &AggregateExec, clustered: usize) -> Self {
        Self {
            keys: aggregate.group_expr().input_exprs(),
            clustered,
            arguments: aggregate.aggr_expr().iter().map(|each| each.expressions()).collect(),
            filters: aggregate.filter_expr().to_vec(),
        }
    }

    /// The rows of `batch`.
    ///
    /// # Errors
    /// If an expression fails, or the clustered key is NULL in a row.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Rows> {
        let keys = all(&self.keys, batch)?;
        let clustered = keys
            .get(self.clustered)
            .ok_or_else(|| internal_datafusion_err!("no key {} in {}", self.clustered, keys.len()))?;
        if clustered.null_count() > 0 {
            return internal_err!("a clustered key is NULL although its files count no NULLs");
        }
        let clustered = cast(clustered, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        let arguments = self.arguments.iter().map(|each| all(each, batch)).collect::<Result<_>>()?;
        let filters =
            self.filters.iter().map(|each| condition(each.as_ref(), batch)).collect::<Result<_>>()?;
        Ok(Rows { keys, clustered, arguments, filters })
    }
}

fn all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

fn condition(expr: Option<&Arc<dyn PhysicalExpr>>, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
    let Some(expr) = expr else { return Ok(None) };
    Ok(Some(expr.evaluate(batch)?.into_array(batch.num_rows())?.as_boolean().clone()))
}

/// Evaluated rows: keys, and for each aggregate its arguments and its condition.
pub(super) struct Rows {
    pub(super) keys: Vec<ArrayRef>,
    /// The clustered key again, as numbers.
    pub(super) clustered: Int64Array,
    pub(super) arguments: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
}

impl Rows {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.clustered.len()
    }

    /// The rows in `range`, without a copy.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let (start, len) = (range.start, range.len());
        Self {
            keys: self.keys.iter().map(|column| column.slice(start, len)).collect(),
            clustered: self.clustered.slice(start, len),
            arguments: self
                .arguments
                .iter()
                .map(|each| each.iter().map(|column| column.slice(start, len)).collect())
                .collect(),
            filters: self.filters.iter().map(|each| each.as_ref().map(|it| it.slice(start, len))).collect(),
        }
    }

    /// The rows for which `mask` is true.
    pub(super) fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        let keep = |columns: &[ArrayRef]| {
            columns.iter().map(|column| Ok(filter(column, mask)?)).collect::<Result<Vec<_>>>()
        };
        let filters = self.filters.iter().map(|each| {
            each.as_ref().map(|condition| Ok(filter(condition, mask)?.as_boolean().clone())).transpose()
        });
        Ok(Self {
            keys: keep(&self.keys)?,
            clustered: filter(&self.clustered, mask)?.as_primitive::<Int64Type>().clone(),
            arguments: self.arguments.iter().map(|each| keep(each)).collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
        })
    }
}
