//! Settings from the environment: `slipstream.query_log.enabled` is `SLIPSTREAM_QUERY_LOG_ENABLED`.

use datafusion::common::Result;
use datafusion::config::ExtensionOptions;

use super::{SETTINGS, Setting, SlipstreamOptions};
use crate::error::{config_error, suggestion};

const PREFIX: &str = "SLIPSTREAM_";

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }
}

impl SlipstreamOptions {
    /// The defaults, changed by the environment variables `SLIPSTREAM_*` of this process.
    ///
    /// # Errors
    /// A variable that names no setting, or whose value is not accepted: a misspelt variable that did nothing
    /// would be worse.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))),
        )
    }

    fn from_variables(
        variables: impl Iterator<Item = (String, impl AsRef<std::ffi::OsStr>)>,
    ) -> Result<Self> {
        let mut options = Self::default();
        for (variable, value) in variables.filter(|(name, _)| name.starts_with(PREFIX)) {
            let setting =
                SETTINGS.iter().find(|setting| setting.variable() == variable).ok_or_else(|| {
                    let names: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
                    config_error(format!(
                        "environment variable {variable} names no setting. {}",
                        suggestion(&variable, names.iter().map(String::as_str))
                    ))
                })?;
            let value = value
                .as_ref()
                .to_str()
                .ok_or_else(|| config_error(format!("environment variable {variable} is not valid UTF-8")))?;
            options.set(setting.name, value).map_err(|error| {
                config_error(format!("environment variable {variable}: {}", error.strip_backtrace()))
            })?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<SlipstreamOptions> {
        SlipstreamOptions::from_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), *value)))
    }

    #[test]
    fn variables_set_what_their_name_says() {
        let options = from(&[("SLIPSTREAM_QUERY_LOG_MAX_ENTRIES", "7"), ("PATH", "x")]).unwrap();
        assert_eq!(options.query_log_max_entries, 7);
        assert_eq!(options, SlipstreamOptions { query_log_max_entries: 7, ..Default::default() });
    }

    #[test]
    fn a_variable_that_names_nothing_is_an_error() {
        let error = from(&[("SLIPSTREAM_ENABLE", "1")]).unwrap_err().to_string();
        assert!(error.contains("Did you mean 'SLIPSTREAM_ENABLED'?"), "{error}");
    }

    #[test]
    fn a_value_that_is_not_accepted_names_the_variable() {
        let error = from(&[("SLIPSTREAM_ENABLED", "maybe")]).unwrap_err().to_string();
        assert!(error.contains("environment variable SLIPSTREAM_ENABLED"), "{error}");
        assert!(error.contains("true or false"), "{error}");
    }
}
