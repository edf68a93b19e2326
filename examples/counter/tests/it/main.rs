//! The program as people run it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{path::Path, process::Command};

fn run(folder: &Path, store: Option<&str>) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_counter"));
    let ran = program.current_dir(folder).args(store).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn it_counts_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "north: 2 came in, 2 so far, version 1\n\
                 south: 1 came in, 1 so far, version 1\n\
                 north: 3 came in, 5 so far, version 2\n\
                 south: reset, version 2\n\
                 north: 5 at version 2\n";
    assert_eq!(run(folder.path(), None), lines);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is written");
}

#[test]
fn run_again_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), Some("./doors"));
    let again = run(folder.path(), Some("./doors"));
    assert!(again.contains("north: 2 came in, 7 so far, version 3\n"), "{again}");
    assert!(again.ends_with("north: 10 at version 4\n"), "{again}");
}
