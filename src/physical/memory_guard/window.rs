//! Windows, which DataFusion 55.2 neither counts nor spills.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};

use super::with_inputs;
use crate::operator::{accounted_window, window_by_pieces, window_feed, window_ledger};

/// `WindowAggExec`: by pieces of whole groups.
pub(super) fn by_pieces(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(window) = node.downcast_ref::<WindowAggExec>() else {
        return Ok(None);
    };
    let fed = with_inputs(node, vec![window_feed(Arc::clone(window.input()))])?;
    Ok(Some(window_by_pieces(fed, window)))
}

/// `BoundedWindowAggExec` over sorted groups: accounted. The other modes are for inputs without end alone, which are
/// left as they are.
pub(super) fn accounted(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() else {
        return Ok(None);
    };
    if window.input_order_mode != InputOrderMode::Sorted {
        return Ok(None);
    }
    let counted = with_inputs(node, vec![window_ledger(Arc::clone(window.input()))])?;
    Ok(Some(accounted_window(counted, window)))
}
