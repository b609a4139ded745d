//! Where and with what a run was made: figures of another machine or build do not compare.

use datafusion::prelude::SessionConfig;
use serde::Serialize;

use crate::sizes::mib;

/// The machine of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Main memory; 0 where the system does not tell.
    pub(crate) memory_bytes: u64,
    /// Operating system and processor architecture.
    pub(crate) os: String,
}

/// The software of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Versions {
    /// Version of the layer and of this harness.
    pub(crate) slipstream: &'static str,
    /// Version of the engine below.
    pub(crate) datafusion: &'static str,
    /// Who generates the data.
    pub(crate) generator: &'static str,
    /// How this program was compiled: `release` or `debug`.
    pub(crate) build: &'static str,
}

impl Machine {
    /// Looks at the machine this runs on.
    pub(crate) fn current() -> Self {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib: Option<u64> = memory.and_then(|m| m.strip_suffix("kB")?.trim().parse().ok());
        let system =
            field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned());
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            // DataFusion's default is the number of processors available to the process.
            cores: SessionConfig::new().target_partitions(),
            memory_bytes: kib.unwrap_or_default() * 1024,
            os: format!("{system} ({})", std::env::consts::ARCH),
        }
    }
}

impl Versions {
    /// The versions compiled in.
    pub(crate) fn current() -> Self {
        Self {
            slipstream: env!("CARGO_PKG_VERSION"),
            datafusion: datafusion::DATAFUSION_VERSION,
            generator: crate::generate::GENERATOR,
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

/// One line for the title of a table: what ran where, and a warning when times mean little.
pub(crate) fn title(machine: &Machine, versions: &Versions) -> String {
    let warning = if versions.build == "release" { "" } else { "; DEBUG BUILD, its times mean little" };
    format!(
        "Slipstream {} on DataFusion {}; {} x {}, {:.1} GiB, {}{warning}",
        versions.slipstream,
        versions.datafusion,
        machine.cores,
        machine.cpu,
        mib(machine.memory_bytes) / 1024.0,
        machine.os,
    )
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_all() {
        let machine = Machine::current();
        assert!(machine.memory_bytes > 1 << 28, "{machine:?}");
        assert!(machine.cores > 0 && !machine.os.is_empty(), "{machine:?}");
    }
}
