//! The queries over the star schema; the first line of each says what it is there for.

use crate::queries::Query;

/// Lists queries by number and file.
macro_rules! queries {
    ($($number:literal $file:literal)*) => {
        [$(Query { number: $number, sql: include_str!(concat!("../../queries/star/", $file)) }),*]
    };
}

/// All queries, in their order.
#[rustfmt::skip]
pub(super) const QUERIES: [Query; 60] = queries! {
    1 "01_small_star.sql"
    2 "02_biggest_first.sql"
    3 "03_fact_last.sql"
    4 "04_twenty_tables.sql"
    5 "05_filters_on_small_dimensions.sql"
    6 "06_ticket_snowflake.sql"
    7 "07_composite_key.sql"
    8 "08_facts_by_two_columns.sql"
    9 "09_string_keys.sql"
    10 "10_left_and_inner.sql"
    11 "11_filter_in_on.sql"
    12 "12_left_that_is_inner.sql"
    13 "13_right_outer.sql"
    14 "14_full_outer_by_country.sql"
    15 "15_full_outer_then_inner.sql"
    16 "16_semi_in.sql"
    17 "17_exists_and_not_exists.sql"
    18 "18_not_in_with_nulls.sql"
    19 "19_not_in_of_nulls.sql"
    20 "20_scalar_per_album.sql"
    21 "21_scalar_below_aggregate.sql"
    22 "22_scalars_in_select.sql"
    23 "23_exists_with_inequality.sql"
    24 "24_cte_twice.sql"
    25 "25_cte_four_times.sql"
    26 "26_self_union.sql"
    27 "27_union_of_facts.sql"
    28 "28_wide_top_k.sql"
    29 "29_wide_top_k_above_joins.sql"
    30 "30_top_k_with_ties.sql"
    31 "31_aggregate_below_and_above.sql"
    32 "32_having_in.sql"
    33 "33_distinct_rows.sql"
    34 "34_count_distinct.sql"
    35 "35_rank_in_groups.sql"
    36 "36_moving_sum.sql"
    37 "37_group_by_strings.sql"
    38 "38_group_by_clustered_key.sql"
    39 "39_largest_orders.sql"
    40 "40_joins_on_expressions.sql"
    41 "41_price_ranges.sql"
    42 "42_running_campaigns.sql"
    43 "43_residual_filter.sql"
    44 "44_hot_tracks_together.sql"
    45 "45_empty_inner.sql"
    46 "46_empty_outer.sql"
    47 "47_one_row.sql"
    48 "48_csv_and_memory.sql"
    49 "49_or_of_ands.sql"
    50 "50_lists_and_ranges.sql"
    51 "51_functions_of_columns.sql"
    52 "52_without_statistics.sql"
    53 "53_hierarchies.sql"
    54 "54_rollup.sql"
    55 "55_set_operations.sql"
    56 "56_scalar_limits.sql"
    57 "57_null_keys.sql"
    58 "58_anti_by_left_join.sql"
    59 "59_strings_through_joins.sql"
    60 "60_null_safe_join.sql"
};
