//! A partial aggregate over a scan, as a plan for any one of the files.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// A chain of nodes over one scan of files, each of which gives to a row, or a group of rows, of one file what it would give
/// with no other file beside it.
#[derive(Debug, Clone)]
pub(crate) struct OneFilePlan(Arc<dyn ExecutionPlan>);

impl OneFilePlan {
    /// `plan` as one, which reads `files` in one partition.
    ///
    /// # Errors
    /// Where a node could not be built anew. `Ok(Err(..))` says what makes the plan no such chain.
    pub(crate) fn new(
        plan: &Arc<dyn ExecutionPlan>,
        files: Vec<PartitionedFile>,
    ) -> Result<Result<Self, &'static str>> {
        if let Some(why) = why_not(plan)? {
            return Ok(Err(why));
        }
        let one = Self(reading(plan, files)?);
        Ok(match one.0.output_partitioning().partition_count() {
            1 => Ok(one),
            _ => Err("its input is spread over partitions"),
        })
    }

    /// The plan over all files.
    pub(crate) fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.0
    }

    /// The plan over this file alone, which was never executed.
    pub(super) fn of(&self, file: PartitionedFile) -> Result<Arc<dyn ExecutionPlan>> {
        reading(&self.0, vec![file])
    }
}

/// The scan of files that `plan` is.
fn scan(plan: &dyn ExecutionPlan) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

/// The files that `plan` reads, where it is a chain over a scan of whole files.
///
/// # Errors
/// What else it reads.
pub(crate) fn files_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<PartitionedFile>, &'static str> {
    let mut node = plan;
    while let [input] = node.children()[..] {
        node = input;
    }
    let scan = scan(node.as_ref()).ok_or("it reads no files, or not only files")?;
    let files: Vec<_> = scan.file_groups.iter().flat_map(|group| group.iter().cloned()).collect();
    match files.iter().any(|file| file.range.is_some() || !file.extensions.is_empty()) {
        true => Err("parts of files are read"),
        false => Ok(files),
    }
}

/// What lets a file's rows depend on other files, or on the rest of the query.
fn why_not(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<&'static str>> {
    let mut node = plan;
    loop {
        if node.fetch().is_some() {
            return Ok(Some("it stops at a limit"));
        }
        // The aggregate at the top makes one in case that somebody reads it.
        if !Arc::ptr_eq(node, plan) && has_dynamic_filter(node)? {
            return Ok(Some("a dynamic filter narrows what is read"));
        }
        match node.children()[..] {
            [input] => node = input,
            [] => break,
            _ => return Ok(Some("it has several inputs")),
        }
    }
    Ok(match scan(node.as_ref()) {
        None => Some("it reads no files, or not only files"),
        Some(scan) if scan.limit.is_some() => Some("it stops at a limit"),
        Some(_) => None,
    })
}

fn has_dynamic_filter(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            found |= part.expression_id().is_some();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// `plan` over these files, in one partition, with the state of a plan that was not executed.
fn reading(plan: &Arc<dyn ExecutionPlan>, files: Vec<PartitionedFile>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut files = Some(files);
    let fresh = reset_plan_states(Arc::clone(plan))?;
    fresh
        .transform_down(|node| {
            let Some(config) = scan(node.as_ref()) else { return Ok(Transformed::no(node)) };
            let groups = vec![FileGroup::new(files.take().unwrap_or_default())];
            let config = FileScanConfigBuilder::from(config.clone())
                .with_file_groups(groups)
                .with_output_partitioning(None)
                .build();
            Ok(Transformed::yes(DataSourceExec::from_data_source(config) as Arc<dyn ExecutionPlan>))
        })
        .data()
}
