//! `PLAIN`: DataFusion's own plan for one query.

use super::{Change, Hint};

/// Before: the layer's rules work on the query. After: they leave it alone; the query is still recorded.
#[derive(Debug)]
pub(super) struct Plain;

impl Hint for Plain {
    fn name(&self) -> &'static str {
        "PLAIN"
    }

    fn bind(&self, arguments: Option<&str>) -> Result<Vec<Change>, String> {
        match arguments {
            None => Ok(vec![Change { key: "slipstream.enabled".to_owned(), value: "false".to_owned() }]),
            Some(_) => Err("PLAIN takes no arguments".to_owned()),
        }
    }
}
