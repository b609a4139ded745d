//! The answers at scale factor 0.1 that DataFusion publishes in its crate `datafusion-sqllogictest`.

use std::path::{Path, PathBuf};

use datafusion::error::{DataFusionError, Result};
use datafusion_sqllogictest::{DFColumnType, convert_batches, value_normalizer};
use serde::Deserialize;
use sqllogictest::{QueryExpect, Record};

use super::Answer;
use super::matching::first_unmatched;
use crate::cargo::metadata;
use crate::compare::ResultOrder;
use crate::queries::Query;

/// The scale factor of the published answers.
pub(super) const SCALE_FACTOR: f64 = 0.1;

/// One published answer.
#[derive(Debug)]
pub(super) struct Published {
    /// One line a row, its cells separated by blanks.
    lines: Vec<String>,
    /// Whether the published query ends in a LIMIT which the specification's query lacks or has higher.
    cut: bool,
}

/// Finds the folder of the answers in the sources of the crate, which cargo has downloaded to build this program.
pub(super) fn find_answers() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    let failed = |why: String| {
        DataFusionError::Configuration(format!(
            "cannot find the published answers: {why}; run this inside of the workspace, or name their folder \
             (test_files/tpch/answers of the crate datafusion-sqllogictest) with --answers"
        ))
    };
    let metadata: Metadata = metadata(None).map_err(failed)?;
    let package =
        metadata.packages.into_iter().find(|p| p.name == "datafusion-sqllogictest").ok_or_else(|| {
            failed("the crate datafusion-sqllogictest is not in the dependency graph".to_owned())
        })?;
    let folder = package.manifest_path.with_file_name("test_files").join("tpch").join("answers");
    if folder.is_dir() { Ok(folder) } else { Err(failed(format!("{} is not a folder", folder.display()))) }
}

impl Published {
    /// Reads the answer to a query.
    pub(super) fn load(folder: &Path, query: &Query) -> Result<Self> {
        let path = folder.join(format!("q{}.slt.part", query.number));
        let failed =
            |why: String| DataFusionError::Configuration(format!("cannot read {}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    /// Takes the only query record out of a file.
    fn parse(text: &str) -> Result<Self, String> {
        let records = sqllogictest::parse::<DFColumnType>(text).map_err(|e| e.to_string())?;
        records
            .into_iter()
            .find_map(|record| match record {
                Record::Query { sql, expected: QueryExpect::Results { results, .. }, .. } => {
                    let cut = ResultOrder::of(&sql).is_ok_and(|order| order.limit == Some(results.len()));
                    Some(Self { lines: results.iter().map(value_normalizer).collect(), cut })
                }
                _ => None,
            })
            .ok_or_else(|| "it holds no query with an answer".to_owned())
    }

    /// Compares an engine's answer with this one; the text shows the first difference.
    pub(super) fn difference(&self, query: &Query, answer: &Answer) -> Result<Option<String>> {
        let mut rows = convert_batches(&answer.schema, answer.batches.clone(), false)
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        for row in &mut rows {
            round_market_share(query, row);
        }
        if rows.len() < self.lines.len() || (rows.len() > self.lines.len() && !self.cut) {
            return Ok(Some(format!("{} rows expected, {} found", self.lines.len(), rows.len())));
        }
        let order = ResultOrder::of(query.sql)?;
        let keys = order.columns(&answer.schema);
        let lines: Vec<String> = rows.iter().map(|row| value_normalizer(&row.join(" "))).collect();
        let unmatched = first_unmatched(
            rows.len(),
            self.lines.len(),
            |a, b| keys.iter().all(|key| rows[a][*key] == rows[b][*key]),
            |ours, published| lines[ours] == self.lines[published],
        );
        Ok(unmatched.map(|row| {
            let found = lines.get(row).map_or("nothing", String::as_str);
            format!("row {}: expected \"{}\", found \"{found}\"", row + 1, self.lines[row])
        }))
    }
}

/// The published text of Q8 casts its market share to two decimals, to which the specification's validation rules
/// round it, too; our Q8 is the specification's, without the casts.
fn round_market_share(query: &Query, row: &mut [String]) {
    if query.number == 8
        && let Some(share) = row.last_mut()
        && let Ok(value) = share.parse::<f64>()
    {
        *share = format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queries;
    use datafusion::arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};

    fn answer(columns: Vec<(&str, ArrayRef)>) -> Answer {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        Answer { schema: batch.schema(), batches: vec![batch] }
    }

    fn priorities(names: &[&str], counts: &[i64]) -> Answer {
        answer(vec![
            ("o_orderpriority", Arc::new(StringArray::from(names.to_vec()))),
            ("order_count", Arc::new(Int64Array::from(counts.to_vec()))),
        ])
    }

    #[test]
    fn wrong_missing_and_moved_rows_are_found() {
        let published = Published::parse("query TI\nselect 1\n----\n1-URGENT 999\n2-HIGH 997 \n").unwrap();
        let query = queries::query(4).unwrap();
        let check = |answer: &Answer| published.difference(query, answer).unwrap();
        assert_eq!(check(&priorities(&["1-URGENT", "2-HIGH"], &[999, 997])), None);
        assert_eq!(
            check(&priorities(&["1-URGENT", "2-HIGH"], &[999, 998])).unwrap(),
            "row 2: expected \"2-HIGH 997\", found \"2-HIGH 998\""
        );
        assert!(check(&priorities(&["2-HIGH", "1-URGENT"], &[997, 999])).unwrap().starts_with("row 1"));
        assert_eq!(check(&priorities(&["1-URGENT"], &[999])).unwrap(), "2 rows expected, 1 found");
        let more = priorities(&["1-URGENT", "2-HIGH", "3-MEDIUM"], &[999, 997, 1]);
        assert_eq!(check(&more).unwrap(), "2 rows expected, 3 found");
    }

    #[test]
    fn published_limit_hides_rows_only_when_it_is_reached() {
        let limited =
            |limit: u8| format!("query TI\nselect 1 limit {limit}\n----\n1-URGENT 999\n2-HIGH 997\n");
        let more = priorities(&["1-URGENT", "2-HIGH", "3-MEDIUM"], &[999, 997, 1]);
        let query = queries::query(4).unwrap();
        assert_eq!(Published::parse(&limited(2)).unwrap().difference(query, &more).unwrap(), None);
        assert!(Published::parse(&limited(3)).unwrap().difference(query, &more).unwrap().is_some());
        assert!(Published::parse("statement ok\nselect 1\n").is_err());
    }

    #[test]
    fn market_share_is_rounded_in_q8_only() {
        let share = Decimal128Array::from(vec![34_400, 100_000]).with_precision_and_scale(38, 6).unwrap();
        let answer = answer(vec![
            ("o_year", Arc::new(Int64Array::from(vec![1995, 1996])) as ArrayRef),
            ("mkt_share", Arc::new(share)),
        ]);
        let published = Published::parse("query IR\nselect 1\n----\n1995 0.03\n1996 0.1\n").unwrap();
        assert_eq!(published.difference(queries::query(8).unwrap(), &answer).unwrap(), None);
        assert!(published.difference(queries::query(7).unwrap(), &answer).unwrap().is_some());
    }
}
