//! Every public name is in the glossary: those that the crates' roots export.

use std::collections::BTreeSet;

use syn::{Item, UseTree, Visibility};

use crate::repository::{SourceFile, assert_none, files};

/// The types and traits in a list of exports; functions and constants have other cases.
fn names(tree: &UseTree, found: &mut BTreeSet<String>) {
    let name = match tree {
        UseTree::Path(path) => return names(&path.tree, found),
        UseTree::Group(group) => return group.items.iter().for_each(|it| names(it, found)),
        UseTree::Name(name) => name.ident.to_string(),
        UseTree::Rename(rename) => rename.rename.to_string(),
        UseTree::Glob(_) => return,
    };
    let is_type = name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
    found.extend(is_type.then_some(name));
}

/// The names that the root of a crate exports from its own modules, not those of other crates.
fn exported(root: &SourceFile) -> BTreeSet<String> {
    let syntax = syn::parse_file(&root.text);
    let syntax = syntax.unwrap_or_else(|error| panic!("{} is not Rust: {error}", root.path));
    let mut modules = BTreeSet::new();
    for item in &syntax.items {
        if let Item::Mod(it) = item {
            modules.insert(it.ident.clone());
        }
    }
    let mut found = BTreeSet::new();
    for item in &syntax.items {
        if let Item::Use(it) = item
            && matches!(it.vis, Visibility::Public(_))
            && let UseTree::Path(path) = &it.tree
            && modules.contains(&path.ident)
        {
            names(&it.tree, &mut found);
        }
    }
    found
}

fn breaches(roots: &[SourceFile], glossary: &str) -> Vec<String> {
    let missing = |root: &SourceFile| {
        let names = exported(root).into_iter();
        let missing = names.filter(|name| !glossary.contains(&format!("`{name}`")));
        missing
            .map(|name| format!("{} exports `{name}`, add it to the glossary", root.path))
            .collect::<Vec<_>>()
    };
    roots.iter().flat_map(missing).collect()
}

fn is_root(file: &SourceFile) -> bool {
    file.path.starts_with("crates/") && file.path.ends_with("/src/lib.rs")
}

#[test]
fn every_public_name_is_in_the_glossary() {
    let mut files = files();
    let glossary = files.iter().position(|file| file.path == "docs/glossary.md");
    let glossary = files.swap_remove(glossary.expect("the glossary is there")).text;
    files.retain(is_root);
    assert!(files.len() > 5, "only {} crates were found", files.len());
    assert_none(&breaches(&files, &glossary));
}

#[test]
fn a_name_that_the_glossary_lacks_is_found() {
    let text = "mod a; mod h; pub use a::{B, C as Dd, e, MAX, f::Gg}; use h::Hidden; \
                pub(crate) use h::Inner; pub use other::Thing;";
    let root = SourceFile { path: "crates/x/src/lib.rs".into(), text: text.into() };
    let found = breaches(&[root], "| `Dd` |");
    assert_eq!(found, ["crates/x/src/lib.rs exports `Gg`, add it to the glossary"]);
}
