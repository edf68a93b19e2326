//! The targets of documents exist: links between files, and the files that ARCHITECTURE.md names.

use crate::repository::{SourceFile, assert_none, files};

/// The link targets of a Markdown text that are in the repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets.filter(|it| !it.is_empty() && !it.contains("://") && !it.starts_with('/')).collect()
}

/// The Rust files that a text names in backticks.
fn rust_names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).filter(|it| is_rust_name(it)).collect()
}

fn is_rust_name(text: &str) -> bool {
    let stem = text.strip_suffix(".rs").unwrap_or_default();
    !stem.is_empty() && stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A link's target, relative to the root; `..` goes up a folder.
fn resolve(from: &str, target: &str) -> String {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(folders.pop()),
            _ => folders.push(part),
        }
    }
    folders.join("/")
}

fn breaches(document: &SourceFile, paths: &[&str]) -> Vec<String> {
    let from = &document.path;
    let is_there = |path: &str| {
        let folder = format!("{path}/");
        paths.iter().any(|it| *it == path || it.starts_with(&folder))
    };
    let mut breaches = Vec::new();
    for target in links(&document.text) {
        if !is_there(&resolve(from, target)) {
            breaches.push(format!("{from} links to {target}, which is not there"));
        }
    }
    if from == "ARCHITECTURE.md" {
        for name in rust_names(&document.text) {
            let ending = format!("/{name}");
            if !paths.iter().any(|path| path.ends_with(&ending)) {
                breaches.push(format!("{from} names `{name}`, which no crate has"));
            }
        }
    }
    breaches
}

#[test]
fn documents_point_at_what_is_there() {
    let files = files();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    let documents: Vec<_> = files.iter().filter(|it| it.path.ends_with(".md")).collect();
    assert!(documents.len() > 4, "only {} documents were found", documents.len());
    assert_none(&documents.iter().flat_map(|it| breaches(it, &paths)).collect::<Vec<_>>());
}

/// The design pages in the order of ARCHITECTURE.md's list, and in their own order.
fn unlisted<'a>(architecture: &'a str, paths: &[&'a str]) -> Vec<String> {
    let section = architecture.split("\n## What is stored\n").nth(1).unwrap_or_default();
    let is_page = |it: &&str| it.starts_with("docs/design/") && it.ends_with(".md");
    let listed: Vec<_> = links(section).into_iter().filter(is_page).collect();
    let pages: Vec<_> = paths.iter().copied().filter(|it| is_page(it)).collect();
    let missing = pages.iter().filter(|it| !listed.contains(it));
    let mut breaches: Vec<_> =
        missing.map(|it| format!("ARCHITECTURE.md does not list {it}")).collect();
    let disordered = listed.windows(2).filter(|it| it[0] >= it[1]);
    breaches
        .extend(disordered.map(|it| format!("ARCHITECTURE.md lists {} before {}", it[0], it[1])));
    breaches
}

#[test]
fn every_design_page_is_listed_in_order() {
    let files = files();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    let architecture = files.iter().find(|it| it.path == "ARCHITECTURE.md").unwrap();
    assert_none(&unlisted(&architecture.text, &paths));
}

#[test]
fn a_design_page_that_is_missing_or_out_of_order_is_found() {
    let check = |list: &str| {
        let text = format!("# A\n[x](docs/design/b.md)\n## What is stored\n{list}");
        unlisted(&text, &["docs/design/a.md", "docs/design/b.md", "README.md"]).join("; ")
    };
    assert_eq!(check("[1](docs/design/a.md) [2](docs/design/b.md) [r](README.md)"), "");
    assert_eq!(check("[2](docs/design/b.md)"), "ARCHITECTURE.md does not list docs/design/a.md");
    let said = check("[2](docs/design/b.md) [1](docs/design/a.md)");
    assert_eq!(said, "ARCHITECTURE.md lists docs/design/b.md before docs/design/a.md");
}

#[test]
fn what_is_not_there_is_found() {
    let check = |path: &str, text: &str| {
        let document = SourceFile { path: path.into(), text: text.into() };
        breaches(&document, &["STYLE.md", "docs/design/0001-x.md", "crates/a/src/page.rs"])
            .join(";")
    };
    assert_eq!(check("README.md", "[style](STYLE.md#sizes), [why](docs/design), [x](#here)"), "");
    assert_eq!(check("docs/design/0002-y.md", "[one](0001-x.md) [s](../../STYLE.md)"), "");
    assert_eq!(check("README.md", "see https://x.example/(y) [x](https://x.example/y)"), "");
    assert_eq!(
        check("README.md", "[a](TSYLE.md)"),
        "README.md links to TSYLE.md, which is not there"
    );
    assert_eq!(check("ARCHITECTURE.md", "`page.rs`, and `foo.bar`"), "");
    let said = check("ARCHITECTURE.md", "`page.rs` `gape.rs`");
    assert_eq!(said, "ARCHITECTURE.md names `gape.rs`, which no crate has");
}
