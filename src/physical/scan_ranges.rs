//! Files of a parallel scan, cut at row groups, so that partitions get about as many rows.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::file::metadata::RowGroupMetaData;
use datafusion::physical_plan::ExecutionPlan;

use super::cached_footer::cached_footer;
use super::rule::{PhysicalRule, Rewrite};
use crate::config::SlipstreamOptions;
use crate::scope::QueryScope;

/// Rows below which a scan is over before its partitions could differ.
const MIN_ROWS: usize = 50_000;

/// How much more than its share the largest partition must have.
const UNEVEN: f64 = 1.1;

/// Cuts files of a Parquet scan where their row groups end.
///
/// DataFusion cuts a file into as many ranges of equal bytes as there are partitions. A row group is read where its first byte is:
/// of two equal row groups one partition gets both, since the footer behind them puts the second in front of the middle, and of
/// four one gets three.
///
/// ```text
///   ranges of bytes           [0 1 2] [3]
///   ranges of row groups      [0 1] [2 3]
/// ```
///
/// There are as many ranges as before. Partitions do take their ranges from one queue, but to open a range costs more than
/// what more of them would even out.
///
/// Refuses scans that must keep their order, that have a limit, that are partitioned by something, that have more ranges than
/// partitions, and those of which a footer is not in DataFusion's cache.
#[derive(Debug, Default)]
pub(crate) struct ScanRanges;

impl PhysicalRule for ScanRanges {
    fn name(&self) -> &'static str {
        "scan_ranges"
    }

    fn enabled(&self, options: &SlipstreamOptions) -> bool {
        options.scan_ranges_enabled
    }

    fn saves_work(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Rewrite> {
        let Some(footers) = QueryScope::of(config).and_then(QueryScope::footers) else {
            return Ok(Rewrite::refused(plan, "the footers of files are not known"));
        };
        let mut cut = Vec::new();
        let cut_anew = |node: Arc<dyn ExecutionPlan>| {
            let Some(scan) = node.downcast_ref::<DataSourceExec>() else { return Ok(Transformed::no(node)) };
            Ok(match anew(scan, footers.as_ref()) {
                Some((scan, said)) => {
                    cut.push(said);
                    Transformed::yes(scan)
                }
                None => Transformed::no(node),
            })
        };
        let rewritten = Arc::clone(&plan).transform_up(cut_anew).data()?;
        Ok(match cut.is_empty() {
            true => Rewrite::refused(plan, "no scan has its rows in one partition that others could have"),
            false => Rewrite::applied(rewritten, cut.join("; ")),
        })
    }
}

/// `scan` over other ranges of its files, and what was done; `None` where they would be the same, or must stay.
fn anew(scan: &DataSourceExec, footers: &FileMetadataCache) -> Option<(Arc<dyn ExecutionPlan>, String)> {
    let (config, _) = scan.downcast_to_file_source::<ParquetSource>()?;
    let partitions = config.file_groups.len();
    let free = !config.preserve_order && config.output_partitioning.is_none() && config.limit.is_none();
    if partitions < 2 || !free {
        return None;
    }
    let files = || config.file_groups.iter().flat_map(FileGroup::iter);
    if files().count() > partitions {
        return None;
    }
    let now =
        config.file_groups.iter().map(|group| pieces(group.iter(), footers)).collect::<Option<Vec<_>>>()?;
    let most = most_rows(&now);
    let pieces: Vec<Piece<'_>> = now.into_iter().flatten().collect();
    let rows: usize = pieces.iter().map(|piece| piece.rows).sum();
    if rows < MIN_ROWS {
        return None;
    }
    let even = evenly(pieces, rows, partitions);
    if (most as f64) < UNEVEN * most_rows(&even) as f64 {
        return None;
    }
    let name = files().next()?.object_meta.location.filename().unwrap_or_default();
    let said = format!("{name} with {} rows at most in a partition, not {most}", most_rows(&even));
    let groups: Vec<_> = even.iter().map(|pieces| FileGroup::new(ranges(pieces))).collect();
    // Rows of one range come in the file's order, those of two need not.
    if scan.properties().output_ordering().is_some() && groups.iter().any(|group| group.len() > 1) {
        return None;
    }
    let config = FileScanConfigBuilder::from(config.clone()).with_file_groups(groups).build();
    Some((Arc::new(scan.clone().with_data_source(Arc::new(config))), said))
}

/// Rows of the largest partition.
fn most_rows(partitions: &[Vec<Piece<'_>>]) -> usize {
    let rows = |pieces: &Vec<Piece<'_>>| pieces.iter().map(|piece| piece.rows).sum();
    partitions.iter().map(rows).max().unwrap_or(0)
}

/// A row group.
struct Piece<'a> {
    file: &'a PartitionedFile,
    /// Its place in the file.
    place: usize,
    /// Its first byte.
    begin: i64,
    rows: usize,
}

/// The row groups that are read of `files`; `None` where they are not known, or do not follow each other.
fn pieces<'a>(
    files: impl Iterator<Item = &'a PartitionedFile>,
    footers: &FileMetadataCache,
) -> Option<Vec<Piece<'a>>> {
    let mut pieces = Vec::new();
    for file in files {
        // Whoever says which rows are read says so of the file as it was cut.
        if !file.extensions.is_empty() {
            return None;
        }
        let footer = cached_footer(footers, file).ok()?;
        let piece = |(place, group): (usize, &RowGroupMetaData)| {
            // The reader's own rule for which range a row group is in.
            let column = group.columns().first()?;
            let begin = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            Some(Piece { file, place, begin, rows: usize::try_from(group.num_rows()).ok()? })
        };
        let groups = footer.row_groups().iter().enumerate();
        let groups: Vec<_> = groups.map(piece).collect::<Option<_>>()?;
        if !groups.is_sorted_by(|one, other| one.begin < other.begin) {
            return None;
        }
        let is_read = |group: &Piece<'_>| file.range.as_ref().is_none_or(|range| range.contains(group.begin));
        pieces.extend(groups.into_iter().filter(is_read));
    }
    Some(pieces)
}

/// The row groups for each partition, in their order.
fn evenly(pieces: Vec<Piece<'_>>, rows: usize, partitions: usize) -> Vec<Vec<Piece<'_>>> {
    let mut groups: Vec<Vec<Piece<'_>>> = (0..partitions).map(|_| Vec::new()).collect();
    let mut before = 0;
    for piece in pieces {
        let middle = before + piece.rows / 2;
        before += piece.rows;
        groups[(middle * partitions / rows).min(partitions - 1)].push(piece);
    }
    groups
}

/// Row groups that follow each other in a range.
fn ranges(pieces: &[Piece<'_>]) -> Vec<PartitionedFile> {
    let follows = |one: &Piece<'_>, other: &Piece<'_>| {
        other.place == one.place + 1 && other.file.object_meta.location == one.file.object_meta.location
    };
    let range = |groups: &[Piece<'_>]| {
        let (first, last) = groups.first().zip(groups.last())?;
        let mut file = first.file.clone();
        file.range = Some(FileRange { start: first.begin, end: last.begin.saturating_add(1) });
        Some(file)
    };
    pieces.chunk_by(follows).filter_map(range).collect()
}
