//! How a table is cut into row groups: as `tpchgen-cli` 4.0.0 does by default.

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchReader};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

use crate::tables::Table;

/// Aimed-at size of a row group, uncompressed; the default of `tpchgen-cli`.
const ROW_GROUP_BYTES: i64 = 7 * 1024 * 1024;

/// A row group's ordinal is an `i16` in the Parquet format.
const MAX_ROW_GROUPS: i64 = 32_767;

/// Number of row groups of a table's file; each holds one part of the generator's output.
pub(super) fn row_groups(table: Table, scale_factor: f64) -> i32 {
    let orders = OrderGenerator::calculate_row_count(scale_factor, 1, 1);
    let rows = match table {
        // Lines of an order vary; tpchgen-cli counts four.
        Table::Lineitem => 4 * orders,
        // These two are never cut.
        Table::Nation | Table::Region => 1,
        _ => table.rows(scale_factor).unwrap_or(orders),
    };
    let groups = rows.saturating_mul(row_bytes(table)) / ROW_GROUP_BYTES + 1;
    i32::try_from(groups.min(MAX_ROW_GROUPS)).unwrap_or(i32::MAX)
}

/// Bytes of one encoded row: the figures by which `tpchgen-cli` estimates a row group.
fn row_bytes(table: Table) -> i64 {
    match table {
        Table::Lineitem => 64,
        Table::Orders => 75,
        Table::Partsupp => 141,
        Table::Part => 70,
        Table::Customer => 168,
        Table::Supplier => 164,
        Table::Nation => 117,
        Table::Region => 151,
    }
}

/// A reader of one part, which becomes one row group.
pub(super) type PartReader = Box<dyn RecordBatchReader<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Opens part `part` (from 1) of `parts` of a table.
pub(super) fn open_part(table: Table, scale_factor: f64, part: i32, parts: i32) -> PartReader {
    match table {
        Table::Lineitem => Box::new(LineItemArrow::new(LineItemGenerator::new(scale_factor, part, parts))),
        Table::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale_factor, part, parts))),
        Table::Partsupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale_factor, part, parts))),
        Table::Part => Box::new(PartArrow::new(PartGenerator::new(scale_factor, part, parts))),
        Table::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(scale_factor, part, parts))),
        Table::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale_factor, part, parts))),
        Table::Nation => Box::new(NationArrow::new(NationGenerator::new(scale_factor, part, parts))),
        Table::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale_factor, part, parts))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row groups which `tpchgen-cli` 4.0.0 writes, by its own tests of its default layout.
    #[test]
    fn row_groups_match_tpchgen_cli() {
        let groups = |scale_factor| Table::ALL.map(|table| row_groups(table, scale_factor));
        // lineitem, orders, partsupp, part, customer, supplier, nation, region
        assert_eq!(groups(1.0), [53, 16, 16, 2, 4, 1, 1, 1]);
        assert_eq!(groups(10.0), [524, 154, 154, 20, 35, 3, 1, 1]);
        assert_eq!(groups(0.1), [6, 2, 2, 1, 1, 1, 1, 1]);
        // Capped by the format.
        assert_eq!(row_groups(Table::Lineitem, 1000.0), 32_767);
    }

    /// Whatever the cut, the parts together are the whole table.
    #[test]
    fn parts_hold_every_row() {
        for table in [Table::Part, Table::Partsupp, Table::Customer, Table::Orders] {
            let parts = 3;
            let rows: usize = (1..=parts)
                .flat_map(|part| open_part(table, 0.001, part, parts))
                .map(|batch| batch.unwrap().num_rows())
                .sum();
            assert_eq!(Some(rows as i64), table.rows(0.001), "{table}");
        }
    }
}
