//! Errors that name what was wrong and the nearest thing that would have been right.

use datafusion::common::DataFusionError;

/// The candidate that looks most like `name`, if any is close enough to be what was meant.
///
/// Similarity is Jaro-Winkler (Winkler 1990); 0.75 keeps `query_log.enable` → `query_log.enabled` and
/// drops pairs that share little but their length.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// ` Did you mean X?`, or the whole list where nothing is near.
pub(crate) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(name, candidates.clone()) {
        Some(candidate) => format!("Did you mean '{candidate}'?"),
        None => format!("Valid names: {}.", candidates.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// A configuration error.
pub(crate) fn config_error(message: impl Into<String>) -> DataFusionError {
    DataFusionError::Configuration(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["enabled", "disabled_rules", "query_log.enabled"];

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(nearest("enabeld", NAMES), Some("enabled"));
        assert_eq!(nearest("QUERY_LOG.ENABLE", NAMES), Some("query_log.enabled"));
        assert_eq!(nearest("zzz", NAMES), None);
    }

    #[test]
    fn without_a_near_name_all_are_listed() {
        assert_eq!(suggestion("zzz", NAMES), "Valid names: enabled, disabled_rules, query_log.enabled.");
    }
}
