//! The names of the facade: few at its root, each with one path, and none of the crates below it
//! left out.

use std::collections::BTreeMap;

use syn::{Item, UseTree, Visibility};

use crate::repository::{SourceFile, assert_none, files};

/// The names at the root of `factum`. They are a promise: a name that is added here, taken out or
/// moved to a module is a change for every user.
const ROOT: &[&str] = &[
    "Aggregate",
    "AggregateOptions",
    "Aggregates",
    "App",
    "AppBuilder",
    "At",
    "Checkpoint",
    "Command",
    "CommandId",
    "Consumer",
    "ConsumerOptions",
    "Consumers",
    "Context",
    "Decision",
    "DecisionModel",
    "DocumentStore",
    "Documents",
    "DocumentsTx",
    "EntityOptions",
    "ErrorKind",
    "Event",
    "EventBus",
    "EventStore",
    "ExpectedVersion",
    "Fold",
    "HandleError",
    "History",
    "Index",
    "IndexRange",
    "Maintained",
    "Matching",
    "Metadata",
    "ModelDecision",
    "ModelQuery",
    "OldEvent",
    "OpenError",
    "Outcome",
    "Position",
    "Projection",
    "ProjectionFn",
    "Projections",
    "ReadLog",
    "ReadModel",
    "ReadQuery",
    "RecordedEvent",
    "Retention",
    "RetryPolicy",
    "SendError",
    "SnapshotPolicy",
    "StoreError",
    "Subscription",
    "TagKey",
    "Upcast",
    "Verdict",
    "Worker",
    "WorkerHealth",
    "category",
    "sentence",
];

/// The most names that a reader of the first page can take in.
const ROOT_MAX: usize = 60;

/// The facade, and the crates of which it exports each name on its own. Other crates are modules
/// of it as a whole.
const FACADE: &str = "crates/factum/src/lib.rs";
const BELOW: &[&str] = &[
    "crates/factum-kernel/src/lib.rs",
    "crates/factum-consumer/src/lib.rs",
    "crates/factum-projection/src/lib.rs",
    "crates/factum-runtime/src/lib.rs",
];

/// The public names of a crate by the modules in which its `lib.rs` exports them: "" is its root.
type Exports = BTreeMap<String, Vec<String>>;

fn leaves(tree: &UseTree, found: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, found),
        UseTree::Name(name) => found.push(name.ident.to_string()),
        UseTree::Rename(rename) => found.push(rename.rename.to_string()),
        UseTree::Glob(_) => found.push("*".into()),
        UseTree::Group(group) => group.items.iter().for_each(|item| leaves(item, found)),
    }
}

fn is_for_people(attributes: &[syn::Attribute]) -> bool {
    let is_hidden = |it: &syn::Attribute| {
        it.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "hidden")
    };
    !attributes.iter().any(is_hidden)
}

fn collect(items: &[Item], module: &str, found: &mut Exports) {
    for item in items {
        match item {
            // A crate that is exported as a whole is a module, not a name.
            Item::Use(it) if matches!(it.tree, UseTree::Rename(_)) => {}
            Item::Use(it)
                if matches!(it.vis, Visibility::Public(_)) && is_for_people(&it.attrs) =>
            {
                leaves(&it.tree, found.entry(module.into()).or_default());
            }
            Item::Mod(it)
                if matches!(it.vis, Visibility::Public(_)) && is_for_people(&it.attrs) =>
            {
                let items = it.content.as_ref().map(|(_, items)| &**items);
                collect(items.unwrap_or_default(), &it.ident.to_string(), found);
            }
            _ => {}
        }
    }
}

fn exports(file: &SourceFile) -> Exports {
    let syntax = syn::parse_file(&file.text);
    let syntax = syntax.unwrap_or_else(|error| panic!("{} is not Rust: {error}", file.path));
    let mut found = Exports::new();
    collect(&syntax.items, "", &mut found);
    // A trait and its derive macro share a name, and so do the two sides of a feature.
    for names in found.values_mut() {
        names.sort();
        names.dedup();
    }
    found
}

fn breaches(facade: &Exports, root: &[&str], below: &[(&str, Exports)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let at_root = facade.get("").map(Vec::as_slice).unwrap_or_default();
    if at_root.len() > ROOT_MAX {
        let count = at_root.len();
        breaches.push(format!("{count} names are at the root, at most {ROOT_MAX} may be"));
    }
    let unlisted = at_root.iter().filter(|name| !root.contains(&name.as_str()));
    breaches.extend(unlisted.map(|it| format!("`{it}` is at the root, and not in the list")));
    let missing = root.iter().filter(|name| !at_root.iter().any(|it| it == *name));
    breaches.extend(missing.map(|it| format!("`{it}` is in the list, and not at the root")));
    let mut places = BTreeMap::<&str, Vec<&str>>::new();
    for (module, names) in facade {
        for name in names {
            places.entry(name).or_default().push(module);
        }
    }
    for (name, modules) in places.iter().filter(|(_, modules)| modules.len() > 1) {
        breaches.push(format!("`{name}` has several paths, in {modules:?}: leave one"));
    }
    for (path, exports) in below {
        for name in exports.values().flatten().filter(|it| !places.contains_key(it.as_str())) {
            breaches.push(format!("`{name}` of {path} is not exported by the facade"));
        }
    }
    breaches
}

#[test]
fn the_facade_has_few_names_at_its_root_and_each_name_of_ours_once() {
    let files = files();
    let exports_of = |path: &str| {
        let file = files.iter().find(|it| it.path == path);
        exports(file.unwrap_or_else(|| panic!("{path} is not there")))
    };
    let below: Vec<_> = BELOW.iter().map(|path| (*path, exports_of(path))).collect();
    assert_none(&breaches(&exports_of(FACADE), ROOT, &below));
}

fn check(facade: &str, root: &[&str], below: &str) -> String {
    let file = |text: &str| SourceFile { path: "lib.rs".into(), text: text.into() };
    let below = [("below", exports(&file(below)))];
    breaches(&exports(&file(facade)), root, &below).join("; ")
}

#[test]
fn a_name_that_is_missing_or_doubled_or_not_listed_is_found() {
    let facade = "pub use a::{App, Event}; pub use b::Event; pub mod m { pub use a::Tag; }";
    assert_eq!(check(facade, &["App", "Event"], "pub use x::{Event, Tag};"), "");
    assert_eq!(check(facade, &["App"], ""), "`Event` is at the root, and not in the list");
    let said = check(facade, &["App", "Event", "Tags"], "");
    assert_eq!(said, "`Tags` is in the list, and not at the root");
    let said = check(facade, &["App", "Event"], "pub use x::Page;");
    assert_eq!(said, "`Page` of below is not exported by the facade");
    let twice = "pub use a::App; pub mod m { pub use a::App; }";
    assert!(check(twice, &["App"], "").starts_with("`App` has several paths"));
}

#[test]
fn modules_that_are_whole_crates_and_hidden_names_are_no_names() {
    let facade = "pub use a as store; #[doc(hidden)] pub use b::__private; mod x; use c::D;";
    assert_eq!(check(facade, &[], "#[doc(hidden)] pub mod __private { pub use x::Y; }"), "");
}

#[test]
fn more_names_than_a_reader_takes_in_are_found() {
    let names: Vec<String> = (0..=ROOT_MAX).map(|it| format!("N{it}")).collect();
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let said = check(&format!("pub use a::{{{}}};", names.join(", ")), &list, "");
    assert_eq!(said, "61 names are at the root, at most 60 may be");
}
