//! Errors as the user of the harness reads them.

use std::path::Path;

use datafusion::error::DataFusionError;

/// What an error says: the prefixes that DataFusion gives to faults of options and files say nothing to a user.
pub(crate) fn message(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Configuration(text) | DataFusionError::Execution(text) => text.clone(),
        error => error.strip_backtrace(),
    }
}

/// Says which file could not be written, and why.
pub(crate) fn cannot_write(path: &Path, error: &std::io::Error) -> DataFusionError {
    DataFusionError::Execution(format!("cannot write {}: {error}", path.display()))
}
