//! The snippets of the guide and of the README are excerpts of code that is compiled and run: every
//! block of Rust there is found, except for its indentation, in a module here, in an example, or in
//! the sample bank.

mod aggregates;
mod consistency;
mod entities;
mod failures;
mod middleware;
mod projections;

use std::{env, fs, path::PathBuf};

/// The sources of the excerpts: files, and folders with all their files.
const SOURCES: &[&str] = &[
    "crates/factum/tests/it/guide",
    "crates/factum/examples",
    "crates/factum-testing/src/bank.rs",
    "examples",
];

/// The workspace's folder.
fn root() -> PathBuf {
    // At run time if possible: a build folder may be shared by several checkouts.
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    here.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).join("../..")
}

/// The texts of the files with this ending in a folder, or of the file itself.
fn texts(path: PathBuf, ending: &str) -> Vec<String> {
    if !path.is_dir() {
        let is_one = path.extension().is_some_and(|it| it == ending);
        return if is_one { vec![fs::read_to_string(path).unwrap()] } else { vec![] };
    }
    let entries = fs::read_dir(path).unwrap();
    entries.flat_map(|entry| texts(entry.unwrap().path(), ending)).collect()
}

/// Lines without the indentation that they have in common.
fn dedented<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let least = lines.iter().filter(|it| !it.is_empty()).map(indent).min().unwrap_or_default();
    lines.iter().map(|line| line.get(least..).unwrap_or_default()).collect()
}

/// The blocks of a language in a Markdown text.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<Vec<&'a str>> {
    let begin = format!("```{language}");
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if line == begin {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
        }
    }
    blocks
}

fn stands_in(block: &[&str], source: &str) -> bool {
    let lines: Vec<_> = source.lines().collect();
    !block.is_empty() && lines.windows(block.len()).any(|window| dedented(window) == block)
}

#[test]
fn every_snippet_is_code_that_runs() {
    let root = root();
    let sources: Vec<_> = SOURCES.iter().flat_map(|it| texts(root.join(it), "rs")).collect();
    let chapters: Vec<_> =
        ["docs/guide", "README.md"].iter().flat_map(|it| texts(root.join(it), "md")).collect();
    let mut count = 0;
    for block in chapters.iter().flat_map(|chapter| blocks(chapter, "rust")) {
        count += 1;
        let runs = sources.iter().any(|source| stands_in(&block, source));
        let block = block.join("\n");
        assert!(runs, "this snippet is in no source, copy it from one of {SOURCES:?}:\n{block}");
    }
    assert!(count > 20, "only {count} snippets were found");
    // A block that is marked as Rust in another way would not be checked.
    for chapter in &chapters {
        let marks = chapter.lines().filter(|line| line.len() > 3 && line.starts_with("```"));
        for mark in marks {
            assert!(["```rust", "```sh", "```text", "```toml"].contains(&mark), "{mark}");
        }
    }
}

#[test]
fn what_stands_nowhere_is_found() {
    let source = "fn f() {\n    let a = 1;\n\n    if a > 0 {\n        g(a);\n    }\n}\n";
    for runs in ["let a = 1;", "if a > 0 {\n    g(a);\n}", "let a = 1;\n\nif a > 0 {"] {
        assert!(stands_in(&runs.lines().collect::<Vec<_>>(), source), "{runs}");
    }
    for not in ["let a = 2;", "if a > 0 {\n  g(a);", "let a = 1;\nif a > 0 {", "a = 1;"] {
        assert!(!stands_in(&not.lines().collect::<Vec<_>>(), source), "{not}");
    }
    let text = "x\n```rust\none\n\ntwo\n```\n```sh\nno\n```\n";
    assert_eq!(blocks(text, "rust"), [["one", "", "two"]]);
}
