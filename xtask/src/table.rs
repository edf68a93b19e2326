//! The table of a test run, which can be pasted into CONTRIBUTING.md.

use crate::suite::Suite;

/// The suites that ran a test, and those that were left out, as a Markdown table.
pub(crate) fn table(suites: &[Suite], left: &[String]) -> String {
    let rows: Vec<_> = suites.iter().filter(|suite| suite.tests() > 0).collect();
    let names = rows.iter().map(|suite| suite.name.len()).chain(left.iter().map(String::len));
    let width = names.max().unwrap_or(0).max("suite".len());
    let mut out = format!("| {:width$} | tests | seconds |\n", "suite");
    out += &format!("|{:-<1$}|------:|--------:|\n", "", width + 2);
    for suite in rows {
        let seconds = suite.took.as_secs_f64();
        out += &format!("| {:width$} | {:>5} | {seconds:>7.1} |\n", suite.name, suite.tests());
    }
    for name in left {
        out += &format!("| {name:width$} | {:>5} | {:>7} |\n", "none", "no server");
    }
    out
}

/// The summary of a run: the failures, the ignored tests, and the closing line, which names what
/// was left out.
pub(crate) fn summary(suites: &[Suite], left: &[String]) -> String {
    let sum = |count: fn(&Suite) -> u64| suites.iter().map(count).sum::<u64>();
    let mut out = String::new();
    for suite in suites.iter().filter(|suite| suite.failed > 0) {
        out += &format!("failed: {}\n", suite.name);
    }
    match sum(|it| it.ignored) {
        0 => {}
        ignored => out += &format!("ignored: {ignored}\n"),
    }
    out += &format!("{} passed, {} failed", sum(|it| it.passed), sum(|it| it.failed));
    if !left.is_empty() {
        out += &format!(", left out for want of a server: {}", left.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn suite(name: &str, passed: u64, failed: u64) -> Suite {
        let took = Duration::from_millis(1_250);
        Suite { name: name.into(), passed, failed, took, ..Suite::default() }
    }

    #[test]
    fn the_table_shows_what_ran_and_the_last_line_sums_it_up() {
        let mut suites =
            [suite("factum-kernel, unit", 12, 0), suite("empty", 0, 0), suite("x", 1, 2)];
        let expected = "\
| suite               | tests | seconds |
|---------------------|------:|--------:|
| factum-kernel, unit |    12 |     1.2 |
| x                   |     3 |     1.2 |
";
        assert_eq!(table(&suites, &[]), expected);
        assert_eq!(summary(&suites, &[]), "failed: x\n13 passed, 2 failed");
        suites[2] = Suite { ignored: 3, ..suite("x", 1, 0) };
        assert_eq!(summary(&suites, &[]), "ignored: 3\n13 passed, 0 failed");
    }

    #[test]
    fn what_was_left_out_is_in_the_table_and_in_the_last_line() {
        let suites = [suite("factum-kernel, unit", 12, 0)];
        let left = ["factum-postgres".to_owned()];
        let said = table(&suites, &left);
        assert!(said.ends_with("| factum-postgres     |  none | no server |\n"), "{said}");
        let said = summary(&suites, &left);
        assert!(said.ends_with("failed, left out for want of a server: factum-postgres"), "{said}");
    }
}
