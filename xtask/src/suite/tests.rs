use super::*;

const OK: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
                  finished in 0.02s";
const FAILED: &str = "test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; \
                      0 filtered out; finished in 0.02s";
const UNIT: &str = "     Running unittests src/lib.rs (target/debug/deps/factum_kernel-12ab)";
const IT: &str = "     Running tests/it/main.rs (/elsewhere/debug/deps/it-34cd)";
const DOC: &str = "   Doc-tests factum_kernel";
const DIED: &str = "error: test failed, to rerun pass `-p factum-kernel --lib`";

/// The suites of a run that prints these lines, one each second, as `name passed/failed seconds`.
fn check(lines: &[&str], cargo_failed: bool, expected: &[&str]) {
    let names = [("factum_kernel-12ab", "unit"), ("it-34cd", "it"), ("factum_kernel", "doc")];
    let mut suites = Suites::new(names.map(|(key, name)| (key.into(), name.into())).into());
    let mut ended = Vec::new();
    for (second, line) in (0..).zip(lines) {
        ended.extend(suites.line(line, Duration::from_secs(second)));
    }
    ended.extend(suites.end(Duration::from_secs(lines.len() as u64), cargo_failed));
    let said =
        |it: &Suite| format!("{} {}/{} {}s", it.name, it.passed, it.failed, it.took.as_secs());
    assert_eq!(ended.iter().map(said).collect::<Vec<_>>(), expected);
}

#[test]
fn each_heading_begins_a_suite() {
    check(&[UNIT, "", OK, IT, OK], false, &["unit 3/0 3s", "it 3/0 2s"]);
}

#[test]
fn a_failed_suite_counts_its_failures_once() {
    check(&[UNIT, FAILED, DIED, IT, OK], true, &["unit 2/5 3s", "it 3/0 2s"]);
}

#[test]
fn a_binary_that_died_without_a_result_has_failed() {
    check(&[UNIT, "running 3 tests", DIED, IT, OK], true, &["unit 0/1 3s", "it 3/0 2s"]);
}

#[test]
fn both_rounds_of_documentation_tests_count() {
    check(&[DOC, OK, OK], false, &["doc 6/0 3s"]);
}

#[test]
fn a_failure_of_cargo_that_no_suite_accounts_for_is_a_failure() {
    check(&["error: out of disk"], true, &["cargo 0/1 0s"]);
    check(&[UNIT, OK, "error: out of disk"], true, &["unit 3/0 3s", "cargo 0/1 0s"]);
}

#[test]
fn a_heading_of_nobody_we_know_is_output() {
    let stranger = "     Running tests/it/main.rs (deps/stranger-1)";
    check(&[UNIT, stranger, OK], false, &["unit 3/0 3s"]);
}

#[test]
fn ignored_tests_are_counted_apart() {
    let mut suite = Suite::default();
    suite.take(OK);
    assert_eq!((suite.tests(), suite.ignored), (3, 1));
}
