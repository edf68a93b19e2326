//! A function takes no tuple, and returns none of three values or more: a struct names its fields.
//!
//! A pair may be returned, and a collection may hold pairs. Closures are not checked.

use syn::{
    FnArg, ImplItemFn, ItemFn, ItemImpl, ReturnType, Signature, TraitItemFn, Type, TypeTuple,
    visit::Visit,
};

use crate::repository::{SourceFile, assert_none, rust_files};

/// The most values of a tuple that a function may return.
const RETURNED_MAX: usize = 2;

#[derive(Default)]
struct Tuples(Vec<String>);

impl Tuples {
    fn look(&mut self, signature: &Signature) {
        let name = &signature.ident;
        let takes = |argument: &FnArg| match argument {
            FnArg::Typed(typed) => is_tuple(&typed.ty),
            FnArg::Receiver(_) => false,
        };
        if signature.inputs.iter().any(takes) {
            self.0.push(format!("`{name}` takes a tuple"));
        }
        if let ReturnType::Type(_, returned) = &signature.output {
            let mut longest = Longest(0);
            longest.visit_type(returned);
            if longest.0 > RETURNED_MAX {
                self.0.push(format!("`{name}` returns {} values in a tuple", longest.0));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Tuples {
    fn visit_item_fn(&mut self, it: &'ast ItemFn) {
        self.look(&it.sig);
        syn::visit::visit_item_fn(self, it);
    }

    /// A conversion takes the type that it converts.
    fn visit_item_impl(&mut self, it: &'ast ItemImpl) {
        let of = it.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if of.is_none_or(|segment| segment.ident != "From") {
            syn::visit::visit_item_impl(self, it);
        }
    }

    fn visit_impl_item_fn(&mut self, it: &'ast ImplItemFn) {
        self.look(&it.sig);
        syn::visit::visit_impl_item_fn(self, it);
    }

    fn visit_trait_item_fn(&mut self, it: &'ast TraitItemFn) {
        self.look(&it.sig);
        syn::visit::visit_trait_item_fn(self, it);
    }
}

/// The length of the longest tuple within a type.
struct Longest(usize);

impl<'ast> Visit<'ast> for Longest {
    fn visit_type_tuple(&mut self, it: &'ast TypeTuple) {
        self.0 = self.0.max(it.elems.len());
        syn::visit::visit_type_tuple(self, it);
    }
}

/// Returns whether a type is a tuple with values, or a reference to one.
fn is_tuple(of: &Type) -> bool {
    match of {
        Type::Tuple(tuple) => !tuple.elems.is_empty(),
        Type::Reference(reference) => is_tuple(&reference.elem),
        Type::Paren(inner) => is_tuple(&inner.elem),
        Type::Group(inner) => is_tuple(&inner.elem),
        _ => false,
    }
}

fn breaches(files: &[SourceFile]) -> Vec<String> {
    let in_file = |file: &SourceFile| {
        let syntax = syn::parse_file(&file.text);
        let syntax = syntax.unwrap_or_else(|error| panic!("{} is not Rust: {error}", file.path));
        let mut found = Tuples::default();
        found.visit_file(&syntax);
        let breach = |what: String| format!("{}: {what}, name the values in a struct", file.path);
        found.0.into_iter().map(breach).collect::<Vec<_>>()
    };
    files.iter().flat_map(in_file).collect()
}

#[test]
fn a_function_takes_no_tuple_and_returns_at_most_a_pair() {
    assert_none(&breaches(&rust_files()));
}

fn check(code: &str) -> String {
    let files = [SourceFile { path: "crates/x/src/a.rs".into(), text: code.into() }];
    breaches(&files).join("; ")
}

#[test]
fn a_tuple_is_found_in_functions_methods_and_traits() {
    for code in [
        "fn f(pair: (u8, u8)) {}",
        "fn f((a, b): (u8, u8)) {}",
        "fn f(pair: &mut (u8, u8)) {}",
        "impl A { fn f(&self, pair: (u8, u8)) {} }",
        "trait A { fn f(pair: (u8, u8)); }",
        "fn g() { fn f(pair: (u8, u8)) {} }",
    ] {
        assert!(check(code).contains("a.rs: `f` takes a tuple"), "{code}");
    }
    for code in [
        "fn f() -> (u8, u8, u8) {}",
        "fn f() -> Result<Option<(u8, u8, u8)>, E> {}",
        "fn f() -> impl Iterator<Item = (u8, (u8, u8, u8))> {}",
    ] {
        assert!(check(code).contains("a.rs: `f` returns 3 values"), "{code}");
    }
}

#[test]
fn pairs_that_are_returned_and_collections_of_pairs_are_not_breaches() {
    for code in [
        "fn f() -> (u8, u8) {}",
        "fn f(all: &[(u8, u8)]) -> Vec<(u8, u8)> {}",
        "fn f(none: ()) -> Result<(), E> {}",
        "fn f(call: impl Fn(u8, u8, u8) -> u8) -> fn(u8, u8, u8) {}",
        "fn f() { let g = |(a, b): (u8, u8)| a + b; }",
        "impl From<(u8, u8)> for A { fn from(pair: (u8, u8)) -> Self { A } }",
    ] {
        assert_eq!(check(code), "", "{code}");
    }
}
