//! The common parts of every crate's manifest and root: the workspace's lints, and public names
//! listed one by one.

use syn::{Item, UseTree, Visibility};

use crate::repository::{SourceFile, assert_none, files, rust_files};

fn without_lints(manifest: &SourceFile) -> Option<String> {
    let lines: Vec<_> = manifest.text.lines().map(str::trim).collect();
    let shared = lines.windows(2).any(|it| it == ["[lints]", "workspace = true"]);
    let path = &manifest.path;
    (!shared).then(|| format!("{path} lacks the workspace's lints: add `[lints] workspace = true`"))
}

fn with_globs(lib: &SourceFile) -> Vec<String> {
    let file = syn::parse_file(&lib.text).expect("a library that compiles");
    let mut breaches = Vec::new();
    for item in file.items {
        if let Item::Use(it) = item
            && !matches!(it.vis, Visibility::Inherited)
            && is_glob(&it.tree)
        {
            let path = &lib.path;
            breaches.push(format!("{path} re-exports by `*`: list the public names one by one"));
        }
    }
    breaches
}

fn is_glob(tree: &UseTree) -> bool {
    match tree {
        UseTree::Glob(_) => true,
        UseTree::Path(path) => is_glob(&path.tree),
        UseTree::Group(group) => group.items.iter().any(is_glob),
        UseTree::Name(_) | UseTree::Rename(_) => false,
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let of_crate = |path: &str| {
        let folder = path.strip_suffix("/Cargo.toml");
        let parents = ["crates/", "examples/"];
        folder.is_some_and(|it| it == "xtask" || parents.iter().any(|at| it.starts_with(at)))
    };
    let files = files();
    let manifests: Vec<_> = files.iter().filter(|it| of_crate(&it.path)).collect();
    assert!(manifests.len() > 8, "only {} manifests were found", manifests.len());
    assert_none(&manifests.into_iter().filter_map(without_lints).collect::<Vec<_>>());
}

#[test]
fn every_public_name_is_listed() {
    let files = rust_files();
    let libs = files.iter().filter(|it| it.path.ends_with("/src/lib.rs"));
    assert_none(&libs.flat_map(with_globs).collect::<Vec<_>>());
}

#[test]
fn a_manifest_without_lints_is_found() {
    let manifest =
        |text: &str| SourceFile { path: "crates/x/Cargo.toml".into(), text: text.into() };
    assert!(without_lints(&manifest("[package]\nname = \"x\"\n")).is_some());
    assert!(without_lints(&manifest("[lints]\nworkspace = false\n")).is_some());
    assert!(without_lints(&manifest("[package]\n\n[lints]\nworkspace = true\n")).is_none());
}

#[test]
fn a_public_glob_is_found_and_a_private_one_is_not() {
    let found =
        |text: &str| with_globs(&SourceFile { path: "lib.rs".into(), text: text.into() }).len();
    assert_eq!(found("pub use stream::*;"), 1);
    assert_eq!(found("pub use stream::{StreamId, page::{self, *}};"), 1);
    assert_eq!(found("use stream::*; pub use stream::{StreamId, Category as Kind};"), 0);
}
