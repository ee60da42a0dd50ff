//! `docs/failover.md` names the test that shows each row: the tests are there, under these names.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lightship_lab::binaries::checkout;

/// What a cell names in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names of tests are sentences; those of settings and modules are shorter.
fn is_test(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.chars().all(word) && name.matches('_').count() >= 3
}

fn is_file(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

/// Paths and texts of all Rust files below a folder of the checkout.
fn sources(folder: &Path, all: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if is_file(path.to_str().unwrap()) {
            let text = fs::read_to_string(&path).unwrap();
            all.push((path.display().to_string(), text));
        }
    }
}

/// A function under `#[test]`, or an entry in a list of tests on the lab.
fn has_test(path: &str, text: &str, name: &str) -> bool {
    let listed = path.contains("/tests/e2e/tests/") && text.contains(&format!("\"{name}\""));
    let head = format!("fn {name}(");
    let found = text.split_once(&head).map(|(before, _)| before);
    // Between the attribute and the name there may be others, and no end of a function.
    let marked = |before: &str| {
        let from = before.rfind("test]").or_else(|| before.rfind("proptest!"));
        from.is_some_and(|from| !before[from..].contains("\n}"))
    };
    listed || found.is_some_and(marked)
}

#[test]
fn every_row_of_the_documented_failures_names_tests_that_are_there() {
    let text = fs::read_to_string(checkout().join("docs/failover.md")).unwrap();
    let mut code = Vec::new();
    for folder in ["controller", "crates", "speaker", "tests"] {
        sources(&checkout().join(folder), &mut code);
    }
    let mut wrong = BTreeSet::new();
    for name in quoted(&text).filter(|name| is_test(name)) {
        if !code.iter().any(|(path, text)| has_test(path, text, name)) {
            wrong.insert(format!("there is no test {name}"));
        }
    }
    for name in quoted(&text).filter(|name| is_file(name)) {
        let end = format!("/{name}");
        if !code.iter().any(|(path, _)| path.ends_with(&end)) {
            wrong.insert(format!("there is no file {name}"));
        }
    }
    let mut rows = 0;
    let mut shown = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            shown = false;
            continue;
        };
        let last = row.rsplit('|').next().unwrap_or_default().trim();
        if last.starts_with("shown by") {
            shown = true;
        } else if shown && !last.starts_with("---") {
            rows += 1;
            if last != "the same" && !quoted(last).any(is_test) {
                wrong.insert(format!("no test shows {row}"));
            }
        }
    }
    assert!(rows > 60, "only {rows} rows: the tables are not found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
