//! What a query's hints do to its own copy of the session's state.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::hint::{Change, LowHint, bind};
use crate::scope::{QueryScope, RuleReport, Verdict};

/// Applies `hints` to `state`, which is this query's alone, and reports each in `scope`.
pub(super) fn apply_hints(state: &mut SessionState, hints: &[LowHint], scope: &QueryScope) {
    for hint in hints {
        let applied =
            bind(hint).and_then(|changes| set_all(state, &changes).map_err(|error| error.strip_backtrace()));
        let verdict = match applied {
            Ok(()) => Verdict::Applied(hint.to_string().into()),
            Err(reason) => Verdict::Refused(format!("{hint}: {reason}").into()),
        };
        scope.report(RuleReport { rule: "hint", verdict, elapsed: Duration::ZERO });
    }
}

/// All changes or none: a hint that is half applied could not be reported.
fn set_all(state: &mut SessionState, changes: &[Change]) -> Result<()> {
    let mut options = state.config_options().as_ref().clone();
    for Change { key, value } in changes {
        options.set(key, value)?;
    }
    *state.config_mut().options_mut() = options;
    // Functions that read a setting when they are made (now(), in the session's time zone) are made anew, as the
    // statement SET does.
    let config = state.config_options();
    let functions: Vec<_> =
        state.scalar_functions().values().filter_map(|udf| udf.inner().with_updated_config(config)).collect();
    for function in functions {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

/// Takes hints out of DML, where DataFusion refuses what it could ignore. Elsewhere it does ignore them.
pub(super) fn without_hints(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => match sql.as_mut() {
            SqlStatement::Insert(insert) => insert.optimizer_hints.clear(),
            SqlStatement::Update(update) => update.optimizer_hints.clear(),
            SqlStatement::Delete(delete) => delete.optimizer_hints.clear(),
            SqlStatement::Merge(merge) => merge.optimizer_hints.clear(),
            _ => {}
        },
        Statement::Explain(explain) => without_hints(&mut explain.statement),
        _ => {}
    }
}
