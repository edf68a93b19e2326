//! A `let` binds one value: the values of a tuple that is written out stand on lines of their own.
//!
//! What a macro is given is not looked at, and neither is a `let .. else`, which binds several
//! values or none.

use std::collections::BTreeMap;

use syn::{Expr, Local, Pat, visit::Visit};

use crate::repository::{SourceFile, assert_none, rust_files};

/// The most of them that are left, by crate or folder. They only get fewer; what is not here has
/// none.
const LEFT: &[(&str, usize)] = &[
    ("crates/factum", 34),
    ("crates/factum-cli", 58),
    ("crates/factum-core", 31),
    ("crates/factum-macros", 1),
    ("crates/factum-postgres", 55),
    ("crates/factum-projection", 145),
    ("crates/factum-runtime", 56),
    ("examples/banking", 2),
    ("examples/shop", 4),
];

#[derive(Default)]
struct TupleLets(usize);

impl<'ast> Visit<'ast> for TupleLets {
    fn visit_local(&mut self, it: &'ast Local) {
        let pattern = match &it.pat {
            Pat::Type(typed) => &*typed.pat,
            pattern => pattern,
        };
        let is_written_out = it
            .init
            .as_ref()
            .is_some_and(|init| init.diverge.is_none() && matches!(&*init.expr, Expr::Tuple(_)));
        self.0 += usize::from(is_written_out && matches!(pattern, Pat::Tuple(_)));
        syn::visit::visit_local(self, it);
    }
}

fn tuple_lets(file: &SourceFile) -> usize {
    let syntax = syn::parse_file(&file.text);
    let syntax = syntax.unwrap_or_else(|error| panic!("{} is not Rust: {error}", file.path));
    let mut found = TupleLets::default();
    found.visit_file(&syntax);
    found.0
}

/// `crates/factum-core` of `crates/factum-core/src/lib.rs`, and `xtask` of `xtask/src/main.rs`.
fn part(path: &str) -> String {
    let depth = if path.starts_with("xtask/") { 1 } else { 2 };
    path.split('/').take(depth).collect::<Vec<_>>().join("/")
}

fn breaches(files: &[SourceFile], left: &[(&str, usize)]) -> Vec<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        *found.entry(part(&file.path)).or_default() += tuple_lets(file);
    }
    let mut breaches = Vec::new();
    for (part, count) in found {
        let most = left.iter().find(|(name, _)| *name == part).map_or(0, |(_, most)| *most);
        if count > most {
            breaches.push(format!(
                "{part} has {count} `let`s that bind the values of a tuple, the limit is {most}: \
                 bind one value a line"
            ));
        }
    }
    breaches
}

#[test]
fn a_let_binds_one_value() {
    assert_none(&breaches(&rust_files(), LEFT));
}

fn check(code: &str, most: usize) -> String {
    let text = format!("fn f() {{ {code} }}");
    let files = [SourceFile { path: "crates/x/src/a.rs".into(), text }];
    breaches(&files, &[("crates/x", most)]).join("; ")
}

#[test]
fn the_values_of_a_tuple_are_counted_wherever_they_are_bound() {
    for code in [
        "let (a, b) = (1, 2);",
        "let (mut a, b): (u8, u8) = (1, 2);",
        "let f = || { let (a, (b, c)) = (1, (2, 3)); };",
        "if true { let (_, b) = (g(), 2); }",
    ] {
        assert!(check(code, 0).contains("crates/x has 1 `let`s"), "{code}");
        assert_eq!(check(code, 1), "", "{code}");
    }
}

#[test]
fn what_takes_a_value_apart_is_not_counted() {
    for code in [
        "let (a, b) = g();",
        "let pair = (1, 2);",
        "let (Some(a), Some(b)) = (g(), h()) else { return };",
        "if let (Some(a), Some(b)) = (g(), h()) {}",
        "(a, b) = (b, a);",
    ] {
        assert_eq!(check(code, 0), "", "{code}");
    }
}
