//! Misuses of the derives, and the compiler's errors for them.

#[test]
fn every_misuse_is_told_with_its_remedy() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
