//! The layer with its caches, as sides of their own: what each tier gives, and what it costs where it never hits.

use crate::engine::{Engine, EngineOptions};

/// One row of the table: an engine, with settings and writers.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    /// What the row is called.
    pub(super) name: &'static str,
    pub(super) engine: Engine,
    /// Settings beside those that the user chose.
    settings: &'static [(&'static str, &'static str)],
    /// The row of a workload that never hits.
    pub(super) cold: Option<Cold>,
    /// After so many queries of all clients together a file of a table gets another time of change; 0 for never.
    pub(super) queries_per_write: u32,
}

/// What a cache costs that never hits is a percent or less, and two processes of the same program differ by more. So one process
/// answers with the cache and without it in turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cold {
    /// The cache's own setting: `false` in every other slice.
    pub(super) switch: &'static str,
    /// Whether no text is ever asked twice.
    pub(super) new_texts: bool,
}

const ENABLED: (&str, &str) = ("slipstream.cache.enabled", "true");
const PLANS: (&str, &str) = ("slipstream.cache.plans", "true");
/// Nothing is taken from the cache, and everything is put in: what a workload pays whose answers are never asked again.
const REFRESH: (&str, &str) = ("slipstream.cache.mode", "refresh");

/// Rows without a cache: the two that are always there.
pub(super) const ENGINES: [Contender; 2] =
    [row("plain", Engine::Plain, &[], 0), row("slipstream", Engine::Slipstream, &[], 0)];

/// Rows with one.
pub(super) const CACHES: [Contender; 6] = [
    row("plans", Engine::Slipstream, &[PLANS], 0),
    row("results", Engine::Slipstream, &[ENABLED], 0),
    row("both", Engine::Slipstream, &[ENABLED, PLANS], 0),
    row("cold plans", Engine::Slipstream, &[PLANS], 0).cold(PLANS.0, true),
    row("cold results", Engine::Slipstream, &[ENABLED, REFRESH], 0).cold(ENABLED.0, false),
    row("writes", Engine::Slipstream, &[ENABLED, PLANS], 10),
];

const fn row(
    name: &'static str,
    engine: Engine,
    settings: &'static [(&'static str, &'static str)],
    queries_per_write: u32,
) -> Contender {
    Contender { name, engine, settings, cold: None, queries_per_write }
}

impl Contender {
    const fn cold(self, switch: &'static str, new_texts: bool) -> Self {
        Self { cold: Some(Cold { switch, new_texts }), ..self }
    }

    /// What the user chose, and what the row is about.
    pub(super) fn options(&self, options: &EngineOptions) -> EngineOptions {
        let mut options = options.clone();
        let own = self.settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        options.settings.extend(own);
        options
    }
}
