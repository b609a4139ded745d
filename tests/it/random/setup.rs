//! The session configurations in which queries run.

use std::fmt::{Display, Formatter, Result};

use datafusion::prelude::SessionConfig;

use super::generate::Dice;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    target_partitions: usize,
    batch_rows: usize,
    /// Whether hash joins exchange both sides, however small.
    partitioned_joins: bool,
    sort_merge_joins: bool,
    /// Whether Parquet scans apply filters row by row.
    pushdown_filters: bool,
    /// Whether files are split between partitions, however small.
    split_files: bool,
    /// Whether joins, sorts and aggregates tell scans what they need no rows of.
    dynamic_filters: bool,
    /// Whether the layer takes queries for small, as all of these are.
    pub(super) small_queries: bool,
    /// The memory that the layer has for the query, in bytes, where it is limited; the plain engine has all it wants.
    pub(super) memory: Option<usize>,
}

impl Setup {
    /// The one that plans and runs in the plainest way.
    pub(super) const PLAINEST: Self = Self {
        target_partitions: 1,
        batch_rows: 8192,
        partitioned_joins: false,
        sort_merge_joins: false,
        pushdown_filters: false,
        split_files: false,
        dynamic_filters: false,
        small_queries: false,
        memory: None,
    };

    pub(super) fn draw(dice: &mut Dice) -> Self {
        let sort_merge_joins = dice.chance(12);
        // Single rows make every boundary between batches, and everything slow. With them some sort-merge joins
        // of DataFusion 55.2 do not end.
        let single_rows = if sort_merge_joins { 0 } else { 15 };
        Self {
            target_partitions: dice.weighted(&[(35, 1), (30, 2), (35, 4)]),
            batch_rows: dice.weighted(&[(single_rows, 1), (35, 3), (50, 8192)]),
            partitioned_joins: dice.chance(50),
            sort_merge_joins,
            pushdown_filters: dice.chance(50),
            split_files: dice.chance(50),
            dynamic_filters: dice.chance(65),
            small_queries: dice.chance(25),
            memory: None,
        }
    }

    /// With so little memory that the small tables do not fit, or just so.
    pub(super) fn in_little_memory(self, dice: &mut Dice) -> Self {
        let memory = dice.weighted(&[(20, 300 << 10), (35, 60 << 10), (30, 25 << 10), (15, 8 << 10)]);
        Self { memory: Some(memory), ..self }
    }

    /// How many of its settings are not those of [`Self::PLAINEST`].
    pub(super) fn size(&self) -> usize {
        let plain = &Self::PLAINEST;
        [
            self.target_partitions != plain.target_partitions,
            self.target_partitions > 2,
            self.batch_rows != plain.batch_rows,
            self.partitioned_joins,
            self.sort_merge_joins,
            self.pushdown_filters,
            self.split_files,
            self.dynamic_filters,
            self.small_queries,
            self.memory.is_some(),
        ]
        .into_iter()
        .filter(|differs| *differs)
        .count()
    }

    /// Each with one setting as in [`Self::PLAINEST`].
    pub(super) fn simpler(&self) -> Vec<Self> {
        let plain = Self::PLAINEST;
        let simpler = [
            plain.clone(),
            Self { target_partitions: plain.target_partitions, ..self.clone() },
            Self { target_partitions: self.target_partitions.min(2), ..self.clone() },
            Self { batch_rows: plain.batch_rows, ..self.clone() },
            Self { partitioned_joins: plain.partitioned_joins, ..self.clone() },
            Self { sort_merge_joins: plain.sort_merge_joins, ..self.clone() },
            Self { pushdown_filters: plain.pushdown_filters, ..self.clone() },
            Self { split_files: plain.split_files, ..self.clone() },
            Self { dynamic_filters: plain.dynamic_filters, ..self.clone() },
            Self { small_queries: plain.small_queries, ..self.clone() },
            Self { memory: plain.memory, ..self.clone() },
        ];
        simpler.into_iter().filter(|setup| setup != self).collect()
    }

    /// The same, with all filters where the planner leaves them.
    pub(super) fn without_pushed_filters(&self) -> Self {
        Self { dynamic_filters: false, pushdown_filters: false, ..self.clone() }
    }

    pub(super) fn session_config(&self) -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.target_partitions)
            .with_batch_size(self.batch_rows)
            // This one sets those of joins, sorts and aggregates too.
            .set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", self.dynamic_filters);
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = !self.sort_merge_joins;
        options.execution.parquet.pushdown_filters = self.pushdown_filters;
        options.execution.parquet.reorder_filters = self.pushdown_filters;
        if self.partitioned_joins {
            options.optimizer.hash_join_single_partition_threshold = 0;
            options.optimizer.hash_join_single_partition_threshold_rows = 0;
        }
        if self.split_files {
            options.optimizer.repartition_file_min_size = 1;
        }
        if let Some(bytes) = self.memory {
            // What a sort sets aside for its merge is of the size of the rest.
            options.execution.sort_spill_reservation_bytes = bytes / 32;
        }
        config
    }
}

impl Display for Setup {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "target_partitions = {}, batch_size = {}", self.target_partitions, self.batch_rows)?;
        if self.partitioned_joins {
            f.write_str(", hash_join_single_partition_threshold[_rows] = 0")?;
        }
        if self.sort_merge_joins {
            f.write_str(", prefer_hash_join = false")?;
        }
        if self.pushdown_filters {
            f.write_str(", parquet.pushdown_filters = parquet.reorder_filters = true")?;
        }
        if self.split_files {
            f.write_str(", repartition_file_min_size = 1")?;
        }
        if !self.dynamic_filters {
            f.write_str(", enable_dynamic_filter_pushdown = false")?;
        }
        if !self.small_queries {
            f.write_str(", slipstream.small_query.max_rows = 0")?;
        }
        if let Some(bytes) = self.memory {
            write!(f, ", slipstream.memory.limit = {bytes}, sort_spill_reservation_bytes = {}", bytes / 32)?;
        }
        Ok(())
    }
}
