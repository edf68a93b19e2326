//! The README's example is compiled and run.

use std::{path::Path, process::Command};

const README: &str = include_str!("../../../../README.md");
const BANK: &str = include_str!("../../examples/bank.rs");

#[test]
fn the_readme_shows_the_example_and_it_has_at_most_sixty_lines() {
    let (lints, bank) = BANK.split_once("\n\n").unwrap();
    assert!(lints.starts_with("#![allow(") && !lints.contains('\n'), "only lints are left out");
    let shown = format!("```rust\n{bank}```\n");
    assert!(README.contains(&shown), "copy examples/bank.rs into README.md");
    let lines = bank.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 60, "{lines} lines");
}

/// Runs the example on a store, `./data` by default.
fn bank(folder: &Path, store: Option<&str>) -> String {
    // `cargo test` builds examples before it runs tests, beside the folder of the test binaries.
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/bank");
    assert!(example.exists(), "run `cargo build -p factum --example bank` first");
    let mut command = Command::new(&example);
    command.current_dir(folder).env_remove("FACTUM_STORE");
    let run = command.envs(store.map(|it| ("FACTUM_STORE", it))).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The second run finds the data of the first.
pub(crate) fn runs_and_goes_on(folder: &Path, store: Option<&str>) {
    assert_eq!(bank(folder, store), "only 500\n");
    assert_eq!(bank(folder, store), "done at version 4\n");
}

#[test]
fn the_example_runs_and_goes_on_when_run_again() {
    let folder = tempfile::tempdir().unwrap();
    runs_and_goes_on(folder.path(), None);
    assert!(folder.path().join("data/factum-journal").exists(), "the log is in ./data");
}

#[test]
fn the_example_runs_in_a_journal_that_one_variable_names() {
    let folder = tempfile::tempdir().unwrap();
    runs_and_goes_on(folder.path(), Some("journal:./elsewhere"));
    assert!(folder.path().join("elsewhere/factum-journal").exists());
}

#[test]
fn the_example_runs_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    runs_and_goes_on(folder.path(), Some("sqlite:./events.db"));
    assert!(folder.path().join("events.db").exists());
}

#[test]
fn the_example_runs_in_memory_where_each_run_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        assert_eq!(bank(folder.path(), Some("memory:")), "only 500\n");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is written");
}
