//! The suite passes a right store, whatever it claims.

use std::collections::BTreeSet;

use factum_testing::conformance::{CASES, Law};

use crate::toy::{Flaw, ToySubject};

factum_testing::conformance!(right: ToySubject::new(Flaw::None));
factum_testing::conformance!(volatile: ToySubject::volatile());

#[test]
fn case_names_are_unique_and_every_law_has_a_case() {
    let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len());
    let laws: BTreeSet<_> = CASES.iter().map(|case| case.law).collect();
    assert_eq!(laws.len(), 14, "13 laws and those of documents: {laws:?}");
    assert_eq!(Law::Documents.to_string(), "laws of documents");
    assert_eq!(Law::Bounded.to_string(), "law 13 (Bounded)");
}
