//! A `let` binds one value: the values of a tuple expression stand on lines of their own.
//!
//! The content of a macro's call is not checked, and neither is a `let .. else`, which binds
//! several values or none.

use syn::{Expr, Local, Pat, visit::Visit};

use crate::repository::{SourceFile, assert_none, rust_files};

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

fn breaches(files: &[SourceFile]) -> Vec<String> {
    let breach = |file: &SourceFile| match tuple_lets(file) {
        0 => None,
        count => Some(format!(
            "{} has {count} `let`s that bind the values of a tuple, bind one value a line",
            file.path
        )),
    };
    files.iter().filter_map(breach).collect()
}

#[test]
fn a_let_binds_one_value() {
    assert_none(&breaches(&rust_files()));
}

fn check(code: &str) -> String {
    let text = format!("fn f() {{ {code} }}");
    let files = [SourceFile { path: "crates/x/src/a.rs".into(), text }];
    breaches(&files).join("; ")
}

#[test]
fn the_values_of_a_tuple_are_counted_wherever_they_are_bound() {
    for code in [
        "let (a, b) = (1, 2);",
        "let (mut a, b): (u8, u8) = (1, 2);",
        "let f = || { let (a, (b, c)) = (1, (2, 3)); };",
        "if true { let (_, b) = (g(), 2); }",
    ] {
        assert!(check(code).contains("a.rs has 1 `let`s"), "{code}");
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
        assert_eq!(check(code), "", "{code}");
    }
}
