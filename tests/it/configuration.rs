//! Settings: SET, RESET, SHOW, the manual page, and what a wrong name or value says.

use datafusion::config::{ConfigOptions, ExtensionOptions};
use datafusion_slipstream::{SETTINGS, SlipstreamOptions, configuration_markdown};

use crate::support::{layered, project, query, single, sql};

/// To write the page anew: `UPDATE_DOCS=1 cargo test --test it configuration`.
#[test]
fn the_configuration_page_is_the_one_the_code_describes() {
    let path = &project().join("docs/CONFIGURATION.md");
    let expected = configuration_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/CONFIGURATION.md is stale: UPDATE_DOCS=1 cargo test --test it configuration"
    );
}

#[tokio::test]
async fn a_setting_is_changed_shown_and_reset_while_the_session_runs() {
    let (ctx, _) = layered();
    let shown = |value: &'static str| format!("slipstream.query_log.max_entries | {value}");
    for (statement, expected) in [
        ("SET slipstream.query_log.max_entries = 7", shown("7")),
        ("RESET slipstream.query_log.max_entries", shown("1000")),
        ("SET slipstream.query_log.max_entries = 0", shown("0")),
        ("SET slipstream.query_log.max_entries = DEFAULT", shown("1000")),
    ] {
        query(&ctx, statement).await.unwrap();
        let answer = single(&query(&ctx, "SHOW slipstream.query_log.max_entries").await.unwrap());
        assert_eq!(answer, expected, "after {statement}");
    }
}

#[tokio::test]
async fn every_setting_stands_in_the_information_schema_with_its_purpose() {
    let (ctx, _) = layered();
    let settings = "SELECT count(*) FROM information_schema.df_settings \
                    WHERE name LIKE 'slipstream.%' AND length(description) > 40";
    assert_eq!(single(&sql(&ctx, settings).await.unwrap()), SETTINGS.len().to_string());
}

#[tokio::test]
async fn plain_sql_sets_too_and_a_wrong_name_names_the_nearest() {
    let (ctx, _) = layered();
    sql(&ctx, "SET slipstream.explain.enabled = off").await.unwrap();
    assert!(!options(&ctx).explain_enabled);
    for statement in ["SET slipstream.explain.enable = true", "RESET slipstream.explain.enable"] {
        let error = query(&ctx, statement).await.unwrap_err().to_string();
        assert!(error.contains("Did you mean 'explain.enabled'?"), "{statement}: {error}");
    }
    let error = sql(&ctx, "SET slipstream.query_log.max_entries = many").await.unwrap_err().to_string();
    assert!(error.contains("does not take 'many'") && error.contains("0 to 1000000"), "{error}");
}

#[test]
fn a_configuration_without_the_layer_knows_no_setting_of_it() {
    assert!(ConfigOptions::default().set("slipstream.enabled", "true").is_err());
    assert!(SlipstreamOptions::default().set("enabled", "true").is_ok());
}

fn options(ctx: &datafusion::prelude::SessionContext) -> SlipstreamOptions {
    ctx.state().config().options().extensions.get::<SlipstreamOptions>().unwrap().clone()
}
