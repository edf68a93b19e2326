//! The limits on the length of files, functions and lines, and on the names of files.
//!
//! A code line is one with a token of the language; blank lines, comments and documentation don't
//! count. A function is measured from `fn` to its closing brace, including nested items. Code that
//! a macro generates is measured only as a part of its file.

use std::{collections::BTreeSet, ops::RangeInclusive};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{
    Attribute, File, ImplItemFn, Item, ItemFn, Signature, TraitItemFn,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::repository::{SourceFile, assert_none, rust_files};

const FILE_CODE_LINES_MAX: usize = 500;
const FUNCTION_CODE_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// The lines that may be longer: the file, and a part of the line.
const LONG_LINES: &[(&str, &str)] =
    &[("crates/factum-macros/tests/ui/event_name.rs", "#[event(name = \"0123456789")];

/// Names that say nothing about the content.
const EMPTY_NAMES: &[&str] =
    &["utils.rs", "util.rs", "types.rs", "common.rs", "helpers.rs", "manager.rs", "mod.rs"];

/// Names of folders that people and tools take for the output of a build.
const FOLDERS_OF_OUTPUT: &[&str] = &["target", "build", "dist", "out"];

fn breaches(file: &SourceFile) -> Vec<String> {
    let path = &file.path;
    let mut breaches = wide_lines(file);
    if EMPTY_NAMES.contains(&file.name()) {
        breaches.push(format!("{path}: the name says nothing: call it by the noun it defines"));
    }
    let mut folders = path.split('/');
    if let Some(folder) = folders.find(|folder| FOLDERS_OF_OUTPUT.contains(folder)) {
        breaches.push(format!("{path}: {folder}/ looks like the output of a build: rename it"));
    }
    let (Ok(tokens), Ok(syntax)) = (file.text.parse(), syn::parse_file(&file.text)) else {
        breaches.push(format!("{path} can't be read as Rust, and so not measured: correct it"));
        return breaches;
    };
    let code = code_lines(tokens);
    let tests = inline_tests(&syntax);
    let count = code.iter().filter(|line| !tests.iter().any(|it| it.contains(line))).count();
    if count > FILE_CODE_LINES_MAX {
        let limit = FILE_CODE_LINES_MAX;
        breaches.push(format!("{path} has {count} code lines, the limit is {limit}: split it"));
    }
    let mut functions = Functions { path, code: &code, breaches };
    functions.visit_file(&syntax);
    functions.breaches
}

fn wide_lines(file: &SourceFile) -> Vec<String> {
    let excused = |line: &str| {
        LONG_LINES.iter().any(|(path, part)| *path == file.path && line.contains(part))
    };
    let lines = (1..).zip(file.text.lines()).filter(|(_, line)| !excused(line));
    let lines = lines.map(|(number, line)| (number, line.chars().count()));
    let wide = lines.filter(|(_, columns)| *columns > LINE_COLUMNS_MAX);
    let breach = |(number, columns): (usize, usize)| {
        let path = &file.path;
        format!("{path}:{number} is {columns} columns wide, the limit is {LINE_COLUMNS_MAX}")
    };
    wide.map(breach).collect()
}

/// The numbers of the lines that hold code.
fn code_lines(tokens: TokenStream) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    collect_lines(tokens, &mut lines);
    lines
}

fn collect_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut rest = tokens.as_slice();
    while let [token, behind @ ..] = rest {
        let documentation = documentation_length(rest);
        if documentation > 0 {
            rest = &rest[documentation..];
            continue;
        }
        match token {
            TokenTree::Group(group) => {
                lines.insert(group.span_open().start().line);
                lines.insert(group.span_close().end().line);
                collect_lines(group.stream(), lines);
            }
            // A text over several lines counts all of them.
            _ => lines.extend(token.span().start().line..=token.span().end().line),
        }
        rest = behind;
    }
}

/// The number of documentation tokens at this place: `/// x` is read as `#[doc = "x"]`.
fn documentation_length(tokens: &[TokenTree]) -> usize {
    let mark =
        |token: &TokenTree, mark| matches!(token, TokenTree::Punct(it) if it.as_char() == mark);
    let attribute = match tokens {
        [hash, bang, TokenTree::Group(it), ..] if mark(hash, '#') && mark(bang, '!') => {
            Some((it, 3))
        }
        [hash, TokenTree::Group(it), ..] if mark(hash, '#') => Some((it, 2)),
        _ => None,
    };
    let Some((group, length)) = attribute else { return 0 };
    let mut inside = group.stream().into_iter();
    let is_doc = matches!(inside.next(), Some(TokenTree::Ident(it)) if it == "doc");
    let is_text = matches!(inside.next(), Some(TokenTree::Punct(it)) if it.as_char() == '=');
    if group.delimiter() == Delimiter::Bracket && is_doc && is_text { length } else { 0 }
}

/// The range of the file's own tests.
fn inline_tests(syntax: &File) -> Vec<RangeInclusive<usize>> {
    let tests = |item: &&Item| match item {
        Item::Mod(it) => it.attrs.iter().any(is_cfg_test),
        Item::Fn(it) => it.attrs.iter().any(is_cfg_test),
        Item::Impl(it) => it.attrs.iter().any(is_cfg_test),
        Item::Use(it) => it.attrs.iter().any(is_cfg_test),
        _ => false,
    };
    let lines = |item: &Item| item.span().start().line..=item.span().end().line;
    syntax.items.iter().filter(tests).map(lines).collect()
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    let parsed = attribute.parse_args::<syn::Ident>();
    attribute.path().is_ident("cfg") && parsed.is_ok_and(|it| it == "test")
}

/// Measures the functions of a file.
struct Functions<'a> {
    path: &'a str,
    code: &'a BTreeSet<usize>,
    breaches: Vec<String>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &Signature, body: &syn::Block) {
        let lines = signature.span().start().line..=body.span().end().line;
        let count = self.code.range(lines).count();
        if count > FUNCTION_CODE_LINES_MAX {
            let path = self.path;
            let name = &signature.ident;
            let limit = FUNCTION_CODE_LINES_MAX;
            self.breaches.push(format!(
                "{path}: fn {name} has {count} code lines, the limit is {limit}: split it"
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, it: &'ast ItemFn) {
        self.measure(&it.sig, &it.block);
        visit::visit_item_fn(self, it);
    }

    fn visit_impl_item_fn(&mut self, it: &'ast ImplItemFn) {
        self.measure(&it.sig, &it.block);
        visit::visit_impl_item_fn(self, it);
    }

    fn visit_trait_item_fn(&mut self, it: &'ast TraitItemFn) {
        if let Some(body) = &it.default {
            self.measure(&it.sig, body);
        }
        visit::visit_trait_item_fn(self, it);
    }
}

#[test]
fn every_file_keeps_the_limits() {
    assert_none(&rust_files().iter().flat_map(breaches).collect::<Vec<_>>());
}

/// The breaches in a file with this name and text.
fn check(path: &str, text: String) -> String {
    breaches(&SourceFile { path: path.into(), text }).join("; ")
}

fn function(lines: usize) -> String {
    format!(
        "/// Not counted.\nfn long() {{\n\n{}// Not counted.\n}}\n",
        "    f();\n".repeat(lines - 2)
    )
}

#[test]
fn a_long_function_is_named_with_its_length() {
    assert_eq!(check("crates/x/src/a.rs", function(70)), "");
    let said = check("crates/x/src/a.rs", function(71));
    assert_eq!(said, "crates/x/src/a.rs: fn long has 71 code lines, the limit is 70: split it");
}

#[test]
fn functions_are_found_wherever_they_stand() {
    for around in ["impl X { @ }", "trait X { @ }", "mod x { @ }", "fn short() { @ }"] {
        let text = around.replace('@', &function(71));
        assert!(check("a.rs", text).contains("fn long has 71"), "{around}");
    }
}

#[test]
fn a_long_file_is_named_and_its_tests_do_not_count() {
    let code = |lines: usize| {
        "//! What it is.\n\nconst A: u8 = 1;\n".to_owned()
            + &"/// Said.\nconst B: u8 = 2; // why\n".repeat(lines - 1)
    };
    let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    assert_eq!(check("a.rs", code(500) + tests), "");
    let said = check("a.rs", code(501) + tests);
    assert_eq!(said, "a.rs has 501 code lines, the limit is 500: split it");
    let text = format!("const A: &str = \"{}\";", "\n".repeat(500));
    assert!(check("a.rs", text).contains("has 501 code lines"), "a text counts all its lines");
    let said = check("a.rs", code(499) + &tests.replace("test", "feature"));
    assert!(said.contains("has 503 code lines"), "only tests are free: {said}");
}

#[test]
fn a_wide_line_is_named_by_its_number() {
    let line = |columns: usize| format!("\n// {}\n", "ä".repeat(columns - 3));
    assert_eq!(check("a.rs", line(100)), "");
    assert_eq!(check("a.rs", line(101)), "a.rs:2 is 101 columns wide, the limit is 100");
}

#[test]
fn a_name_that_says_nothing_is_refused() {
    for name in EMPTY_NAMES {
        assert!(check(&format!("crates/x/src/{name}"), String::new()).contains("says nothing"));
    }
    assert_eq!(check("crates/x/src/stream.rs", String::new()), "");
}

#[test]
fn a_folder_that_looks_like_the_output_of_a_build_is_refused() {
    for folder in FOLDERS_OF_OUTPUT {
        let found = check(&format!("crates/x/src/{folder}/stream.rs"), String::new());
        assert!(found.contains("output of a build"), "{found}");
    }
    assert_eq!(check("crates/x/src/target.rs", String::new()), "");
}

#[test]
fn what_can_not_be_measured_is_not_passed_over() {
    assert!(check("a.rs", "fn {".into()).contains("not measured"));
}
