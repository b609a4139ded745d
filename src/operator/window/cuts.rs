//! Where one group of PARTITION BY ends and the next begins, in rows that are sorted by it.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::{concat, partition};
use datafusion::common::Result;
use datafusion::physical_plan::PhysicalExpr;

/// Compares each row with the one before it, across batches.
#[derive(Debug)]
pub(super) struct Cuts {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The keys of the last row so far, one row long.
    last: Option<Vec<ArrayRef>>,
}

impl Cuts {
    /// Without keys there is one group.
    pub(super) fn new(keys: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self { keys, last: None }
    }

    /// The rows of `batch`, which has some, that begin a group; the first row of all does not count.
    pub(super) fn find(&mut self, batch: &RecordBatch) -> Result<Vec<usize>> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = batch.num_rows();
        let evaluated = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows));
        let keys = evaluated.collect::<Result<Vec<_>>>()?;
        let mut begins: Vec<usize> =
            partition(&keys)?.ranges().into_iter().map(|range| range.start).collect();
        if !self.first_begins(&keys)? {
            begins.remove(0);
        }
        // A copy, since a slice would keep the batch in memory.
        let last = keys.iter().map(|key| Ok(concat(&[&key.slice(rows - 1, 1), &key.slice(rows, 0)])?));
        self.last = Some(last.collect::<Result<_>>()?);
        Ok(begins)
    }

    /// Whether the first row has other keys than the last row of the batch before.
    fn first_begins(&self, keys: &[ArrayRef]) -> Result<bool> {
        let Some(last) = &self.last else {
            return Ok(false);
        };
        let both = last.iter().zip(keys).map(|(last, key)| Ok(concat(&[last, &key.slice(0, 1)])?));
        let both = both.collect::<Result<Vec<_>>>()?;
        Ok(partition(&both)?.len() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::Int64Array;
    use datafusion::physical_expr::expressions::col;

    #[test]
    fn groups_go_on_across_batches_and_null_is_a_key() {
        let batch = |keys: Vec<Option<i64>>| {
            let keys: ArrayRef = Arc::new(Int64Array::from(keys));
            RecordBatch::try_from_iter_with_nullable([("k", keys, true)]).unwrap()
        };
        let schema = batch(vec![None]).schema();
        let mut cuts = Cuts::new(vec![col("k", &schema).unwrap()]);
        assert_eq!(cuts.find(&batch(vec![None, None])).unwrap(), Vec::<usize>::new());
        assert_eq!(cuts.find(&batch(vec![None, Some(0), Some(0), Some(1)])).unwrap(), [1, 3]);
        assert_eq!(cuts.find(&batch(vec![Some(2), Some(2)])).unwrap(), [0]);
        assert_eq!(cuts.find(&batch(vec![Some(2)])).unwrap(), Vec::<usize>::new());
        assert_eq!(Cuts::new(vec![]).find(&batch(vec![Some(1), Some(2)])).unwrap(), Vec::<usize>::new());
    }
}
