//! The shape of the source: who may import whom, headers, and sizes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project;

/// The rows of `docs/ARCHITECTURE.md`, from the ground up. A module imports rows below its own only.
const ROWS: &[(&str, u8)] = &[
    ("error", 0),
    ("clock", 0),
    ("config", 0),
    ("scope", 0),
    ("fingerprint", 0),
    ("memory", 1),
    ("store", 1),
    ("monitor", 1),
    ("operator", 2),
    ("hint", 3),
    ("insight", 3),
    ("physical", 3),
    ("session", 4),
];

/// The few imports on row 0 and row 1 that go sideways, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("config", "error", "a refused value names the nearest one"),
    ("scope", "error", "a scope refuses to be SET"),
    ("monitor", "memory", "a record holds the peak of the query's pool"),
    ("store", "memory", "answers are reserved of the memory pool, and given back to it"),
];

const MAX_LINES: usize = 600;
const MAX_TEST_LINES: usize = 900;
const MAX_MEDIAN: usize = 150;
const MAX_P90: usize = 350;

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

/// The top-level module of a library file; `lib.rs` and the shell belong to none.
fn module(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(project().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "bin"].contains(&name)).then(|| name.to_owned())
}

fn row(module: &str) -> u8 {
    let found = ROWS.iter().find(|(name, _)| *name == module);
    found.unwrap_or_else(|| panic!("module '{module}' has no row: add it here and to docs/ARCHITECTURE.md")).1
}

/// Modules that a line of code names by `crate::`.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::").filter_map(move |(at, found)| {
        let path = &code[at + found.len()..];
        let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
        let first = &path[..end];
        (first.chars().next()?.is_ascii_lowercase()).then_some(first)
    })
}

#[test]
fn a_module_imports_only_rows_below_its_own() {
    for path in sources("src") {
        let Some(own) = module(&path) else { continue };
        for line in fs::read_to_string(&path).unwrap().lines() {
            for other in imported(line).filter(|other| *other != own) {
                let below = row(other) < row(&own);
                let excused = SIDEWAYS.iter().any(|(from, to, _)| *from == own && *to == other);
                assert!(
                    below || excused,
                    "{} imports `{other}`, which is not below `{own}`: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_layering_check_sees_imports() {
    let found: Vec<&str> =
        imported("use crate::physical::{A, B}; crate::session::x(crate::Slipstream)").collect();
    assert_eq!(found, ["physical", "session"]);
    assert!(imported("// crate::session").next().is_none());
}

#[test]
fn every_file_opens_with_a_sentence() {
    for folder in ["src", "tests", "benches", "examples", "tpch/src", "tpch/tests"] {
        for path in sources(folder) {
            let text = fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            assert!(
                first.starts_with("//! ") && first.len() > 20,
                "{} has no `//!` sentence",
                path.display()
            );
        }
    }
}

#[test]
fn files_are_small_rooms() {
    let mut sizes = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "tpch/src", "tpch/tests"] {
        for path in sources(folder) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            let max = if folder.contains("tests") { MAX_TEST_LINES } else { MAX_LINES };
            assert!(lines <= max, "{} has {lines} lines, the most is {max}", path.display());
            if folder == "src" {
                sizes.push(lines);
            }
        }
    }
    sizes.sort_unstable();
    let (median, p90) = (sizes[sizes.len() / 2], sizes[sizes.len() * 9 / 10]);
    assert!(median <= MAX_MEDIAN, "the median file has {median} lines, the most is {MAX_MEDIAN}");
    assert!(p90 <= MAX_P90, "nine files of ten have up to {p90} lines, the most is {MAX_P90}");
}

#[test]
fn a_fifth_of_the_library_is_documentation() {
    let (mut doc, mut all) = (0, 0);
    // Tests and models in files of their own are left out, as those behind `#[cfg(test)]` are, and the lists of settings, whose
    // text is the manual.
    let tests = |path: &Path| {
        path.ends_with("tests.rs") || path.iter().any(|part| part == "tests" || part == "model")
    };
    let manual = |path: &Path| path.ends_with("config/settings.rs") || path.ends_with("config/resources.rs");
    let library = |path: &&PathBuf| {
        !tests(path) && !manual(path) && (module(path).is_some() || path.ends_with("src/lib.rs"))
    };
    for path in sources("src").iter().filter(library) {
        let text = fs::read_to_string(path).unwrap();
        let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for line in code.lines().map(str::trim).filter(|line| line.len() > 1) {
            all += 1;
            doc += usize::from(line.starts_with("//"));
        }
    }
    assert!(doc * 5 >= all, "{doc} of {all} lines are documentation, less than a fifth");
}
