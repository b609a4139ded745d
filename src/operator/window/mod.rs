//! Windows that hold no more than they have reserved.
//!
//! | file | what it is |
//! |---|---|
//! | `whole.rs` | `WindowAggExec`, which holds its whole input, run piece by piece |
//! | `pieces.rs` | what is held of the input, and where it may be cut |
//! | `bounded.rs` | `BoundedWindowAggExec`, which holds the rows that its frames still need, accounted |
//! | `cuts.rs` | where one group of PARTITION BY ends and the next begins |

mod bounded;
mod cuts;
mod pieces;
mod whole;

pub(crate) use bounded::{accounted_window, window_ledger};
pub(crate) use whole::{window_by_pieces, window_feed};

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::physical_expr::window::WindowExpr;

/// What a window is called in errors, and its keys.
#[derive(Debug)]
struct Described {
    windows: String,
    keys: String,
}

impl Described {
    fn new(windows: &[Arc<dyn WindowExpr>]) -> Self {
        let names: Vec<&str> = windows.iter().map(|window| window.name()).collect();
        let keys = windows.first().map(|window| window.partition_by()).unwrap_or_default();
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        Self { windows: names.join("; "), keys: keys.join(", ") }
    }

    /// The pool's refusal with what it means: which window, how many rows it has to hold, what to do.
    fn no_room(&self, error: DataFusionError, rows: usize) -> DataFusionError {
        let Self { windows, keys } = self;
        let group = if keys.is_empty() {
            "a window without PARTITION BY".to_owned()
        } else {
            format!("one group of PARTITION BY {keys}")
        };
        error.context(format!(
            "the window {windows} needs memory for {rows} or more rows of {group}, and cannot spill them. Raise the \
             memory limit, select fewer or narrower columns below the window, lower \
             datafusion.execution.target_partitions, or use a frame that does not look at the whole group"
        ))
    }
}
