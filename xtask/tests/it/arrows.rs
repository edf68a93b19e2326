//! Which crate may depend on which: the arrows in ARCHITECTURE.md.

use std::{env, process::Command};

use serde_json::{Value, json};

use crate::repository::{assert_none, root};

/// A crate, what it is, and the crates of ours that its own code may use.
struct Row(&'static str, Kind, &'static [&'static str]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What the facade is made of.
    Part,
    /// A store: it sees no other store, not even in its tests.
    Store,
    /// What users depend on; it brings every store along.
    Facade,
    /// A program: nothing depends on it.
    Program,
    /// It builds the others, and so must build when they don't.
    Chores,
}

const TABLE: &[Row] = &[
    Row("factum-kernel", Kind::Part, &[]),
    // A derive writes the kernel's names, and needs none of its code.
    Row("factum-macros", Kind::Part, &[]),
    Row("factum-backend", Kind::Part, &["factum-kernel"]),
    Row("factum-testing", Kind::Part, &["factum-kernel", "factum-macros"]),
    Row("factum-memory", Kind::Store, &["factum-kernel", "factum-backend"]),
    Row("factum-journal", Kind::Store, &["factum-kernel", "factum-backend"]),
    Row("factum-sqlite", Kind::Store, &["factum-kernel", "factum-backend"]),
    Row("factum-postgres", Kind::Store, &["factum-kernel", "factum-backend"]),
    Row("factum-runtime", Kind::Part, &["factum-kernel"]),
    Row("factum-consumer", Kind::Part, &["factum-kernel"]),
    Row("factum-projection", Kind::Part, &["factum-kernel", "factum-consumer"]),
    Row(
        "factum",
        Kind::Facade,
        &[
            "factum-kernel",
            "factum-macros",
            "factum-backend",
            "factum-memory",
            "factum-journal",
            "factum-sqlite",
            "factum-postgres",
            "factum-runtime",
            "factum-consumer",
            "factum-projection",
        ],
    ),
    // The demo plays the bank of the tests: there is one sample domain.
    Row("factum-cli", Kind::Program, &["factum", "factum-testing"]),
    // Examples are what users would write: the facade is all they need.
    Row("banking", Kind::Program, &["factum"]),
    Row("chat", Kind::Program, &["factum"]),
    Row("counter", Kind::Program, &["factum"]),
    Row("shop", Kind::Program, &["factum"]),
    Row("xtask", Kind::Chores, &[]),
];

fn row(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.0 == name)
}

/// The arrows in cargo's metadata that the table does not allow.
fn breaches(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("metadata list packages");
    let name = |value: &Value| value["name"].as_str().expect("packages have names").to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let from = name(package);
        let Some(row) = row(&from) else {
            breaches.push(format!(
                "{from} is not in the table of xtask/tests/it/arrows.rs: add it, with the crates \
                 of ours that it may use"
            ));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|it| ours.contains(&name(it))) {
            let to = name(dependency);
            if dependency["kind"] == "dev" {
                breaches.extend(forbidden_to_tests(row, &to));
            } else if !row.2.contains(&to.as_str()) {
                let allowed = if row.2.is_empty() { "none".into() } else { row.2.join(", ") };
                breaches
                    .push(format!("{from} must not depend on {to}: of ours it may use {allowed}"));
            }
        }
    }
    breaches
}

/// Tests are freer: they may use what their crate's own code must not, with these exceptions.
fn forbidden_to_tests(from: &Row, to: &str) -> Option<String> {
    let kind = row(to)?.1;
    let reason = match (from.1, kind) {
        (Kind::Chores, _) => "it must build when nothing else does",
        (_, Kind::Program | Kind::Chores) => "nothing depends on a program",
        (Kind::Store, Kind::Store) => "no store sees another",
        (Kind::Store, Kind::Facade) => "the facade brings the other stores along",
        _ => return None,
    };
    Some(format!("the tests of {} must not depend on {to}: {reason}", from.0))
}

#[test]
fn dependencies_follow_the_arrows() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_none(&breaches(&metadata));

    let packages = metadata["packages"].as_array().unwrap();
    let gone = |row: &&Row| !packages.iter().any(|it| it["name"] == row.0);
    let gone: Vec<_> = TABLE.iter().filter(gone).map(|it| format!("no crate {}", it.0)).collect();
    assert_none(&gone);
}

/// What is said about one arrow in an otherwise empty workspace.
fn check(from: &str, kind: Value, to: &str) -> String {
    let package = |name: &str| json!({ "name": name, "dependencies": [] });
    let mut packages: Vec<_> = TABLE.iter().map(|row| package(row.0)).collect();
    packages.retain(|it| it["name"] != from);
    let dependencies = json!([{ "name": to, "kind": kind }, { "name": "tokio", "kind": null }]);
    packages.push(json!({ "name": from, "dependencies": dependencies }));
    breaches(&json!({ "packages": packages })).join("; ")
}

#[test]
fn every_arrow_that_is_not_in_the_table_is_refused() {
    for from in TABLE {
        for to in TABLE.iter().filter(|to| to.0 != from.0) {
            let allowed = from.2.contains(&to.0);
            let said = check(from.0, Value::Null, to.0);
            assert_eq!(said.is_empty(), allowed, "{} -> {}: {said}", from.0, to.0);
            assert_eq!(check(from.0, json!("build"), to.0).is_empty(), allowed);
        }
    }
}

#[test]
fn the_arrows_that_matter_most_are_refused_in_so_many_words() {
    let said = check("factum-kernel", Value::Null, "factum-backend");
    assert_eq!(said, "factum-kernel must not depend on factum-backend: of ours it may use none");
    let said = check("factum-cli", Value::Null, "factum-sqlite");
    assert!(said.starts_with("factum-cli must not depend on factum-sqlite:"), "{said}");
    for (from, to) in [("factum-memory", "factum-sqlite"), ("factum-sqlite", "factum-memory")] {
        let said = check(from, Value::Null, to);
        assert!(said.ends_with("factum-kernel, factum-backend"), "{said}");
    }
}

#[test]
fn tests_are_freer_with_four_exceptions() {
    let dev = |from: &str, to: &str| check(from, json!("dev"), to);
    assert_eq!(dev("factum-kernel", "factum-testing"), "");
    assert_eq!(dev("factum-macros", "factum-kernel"), "");
    assert_eq!(dev("factum-sqlite", "factum-testing"), "");
    assert!(dev("factum-sqlite", "factum-memory").ends_with("no store sees another"));
    assert!(dev("factum-memory", "factum").ends_with("brings the other stores along"));
    assert!(dev("factum", "factum-cli").ends_with("nothing depends on a program"));
    assert!(dev("xtask", "factum-kernel").ends_with("when nothing else does"));
}

#[test]
fn a_crate_that_nobody_entered_is_refused() {
    let said = check("factum-teleport", Value::Null, "factum-kernel");
    assert!(said.starts_with("factum-teleport is not in the table"), "{said}");
}
