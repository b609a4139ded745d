//! Every `slipstream.*` setting: its value in a session, and the one list that describes them all.

mod cache;
mod docs;
mod env;
mod guards;
mod process;
mod resources;
mod settings;
mod values;

use std::any::Any;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};

pub use cache::CacheMode;
pub use docs::configuration_markdown;
pub use process::ProcessOptions;
pub(crate) use process::belongs_to_process;
pub use settings::{SETTINGS, Setting};

use crate::error::{config_error, suggestion};

/// The names of the layer's rules, as `slipstream.disabled_rules` takes them.
///
/// They stand here, and not with the rules, because a setting is checked where it is set; a test holds this
/// list equal to the rules that `session::rule_order` splices.
pub const RULE_NAMES: &[&str] = &[
    "join_order",
    "outer_join_guard",
    "late_materialization",
    "dynamic_filter_guard",
    "shared_subplan",
    "scan_filter",
    "compact_views",
    "narrow_decimals",
    "clustered_aggregate",
    "fused_filter",
    "key_filter",
    "scan_ranges",
    "spill_join",
    "memory_guard",
    "nested_loop_join_guard",
    "batch_size",
    "operator_metrics",
];

/// The values of the `slipstream.*` settings of one session.
///
/// Change them with `SET slipstream.<name> = <value>` and back with `RESET slipstream.<name>` (through
/// [`query`](crate::SlipstreamContextExt::query)) or `SET slipstream.<name> = DEFAULT` (everywhere). What each
/// one means, accepts and defaults to is in [`SETTINGS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlipstreamOptions {
    /// `slipstream.enabled`
    pub enabled: bool,
    /// `slipstream.disabled_rules`
    pub disabled_rules: Vec<String>,
    /// `slipstream.explain.enabled`
    pub explain_enabled: bool,
    /// `slipstream.small_query.max_rows`
    pub small_query_max_rows: usize,
    /// `slipstream.join_order.enabled`
    pub join_order_enabled: bool,
    /// `slipstream.memory_guard.enabled`
    pub memory_guard_enabled: bool,
    /// `slipstream.nested_loop_join_guard.enabled`
    pub nested_loop_join_guard_enabled: bool,
    /// `slipstream.join_order.min_gain_percent`
    pub join_order_min_gain_percent: usize,
    /// `slipstream.outer_join_guard.enabled`
    pub outer_join_guard_enabled: bool,
    /// `slipstream.dynamic_filter_guard.enabled`
    pub dynamic_filter_guard_enabled: bool,
    /// `slipstream.shared_subplan.enabled`
    pub shared_subplan_enabled: bool,
    /// `slipstream.shared_subplan.min_gain_percent`
    pub shared_subplan_min_gain_percent: usize,
    /// `slipstream.shared_subplan.max_memory_bytes`
    pub shared_subplan_max_memory_bytes: usize,
    /// `slipstream.scan_filter.enabled`
    pub scan_filter_enabled: bool,
    /// `slipstream.scan_filter.min_gain_percent`
    pub scan_filter_min_gain_percent: usize,
    /// `slipstream.scan_ranges.enabled`
    pub scan_ranges_enabled: bool,
    /// `slipstream.narrow_decimals.enabled`
    pub narrow_decimals_enabled: bool,
    /// `slipstream.clustered_aggregate.enabled`
    pub clustered_aggregate_enabled: bool,
    /// `slipstream.clustered_aggregate.min_rows`
    pub clustered_aggregate_min_rows: usize,
    /// `slipstream.key_filter.enabled`
    pub key_filter_enabled: bool,
    /// `slipstream.key_filter.min_rows`
    pub key_filter_min_rows: usize,
    /// `slipstream.fused_filter.enabled`
    pub fused_filter_enabled: bool,
    /// `slipstream.spill_join.enabled`
    pub spill_join_enabled: bool,
    /// `slipstream.late_materialization.enabled`
    pub late_materialization_enabled: bool,
    /// `slipstream.late_materialization.max_rows`
    pub late_materialization_max_rows: usize,
    /// `slipstream.late_materialization.min_gain_percent`
    pub late_materialization_min_gain_percent: usize,
    /// `slipstream.compact_views.enabled`
    pub compact_views_enabled: bool,
    /// `slipstream.statistics.enabled`
    pub statistics_enabled: bool,
    /// `slipstream.statistics.max_entries`
    pub statistics_max_entries: usize,
    /// `slipstream.statistics.max_bytes`
    pub statistics_max_bytes: usize,
    /// `slipstream.feedback.enabled`
    pub feedback_enabled: bool,
    /// `slipstream.feedback.max_entries`
    pub feedback_max_entries: usize,
    /// `slipstream.feedback.max_bytes`
    pub feedback_max_bytes: usize,
    /// `slipstream.batch_size.enabled`
    pub batch_size_enabled: bool,
    /// `slipstream.batch_size.target_bytes`
    pub batch_size_target_bytes: usize,
    /// `slipstream.batch_size.min_rows`
    pub batch_size_min_rows: usize,
    /// `slipstream.operator_metrics.enabled`
    pub operator_metrics_enabled: bool,
    /// `slipstream.query_log.enabled`
    pub query_log_enabled: bool,
    /// `slipstream.query_log.max_entries`
    pub query_log_max_entries: usize,
    /// `slipstream.query_log.max_text_bytes`
    pub query_log_max_text_bytes: usize,
    /// `slipstream.memory.query_limit`
    pub memory_query_limit: usize,
    /// `slipstream.disk.query_limit`
    pub disk_query_limit: usize,
    /// `slipstream.disk.directory`
    pub disk_directory: String,
    /// `slipstream.cache.enabled`
    pub cache_enabled: bool,
    /// `slipstream.cache.plans`
    pub cache_plans: bool,
    /// `slipstream.cache.mode`
    pub cache_mode: CacheMode,
    /// `slipstream.cache.max_entry_bytes`
    pub cache_max_entry_bytes: usize,
    /// `slipstream.cache.max_entry_rows`
    pub cache_max_entry_rows: usize,
    /// `slipstream.cache.ttl_ms`
    pub cache_ttl_ms: usize,
    /// `slipstream.cache.max_staleness_ms`
    pub cache_max_staleness_ms: usize,
    /// `slipstream.cache.max_age_ms`
    pub cache_max_age_ms: usize,
    /// `slipstream.cache.min_cost_ms`
    pub cache_min_cost_ms: usize,
    /// `slipstream.cache.min_repeats`
    pub cache_min_repeats: usize,
    /// `slipstream.cache.file_aggregates`
    pub cache_file_aggregates: bool,
    /// `slipstream.cache.subplans`
    pub cache_subplans: bool,
    /// `slipstream.cache.broader`
    pub cache_broader: bool,
    /// `slipstream.cache.tag`
    pub cache_tag: String,
    /// What belongs to the process: `slipstream.memory.limit`, `memory.unspillable_reserve`, `disk.limit`, `admission.*`,
    /// `cache.max_bytes`, `cache.max_entries` and `cache.disk.*`. Copies share it.
    pub process: Arc<ProcessOptions>,
}

impl Default for SlipstreamOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            disabled_rules: Vec::new(),
            explain_enabled: true,
            small_query_max_rows: 600_000,
            join_order_enabled: true,
            join_order_min_gain_percent: 5,
            memory_guard_enabled: true,
            nested_loop_join_guard_enabled: true,
            outer_join_guard_enabled: true,
            dynamic_filter_guard_enabled: true,
            shared_subplan_enabled: true,
            shared_subplan_min_gain_percent: 10,
            shared_subplan_max_memory_bytes: 256 << 20,
            scan_filter_enabled: true,
            scan_filter_min_gain_percent: 20,
            scan_ranges_enabled: true,
            narrow_decimals_enabled: true,
            clustered_aggregate_enabled: true,
            clustered_aggregate_min_rows: 100_000,
            key_filter_enabled: true,
            key_filter_min_rows: 100_000,
            fused_filter_enabled: true,
            spill_join_enabled: true,
            late_materialization_enabled: true,
            late_materialization_max_rows: 1000,
            late_materialization_min_gain_percent: 20,
            compact_views_enabled: true,
            statistics_enabled: true,
            statistics_max_entries: 1000,
            statistics_max_bytes: 64 << 20,
            feedback_enabled: false,
            feedback_max_entries: 10_000,
            feedback_max_bytes: 16 << 20,
            batch_size_enabled: true,
            batch_size_target_bytes: 16 << 20,
            batch_size_min_rows: 1,
            operator_metrics_enabled: true,
            query_log_enabled: true,
            query_log_max_entries: 1000,
            query_log_max_text_bytes: 4096,
            memory_query_limit: 0,
            disk_query_limit: 0,
            disk_directory: String::new(),
            cache_enabled: false,
            cache_plans: false,
            cache_mode: CacheMode::Use,
            cache_max_entry_bytes: 32 << 20,
            cache_max_entry_rows: 10_000_000,
            cache_ttl_ms: 0,
            cache_max_staleness_ms: 0,
            cache_max_age_ms: 0,
            cache_min_cost_ms: 0,
            cache_min_repeats: 0,
            cache_file_aggregates: false,
            cache_subplans: false,
            cache_broader: false,
            cache_tag: String::new(),
            process: Arc::default(),
        }
    }
}

impl SlipstreamOptions {
    /// The layer's settings in `options`, where the layer is installed and switched on.
    pub fn active(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>().filter(|own| own.enabled)
    }

    /// Sets `name` (without the prefix) to its default.
    ///
    /// # Errors
    /// An unknown name; the error names the nearest known one.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        (find(name)?.copy)(self, &Self::default());
        Ok(())
    }

    /// Whether the rule `name` is switched off by `slipstream.disabled_rules`.
    pub fn rule_disabled(&self, name: &str) -> bool {
        self.disabled_rules.iter().any(|disabled| disabled == name)
    }
}

fn find(name: &str) -> Result<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
        let names = SETTINGS.iter().map(|setting| setting.name);
        config_error(format!("unknown setting 'slipstream.{name}'. {}", suggestion(name, names)))
    })
}

impl ConfigExtension for SlipstreamOptions {
    const PREFIX: &'static str = "slipstream";
}

impl ExtensionOptions for SlipstreamOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let setting = find(key)?;
        if value.eq_ignore_ascii_case("default") {
            return self.reset(key);
        }
        (setting.set)(self, value).map_err(|problem| {
            config_error(format!(
                "slipstream.{key} does not take '{value}': {problem}. It accepts {} (default {}).",
                setting.accepts,
                setting.default_text()
            ))
        })
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        SETTINGS
            .iter()
            .map(|setting| ConfigEntry {
                key: format!("{}.{}", Self::PREFIX, setting.name),
                value: Some((setting.get)(self)),
                description: setting.purpose,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_read_written_and_reset() {
        for setting in SETTINGS {
            let mut options = SlipstreamOptions::default();
            let before = (setting.get)(&options);
            options.set(setting.name, setting.example).unwrap();
            let after = (setting.get)(&options);
            assert_ne!(before, after, "{}: its example must differ from its default", setting.name);
            options.set(setting.name, &after).unwrap();
            assert_eq!((setting.get)(&options), after, "{}: what is shown can be set", setting.name);
            options.set(setting.name, "DEFAULT").unwrap();
            assert_eq!(options, SlipstreamOptions::default(), "{}", setting.name);
        }
    }

    #[test]
    fn a_wrong_name_is_an_error_with_the_nearest_one() {
        let error = SlipstreamOptions::default().set("query_log.enable", "true").unwrap_err().to_string();
        assert!(error.contains("unknown setting 'slipstream.query_log.enable'"), "{error}");
        assert!(error.contains("Did you mean 'query_log.enabled'?"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_an_error_with_the_range() {
        let mut options = SlipstreamOptions::default();
        let error = options.set("query_log.max_entries", "-1").unwrap_err().to_string();
        assert!(error.contains("does not take '-1'"), "{error}");
        assert!(error.contains("0 to 1000000"), "{error}");
        let error = options.set("query_log.max_entries", "1000001").unwrap_err().to_string();
        assert!(error.contains("0 to 1000000"), "{error}");
        let error = options.set("enabled", "perhaps").unwrap_err().to_string();
        assert!(error.contains("true or false"), "{error}");
        let error = options.set("disabled_rules", "nested_loop_join_gard").unwrap_err().to_string();
        assert!(error.contains("Did you mean 'nested_loop_join_guard'?"), "{error}");
        assert_eq!(options, SlipstreamOptions::default(), "a refused value changes nothing");
    }
}
