//! The settings that can change an answer, or a plan, as one text, written down once for each state of a session's settings.

use std::fmt::Write;
use std::sync::{Arc, Weak};

use datafusion::config::ConfigOptions;
use parking_lot::Mutex;

/// Settings that change how an answer is made, and not the answer: threads, sizes, thresholds. Everything else counts, what a
/// session's owner has added included.
const HARMLESS: &[&str] = &[
    "datafusion.execution.batch_size",
    "datafusion.execution.coalesce_batches",
    "datafusion.execution.collect_statistics",
    "datafusion.execution.enable_file_stream_work_stealing",
    "datafusion.execution.hash_join_buffering_capacity",
    "datafusion.execution.max_spill_file_size_bytes",
    "datafusion.execution.meta_fetch_concurrency",
    "datafusion.execution.planning_concurrency",
    "datafusion.execution.sort_in_place_threshold_bytes",
    "datafusion.execution.sort_spill_reservation_bytes",
    "datafusion.execution.spill_compression",
    "datafusion.execution.target_partitions",
    "datafusion.optimizer.enable_round_robin_repartition",
    "datafusion.optimizer.hash_join_single_partition_threshold",
    "datafusion.optimizer.hash_join_single_partition_threshold_rows",
    "datafusion.optimizer.prefer_hash_join",
    "datafusion.optimizer.repartition_aggregations",
    "datafusion.optimizer.repartition_file_min_size",
    "datafusion.optimizer.repartition_file_scans",
    "datafusion.optimizer.repartition_joins",
    "datafusion.optimizer.repartition_sorts",
    "datafusion.optimizer.repartition_windows",
];

/// The layer's own settings never change an answer; EXPLAIN's are not a query's.
const HARMLESS_PREFIXES: &[&str] = &["slipstream.", "datafusion.explain."];

/// How many states of settings are remembered: sessions, and hints of single queries.
const REMEMBERED: usize = 16;

/// Settings as text; equal where the settings are.
pub(crate) type SettingsText = Arc<str>;

/// Texts of the settings that were asked for lately.
///
/// A weak reference keeps the address of settings from being used again, and has whoever changes them make a copy: the same
/// address is the same settings.
#[derive(Debug)]
pub(crate) struct SettingsMemo {
    counts: fn(&str) -> bool,
    known: Mutex<Vec<(Weak<ConfigOptions>, SettingsText)>>,
}

impl SettingsMemo {
    /// Of settings that can change an answer.
    pub(crate) fn of_answers() -> Self {
        Self { counts: |key| !is_harmless(key), known: Mutex::default() }
    }

    /// Of settings that can change a logical plan: all of DataFusion's, whichever its rules may come to read.
    pub(crate) fn of_planning() -> Self {
        let counts = |key: &str| !HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        Self { counts, known: Mutex::default() }
    }

    /// The text of `options`.
    pub(crate) fn text(&self, options: &Arc<ConfigOptions>) -> SettingsText {
        let at = Arc::as_ptr(options);
        let mut known = self.known.lock();
        if let Some((_, text)) = known.iter().find(|(settings, _)| settings.as_ptr() == at) {
            return Arc::clone(text);
        }
        let text: SettingsText = text(options, self.counts).into();
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push((Arc::downgrade(options), Arc::clone(&text)));
        text
    }
}

/// Whether an answer is the same whatever the value of this setting is.
fn is_harmless(key: &str) -> bool {
    HARMLESS.contains(&key) || HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn text(options: &ConfigOptions, counts: fn(&str) -> bool) -> String {
    let default = ConfigOptions::default().entries();
    let mut defaults: Vec<_> = default.iter().map(|entry| (&entry.key, &entry.value)).collect();
    defaults.sort_unstable();
    let mut entries = options.entries();
    // What is as it is by default says nothing, and a short text is soon compared.
    entries
        .retain(|entry| counts(&entry.key) && defaults.binary_search(&(&entry.key, &entry.value)).is_err());
    // Extensions are in the order of a map of theirs.
    entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let mut text = String::new();
    for entry in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}={:?}", entry.key, entry.value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_an_answer_counts() {
        let memo = SettingsMemo::of_answers();
        let changed = |key: &str, value: &str| {
            let mut options = ConfigOptions::default();
            options.set(key, value).unwrap();
            memo.text(&Arc::new(options))
        };
        let plain = memo.text(&Arc::new(ConfigOptions::default()));
        assert_eq!(plain, changed("datafusion.execution.batch_size", "7"));
        assert_eq!(plain, changed("datafusion.execution.target_partitions", "77"));
        for (key, value) in [
            ("datafusion.execution.time_zone", "+02:00"),
            ("datafusion.execution.enable_ansi_mode", "true"),
            ("datafusion.sql_parser.default_null_ordering", "nulls_first"),
            ("datafusion.sql_parser.dialect", "PostgreSQL"),
        ] {
            assert_ne!(plain, changed(key, value), "{key}");
        }
    }

    #[test]
    fn settings_that_are_changed_in_place_are_read_again() {
        let memo = SettingsMemo::of_answers();
        let mut options = Arc::new(ConfigOptions::default());
        let before = memo.text(&options);
        Arc::make_mut(&mut options).set("datafusion.execution.time_zone", "+02:00").unwrap();
        assert_ne!(memo.text(&options), before);
    }

    #[test]
    fn the_names_are_names_of_settings() {
        let entries = ConfigOptions::default().entries();
        for key in HARMLESS {
            assert!(
                entries.iter().any(|entry| entry.key == *key),
                "{key} is no setting of DataFusion any more"
            );
        }
    }
}
