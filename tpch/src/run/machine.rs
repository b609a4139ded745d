//! Where and with what a run was made: figures of another machine or build do not compare.

use std::time::Duration;

use datafusion::prelude::SessionConfig;
use serde::Serialize;

use crate::sizes::mib;
use crate::workload::Workload;

/// How long the processors are watched.
const WATCH: Duration = Duration::from_millis(200);

/// What other programs may use without the user being told.
const MAX_BUSY_SHARE: f64 = 0.1;

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
    /// Share of all processors that was in use just before the run, 0 to 1; `null` where the system does not tell.
    pub(crate) busy: Option<f64>,
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
    /// Looks at the machine this runs on, for a fifth of a second.
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
            busy: busy_share(),
        }
    }

    /// Whether others use so much of the machine that the times mean little.
    fn is_busy(&self) -> bool {
        self.busy.is_some_and(|share| share > MAX_BUSY_SHARE)
    }
}

/// Share of the processors' time that is used while this process sleeps.
fn busy_share() -> Option<f64> {
    let (idle_before, all_before) = processor_ticks()?;
    std::thread::sleep(WATCH);
    let (idle, all) = processor_ticks()?;
    let all = all.checked_sub(all_before).filter(|ticks| *ticks > 0)?;
    let idle = idle.saturating_sub(idle_before).min(all);
    #[expect(clippy::cast_precision_loss, reason = "some ten ticks")]
    Some(1.0 - idle as f64 / all as f64)
}

/// Ticks of all processors since boot: idle ones (waiting for disks included), and all.
fn processor_ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted as users already.
    let ticks: Vec<u64> = ticks.take(8).map_while(|t| t.parse().ok()).collect();
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}

impl Versions {
    /// The versions compiled in, for a run of this workload.
    pub(crate) fn current(workload: &dyn Workload) -> Self {
        Self {
            slipstream: env!("CARGO_PKG_VERSION"),
            datafusion: datafusion::DATAFUSION_VERSION,
            generator: workload.generator(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

/// For the title of a table: what ran where, and a warning when times mean little.
pub(crate) fn title(machine: &Machine, versions: &Versions) -> String {
    let debug = if versions.build == "release" { "" } else { "\nA debug build: its times mean little." };
    let busy = match machine.busy {
        Some(share) if machine.is_busy() => {
            format!("\nOther programs use {:.0} % of the processors: times will vary.", share * 100.0)
        }
        _ => String::new(),
    };
    format!(
        "Slipstream {} on DataFusion {}; {} x {}, {:.1} GiB, {}{debug}{busy}",
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
        assert!((0.0..=1.0).contains(&machine.busy.unwrap()), "{machine:?}");
    }

    /// A program that spins on all processors is seen.
    #[test]
    fn other_work_is_noticed() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            for _ in 0..SessionConfig::new().target_partitions() {
                scope.spawn(|| {
                    while !stop.load(relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let machine = Machine::current();
            stop.store(true, relaxed);
            assert!(machine.busy.unwrap() > 0.8, "{machine:?}");
            assert!(
                title(&machine, &Versions::current(&crate::tpch::Tpch))
                    .contains("of the processors: times will vary.")
            );
        });
    }
}
