//! What travels with one query: its text, and what every rule did to it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::config::ConfigOptions;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use parking_lot::Mutex;

/// What a rule did to one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The plan was changed; the text says where and how.
    Applied(Cow<'static, str>),
    /// The plan was left as it was; the text says why.
    Refused(Cow<'static, str>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(detail) => write!(f, "applied: {detail}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// One line of what the layer did: which rule, what came of it, how long it took.
#[derive(Debug, Clone)]
pub struct RuleReport {
    /// The rule's name, as `slipstream.disabled_rules` takes it.
    pub rule: &'static str,
    /// What it did, or why it did nothing.
    pub verdict: Verdict,
    /// The time it took to decide and to rewrite.
    pub elapsed: Duration,
}

impl fmt::Display for RuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.verdict)
    }
}

/// The state of one query, carried inside its own `ConfigOptions`.
///
/// Physical rules see the configuration and nothing else of the session, so this is the one road by which they
/// can say something about *this* query; it also keeps the layer free of globals and thread-locals. Clones
/// share the state: DataFusion copies the configuration whenever it changes.
#[derive(Clone, Default)]
pub(crate) struct QueryScope {
    text: Option<Arc<str>>,
    footers: Option<Arc<FileMetadataCache>>,
    memory_limit: Option<usize>,
    reports: Arc<Mutex<Vec<RuleReport>>>,
    cache_outcome: Arc<Mutex<Option<Cow<'static, str>>>>,
    plan_outcome: Arc<Mutex<Option<Cow<'static, str>>>>,
}

impl QueryScope {
    /// The scope of a query whose SQL text is known.
    pub(crate) fn with_text(text: &str) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// The scope that `options` carries, if a query opened one.
    pub(crate) fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// The scope with the session's cache of file footers, for rules that look into them.
    pub(crate) fn with_footers(self, footers: Arc<FileMetadataCache>) -> Self {
        Self { footers: Some(footers), ..self }
    }

    /// The footers that the session has read, by the files' paths.
    pub(crate) fn footers(&self) -> Option<Arc<FileMetadataCache>> {
        self.footers.clone()
    }

    /// The scope of a query whose memory is limited to so many bytes; zero where there is a limit that nobody tells.
    pub(crate) fn with_memory_limit(self, memory_limit: Option<usize>) -> Self {
        Self { memory_limit, ..self }
    }

    /// The most memory that the query can get; `None` where it is not limited.
    pub(crate) fn memory_limit(&self) -> Option<usize> {
        self.memory_limit
    }

    /// Notes what a rule did.
    pub(crate) fn report(&self, report: RuleReport) {
        self.reports.lock().push(report);
    }

    /// Notes what the result cache did for the query; the last word counts.
    pub(crate) fn cache_outcome(&self, outcome: impl Into<Cow<'static, str>>) {
        *self.cache_outcome.lock() = Some(outcome.into());
    }

    /// What the result cache did; `None` where it is off.
    pub(crate) fn cached(&self) -> Option<Cow<'static, str>> {
        self.cache_outcome.lock().clone()
    }

    /// Notes what became of the query's plan in the cache of plans; the last word counts.
    pub(crate) fn plan_outcome(&self, outcome: impl Into<Cow<'static, str>>) {
        *self.plan_outcome.lock() = Some(outcome.into());
    }

    /// What became of it; `None` where the cache of plans is off.
    pub(crate) fn cached_plan(&self) -> Option<Cow<'static, str>> {
        self.plan_outcome.lock().clone()
    }

    /// All reports so far, in the order in which the rules ran.
    pub(crate) fn reports(&self) -> Vec<RuleReport> {
        self.reports.lock().clone()
    }
}

impl fmt::Debug for QueryScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryScope").field("text", &self.text).finish_non_exhaustive()
    }
}

/// Lets a configuration carry `$type`, which belongs to one query and is no setting, under `$prefix`.
macro_rules! carried_by_query {
    ($type:ty, $prefix:literal) => {
        impl datafusion::config::ConfigExtension for $type {
            const PREFIX: &'static str = $prefix;
        }

        impl datafusion::config::ExtensionOptions for $type {
            fn as_any(&self) -> &dyn std::any::Any {
                self
            }

            fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
                self
            }

            fn cloned(&self) -> Box<dyn datafusion::config::ExtensionOptions> {
                Box::new(self.clone())
            }

            fn set(&mut self, key: &str, _value: &str) -> datafusion::common::Result<()> {
                Err($crate::error::config_error(format!(
                    "'{}.{key}' belongs to a running query and cannot be set",
                    $prefix
                )))
            }

            fn entries(&self) -> Vec<datafusion::config::ConfigEntry> {
                Vec::new()
            }
        }
    };
}

pub(crate) use carried_by_query;

carried_by_query!(QueryScope, "slipstream_scope");

/// Says in the configuration of one query that it is over before anything that saves work could pay.
#[derive(Debug, Clone)]
pub(crate) struct SmallQuery;

impl SmallQuery {
    /// Whether `options` say so.
    pub(crate) fn is(options: &ConfigOptions) -> bool {
        options.extensions.get::<Self>().is_some()
    }
}

carried_by_query!(SmallQuery, "slipstream_small_query");
