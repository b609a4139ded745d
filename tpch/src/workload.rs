//! What `run` can run: tables, how they are generated and registered, and the queries over them.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use crate::generate::manifest::TableEntry;
use crate::queries::Query;
use crate::star::Star;
use crate::tpch::Tpch;

/// All workloads, the default one first.
const WORKLOADS: [&dyn Workload; 2] = [&Tpch, &Star];

/// A schema with its data and its queries.
///
/// Tables go by their names in SQL. The plain engine's rows are the right ones, so that a workload needs no answers.
#[async_trait]
pub(crate) trait Workload: Debug + Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Its name in the title of a table.
    fn title(&self) -> &'static str;

    /// The queries, in the order of their numbers, from 1 without gaps.
    fn queries(&self) -> &'static [Query];

    /// Name and version of the generator; other versions may draw other rows.
    fn generator(&self) -> &'static str;

    /// Where the data of a scale factor is unless the user says otherwise.
    fn default_dir(&self, scale_factor: f64) -> PathBuf;

    /// All tables, the largest first: the longest work is begun first.
    fn tables(&self) -> Vec<&'static str>;

    /// A table's file in a data folder, or its folder of files.
    fn path(&self, table: &str, dir: &Path) -> PathBuf;

    /// How often [`Self::write`] will report that a part of the table is written.
    fn parts(&self, table: &str, scale_factor: f64) -> u64;

    /// Writes a table to `path`, at most `jobs` parts of it in memory; `written` is called after each part.
    ///
    /// The table is on disk when this returns: whoever renames it may rely on its being whole.
    async fn write(
        &self,
        table: &str,
        scale_factor: f64,
        path: &Path,
        jobs: usize,
        written: &mut (dyn FnMut() + Send),
    ) -> Result<TableEntry>;

    /// Takes a folder without a manifest in which all tables exist, if it can hold this scale factor.
    fn adopt(&self, dir: &Path, scale_factor: f64) -> Result<()>;

    /// Registers all tables from `dir`.
    async fn register(&self, ctx: &SessionContext, dir: &Path) -> Result<()>;
}

/// A workload as an argument of the command line.
pub(crate) type AnyWorkload = &'static dyn Workload;

/// Finds a workload by its name.
pub(crate) fn parse_workload(text: &str) -> Result<AnyWorkload, String> {
    WORKLOADS.into_iter().find(|workload| workload.name() == text).ok_or_else(|| {
        let names = WORKLOADS.map(|workload| workload.name()).join(", ");
        format!("there is no workload \"{text}\", there are {names}")
    })
}

/// Finds a query of a workload by its number.
pub(crate) fn find_query(workload: &dyn Workload, number: u8) -> Result<&'static Query> {
    workload.queries().iter().find(|query| query.number == number).ok_or_else(|| {
        DataFusionError::Configuration(format!(
            "\"{number}\" is not a query of {}: they are numbered 1 to {}",
            workload.title(),
            workload.queries().len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn workloads_have_names() {
        assert_eq!(parse_workload("star").unwrap().name(), "star");
        assert_eq!(
            parse_workload("tpcx").unwrap_err(),
            "there is no workload \"tpcx\", there are tpch, star"
        );
    }

    /// What the harness takes for granted of any workload.
    #[test]
    fn workloads_are_consistent() {
        for workload in WORKLOADS {
            for (at, query) in workload.queries().iter().enumerate() {
                assert_eq!(usize::from(query.number), at + 1, "{workload:?}");
                assert_eq!(find_query(workload, query.number).unwrap().sql, query.sql);
                assert!(
                    query.sql.starts_with("-- "),
                    "{workload:?} {} does not say what it is",
                    query.number
                );
            }
            let error = find_query(workload, 0).unwrap_err().to_string();
            assert!(error.contains("numbered 1 to"), "{error}");
            let paths: HashSet<_> =
                workload.tables().iter().map(|t| workload.path(t, Path::new("dir"))).collect();
            assert_eq!(paths.len(), workload.tables().len());
        }
    }
}
