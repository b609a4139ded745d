//! The eight tables of TPC-H: their names, files, and how many rows the specification gives them.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};

use tpchgen::generators::{CustomerGenerator, OrderGenerator, PartGenerator, SupplierGenerator};

/// One table of TPC-H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Lines of orders, by far the largest table.
    Lineitem,
    /// Orders.
    Orders,
    /// Which supplier offers which part.
    Partsupp,
    /// Parts.
    Part,
    /// Customers.
    Customer,
    /// Suppliers.
    Supplier,
    /// 25 nations.
    Nation,
    /// 5 regions.
    Region,
}

impl Table {
    /// All tables, the largest first: the longest work is begun first.
    pub(crate) const ALL: [Self; 8] = [
        Self::Lineitem,
        Self::Orders,
        Self::Partsupp,
        Self::Part,
        Self::Customer,
        Self::Supplier,
        Self::Nation,
        Self::Region,
    ];

    /// The table's name in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lineitem => "lineitem",
            Self::Orders => "orders",
            Self::Partsupp => "partsupp",
            Self::Part => "part",
            Self::Customer => "customer",
            Self::Supplier => "supplier",
            Self::Nation => "nation",
            Self::Region => "region",
        }
    }

    /// The table's file in a data folder.
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.parquet", self.name()))
    }

    /// Rows at a scale factor; `None` for lineitem, where each order draws its number of lines.
    pub(crate) fn rows(self, scale_factor: f64) -> Option<i64> {
        match self {
            Self::Lineitem => None,
            Self::Orders => Some(OrderGenerator::calculate_row_count(scale_factor, 1, 1)),
            // Each part has four suppliers.
            Self::Partsupp => Some(4 * PartGenerator::calculate_row_count(scale_factor, 1, 1)),
            Self::Part => Some(PartGenerator::calculate_row_count(scale_factor, 1, 1)),
            Self::Customer => Some(CustomerGenerator::calculate_row_count(scale_factor, 1, 1)),
            Self::Supplier => Some(SupplierGenerator::calculate_row_count(scale_factor, 1, 1)),
            Self::Nation => Some(25),
            Self::Region => Some(5),
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
