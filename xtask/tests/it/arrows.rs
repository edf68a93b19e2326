//! The allowed dependencies between crates: the arrows in ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::Command,
};

use serde_json::{Value, json};

use crate::repository::{assert_none, root};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A part of the facade.
    Part,
    /// A store. It does not see other stores, not even in its tests.
    Store,
    /// The crate that users depend on; it includes every store.
    Facade,
    /// A program, which no crate depends on.
    Program,
    /// The program that builds the others, and so must build when they don't.
    Chores,
}

/// The kind of each crate. ARCHITECTURE.md lists the crates of the workspace that it uses.
const KINDS: &[(&str, Kind)] = &[
    ("factum-kernel", Kind::Part),
    // A derive writes the kernel's names, but needs none of its code.
    ("factum-macros", Kind::Part),
    ("factum-backend", Kind::Part),
    ("factum-testing", Kind::Part),
    ("factum-memory", Kind::Store),
    ("factum-journal", Kind::Store),
    ("factum-sqlite", Kind::Store),
    ("factum-postgres", Kind::Store),
    ("factum-runtime", Kind::Part),
    ("factum-consumer", Kind::Part),
    ("factum-projection", Kind::Part),
    ("factum", Kind::Facade),
    // The demo plays the bank of the tests, because there is one sample domain.
    ("factum-cli", Kind::Program),
    // Examples are written as by users, who need only the facade.
    ("banking", Kind::Program),
    ("chat", Kind::Program),
    ("counter", Kind::Program),
    ("shop", Kind::Program),
    ("xtask", Kind::Chores),
];

fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|it| it.0 == name).map(|it| it.1)
}

/// The crates of the workspace that each crate uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The arrows that the block under "Arrows" of ARCHITECTURE.md draws.
fn drawn(architecture: &str) -> Arrows {
    let section = architecture.split("\n## Arrows\n").nth(1).expect("a section about arrows");
    let block = section.split("```").nth(1).expect("a block of arrows");
    let mut arrows = Arrows::new();
    for line in block.trim().replace(",\n", ", ").lines() {
        let (from, to) = line.split_once("->").expect("each line is an arrow");
        let names = |list: &str| -> BTreeSet<String> {
            list.split(',').map(|it| it.trim().to_owned()).filter(|it| it != "none").collect()
        };
        arrows.extend(names(from).into_iter().map(|name| (name, names(to))));
    }
    arrows
}

/// The crates in cargo's metadata that do not follow the arrows.
fn breaches(metadata: &Value, arrows: &Arrows) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("metadata list packages");
    let name = |value: &Value| value["name"].as_str().expect("packages have names").to_owned();
    let ours: Vec<String> = packages.iter().map(name).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let from = name(package);
        let (Some(kind), Some(allowed)) = (kind(&from), arrows.get(&from)) else {
            breaches.push(format!(
                "{from} is new: give it its kind in xtask/tests/it/arrows.rs and its arrows in \
                 ARCHITECTURE.md"
            ));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let mut used = BTreeSet::new();
        for dependency in dependencies.filter(|it| ours.contains(&name(it))) {
            let to = name(dependency);
            if dependency["kind"] == "dev" {
                breaches.extend(forbidden_to_tests(&from, kind, &to));
            } else {
                used.insert(to);
            }
        }
        for to in used.difference(allowed) {
            let list = allowed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let list = if list.is_empty() { "none" } else { &list };
            breaches.push(format!("{from} must not depend on {to}: of ours it may use {list}"));
        }
        for to in allowed.difference(&used) {
            breaches.push(format!("ARCHITECTURE.md says {from} -> {to}, and Cargo.toml does not"));
        }
    }
    breaches
}

/// Tests have more freedom: they may use crates that their crate's own code must not, with these
/// exceptions.
fn forbidden_to_tests(from: &str, kind_of_from: Kind, to: &str) -> Option<String> {
    let reason = match (kind_of_from, kind(to)?) {
        (Kind::Chores, _) => "it must build when nothing else does",
        (_, Kind::Program | Kind::Chores) => "nothing depends on a program",
        (Kind::Store, Kind::Store) => "no store sees another",
        (Kind::Store, Kind::Facade) => "the facade brings the other stores along",
        _ => return None,
    };
    Some(format!("the tests of {from} must not depend on {to}: {reason}"))
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
    let arrows = arrows_of_the_repository();
    assert_none(&breaches(&metadata, &arrows));

    let packages = metadata["packages"].as_array().unwrap();
    let names = KINDS.iter().map(|it| it.0).chain(arrows.keys().map(String::as_str));
    let gone = names.filter(|name| !packages.iter().any(|it| it["name"] == *name));
    assert_none(&gone.map(|it| format!("no crate is called {it}")).collect::<Vec<_>>());
}

fn arrows_of_the_repository() -> Arrows {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md"));
    drawn(&page.expect("a page about the architecture"))
}

/// Two crates, of which one uses the other.
const DRAWN: &str = "# A\n\n## Arrows\n\nWords.\n\n```\nfactum-kernel -> none\n\
                     factum-journal, factum-sqlite -> factum-kernel,\n  factum-backend\n```\n";

/// The breaches of a crate that uses others in this way, in an otherwise empty workspace.
fn check(from: &str, uses: &[(&str, Value)]) -> String {
    let mut arrows = arrows_of_the_repository();
    let package = |name: &str| json!({ "name": name, "dependencies": [] });
    let mut packages: Vec<_> = KINDS.iter().map(|it| package(it.0)).collect();
    packages.retain(|it| it["name"] != from);
    let drawn = arrows.remove(from);
    arrows.values_mut().for_each(BTreeSet::clear);
    arrows.extend(drawn.map(|it| (from.to_owned(), it)));
    let uses = uses.iter().map(|(to, kind)| json!({ "name": to, "kind": kind }));
    let tokio = json!({ "name": "tokio", "kind": null });
    let dependencies: Vec<_> = uses.chain([tokio]).collect();
    packages.push(json!({ "name": from, "dependencies": dependencies }));
    breaches(&json!({ "packages": packages }), &arrows).join("; ")
}

#[test]
fn a_block_of_arrows_is_read_line_by_line() {
    let arrows = drawn(DRAWN);
    assert_eq!(
        arrows.keys().collect::<Vec<_>>(),
        ["factum-journal", "factum-kernel", "factum-sqlite"]
    );
    assert!(arrows["factum-kernel"].is_empty());
    for store in ["factum-journal", "factum-sqlite"] {
        let to: Vec<_> = arrows[store].iter().collect();
        assert_eq!(to, ["factum-backend", "factum-kernel"]);
    }
}

#[test]
fn an_arrow_that_only_one_side_has_is_refused() {
    let uses =
        |names: &[&'static str]| names.iter().map(|it| (*it, Value::Null)).collect::<Vec<_>>();
    let memory = ["factum-kernel", "factum-backend"];
    assert_eq!(check("factum-memory", &uses(&memory)), "");
    assert_eq!(
        check("factum-memory", &[(memory[0], Value::Null), (memory[1], json!("build"))]),
        ""
    );
    let said = check("factum-memory", &uses(&memory[..1]));
    assert_eq!(
        said,
        "ARCHITECTURE.md says factum-memory -> factum-backend, and Cargo.toml does not"
    );
    let said =
        check("factum-memory", &uses(&["factum-kernel", "factum-backend", "factum-runtime"]));
    assert!(said.starts_with("factum-memory must not depend on factum-runtime: "), "{said}");
}

#[test]
fn the_arrows_that_matter_most_are_refused() {
    let check = |from: &str, to: &str| check(from, &[(to, Value::Null)]);
    let said = check("factum-kernel", "factum-backend");
    assert_eq!(said, "factum-kernel must not depend on factum-backend: of ours it may use none");
    let said = check("factum-cli", "factum-sqlite");
    assert!(said.starts_with("factum-cli must not depend on factum-sqlite:"), "{said}");
    for (from, to) in [("factum-memory", "factum-sqlite"), ("factum-sqlite", "factum-memory")] {
        let refused = format!("{from} must not depend on {to}: of ours it may use ");
        let said = check(from, to);
        assert!(said.starts_with(&refused), "{said}");
    }
}

#[test]
fn tests_are_freer_with_four_exceptions() {
    // The crate uses nothing else here, so that its own arrows are missed as well.
    let dev = |from: &str, to: &str| {
        let said = check(from, &[(to, json!("dev"))]);
        said.split("; ").find(|it| it.starts_with("the tests of")).unwrap_or_default().to_owned()
    };
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
    let said = check("factum-teleport", &[("factum-kernel", Value::Null)]);
    assert!(said.starts_with("factum-teleport is new: "), "{said}");
}
