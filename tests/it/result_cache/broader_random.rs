//! Pairs of a broader and a narrower query that nobody thought of: whatever is done, the rows, their order and the schema are
//! the plain engine's, and a good share of the narrower ones is in fact computed from the broader ones' answers.
//!
//! A case is a list of bytes, each of which decides one thing. Zero is the simplest choice everywhere, so that what fails
//! shrinks to a small pair.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::num::u8::ANY;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use super::broader::{answer, broad, said};
use super::outcome;
use crate::support::{query, sorted_rows};

const SHORT_CASES: u32 = 150;
const SHORT_SEED: u64 = 20_261_122;
const LONG_CASES: u32 = 5_000;

/// What decides.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % sides
    }

    fn one_of<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.roll(of.len())]
    }

    /// Some of them, the first `least` at least.
    fn some<'t>(&mut self, of: &[&'t str], least: usize) -> Vec<&'t str> {
        let found = of.iter().enumerate().filter(|(at, _)| *at < least || self.roll(3) == 1);
        found.map(|(_, text)| *text).collect()
    }
}

/// What is read: a FROM clause, and a condition that belongs to it.
const SOURCES: &[(&str, &str)] = &[
    ("w", "true"),
    ("w JOIN x ON w.k = x.k", "true"),
    ("w LEFT JOIN x ON w.k = x.k AND x.c < 40", "true"),
    ("x RIGHT JOIN w ON w.k = x.k", "true"),
    ("w", "w.k IN (SELECT k FROM x WHERE c > 5)"),
    ("w", "NOT EXISTS (SELECT 1 FROM x WHERE x.k = w.k AND x.c > 15)"),
];

/// Columns with values in their order, of which conditions are made.
const COLUMNS: &[(&str, &[&str])] = &[
    ("w.n", &["-49", "-20", "-3", "0", "1", "17", "44", "50"]),
    ("w.k", &["0", "1", "2", "3", "4", "6"]),
    ("w.g", &["0", "1", "2", "3"]),
    ("w.d", &["0.00", "0.31", "1.5", "3.25", "7.75", "9.96"]),
    ("w.f", &["-19.5", "-1.25", "0.0", "2.5", "10.0", "50.0", "CAST('NaN' AS DOUBLE)"]),
    ("w.s", &["''", "'Zoe'", "'ab'", "'b'", "'ä'"]),
    ("w.day", &["DATE '2023-12-09'", "DATE '2023-12-12'", "DATE '2023-12-20'", "DATE '2024-01-15'"]),
    (
        "w.at",
        &[
            "TIMESTAMP '2023-11-15T01:00:00'",
            "TIMESTAMP '2023-11-20T12:00:00'",
            "TIMESTAMP '2023-12-01T00:00:00'",
        ],
    ),
    ("w.z", &["TIMESTAMP '2023-11-15T01:00:00+02:00'", "TIMESTAMP '2023-11-15T20:00:00+00:00'"]),
];

/// Conditions on other things than a column and its values.
const OTHER: &[&str] = &[
    "w.flag",
    "w.n % 3 = 1",
    "w.s LIKE '%b'",
    "w.k + w.g > 5",
    "w.n IS NULL",
    "(w.flag OR w.k = 2)",
    "w.s IS NOT NULL",
    "NOT (w.g = 1 AND w.n < 0)",
];

/// A condition: a column, what is asked of it, and the places of the values.
#[derive(Clone, Copy)]
enum Condition {
    Compares { column: usize, kind: usize, at: usize },
    Other(usize),
}

impl Condition {
    fn draw(bytes: &mut Bytes<'_>) -> Self {
        match bytes.roll(4) {
            3 => Self::Other(bytes.roll(OTHER.len())),
            _ => {
                let column = bytes.roll(COLUMNS.len());
                Self::Compares { column, kind: bytes.roll(7), at: bytes.roll(COLUMNS[column].1.len()) }
            }
        }
    }

    /// One that says more, or the same.
    fn tighter(self, bytes: &mut Bytes<'_>) -> Self {
        let Self::Compares { column, kind, at } = self else { return self };
        let last = COLUMNS[column].1.len() - 1;
        match (bytes.roll(4), kind) {
            (1, 0 | 1) => Self::Compares { column, kind, at: (at + 1).min(last) },
            (1, 2 | 3) => Self::Compares { column, kind, at: at.saturating_sub(1) },
            (2, 0) => Self::Compares { column, kind: 4, at: (at + 1).min(last) },
            (2, 5) => Self::Compares { column, kind: 4, at },
            (2, 6) => Self::Compares { column, kind: bytes.roll(5), at },
            // Not tighter at all, now and then.
            (3, _) if bytes.roll(4) == 3 => Self::Compares { column, kind: bytes.roll(7), at },
            _ => self,
        }
    }

    fn text(self) -> String {
        let Self::Compares { column, kind, at } = self else {
            let Self::Other(which) = self else { unreachable!() };
            return OTHER[which].to_owned();
        };
        let (name, values) = COLUMNS[column];
        let value = values[at];
        match kind {
            0 => format!("{name} > {value}"),
            1 => format!("{name} >= {value}"),
            2 => format!("{name} < {value}"),
            3 => format!("{name} <= {value}"),
            4 => format!("{name} = {value}"),
            5 => format!("{name} IN ({}, {value}, {})", values[0], values[values.len() / 2]),
            _ => format!("{name} IS NOT NULL"),
        }
    }
}

const PLAIN_COLUMNS: &[&str] =
    &["w.n", "w.k", "w.g", "w.s", "w.d", "w.f", "w.day", "w.at", "w.z", "w.flag", "w.n * 2", "w.n % 5"];

const KEYS: &[&str] = &["w.k", "w.g", "w.s", "w.day", "w.flag", "w.n % 5"];

/// Whose value does not depend on the order of its rows: of floats, the sums are of eighths.
const AGGREGATES: &[&str] = &[
    "count(*)",
    "sum(w.n)",
    "sum(w.d)",
    "count(w.n)",
    "min(w.d)",
    "max(w.s)",
    "min(w.at)",
    "max(w.z)",
    "bool_and(w.flag)",
    "bit_xor(w.n)",
    "bit_and(w.g)",
    "avg(w.d)",
    "sum(w.n) FILTER (WHERE w.flag)",
    "count(DISTINCT w.g)",
    "median(w.n)",
    "sum(w.f)",
];

/// Of two aggregates, what is made of them.
const MADE: &[&str] = &["", " + 1", " * 2"];

/// A query, and how much of its order is fixed.
struct Query {
    text: String,
    /// Ordered by all columns: any two rows that are in another order are the same.
    ordered: bool,
    /// Without its limit, where any rows will do.
    whole: Option<String>,
}

fn finished(mut text: String, columns: usize, bytes: &mut Bytes<'_>, limits: &[&str]) -> Query {
    let order: Vec<String> = (1..=columns).map(|column| column.to_string()).collect();
    let ordered = bytes.roll(2) == 1;
    if ordered {
        let direction = bytes.one_of(&["", " DESC", " NULLS FIRST"]);
        text = format!("{text} ORDER BY {}{direction}", order.join(&format!("{direction}, ")));
    }
    let limit = bytes.one_of(limits);
    // Which rows stand behind an offset is not fixed without an order, and refused.
    let limit = if ordered { limit } else { limit.split(" OFFSET").next().unwrap_or_default() };
    let whole = (!ordered && !limit.is_empty()).then(|| text.clone());
    Query { text: text + limit, ordered, whole }
}

/// Limits of broader queries, from those that cut nothing off to others.
const FEW: &[&str] = &["", " LIMIT 100000", " LIMIT 40", " LIMIT 40 OFFSET 3"];

/// Limits of narrower ones.
const FEWER: &[&str] = &["", " LIMIT 7", " LIMIT 7 OFFSET 5", " LIMIT 100000"];

/// What two queries read.
struct Read {
    source: &'static str,
    first: String,
    second: String,
}

/// A broader query and one that may be computed from it.
fn pair(bytes: &mut Bytes<'_>) -> (Query, Query) {
    let (source, own) = SOURCES[bytes.roll(SOURCES.len())];
    let grain = bytes.roll(3);
    let first: Vec<Condition> = (0..bytes.roll(3)).map(|_| Condition::draw(bytes)).collect();
    let mut second: Vec<Condition> = first.iter().map(|condition| condition.tighter(bytes)).collect();
    second.extend((0..bytes.roll(3)).map(|_| Condition::draw(bytes)));
    let condition = |conditions: &[Condition]| {
        conditions.iter().fold(own.to_owned(), |text, condition| format!("{text} AND {}", condition.text()))
    };
    let read = Read { source, first: condition(&first), second: condition(&second) };
    match grain {
        2 => of_groups(&read, bytes),
        _ => of_rows(&read, grain == 1, bytes),
    }
}

/// A query for groups and one for fewer of them.
fn of_groups(read: &Read, bytes: &mut Bytes<'_>) -> (Query, Query) {
    let keys = bytes.some(KEYS, 2);
    let aggregates = bytes.some(AGGREGATES, 3);
    let grouped = |keys: &[&str], outputs: &[String], condition: &str, having: &str| {
        let columns: Vec<&str> = keys.iter().copied().chain(outputs.iter().map(String::as_str)).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        format!("SELECT {} FROM {} WHERE {condition}{by}{having}", numbered(&columns), read.source)
    };
    let all: Vec<String> = aggregates.iter().map(|aggregate| (*aggregate).to_owned()).collect();
    let few = &FEW[..if bytes.roll(4) == 3 { 4 } else { 2 }];
    let broader = finished(grouped(&keys, &all, &read.first, ""), keys.len() + all.len(), bytes, few);
    let fewer_keys = match bytes.roll(4) {
        3 => keys,
        _ => bytes.some(&keys, 0),
    };
    let mut made: Vec<String> = Vec::new();
    for aggregate in bytes.some(&aggregates, 1) {
        let counts = aggregate.starts_with("sum(w.n)") || aggregate.starts_with("count");
        made.push(format!("{aggregate}{}", if counts { bytes.one_of(MADE) } else { "" }));
    }
    let having = if bytes.roll(4) == 1 { " HAVING count(*) > 2" } else { "" };
    let text = grouped(&fewer_keys, &made, &read.second, having);
    (broader, finished(text, fewer_keys.len() + made.len(), bytes, FEWER))
}

/// A query for rows, and one for fewer of them or for groups.
fn of_rows(read: &Read, groups: bool, bytes: &mut Bytes<'_>) -> (Query, Query) {
    let Read { source, first, second } = read;
    let columns = bytes.some(PLAIN_COLUMNS, 4);
    let broader = format!("SELECT {} FROM {source} WHERE {first}", numbered(&columns));
    let few = &FEW[..if bytes.roll(4) == 3 { 4 } else { 2 }];
    let broader = finished(broader, columns.len(), bytes, few);
    if groups {
        let keys = bytes.some(&["w.k", "w.g", "w.n % 5"], 0);
        let aggregates = &[
            "count(*)",
            "sum(w.n)",
            "max(w.k)",
            "min(w.n)",
            "count(DISTINCT w.k)",
            "sum(w.d)",
            "bool_or(w.flag)",
        ];
        let aggregates = bytes.some(aggregates, 1);
        let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        let outputs: Vec<&str> = keys.iter().chain(&aggregates).copied().collect();
        let text = format!("SELECT {} FROM {source} WHERE {second}{by}", numbered(&outputs));
        return (broader, finished(text, outputs.len(), bytes, FEWER));
    }
    let fewer = bytes.some(&columns, 1);
    let distinct = if bytes.roll(5) == 4 { "DISTINCT " } else { "" };
    let text = format!("SELECT {distinct}{} FROM {source} WHERE {second}", numbered(&fewer));
    (broader, finished(text, fewer.len(), bytes, FEWER))
}

/// Columns under names of their own.
fn numbered(columns: &[&str]) -> String {
    let named: Vec<String> =
        columns.iter().enumerate().map(|(at, column)| format!("{column} AS o{at}")).collect();
    named.join(", ")
}

fn rows(batches: &[datafusion::arrow::array::RecordBatch]) -> Vec<String> {
    crate::support::picture(batches).lines().skip(3).map(str::to_owned).collect()
}

/// What became of the cases, by what was done.
#[derive(Debug, Default)]
struct Tally {
    cases: u32,
    given: u32,
    steps: BTreeMap<&'static str, u32>,
}

fn run(cases: u32, seed: RngSeed) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (ctx, slipstream) = runtime.block_on(broad());
    let tally = RefCell::new(Tally::default());
    let check = async |decided: Vec<u8>| {
        let (broader, narrower) = pair(&mut Bytes(decided.iter()));
        let told = format!("{}\n{}", broader.text, narrower.text);
        let fail = |why: String| Err(TestCaseError::fail(format!("{why}\n{told}")));
        query(&ctx, "SELECT slipstream_cache_clear()").await.unwrap();
        if let Err(error) = query(&ctx, &broader.text).await {
            return fail(format!("the broader one: {error}"));
        }
        let (schema, found) = answer(&ctx, &narrower.text).await;
        let (outcome, said) = (outcome(&slipstream), said(&slipstream));
        let whole = narrower.whole.as_ref().unwrap_or(&narrower.text);
        let (expected_schema, expected) = answer(&ctx, &format!("/*+ PLAIN */ {whole}")).await;
        if schema != expected_schema || found.iter().any(|batch| batch.schema() != schema) {
            return fail(format!("{said}: the schema is {schema:?}, expected was {expected_schema:?}"));
        }
        let same = match (narrower.ordered, &narrower.whole) {
            (true, _) => rows(&found) == rows(&expected),
            (false, None) => sorted_rows(&found) == sorted_rows(&expected),
            (false, Some(_)) => {
                let count =
                    sorted_rows(&answer(&ctx, &format!("/*+ PLAIN */ {}", narrower.text)).await.1).len();
                let mut left = sorted_rows(&expected);
                let found = sorted_rows(&found);
                found.len() == count
                    && found.iter().all(|row| {
                        let at = left.iter().position(|known| known == row);
                        at.is_some_and(|at| left.remove(at) == *row)
                    })
            }
        };
        if !same {
            return fail(format!("{outcome}, {said}: {:#?}\nexpected {:#?}", rows(&found), rows(&expected)));
        }
        let mut tally = tally.borrow_mut();
        tally.cases += 1;
        if outcome == "broader" {
            tally.given += 1;
            for step in ["filtered", "grouped", "rolled up", "sorted", "cut", "w, x"] {
                if said.contains(step) {
                    *tally.steps.entry(step).or_default() += 1;
                }
            }
        }
        Ok(())
    };
    let config = Config {
        cases,
        rng_seed: seed,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&vec(ANY, 80), |decided| runtime.block_on(check(decided)));
    if let Err(error) = result {
        panic!("seed {seed}: {error}");
    }
    tally.into_inner()
}

fn assert_not_degenerate(tally: &Tally) {
    assert!(tally.given * 4 > tally.cases, "{tally:?}");
    assert_eq!(tally.steps.len(), 6, "{tally:?}");
}

#[test]
fn short() {
    let tally = run(SHORT_CASES, RngSeed::Fixed(SHORT_SEED));
    eprintln!("{tally:?}");
    assert_not_degenerate(&tally);
}

#[test]
#[ignore = "takes some minutes; PROPTEST_CASES changes how many cases it draws"]
fn long() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let tally = run(cases.unwrap_or(LONG_CASES), RngSeed::Random);
    eprintln!("{tally:?}");
    assert_not_degenerate(&tally);
}
