//! What cargo knows of the workspace: where the sources of its dependencies are.

use std::path::Path;
use std::process::Command;

use serde::de::DeserializeOwned;

/// What `cargo metadata` says of the workspace of `manifest`, or of the one around the current folder, without downloading
/// anything.
///
/// # Errors
/// Why there is nothing, for a message that says what to do instead.
pub(crate) fn metadata<T: DeserializeOwned>(manifest: Option<&Path>) -> Result<T, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["metadata", "--format-version", "1", "--offline"]);
    // Crates of other platforms need not have been downloaded.
    command.args(["--filter-platform", "host-tuple"]);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    let output = command.output().map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cannot read what cargo metadata printed: {e}"))
}
