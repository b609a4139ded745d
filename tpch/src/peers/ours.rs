//! Our own figures, as `run --json` wrote them.

use std::path::Path;

use datafusion::error::{DataFusionError, Result};
use serde::Deserialize;

use crate::run::report::QueryReport;
use crate::tpch::Tpch;
use crate::workload::Workload;

/// The parts of `run`'s report that are compared.
#[derive(Debug, Deserialize)]
pub(super) struct Ours {
    pub(super) versions: Versions,
    pub(super) settings: Settings,
    queries: Vec<QueryReport>,
}

/// What ran.
#[derive(Debug, Deserialize)]
pub(super) struct Versions {
    pub(super) slipstream: String,
    pub(super) datafusion: String,
    pub(super) build: String,
}

/// How it ran.
#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    /// Reports of before there were others do not say it.
    #[serde(default = "tpch")]
    workload: String,
    pub(super) scale_factor: f64,
    pub(super) memory_limit_bytes: Option<usize>,
    pub(super) target_partitions: usize,
}

/// The workload of the peers.
fn tpch() -> String {
    Tpch.name().to_owned()
}

impl Ours {
    /// Reads a report of this scale factor.
    pub(super) fn load(path: &Path, scale_factor: f64) -> Result<Self> {
        let invalid =
            |text: String| DataFusionError::Configuration(format!("--ours {}: {text}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| invalid(e.to_string()))?;
        let ours: Self = serde_json::from_str(&text)
            .map_err(|e| invalid(format!("not a report of `slipstream-tpch run --json`: {e}")))?;
        if ours.settings.workload != tpch() {
            return Err(invalid(format!("its figures are of {}, not {}", ours.settings.workload, tpch())));
        }
        if ours.settings.scale_factor.total_cmp(&scale_factor).is_ne() {
            return Err(invalid(format!(
                "its figures are of scale factor {}, not {scale_factor}",
                ours.settings.scale_factor
            )));
        }
        Ok(ours)
    }

    /// The figures of a query, if it ran.
    pub(super) fn query(&self, number: u8) -> Option<&QueryReport> {
        self.queries.iter().find(|q| q.query == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Ours::load(&path, 1.0).unwrap_err().to_string()
        };
        assert!(error("{}").contains("not a report of `slipstream-tpch run --json`"));
        let report = r#"{"versions": {"slipstream": "1", "datafusion": "2", "build": "debug"}, "queries": [],
            "settings": {"scale_factor": 0.1, "memory_limit_bytes": null, "target_partitions": 2}}"#;
        assert!(error(report).contains("its figures are of scale factor 0.1, not 1"));
        assert!(Ours::load(&path, 0.1).unwrap().query(1).is_none());
        let star = report.replace("\"target", "\"workload\": \"star\", \"target");
        assert!(error(&star).contains("its figures are of star, not tpch"));
        assert!(Ours::load(&dir.path().join("none"), 1.0).unwrap_err().to_string().contains("none: "));
    }
}
