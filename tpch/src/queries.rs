//! The 22 queries of TPC-H with the validation parameters of its specification.

use std::process::ExitCode;

use datafusion::error::Result;

use crate::workload::{AnyWorkload, find_query, parse_workload};

/// One query of a workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// Its number, from 1.
    pub(crate) number: u8,
    /// Its text, one statement.
    pub(crate) sql: &'static str,
}

/// All queries, in their order.
pub(crate) const QUERIES: [Query; 22] = [
    Query { number: 1, sql: include_str!("../queries/q1.sql") },
    Query { number: 2, sql: include_str!("../queries/q2.sql") },
    Query { number: 3, sql: include_str!("../queries/q3.sql") },
    Query { number: 4, sql: include_str!("../queries/q4.sql") },
    Query { number: 5, sql: include_str!("../queries/q5.sql") },
    Query { number: 6, sql: include_str!("../queries/q6.sql") },
    Query { number: 7, sql: include_str!("../queries/q7.sql") },
    Query { number: 8, sql: include_str!("../queries/q8.sql") },
    Query { number: 9, sql: include_str!("../queries/q9.sql") },
    Query { number: 10, sql: include_str!("../queries/q10.sql") },
    Query { number: 11, sql: include_str!("../queries/q11.sql") },
    Query { number: 12, sql: include_str!("../queries/q12.sql") },
    Query { number: 13, sql: include_str!("../queries/q13.sql") },
    Query { number: 14, sql: include_str!("../queries/q14.sql") },
    Query { number: 15, sql: include_str!("../queries/q15.sql") },
    Query { number: 16, sql: include_str!("../queries/q16.sql") },
    Query { number: 17, sql: include_str!("../queries/q17.sql") },
    Query { number: 18, sql: include_str!("../queries/q18.sql") },
    Query { number: 19, sql: include_str!("../queries/q19.sql") },
    Query { number: 20, sql: include_str!("../queries/q20.sql") },
    Query { number: 21, sql: include_str!("../queries/q21.sql") },
    Query { number: 22, sql: include_str!("../queries/q22.sql") },
];

/// Finds a query by its number.
pub(crate) fn query(number: u8) -> Option<&'static Query> {
    QUERIES.iter().find(|q| q.number == number)
}

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of the query
    number: u8,
    /// Whose query it is: tpch or star
    #[arg(long, value_name = "NAME", default_value = "tpch", value_parser = parse_workload)]
    workload: AnyWorkload,
}

/// Prints the text of a query, for use in another tool.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    print!("{}", find_query(args.workload, args.number)?.sql);
    Ok(ExitCode::SUCCESS)
}
