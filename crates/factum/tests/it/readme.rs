//! What the README shows is what is compiled and run.

use std::process::Command;

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

#[test]
fn the_example_runs_and_goes_on_when_run_again() {
    let folder = tempfile::tempdir().unwrap();
    // `cargo test` builds examples before it runs tests, beside the folder of the test binaries.
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/bank");
    assert!(example.exists(), "run `cargo build -p factum --example bank` first");
    for expected in ["only 500\n", "Account { owner: Some(\"Ada\"), balance: 200 }\n"] {
        let run = Command::new(&example).current_dir(&folder).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
    }
    assert!(folder.path().join("data").exists(), "the log is in ./data");
}
